# cython: language_level=3
"""What the other files of the ways in C may call of this one."""

from .._codec cimport CompiledDecoder

cdef:
    # Where in a link, a protocol and a wire what they refer to is.
    Py_ssize_t WIRE, PROTOCOL, RECEIVER, OUT, DECODER, FILENO
    object HubLink

cdef enum Put:
    NOTHING, ALL, SOME


cdef bint is_a(object what, object kind) noexcept
cdef CompiledDecoder direct(object protocol)
cdef object fileno_of(object link)
cdef bint may_put(object link, Py_ssize_t size) except -1
cdef Put put_at_once(object link, int opcode, payload) except *
cdef int on_readable(object link) except -1
