"""What a socket is ready for right now, without waiting."""

cdef extern from *:
    """
    #ifdef _WIN32
    static int aiopgx_socket_ready(int fd, int writing) { (void)fd; (void)writing; return 0; }
    #else
    #include <poll.h>
    static int aiopgx_socket_ready(int fd, int writing) {
        struct pollfd p = {fd, writing ? POLLOUT : POLLIN, 0};
        return poll(&p, 1, 0) > 0;
    }
    #endif
    """
    # True also at the end of the stream and after an error
    bint socket_ready "aiopgx_socket_ready"(int fd, bint writing)
