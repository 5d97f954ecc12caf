"""SQLAlchemy's dialect compliance suite."""

from sqlalchemy.testing.suite import *  # noqa: F403
from sqlalchemy.testing.suite import ServerSideCursorsTest as _ServerSideCursorsTest


class ServerSideCursorsTest(_ServerSideCursorsTest):
    def _is_server_side(self, cursor):
        # SQLAlchemy's own asks so for the drivers that it knows by name
        return cursor.server_side
