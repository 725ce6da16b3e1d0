# cython: language_level=3
"""Slots of Python objects, read and set where they are in memory.

In Python, finding them is most of what a small message costs.  Who looks at a
slot has seen before that the object is of the class whose slot it is.
"""

from cpython.object cimport PyObject

cdef extern from *:
    """
    #include <structmember.h>

    /* Where the objects of a class have a slot of theirs; -1: it is none. */
    static Py_ssize_t offset_of(PyObject *slot)
    {
        if (!Py_IS_TYPE(slot, &PyMemberDescr_Type))
            return -1;
        return ((PyMemberDescrObject *)slot)->d_member->offset;
    }

    #define SLOT(object, offset) (*(PyObject **)((char *)(object) + (offset)))

    static inline void set_slot(PyObject *object, Py_ssize_t offset, PyObject *value)
    {
        PyObject *before = SLOT(object, offset);
        Py_INCREF(value);
        SLOT(object, offset) = value;
        Py_XDECREF(before);
    }
    """
    PyObject *Py_True
    Py_ssize_t offset_of(object)
    PyObject *SLOT(object, Py_ssize_t) noexcept
    void set_slot(object, Py_ssize_t, object)


cdef inline Py_ssize_t slot(kind, str name) except -1:
    """Where the objects of a class have what its ``__slots__`` call so."""
    cdef Py_ssize_t offset = offset_of(getattr(kind, name))
    if offset < 0:
        raise TypeError(f'{kind.__name__}.{name} is no slot')
    return offset


cdef inline object get(object owner, Py_ssize_t offset):
    cdef PyObject *value = SLOT(owner, offset)
    if value is NULL:
        raise AttributeError('an empty slot')
    return <object>value


cdef inline bint is_set(object owner, Py_ssize_t offset) noexcept:
    """Whether a flag is True."""
    return SLOT(owner, offset) is Py_True


cdef inline bint is_none(object owner, Py_ssize_t offset) noexcept:
    return SLOT(owner, offset) is <PyObject *>None
