"""What aiopg keeps here."""

import sqlalchemy
from sqlalchemy.sql.elements import ColumnElement

# As aiopg has it: a list of str, such as ["2", "0", "44"].
SQLALCHEMY_VERSION = sqlalchemy.__version__.split(".")

# SQLAlchemy 1.4.21 or later: before, statements are compiled each time.
RECENT = hasattr(ColumnElement, "_tq_label")
