"""The libpq functions in use, as pointers taken from psycopg2's own libpq."""

# Opaque: only libpq knows what is inside.
cdef extern from *:
    """
    typedef struct pg_conn PGconn;
    typedef struct pg_cancel PGcancel;
    typedef struct pg_cancel_conn PGcancelConn;
    """
    ctypedef struct PGconn:
        pass
    ctypedef struct PGcancel:
        pass
    ctypedef struct PGcancelConn:
        pass

# The head of libpq's private struct, the same since PostgreSQL 8.0. Only `PQ.direct_rows` says
# whether it may be used: it is compared with PQgetvalue() at import.
cdef struct PGresAttValue:
    int len                     # -1 is NULL
    char *value                 # always ends with a NUL byte

cdef struct PGresult:
    int ntups
    int numAttributes
    void *attDescs
    PGresAttValue **tuples

cdef struct PGresAttDesc:
    char *name
    unsigned int tableid
    int columnid
    int format
    unsigned int typid
    int typlen
    int atttypmod

cdef struct PGnotify:
    char *relname
    int be_pid
    char *extra

ctypedef void (*NoticeReceiver)(void *arg, const PGresult *res) noexcept nogil
ctypedef void (*NoticeProcessor)(void *arg, const char *message) noexcept nogil

cdef enum:
    CONNECTION_OK = 0
    CONNECTION_BAD = 1

cdef enum:
    PGRES_EMPTY_QUERY = 0
    PGRES_COMMAND_OK = 1
    PGRES_TUPLES_OK = 2
    PGRES_COPY_OUT = 3
    PGRES_COPY_IN = 4
    PGRES_BAD_RESPONSE = 5
    PGRES_NONFATAL_ERROR = 6
    PGRES_FATAL_ERROR = 7
    PGRES_COPY_BOTH = 8
    PGRES_SINGLE_TUPLE = 9
    PGRES_PIPELINE_SYNC = 10
    PGRES_PIPELINE_ABORTED = 11
    PGRES_TUPLES_CHUNK = 12

cdef enum:
    PGRES_POLLING_FAILED = 0
    PGRES_POLLING_READING = 1
    PGRES_POLLING_WRITING = 2
    PGRES_POLLING_OK = 3

cdef enum:
    PG_DIAG_SQLSTATE = 67       # 'C'
    PG_DIAG_CONTEXT = 87        # 'W'
    PG_DIAG_SOURCE_FUNCTION = 82    # 'R'
    PG_DIAG_SEVERITY_NONLOCALIZED = 86  # 'V'

cdef struct PQ:
    int libVersion              # 170004 is 17.4; 0 means that the symbols can't be had
    bint direct_rows            # the head of PGresult may be read
    bint drains                 # what is decrypted is read as a whole
    void (*finish)(PGconn *) noexcept
    int (*status)(const PGconn *) noexcept
    int (*transactionStatus)(const PGconn *) noexcept
    int (*socket)(const PGconn *) noexcept
    char *(*errorMessage)(const PGconn *) noexcept
    int (*sendQuery)(PGconn *, const char *) noexcept
    int (*sendQueryParams)(
        PGconn *, const char *, int, const unsigned int *, const char *const *, const int *,
        const int *, int) noexcept
    int (*sendPrepare)(
        PGconn *, const char *, const char *, int, const unsigned int *) noexcept
    int (*sendDescribePrepared)(PGconn *, const char *) noexcept
    int (*sendQueryPrepared)(
        PGconn *, const char *, int, const char *const *, const int *, const int *, int) noexcept
    int (*nparams)(const PGresult *) noexcept
    unsigned int (*paramtype)(const PGresult *, int) noexcept
    const char *(*parameterStatus)(const PGconn *, const char *) noexcept
    int (*setSingleRowMode)(PGconn *) noexcept
    int (*setnonblocking)(PGconn *, int) noexcept
    int (*flush)(PGconn *) noexcept
    int (*consumeInput)(PGconn *) noexcept
    int (*isBusy)(PGconn *) noexcept
    int (*sslInUse)(PGconn *) noexcept
    PGresult *(*getResult)(PGconn *) noexcept
    void (*clear)(PGresult *) noexcept
    int (*resultStatus)(const PGresult *) noexcept
    char *(*resStatus)(int) noexcept
    char *(*resultErrorMessage)(const PGresult *) noexcept
    char *(*resultErrorField)(const PGresult *, int) noexcept
    int (*ntuples)(const PGresult *) noexcept
    int (*nfields)(const PGresult *) noexcept
    char *(*fname)(const PGresult *, int) noexcept
    unsigned int (*ftype)(const PGresult *, int) noexcept
    int (*fformat)(const PGresult *, int) noexcept
    int (*fsize)(const PGresult *, int) noexcept
    int (*fmod)(const PGresult *, int) noexcept
    unsigned int (*ftable)(const PGresult *, int) noexcept
    int (*ftablecol)(const PGresult *, int) noexcept
    char *(*getvalue)(const PGresult *, int, int) noexcept
    int (*getlength)(const PGresult *, int, int) noexcept
    int (*getisnull)(const PGresult *, int, int) noexcept
    char *(*cmdStatus)(PGresult *) noexcept
    char *(*cmdTuples)(PGresult *) noexcept
    unsigned int (*oidValue)(const PGresult *) noexcept
    PGnotify *(*notifies)(PGconn *) noexcept
    void (*freemem)(void *) noexcept
    NoticeReceiver (*setNoticeReceiver)(PGconn *, NoticeReceiver, void *) noexcept
    NoticeProcessor (*setNoticeProcessor)(PGconn *, NoticeProcessor, void *) noexcept
    int (*putCopyData)(PGconn *, const char *, int) noexcept
    int (*putCopyEnd)(PGconn *, const char *) noexcept
    int (*getCopyData)(PGconn *, char **, int) noexcept
    PGcancel *(*getCancel)(PGconn *) noexcept
    void (*freeCancel)(PGcancel *) noexcept
    int (*cancel)(PGcancel *, char *, int) noexcept nogil
    PGresult *(*makeEmptyPGresult)(PGconn *, int) noexcept
    PGresult *(*copyResult)(const PGresult *, int) noexcept
    int (*setResultAttrs)(PGresult *, int, PGresAttDesc *) noexcept
    int (*setvalue)(PGresult *, int, int, char *, int) noexcept
    # Newer than libpq 11: NULL where psycopg2's libpq has it not.
    int (*gssEncInUse)(PGconn *) noexcept
    # Newer than libpq 13: NULL where psycopg2's libpq has them not.
    int (*enterPipelineMode)(PGconn *) noexcept
    int (*exitPipelineMode)(PGconn *) noexcept
    int (*pipelineStatus)(const PGconn *) noexcept
    int (*pipelineSync)(PGconn *) noexcept
    int (*sendFlushRequest)(PGconn *) noexcept
    # Newer than libpq 16: NULL where psycopg2's libpq has them not.
    int (*setChunkedRowsMode)(PGconn *, int) noexcept
    PGcancelConn *(*cancelCreate)(PGconn *) noexcept
    int (*cancelStart)(PGcancelConn *) noexcept
    int (*cancelPoll)(PGcancelConn *) noexcept
    int (*cancelSocket)(const PGcancelConn *) noexcept
    void (*cancelReset)(PGcancelConn *) noexcept
    void (*cancelFinish)(PGcancelConn *) noexcept
    int (*sendClosePrepared)(PGconn *, const char *) noexcept
    int (*sendClosePortal)(PGconn *, const char *) noexcept
    int (*sendPipelineSync)(PGconn *) noexcept

cdef PQ pq
