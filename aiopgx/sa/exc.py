"""The exceptions of aiopgx.sa. Those of the database are psycopg2's."""


class Error(Exception):
    """The base of these exceptions."""


class ArgumentError(Error):
    """An argument is not what the call takes."""


class InvalidRequestError(ArgumentError):
    """The call is not possible in this state."""


class NoSuchColumnError(KeyError, InvalidRequestError):
    """A row has no such column."""


class ResourceClosedError(InvalidRequestError):
    """The connection or the result is closed."""
