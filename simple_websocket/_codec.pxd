# cython: language_level=3
"""What ``profiles/_pump.pyx`` may call of the compiled codec in C."""

from libc.stdint cimport int64_t, uint32_t

cdef enum:
    SMALL = 125  # the longest payload of a control frame (section 5.5)
    KEPT = 2 + 4 + SMALL  # no data frame's header is longer either
    HEADER = 2 + 8 + 4  # the longest header (section 5.2)


cdef bytes frame_of(int first, const unsigned char *payload, Py_ssize_t size, bint masked)
cdef Py_ssize_t put_header(
    unsigned char *at, int first, Py_ssize_t size, bint masked, uint32_t key
) noexcept


cdef class CompiledDecoder:
    cdef bint _client, _compression, _failed
    cdef int64_t _limit, _max_fragments  # -1 for none

    # The message: what the next header must be judged by.
    cdef bint _in_message
    cdef bint _compressed
    cdef int64_t _size, _fragments

    # The frame whose header was parsed last.
    cdef bint _fin
    cdef int _opcode  # CONTINUATION once some of the payload was handed on
    cdef int64_t _length, _left
    cdef uint32_t _key  # for what is left of the payload

    # A header, or a control frame, of which some has come.
    cdef unsigned char _kept[KEPT]
    cdef Py_ssize_t _kept_size, _wanted

    cdef object _violation  # (close code, words)

    cdef list take_in(self, const unsigned char *data, Py_ssize_t size)
    cdef object message_in(self, const unsigned char *head, Py_ssize_t present)

    cdef object _message(self, const unsigned char *data, Py_ssize_t size, int opcode)
    cdef Py_ssize_t _parse(self, const unsigned char *head, Py_ssize_t present) except? -2
    cdef int _judge(self, int opcode, int first, int64_t length) except? -2
    cdef int _fail(self, int code, words)
    cdef object _take(self, const unsigned char *data, Py_ssize_t size)
