"""The libpq functions in use, as pointers taken from psycopg2's own libpq.

A PGconn may only be given to the libpq that made it, and psycopg2-binary brings its own. So
nothing is linked: the functions are looked up in psycopg2's extension module, whose dependencies
the search follows. Where they can't be had, `pq.libVersion` is 0 and `why_not` says why.
"""

from cpython.bytes cimport PyBytes_AS_STRING
from libc.string cimport strcmp

import os

import psycopg2._psycopg

cdef extern from "_frames.h":
    pass

cdef extern from *:
    """
    #ifdef _WIN32
    static void *aiopgx_dlopen(const char *path) { (void)path; return NULL; }
    static void *aiopgx_dlsym(void *handle, const char *name) { (void)handle; (void)name; return NULL; }
    static const char *aiopgx_dlerror(void) {
        return "psycopg2 for Windows carries libpq inside, with its symbols hidden";
    }
    #else
    #include <dlfcn.h>
    static void *aiopgx_dlopen(const char *path) { return dlopen(path, RTLD_NOW | RTLD_NOLOAD); }
    static void *aiopgx_dlsym(void *handle, const char *name) { return dlsym(handle, name); }
    static const char *aiopgx_dlerror(void) { return dlerror(); }
    #endif
    """
    void *aiopgx_dlopen(const char *path)
    void *aiopgx_dlsym(void *handle, const char *name)
    const char *aiopgx_dlerror()

ctypedef int (*LibVersion)() noexcept

# Why the symbols can't be had, or None.
why_not = None


cdef void *_need(void *handle, const char *name) except NULL:
    cdef void *symbol = aiopgx_dlsym(handle, name)
    if symbol == NULL:
        raise LookupError(f"psycopg2's libpq has no {name.decode()}")
    return symbol


cdef int _load() except -1:
    # The handle is never closed: psycopg2 stays loaded for the life of the process.
    cdef bytes path = os.fsencode(psycopg2._psycopg.__file__)
    cdef void *h = aiopgx_dlopen(PyBytes_AS_STRING(path))
    if h == NULL:
        raise LookupError((aiopgx_dlerror() or b"psycopg2 is not a shared library").decode())
    pq.finish = <void (*)(PGconn *) noexcept>_need(h, "PQfinish")
    pq.status = <int (*)(const PGconn *) noexcept>_need(h, "PQstatus")
    pq.transactionStatus = <int (*)(const PGconn *) noexcept>_need(h, "PQtransactionStatus")
    pq.socket = <int (*)(const PGconn *) noexcept>_need(h, "PQsocket")
    pq.errorMessage = <char *(*)(const PGconn *) noexcept>_need(h, "PQerrorMessage")
    pq.sendQuery = <int (*)(PGconn *, const char *) noexcept>_need(h, "PQsendQuery")
    pq.sendQueryParams = <int (*)(
        PGconn *, const char *, int, const unsigned int *, const char *const *, const int *,
        const int *, int) noexcept>_need(h, "PQsendQueryParams")
    pq.sendPrepare = <int (*)(
        PGconn *, const char *, const char *, int, const unsigned int *) noexcept>_need(
            h, "PQsendPrepare")
    pq.sendDescribePrepared = <int (*)(PGconn *, const char *) noexcept>_need(
        h, "PQsendDescribePrepared")
    pq.sendQueryPrepared = <int (*)(
        PGconn *, const char *, int, const char *const *, const int *, const int *,
        int) noexcept>_need(h, "PQsendQueryPrepared")
    pq.nparams = <int (*)(const PGresult *) noexcept>_need(h, "PQnparams")
    pq.paramtype = <unsigned int (*)(const PGresult *, int) noexcept>_need(h, "PQparamtype")
    pq.parameterStatus = <const char *(*)(const PGconn *, const char *) noexcept>_need(
        h, "PQparameterStatus")
    pq.setSingleRowMode = <int (*)(PGconn *) noexcept>_need(h, "PQsetSingleRowMode")
    pq.setnonblocking = <int (*)(PGconn *, int) noexcept>_need(h, "PQsetnonblocking")
    pq.flush = <int (*)(PGconn *) noexcept>_need(h, "PQflush")
    pq.consumeInput = <int (*)(PGconn *) noexcept>_need(h, "PQconsumeInput")
    pq.isBusy = <int (*)(PGconn *) noexcept>_need(h, "PQisBusy")
    pq.sslInUse = <int (*)(PGconn *) noexcept>_need(h, "PQsslInUse")
    pq.getResult = <PGresult *(*)(PGconn *) noexcept>_need(h, "PQgetResult")
    pq.clear = <void (*)(PGresult *) noexcept>_need(h, "PQclear")
    pq.resultStatus = <int (*)(const PGresult *) noexcept>_need(h, "PQresultStatus")
    pq.resStatus = <char *(*)(int) noexcept>_need(h, "PQresStatus")
    pq.resultErrorMessage = <char *(*)(const PGresult *) noexcept>_need(h, "PQresultErrorMessage")
    pq.resultErrorField = <char *(*)(const PGresult *, int) noexcept>_need(h, "PQresultErrorField")
    pq.ntuples = <int (*)(const PGresult *) noexcept>_need(h, "PQntuples")
    pq.nfields = <int (*)(const PGresult *) noexcept>_need(h, "PQnfields")
    pq.fname = <char *(*)(const PGresult *, int) noexcept>_need(h, "PQfname")
    pq.ftype = <unsigned int (*)(const PGresult *, int) noexcept>_need(h, "PQftype")
    pq.fformat = <int (*)(const PGresult *, int) noexcept>_need(h, "PQfformat")
    pq.fsize = <int (*)(const PGresult *, int) noexcept>_need(h, "PQfsize")
    pq.fmod = <int (*)(const PGresult *, int) noexcept>_need(h, "PQfmod")
    pq.ftable = <unsigned int (*)(const PGresult *, int) noexcept>_need(h, "PQftable")
    pq.ftablecol = <int (*)(const PGresult *, int) noexcept>_need(h, "PQftablecol")
    pq.getvalue = <char *(*)(const PGresult *, int, int) noexcept>_need(h, "PQgetvalue")
    pq.getlength = <int (*)(const PGresult *, int, int) noexcept>_need(h, "PQgetlength")
    pq.getisnull = <int (*)(const PGresult *, int, int) noexcept>_need(h, "PQgetisnull")
    pq.cmdStatus = <char *(*)(PGresult *) noexcept>_need(h, "PQcmdStatus")
    pq.cmdTuples = <char *(*)(PGresult *) noexcept>_need(h, "PQcmdTuples")
    pq.oidValue = <unsigned int (*)(const PGresult *) noexcept>_need(h, "PQoidValue")
    pq.notifies = <PGnotify *(*)(PGconn *) noexcept>_need(h, "PQnotifies")
    pq.freemem = <void (*)(void *) noexcept>_need(h, "PQfreemem")
    pq.setNoticeReceiver = <NoticeReceiver (*)(PGconn *, NoticeReceiver, void *) noexcept>_need(
        h, "PQsetNoticeReceiver")
    pq.setNoticeProcessor = <NoticeProcessor (*)(PGconn *, NoticeProcessor, void *) noexcept>_need(
        h, "PQsetNoticeProcessor")
    pq.putCopyData = <int (*)(PGconn *, const char *, int) noexcept>_need(h, "PQputCopyData")
    pq.putCopyEnd = <int (*)(PGconn *, const char *) noexcept>_need(h, "PQputCopyEnd")
    pq.getCopyData = <int (*)(PGconn *, char **, int) noexcept>_need(h, "PQgetCopyData")
    pq.getCancel = <PGcancel *(*)(PGconn *) noexcept>_need(h, "PQgetCancel")
    pq.freeCancel = <void (*)(PGcancel *) noexcept>_need(h, "PQfreeCancel")
    pq.cancel = <int (*)(PGcancel *, char *, int) noexcept nogil>_need(h, "PQcancel")
    pq.makeEmptyPGresult = <PGresult *(*)(PGconn *, int) noexcept>_need(h, "PQmakeEmptyPGresult")
    pq.copyResult = <PGresult *(*)(const PGresult *, int) noexcept>_need(h, "PQcopyResult")
    pq.setResultAttrs = <int (*)(PGresult *, int, PGresAttDesc *) noexcept>_need(
        h, "PQsetResultAttrs")
    pq.setvalue = <int (*)(PGresult *, int, int, char *, int) noexcept>_need(h, "PQsetvalue")
    pq.gssEncInUse = <int (*)(PGconn *) noexcept>aiopgx_dlsym(h, "PQgssEncInUse")
    pq.enterPipelineMode = <int (*)(PGconn *) noexcept>aiopgx_dlsym(h, "PQenterPipelineMode")
    pq.exitPipelineMode = <int (*)(PGconn *) noexcept>aiopgx_dlsym(h, "PQexitPipelineMode")
    pq.pipelineStatus = <int (*)(const PGconn *) noexcept>aiopgx_dlsym(h, "PQpipelineStatus")
    pq.pipelineSync = <int (*)(PGconn *) noexcept>aiopgx_dlsym(h, "PQpipelineSync")
    pq.sendFlushRequest = <int (*)(PGconn *) noexcept>aiopgx_dlsym(h, "PQsendFlushRequest")
    pq.sendClosePrepared = <int (*)(PGconn *, const char *) noexcept>aiopgx_dlsym(
        h, "PQsendClosePrepared")
    pq.setChunkedRowsMode = <int (*)(PGconn *, int) noexcept>aiopgx_dlsym(
        h, "PQsetChunkedRowsMode")
    pq.cancelCreate = <PGcancelConn *(*)(PGconn *) noexcept>aiopgx_dlsym(h, "PQcancelCreate")
    pq.cancelStart = <int (*)(PGcancelConn *) noexcept>aiopgx_dlsym(h, "PQcancelStart")
    pq.cancelPoll = <int (*)(PGcancelConn *) noexcept>aiopgx_dlsym(h, "PQcancelPoll")
    pq.cancelSocket = <int (*)(const PGcancelConn *) noexcept>aiopgx_dlsym(h, "PQcancelSocket")
    pq.cancelReset = <void (*)(PGcancelConn *) noexcept>aiopgx_dlsym(h, "PQcancelReset")
    pq.cancelFinish = <void (*)(PGcancelConn *) noexcept>aiopgx_dlsym(h, "PQcancelFinish")
    pq.sendClosePortal = <int (*)(PGconn *, const char *) noexcept>aiopgx_dlsym(
        h, "PQsendClosePortal")
    pq.sendPipelineSync = <int (*)(PGconn *) noexcept>aiopgx_dlsym(h, "PQsendPipelineSync")
    pq.direct_rows = _rows_can_be_read_directly()
    pq.libVersion = (<LibVersion>_need(h, "PQlibVersion"))()
    pq.drains = _reads_whole_records(pq.libVersion // 10000, pq.libVersion % 10000)
    return 0


cdef bint _reads_whole_records(int major, int minor) noexcept:
    """Not so 16.0: of an encrypted record it reads what it has room for, and no event tells of the rest.

    17.11 and 15.20 do; of the others it is believed that have come out with the latter or later.
    """
    return major > 18 or major == 18 and minor >= 6 or major == 17 and minor >= 11 \
        or major == 16 and minor >= 16 or major == 15 and minor >= 20


cdef bint _rows_can_be_read_directly() except -1:
    """Whether the struct's head is where we think: build a result and read it both ways."""
    cdef PGresAttDesc columns[2]
    cdef PGresult *res = pq.makeEmptyPGresult(NULL, PGRES_TUPLES_OK)
    cdef int row, column
    cdef PGresAttValue *value
    if res == NULL:
        raise MemoryError
    try:
        for column in range(2):
            columns[column] = PGresAttDesc(b"c", 0, 0, 0, 25, -1, -1)
        if not (pq.setResultAttrs(res, 2, columns)
                and pq.setvalue(res, 0, 0, b"one", 3)
                and pq.setvalue(res, 0, 1, NULL, -1)
                and pq.setvalue(res, 1, 0, b"", 0)
                and pq.setvalue(res, 1, 1, b"four", 4)):
            raise MemoryError
        if res.ntups != 2 or res.numAttributes != 2:
            return False
        for row in range(2):
            for column in range(2):
                value = res.tuples[row] + column
                if (value.len == -1) != pq.getisnull(res, row, column):
                    return False
                if value.len != -1 and (
                        value.len != pq.getlength(res, row, column)
                        or strcmp(value.value, pq.getvalue(res, row, column)) != 0):
                    return False
        return True
    finally:
        pq.clear(res)


try:
    _load()
except LookupError as e:
    pq.libVersion = 0
    why_not = str(e)

libpq_version = pq.libVersion
direct_rows = bool(pq.direct_rows)
async_cancel = pq.cancelCreate != NULL

cdef PQ found = pq


def limit(int version):
    """Use nothing that is newer than a version of libpq, such as 13; for tests. 99: all there is."""
    global pq
    pq = found
    if version < 14:
        pq.enterPipelineMode = pq.exitPipelineMode = pq.pipelineSync = pq.sendFlushRequest = NULL
        pq.pipelineStatus = NULL
    if version < 17:
        pq.drains = False
        pq.setChunkedRowsMode = NULL
        pq.sendPipelineSync = NULL
        pq.cancelCreate = NULL
        pq.sendClosePrepared = pq.sendClosePortal = NULL
