# cython: language_level=3
"""To have what is needed next come into the caches while something else is done:
with thousands of connections, nothing that belongs to one is there."""

from cpython.object cimport PyObject, PyTypeObject

cdef extern from *:
    """
    #if defined(__GNUC__)
    #define prefetch(address) __builtin_prefetch(address)
    #else
    #define prefetch(address) ((void)(address))
    #endif
    """
    void prefetch(const void *) noexcept


cdef inline void fetch(PyObject *owner, kind) noexcept:
    """An object of that class, to its end; what it refers to is another step."""
    cdef Py_ssize_t at
    for at in range(0, (<PyTypeObject *>kind).tp_basicsize, 64):
        prefetch(<char *>owner + at)
