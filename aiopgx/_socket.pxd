"""What a socket is ready for right now, without waiting; a second hold on one."""

cdef extern from *:
    """
    #ifdef _WIN32
    static int aiopgx_socket_ready(int fd, int writing) { (void)fd; (void)writing; return 0; }
    static int aiopgx_socket_pending(int fd) { (void)fd; return 0; }
    static int aiopgx_socket_failed(int fd) { (void)fd; return 0; }
    static int aiopgx_socket_next(int fd) { (void)fd; return -1; }
    static int aiopgx_socket_dup(int fd) { (void)fd; return -1; }
    static int aiopgx_socket_ended(int fd) { (void)fd; return 1; }
    static void aiopgx_socket_end(int fd) { (void)fd; }
    static void aiopgx_socket_close(int fd) { (void)fd; }
    #else
    #include <errno.h>
    #include <fcntl.h>
    #include <poll.h>
    #include <sys/ioctl.h>
    #include <sys/socket.h>
    #include <unistd.h>
    static int aiopgx_socket_ready(int fd, int writing) {
        struct pollfd p = {fd, writing ? POLLOUT : POLLIN, 0};
        return poll(&p, 1, 0) > 0;
    }
    static int aiopgx_socket_pending(int fd) {
        int count = 0;
        return ioctl(fd, FIONREAD, &count) == 0 ? count : 0;
    }
    static int aiopgx_socket_failed(int fd) {
        struct pollfd p = {fd, 0, 0};
        return poll(&p, 1, 0) > 0 && (p.revents & POLLERR);
    }
    static int aiopgx_socket_next(int fd) {
        unsigned char next;
        return recv(fd, &next, 1, MSG_PEEK | MSG_DONTWAIT) == 1 ? next : -1;
    }
    static int aiopgx_socket_dup(int fd) { return fcntl(fd, F_DUPFD_CLOEXEC, 0); }
    static int aiopgx_socket_ended(int fd) {
        char waste[16384];
        ssize_t got = -1;
        int reads;
        for (reads = 0; reads < 64; reads++) {
            got = recv(fd, waste, sizeof waste, MSG_DONTWAIT);
            if (got <= 0) break;
        }
        return got == 0 || (got < 0 && errno != EAGAIN && errno != EWOULDBLOCK && errno != EINTR);
    }
    static void aiopgx_socket_end(int fd) { shutdown(fd, SHUT_WR); }
    static void aiopgx_socket_close(int fd) { close(fd); }
    #endif
    """
    # True also at the end of the stream and after an error
    bint socket_ready "aiopgx_socket_ready"(int fd, bint writing)
    # How many bytes can be read from it; 0 also at the end of the stream and after an error
    int socket_pending "aiopgx_socket_pending"(int fd)
    # Whether an error, such as a reset, is to be read from it, maybe behind data
    bint socket_failed "aiopgx_socket_failed"(int fd)
    # The byte that is read next, -1 if there is none
    int socket_next "aiopgx_socket_next"(int fd)
    # Another descriptor of the same socket, to be closed by the caller; -1 if there is none
    int socket_dup "aiopgx_socket_dup"(int fd)
    # Throws away what has come; true when the other side has closed
    bint socket_ended "aiopgx_socket_ended"(int fd)
    # Tells the other side that nothing more will come
    void socket_end "aiopgx_socket_end"(int fd)
    void socket_close "aiopgx_socket_close"(int fd)
