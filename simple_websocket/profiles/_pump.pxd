# cython: language_level=3
"""What ``_express.pyx`` may call of the pump in C."""

from .._codec cimport CompiledDecoder

cdef object take(int fd, CompiledDecoder decoder, Py_ssize_t size)
cdef object wait_and_decode(int fd, CompiledDecoder decoder, Py_ssize_t size)
cdef bytes put_payload(
    int fd, int opcode, const unsigned char *payload, Py_ssize_t size, bint masked
)
