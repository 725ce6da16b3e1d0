# cython: language_level=3

cdef class StepLock:
    cdef unsigned long owner
    cdef Py_ssize_t depth, waiters
    cdef bint open, hungry, reserved
    cdef object gate

    cdef int take(self) except -1
    cdef int give_back(self) except -1
    cdef int wait(self) except -1
    cdef int set_free(self) except -1
