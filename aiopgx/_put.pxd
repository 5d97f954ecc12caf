"""Numbers as the binary formats of PostgreSQL have them: the highest byte first."""

cdef extern from *:
    """
    #include <string.h>
    static inline void aiopgx_put16(char *at, unsigned int n) {
        at[0] = (char)(n >> 8); at[1] = (char)n;
    }
    static inline void aiopgx_put32(char *at, unsigned int n) {
        at[0] = (char)(n >> 24); at[1] = (char)(n >> 16); at[2] = (char)(n >> 8); at[3] = (char)n;
    }
    static inline void aiopgx_put64(char *at, unsigned long long n) {
        aiopgx_put32(at, (unsigned int)(n >> 32));
        aiopgx_put32(at + 4, (unsigned int)n);
    }
    static inline void aiopgx_put_float(char *at, float f) {
        unsigned int bits;
        memcpy(&bits, &f, 4);
        aiopgx_put32(at, bits);
    }
    static inline void aiopgx_put_double(char *at, double d) {
        unsigned long long bits;
        memcpy(&bits, &d, 8);
        aiopgx_put64(at, bits);
    }
    """
    void put16 "aiopgx_put16"(char *at, unsigned int number)
    void put32 "aiopgx_put32"(char *at, unsigned int number)
    void put64 "aiopgx_put64"(char *at, unsigned long long number)
    void put_float "aiopgx_put_float"(char *at, float number)
    void put_double "aiopgx_put_double"(char *at, double number)
