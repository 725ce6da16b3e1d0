# cython: language_level=3
"""What ``_express.pyx`` may call of the pump in C."""

from .._codec cimport CompiledDecoder

cdef unsigned char *enter_room() except NULL
cdef void leave_room(unsigned char *room) noexcept
cdef Py_ssize_t receive(int fd, unsigned char *target, Py_ssize_t size) except -2
cdef object decoded(CompiledDecoder decoder, const unsigned char *data, Py_ssize_t size)
cdef object wait_and_decode(int fd, CompiledDecoder decoder, Py_ssize_t size)
cdef bytes put_payload(
    int fd, int opcode, const unsigned char *payload, Py_ssize_t size, bint masked
)
