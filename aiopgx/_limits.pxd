# The largest message that a server takes, and what is refused before it is copied: past it the
# server ends the session, in the middle of what is being sent.

cdef enum:
    TOO_LARGE = 0x3fffffff      # bytes: 1 GiB less one, in PostgreSQL's own MaxAllocSize
    LARGEST = 0x1fffffff        # bytes of COPY's data in one message


cdef inline object too_large():
    from psycopg2 import DataError

    return DataError("a statement with its parameters has to be smaller than 1 GiB")


cdef inline int refuse_large(object parameters) except -1:
    """Raise DataError for a parameter that fits into no message."""
    if type(parameters) is dict:
        parameters = tuple((<dict>parameters).values())
    elif type(parameters) is not tuple and type(parameters) is not list:
        return 0
    for value in parameters:
        if type(value) in (str, bytes, bytearray) and len(value) >= TOO_LARGE:
            raise too_large()
    return 0
