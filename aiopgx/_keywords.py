"""What was probably meant by a keyword that neither we nor libpq know."""

import difflib
from collections.abc import Mapping
from typing import Any

import psycopg2
from psycopg2.extensions import make_dsn

# Of asyncpg, its SQLAlchemy dialect, psycopg 3 and its pool: what to use here.
_ELSEWHERE = {
    "command_timeout": "timeout",
    "conninfo": "dsn",
    "cursor_class": "cursor_factory",
    "init": "on_connect",
    "configure": "on_connect",
    "max_inactive_connection_lifetime": "max_idle",
    "max_size": "maxsize",
    "min_size": "minsize",
    "prepared_statement_cache_size": "prepared_max",
    "prepared_statement_name_func": "nothing, names are never used again",
    "server_settings": "options='-c name=value'",
    "setup": "check",
    "ssl": "sslmode",
    "statement_cache_size": "prepared_max, or prepare_threshold=None",
    "username": "user",
}
_OURS = """
    cancel_timeout check cursor_factory dsn echo enable_hstore enable_json enable_uuid guard
    max_buffer max_idle max_in_flight max_lifetime max_waiting maxsize minsize name notifies_max
    on_connect pool_recycle prepare_threshold prepared_max raise_query_canceled reconnect_timeout
    reset row_factory slow_query timeout tracer
"""
LIBPQ = """
    application_name client_encoding connect_timeout dbname fallback_application_name gssencmode
    host hostaddr keepalives keepalives_count keepalives_idle keepalives_interval krbsrvname
    load_balance_hosts options passfile password port replication requirepeer service sslcert
    sslcrl sslkey sslmode sslpassword sslrootcert target_session_attrs tcp_user_timeout user
"""


def explained(
    error: psycopg2.ProgrammingError, keywords: Mapping[str, Any]
) -> psycopg2.ProgrammingError:
    """The same error, with the keyword that libpq does not know and the one probably meant."""
    unknown = [name for name in keywords if not _known(name)]
    if not unknown:
        return error
    reasons = "; ".join(f'"{name}"{_meant(name)}' for name in unknown)
    return psycopg2.ProgrammingError(f"invalid dsn: invalid connection option {reasons}\n")


def _known(name: str) -> bool:
    try:
        make_dsn(**{name: "0"})
    except psycopg2.ProgrammingError:
        return False
    return True


def _meant(name: str) -> str:
    if name in _ELSEWHERE:
        return f": use {_ELSEWHERE[name]}"
    close = difflib.get_close_matches(name, (_OURS + LIBPQ).split(), 1)
    return "".join(f": did you mean {other}?" for other in close)
