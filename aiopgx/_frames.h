/* Exceptions show the frames of the program and of the Python methods that it called. Compiled code
   leaves one entry in a traceback that has none, where Cython needs one; utils.trim() takes it out.
   A build with line tracing keeps all. */
#if !defined(AIOPGX_FRAMES_H) && !(defined(CYTHON_TRACE) && CYTHON_TRACE)
#define AIOPGX_FRAMES_H

static int aiopgx_first_entry(PyFrameObject *frame) {
    PyObject *traceback;
#if PY_VERSION_HEX >= 0x030C0000
    PyObject *error = PyErr_GetRaisedException();
    traceback = PyException_GetTraceback(error);
    PyErr_SetRaisedException(error);
    Py_XDECREF(traceback);
#else
    PyObject *type, *value;
    PyErr_Fetch(&type, &value, &traceback);
    PyErr_Restore(type, value, traceback);
#endif
    return traceback == NULL ? PyTraceBack_Here(frame) : 0;
}

#define PyTraceBack_Here(frame) aiopgx_first_entry(frame)

#endif
