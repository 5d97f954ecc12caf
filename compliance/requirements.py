"""What SQLAlchemy's compliance suite may ask of the dialect: everything, but for EXCLUDED.

SQLAlchemy leaves many requirements closed until a dialect opens them. All of them are opened here,
those of coming releases too, except the ones below, which are closed for SQLAlchemy's own
`postgresql+asyncpg` and `postgresql+psycopg` as well, unless the reason says for which one.
"""

import sqlalchemy
from sqlalchemy.testing import exclusions
from sqlalchemy.testing.requirements import SuiteRequirements

EXCLUDED = {
    # what only other databases do
    "dbapi_lastrowid": "PostgreSQL gives no row ids to clients",
    "emulated_lastrowid": "keys come by RETURNING",
    "emulated_lastrowid_even_with_sequences": "keys come by RETURNING",
    "fetch_percent": "PostgreSQL has no FETCH ... PERCENT",
    "foreign_keys_reflect_as_index": "a foreign key makes no index",
    "materialized_views_reflect_pk": "a materialized view has no primary key",
    "non_updating_cascade": "is for databases without ON UPDATE CASCADE",
    "nvarchar_types": "PostgreSQL has no NVARCHAR",
    "reflect_indexes_with_ascdesc_as_expression": "a descending column is reflected as a column",
    "repeated_remote_col_foreign_keys": "PostgreSQL refuses such a foreign key",
    "timestamp_microseconds": "is for a TIMESTAMP that is not DateTime; no test of the suite asks",
    "unique_index_reflect_as_unique_constraints": "a unique index is reflected as an index",
    # what only another driver does
    "json_deserializer_binary": "deserializers get str, as with asyncpg and psycopg2",
}

SQLALCHEMY_2_0 = sqlalchemy.__version__.startswith("2.0.")
if SQLALCHEMY_2_0:
    EXCLUDED["reflect_table_options"] = "came for PostgreSQL with SQLAlchemy 2.1"


def closed_by_default():
    """The names of the requirements that SQLAlchemy leaves closed until a dialect opens them."""
    defaults = SuiteRequirements()
    for name, value in vars(SuiteRequirements).items():
        if isinstance(value, property) and is_closed(getattr(defaults, name)):
            yield name


def is_closed(rule):
    return any(
        isinstance(skip, exclusions.BooleanPredicate) and skip.value
        for skip in getattr(rule, "skips", ())
    )


class Requirements(SuiteRequirements):
    def get_order_by_collation(self, config):
        return "POSIX"


for name in set(closed_by_default()) - set(EXCLUDED):
    setattr(Requirements, name, property(lambda self: exclusions.open()))

# PostgreSQL 18 brought virtual columns and made them the default; SQLAlchemy 2.1 warns before that.
COMPUTED = exclusions.open()
if not SQLALCHEMY_2_0:
    COMPUTED = exclusions.warns_if("postgresql < 18", ".*not support VIRTUAL", assert_=False)
Requirements.computed_columns = COMPUTED
Requirements.computed_columns_virtual = COMPUTED + exclusions.skip_if("postgresql < 18")
Requirements.computed_columns_default_persisted = COMPUTED + exclusions.skip_if("postgresql >= 18")
