"""Malformed arrays that psycopg2's own caster does not survive."""

cdef bint is_deadly(object caster, const char *text, Py_ssize_t size) noexcept
