# cython: language_level=3
"""What the ways in C (``_express*.pyx``) may call of the pump."""

from .._codec cimport CompiledDecoder

cdef enum:
    LONG = 1 << 15  # bytes whose writing others need not wait for


cdef object decoded(CompiledDecoder decoder, const unsigned char *data, Py_ssize_t size)
cdef object take(int fd, CompiledDecoder decoder, Py_ssize_t size)
cdef object wait_and_decode(int fd, CompiledDecoder decoder, Py_ssize_t size)
cdef Py_ssize_t send_frame(int fd, bytes frame) noexcept
cdef bytes put_payload(
    int fd, int opcode, const unsigned char *payload, Py_ssize_t size, bint masked
)
