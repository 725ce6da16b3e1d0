# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, auto_pickle=False
"""The compiled codec: the seam of ``codec.py`` in C over whole buffers.

It says the same of the same bytes as the reference there, chunk for chunk and
word for word; ``tests/core/test_codec.py`` holds the two against each other.

The path of a frame that is read: ``feed`` parses the header where the caller's
buffer has it, allocates the payload's bytes object and unmasks straight into
it; nothing else is copied.  A message that came in one piece is seen by
``whole``, which makes the ``str`` or ``bytes`` of it at once.  Only a header or
a control frame that ends in the middle is kept, in ``_kept``, until the rest of
it comes; some payload of a data frame is handed on at once.  The path of one
that is written: ``encode`` allocates the frame and masks the payload straight
into its place.

``codec.py`` imports this file when ``Chunk`` is defined; ``_codec.pxd`` shows
``profiles/_pump.pyx``, which is compiled too, what it may call in C.
Not safe for concurrent use, like every codec; but memory stays safe, since
nothing of a decoder is read or written while the GIL is released.
"""

import os

from .codec import Chunk

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.ref cimport Py_INCREF
from cpython.tuple cimport PyTuple_SET_ITEM
from cpython.unicode cimport PyUnicode_DecodeUTF8
from libc.stdint cimport INT64_MAX, int64_t, uint32_t, uint64_t
from libc.string cimport memcpy

cdef extern from "Python.h":
    ctypedef struct PyTypeObject:
        object (*tp_alloc)(PyTypeObject *, Py_ssize_t)
    const char *PyUnicode_AsUTF8AndSize(object, Py_ssize_t *) except NULL

cdef extern from *:
    """
    #ifdef _WIN32
    #define run_in_forked_child(function) 0
    #else
    #include <pthread.h>
    #define run_in_forked_child(function) pthread_atfork(NULL, NULL, function)
    #endif
    """
    int run_in_forked_child(void (*function)() noexcept nogil)

cdef enum:
    FAILURE = -1
    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PONG = 10

    PROTOCOL_ERROR = 1002
    MESSAGE_TOO_BIG = 1009

    BRIEF = 1024  # bytes of text that are unmasked on the stack
    LONG = 1 << 16  # bytes from which others may run while we mask
    POOL = 4096  # bytes of randomness that are fetched at once


# -- masks ------------------------------------------------------------------

cdef void xor_into(
    unsigned char *target, const unsigned char *source, Py_ssize_t size, uint32_t key
) noexcept nogil:
    """Mask or unmask (5.3), with the key's bytes in the order of the wire.

    One plain loop over words, whatever their alignment: compilers make the
    widest instructions of it that they may use.
    """
    cdef uint64_t wide = (<uint64_t>key << 32) | key
    cdef const unsigned char *mask = <const unsigned char *>&wide
    cdef Py_ssize_t words = size >> 3, index
    cdef uint64_t word
    for index in range(words):
        memcpy(&word, source + 8 * index, 8)
        word ^= wide
        memcpy(target + 8 * index, &word, 8)
    for index in range(words << 3, size):
        target[index] = source[index] ^ mask[index & 7]


cdef void mask_into(
    unsigned char *target, const unsigned char *source, Py_ssize_t size, uint32_t key
) noexcept:
    """``xor_into`` that lets others run where it takes long enough."""
    if size < LONG:
        xor_into(target, source, size, key)
    else:
        with nogil:
            xor_into(target, source, size, key)


cdef uint32_t rotated(uint32_t key, Py_ssize_t by) noexcept:
    """The key for what follows ``by`` bytes of the payload."""
    cdef unsigned char twice[8]
    memcpy(twice, &key, 4)
    memcpy(twice + 4, &key, 4)
    memcpy(&key, twice + (by & 3), 4)
    return key


cdef unsigned char pool[POOL]
cdef Py_ssize_t pool_used = POOL


cdef void drop_pool() noexcept nogil:
    """A child of fork() must not use the keys that its parent will."""
    global pool_used
    pool_used = POOL


if run_in_forked_child(drop_pool):
    raise MemoryError('pthread_atfork')


cdef uint32_t fresh_key() except? 0:
    """A masking key that nobody can predict: 5.3, RFC 4086."""
    global pool_used
    cdef uint32_t key
    cdef bytes fresh
    if pool_used + 4 > POOL:
        fresh = os.urandom(POOL)  # others may run in here, even refill the pool
        memcpy(pool, PyBytes_AS_STRING(fresh), POOL)
        pool_used = 0
    memcpy(&key, pool + pool_used, 4)
    pool_used += 4
    return key


# -- out --------------------------------------------------------------------

def encode(int opcode, payload, bint masked, bint compressed=False, bint fin=True):
    """Make one frame (section 5.2).

    :param opcode: the frame's opcode.
    :param payload: its payload, already compressed where ``compressed`` is set:
                    any contiguous buffer, or a str.
    :param masked: whether to mask it, with a fresh key of ``os.urandom``: what
                   a client must do (section 5.3).
    :param compressed: RSV1 (RFC 7692 section 6).
    :param fin: whether the message ends with this frame.
    :returns: the frame's bytes.
    :raises UnicodeEncodeError: for text with lone surrogates.
    """
    cdef int first = opcode | (0x80 if fin else 0) | (0x40 if compressed else 0)
    cdef Py_buffer view
    cdef Py_ssize_t size = 0
    cdef const char *text
    if isinstance(payload, str):
        text = PyUnicode_AsUTF8AndSize(payload, &size)
        return frame_of(first, <const unsigned char *>text, size, masked)
    if type(payload) is bytes:
        return frame_of(
            first,
            <const unsigned char *>PyBytes_AS_STRING(payload),
            PyBytes_GET_SIZE(payload),
            masked,
        )
    PyObject_GetBuffer(payload, &view, PyBUF_SIMPLE)
    try:
        return frame_of(first, <const unsigned char *>view.buf, view.len, masked)
    finally:
        PyBuffer_Release(&view)


cdef bytes frame_of(int first, const unsigned char *payload, Py_ssize_t size, bint masked):
    cdef uint32_t key = fresh_key() if masked else 0
    cdef unsigned char header[HEADER]
    cdef Py_ssize_t used = put_header(header, first, size, masked, key)
    cdef bytes frame = PyBytes_FromStringAndSize(NULL, used + size)
    cdef unsigned char *at = <unsigned char *>PyBytes_AS_STRING(frame)
    memcpy(at, header, used)
    if masked:
        mask_into(at + used, payload, size, key)
    elif size:
        memcpy(at + used, payload, size)
    return frame


cdef Py_ssize_t put_header(
    unsigned char *at, int first, Py_ssize_t size, bint masked, uint32_t key
) noexcept:
    """Write a frame's header, at most ``HEADER`` bytes; returns how many."""
    cdef Py_ssize_t used = (2 if size < 126 else 4 if size < 65536 else 10)
    cdef Py_ssize_t index
    at[0] = <unsigned char>first
    at[1] = <unsigned char>(
        (0x80 if masked else 0) | (size if used == 2 else 126 if used == 4 else 127)
    )
    for index in range(2, used):
        # In 64 bits, also where a size has 32.
        at[index] = <unsigned char>(<uint64_t>size >> (8 * (used - 1 - index)))
    if masked:
        memcpy(at + used, &key, 4)
        used += 4
    return used


# -- in ---------------------------------------------------------------------

cdef object chunk_of(
    int opcode, object payload, bint final, bint compressed, int code, bint ends_frame
):
    """``Chunk(...)`` without the detour through its Python constructor."""
    cdef PyTypeObject *type_ = <PyTypeObject *>Chunk
    chunk = type_.tp_alloc(type_, 6)
    put(chunk, 0, opcode)
    put(chunk, 1, payload)
    put(chunk, 2, final)
    put(chunk, 3, compressed)
    put(chunk, 4, code)
    put(chunk, 5, ends_frame)
    return chunk


cdef inline void put(object chunk, Py_ssize_t index, object item):
    Py_INCREF(item)
    PyTuple_SET_ITEM(chunk, index, item)


cdef class CompiledDecoder:
    """Turns what a peer sent into chunks.

    :param client: whether this end is the client, whose peer must not mask
                   (section 5.1); a server's peer must.
    :param limit: the bytes that an uncompressed message may have, None for no
                  limit; judged by the declared length, before the payload.
    :param max_fragments: the frames that one message may have, None for no limit.
    :param compression: whether RSV1 was negotiated (RFC 7692 section 6).
    """

    def __init__(self, bint client, limit=None, max_fragments=None, bint compression=False):
        self._client = client
        self._limit = -1 if limit is None else min(limit, INT64_MAX)
        self._max_fragments = -1 if max_fragments is None else min(max_fragments, INT64_MAX)
        self._compression = compression

    def feed(self, data):
        """Take bytes in and return what they complete.

        :param data: the bytes, of any number.
        :returns: chunks in the order of the wire; a violation is the last of
                  them, with opcode ``FAILURE``, and everything after it is
                  ignored.
        """
        cdef Py_buffer view
        if type(data) is bytes:
            return self.take_in(
                <const unsigned char *>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data)
            )
        PyObject_GetBuffer(data, &view, PyBUF_SIMPLE)
        try:
            return self.take_in(<const unsigned char *>view.buf, view.len)
        finally:
            PyBuffer_Release(&view)

    def whole(self, data):
        """The message, where these bytes are one frame that is all of it.

        That is what most reads give, and it needs no chunk.

        :param data: what was read.
        :returns: the ``str`` of a text, the bytes of a binary message; None
                  for anything else, and then nothing was taken in: ``feed`` it.
        """
        if type(data) is not bytes:
            return None
        return self.message_in(
            <const unsigned char *>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data)
        )

    cdef object message_in(self, const unsigned char *head, Py_ssize_t present):
        """``whole``, of bytes that are somewhere in memory."""
        cdef Py_ssize_t size = 2, index
        cdef uint64_t length
        if self._in_message or self._left or self._kept_size:
            return None
        if present < 2 or (head[0] != (0x80 | TEXT) and head[0] != (0x80 | BINARY)):
            return None
        length = head[1] & 0x7F
        if length > SMALL:
            size = 4 if length == 126 else 10
            if present < size:
                return None
            length = 0
            for index in range(2, size):
                length = length << 8 | head[index]
            if length <= <uint64_t>(SMALL if size == 4 else 65535):
                return None
        if head[1] >> 7 == self._client or self._failed or self._max_fragments == 0:
            return None
        if not self._client:
            size += 4
        if present < size or length != <uint64_t>(present - size):
            return None
        if 0 <= self._limit < <int64_t>length:
            return None
        return self._message(head + size, <Py_ssize_t>length, head[0] & 0x0F)

    cdef object _message(self, const unsigned char *data, Py_ssize_t size, int opcode):
        """A whole message; None where a text is no UTF-8."""
        cdef uint32_t key
        cdef unsigned char brief[BRIEF]
        cdef unsigned char *target = brief
        cdef bytes payload = None
        if self._client:
            if opcode == BINARY:
                return PyBytes_FromStringAndSize(<const char *>data, size)
        else:
            if opcode == BINARY or size > BRIEF:
                payload = PyBytes_FromStringAndSize(NULL, size)
                target = <unsigned char *>PyBytes_AS_STRING(payload)
            memcpy(&key, data - 4, 4)
            mask_into(target, data, size, key)
            if opcode == BINARY:
                return payload
            data = target
        try:
            return PyUnicode_DecodeUTF8(<char *>data, size, NULL)
        except UnicodeDecodeError:
            return None

    cdef list take_in(self, const unsigned char *data, Py_ssize_t size):
        """``feed``, of bytes that are somewhere in memory."""
        cdef list chunks = []
        cdef const unsigned char *head
        cdef Py_ssize_t present, used, more
        if self._failed:
            return chunks
        while size:
            if self._left:
                used = min(self._left, size)
                chunks.append(self._take(data, used))
                data += used
                size -= used
                continue
            # A header: where the caller has it, if that is all of it.
            if self._kept_size:
                more = min(self._wanted - self._kept_size, size)
                memcpy(self._kept + self._kept_size, data, more)
                self._kept_size += more
                data += more
                size -= more
                head, present = self._kept, self._kept_size
            else:
                head, present = data, size
            used = self._parse(head, present)
            if used < 0:
                self._failed = True
                chunks.append(chunk_of(
                    FAILURE, self._violation[1].encode(), True, False, self._violation[0], True
                ))
                break
            if not used:
                if not self._kept_size:
                    memcpy(self._kept, data, size)
                    self._kept_size = size
                    break
                continue
            if self._kept_size:
                self._kept_size = 0
            else:
                data += used
                size -= used
            if self._opcode >= CLOSE:
                # It is whole: parsed together with its payload.
                self._left = self._length
                chunks.append(self._take(head + used - self._length, self._length))
            elif not self._length:
                chunks.append(self._take(head, 0))
        return chunks

    cdef Py_ssize_t _parse(self, const unsigned char *head, Py_ssize_t present) except? -2:
        """Read a header, and behind that of a control frame see its payload.

        :returns: their size in bytes; 0 when less than ``_wanted`` bytes are
                  present; -1 for a ``_violation``.
        """
        cdef Py_ssize_t size = 2, index
        cdef int opcode, short
        cdef int64_t length
        cdef uint64_t number = 0
        cdef bint masked, control
        self._wanted = size
        if present < size:
            return 0
        opcode = head[0] & 0x0F
        control = opcode >= CLOSE
        masked = head[1] >> 7
        short = head[1] & 0x7F
        if BINARY < opcode < CLOSE or opcode > PONG:
            return self._fail(PROTOCOL_ERROR, f'Invalid opcode {opcode:#x}')
        if control and not head[0] & 0x80:
            return self._fail(PROTOCOL_ERROR, 'Invalid attempt to fragment control frame')
        if control and short > SMALL:
            return self._fail(PROTOCOL_ERROR, 'Control frame with payload len > 125')
        if short <= SMALL:
            length = short
        else:
            size = 4 if short == 126 else 10
            self._wanted = size
            if present < size:
                return 0
            for index in range(2, size):
                number = number << 8 | head[index]
            if number <= (SMALL if short == 126 else 65535):
                return self._fail(PROTOCOL_ERROR, (
                    'Payload length used 2 bytes when 1 would have sufficed' if short == 126
                    else 'Payload length used 8 bytes when 2 would have sufficed'
                ))
            if number > INT64_MAX:
                return self._fail(PROTOCOL_ERROR, '8-byte payload length with non-zero MSB')
            length = number
        if self._judge(opcode, head[0], length) < 0:
            return -1
        if masked == self._client:
            return self._fail(PROTOCOL_ERROR, (
                'client received unexpected masked frame' if self._client
                else 'server received unexpected unmasked frame'
            ))
        if masked:
            size += 4
        self._wanted = size + (length if control else 0)
        if present < self._wanted:
            return 0
        self._key = 0
        if masked:
            memcpy(&self._key, head + size - 4, 4)
        self._fin = head[0] >> 7
        self._opcode = opcode
        self._length = length
        if not control:
            self._left = length
            if not self._in_message:
                self._compressed = head[0] >> 6 & 1
        return self._wanted

    cdef int _judge(self, int opcode, int first, int64_t length) except? -2:
        """Whether such a frame may come now: 0, or -1 for a violation."""
        cdef bint begins = not self._in_message
        cdef bint compressed = self._compressed
        cdef int allowed = 0  # of the RSV bits
        if opcode < CLOSE:
            if begins == (opcode == CONTINUATION):  # 5.4
                return self._fail(PROTOCOL_ERROR, (
                    'a continuation without a message' if begins
                    else 'a data frame inside a message'
                ))
            if begins:
                compressed = first >> 6 & 1
                if self._compression:
                    allowed = 0x40  # RFC 7692 section 6
            if self._limit >= 0 and not compressed and length > self._limit - self._size:
                return self._fail(MESSAGE_TOO_BIG, 'message too big')
            if self._max_fragments >= 0 and self._fragments >= self._max_fragments:
                return self._fail(MESSAGE_TOO_BIG, 'message of too many fragments')
        if first & 0x70 & ~allowed:
            return self._fail(PROTOCOL_ERROR, 'Reserved bit set unexpectedly')
        return 0

    cdef int _fail(self, int code, words):
        self._violation = (code, words)
        return -1

    cdef object _take(self, const unsigned char *data, Py_ssize_t size):
        """Make a chunk of some payload of the frame, at most what is left of it."""
        cdef bytes payload
        cdef int opcode = self._opcode
        cdef bint control = opcode >= CLOSE
        cdef uint32_t key = self._key
        cdef bint whole
        self._left -= size
        whole = self._left == 0
        if not whole:
            self._opcode = CONTINUATION
            self._key = rotated(key, size)
        elif not control:
            self._in_message = not self._fin
            self._size = self._size + self._length if self._in_message else 0
            self._fragments = self._fragments + 1 if self._in_message else 0
        if self._client:
            payload = PyBytes_FromStringAndSize(<const char *>data, size)
        else:
            payload = PyBytes_FromStringAndSize(NULL, size)
            mask_into(<unsigned char *>PyBytes_AS_STRING(payload), data, size, key)
        return chunk_of(
            opcode, payload, whole and self._fin, self._compressed and not control, 0, whole
        )
