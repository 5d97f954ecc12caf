"""What aiopg keeps here."""

import sqlalchemy

# As aiopg has it: a list of str, such as ["2", "0", "44"].
SQLALCHEMY_VERSION = sqlalchemy.__version__.split(".")
