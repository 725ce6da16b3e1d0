# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True, binding=False
"""The calls of ``pump.py`` in C, around the compiled codec.

They say what those say, but that what is no message in one piece comes as
chunks: it is decoded where it was received.

A call that does not wait keeps the GIL, since these system calls take less than
handing it to another thread and back; but for a write where it is large, or
where other threads wait in ``wait_and_take``.

Whatever is received without waiting is received into ``room``, which all
connections share; it is busy as long as somebody decodes what is in it, since
the collector, and with it anything else, may run meanwhile.

A thread that waits for the GIL demands it after 5 ms, and whoever has it then
has to let go in the middle of what he does.  Where hundreds wait, each of their
turns is cut to pieces, and the more time goes into changing threads the more of
them wait: 1,000 busy connections took ten times the CPU of 100.  So no more than
128 threads that have received something wait for the GIL at a time, and the
others for their turn to do so, which wakes nobody before it comes.
"""

from .._codec cimport HEADER, CompiledDecoder, frame_of, put_header

from .pump import python_put, python_wait_and_take

from cpython.buffer cimport PyBUF_SIMPLE, PyBuffer_Release, PyObject_GetBuffer
from cpython.bytearray cimport PyByteArray_FromStringAndSize
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals, PyErr_SetFromErrno
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object, Py_ssize_t *) except NULL

cdef extern from *:
    """
    #include <sys/socket.h>
    #include <sys/uio.h>
    #ifndef MSG_NOSIGNAL
    #define MSG_NOSIGNAL 0  /* CPython ignores SIGPIPE anyway */
    #endif

    /* Header and payload in one call, without a copy of the payload. */
    static Py_ssize_t send_both(
        int fd, unsigned char *header, size_t used, const unsigned char *payload, size_t size)
    {
        if (!size)
            return send(fd, header, used, MSG_DONTWAIT | MSG_NOSIGNAL);
        if (!used)
            return send(fd, payload, size, MSG_DONTWAIT | MSG_NOSIGNAL);
        struct iovec parts[2] = {{header, used}, {(void *)payload, size}};
        struct msghdr message = {0};
        message.msg_iov = parts;
        message.msg_iovlen = 2;
        return sendmsg(fd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
    }

    /* Places of those who wait for the GIL: at 20 us a turn, the last of them
       has it before 5 ms are over. */
    #define QUEUE_LENGTH 128
    #ifdef __linux__
    #include <errno.h>
    #include <pthread.h>
    #include <semaphore.h>
    static sem_t queue;
    static void open_queue(void) { sem_init(&queue, 0, QUEUE_LENGTH); }
    static int make_queue(void)
    {
        open_queue();
        return pthread_atfork(NULL, NULL, open_queue);  /* who had a place is gone */
    }
    /* errno is that of recv, for who looks behind them. */
    static void enter_queue(void)
    {
        int saved = errno;
        while (sem_wait(&queue) && errno == EINTR)
            ;
        errno = saved;
    }
    static void leave_queue(void)
    {
        int saved = errno;
        sem_post(&queue);
        errno = saved;
    }
    #else
    static int make_queue(void) { return 0; }
    static void enter_queue(void) {}
    static void leave_queue(void) {}
    #endif
    """
    int MSG_DONTWAIT
    int make_queue()
    void enter_queue() nogil
    void leave_queue()
    Py_ssize_t recv(int, void *, size_t, int) nogil
    Py_ssize_t send_both(
        int, unsigned char *, size_t, const unsigned char *, size_t
    ) nogil

cdef enum:
    ROOM = 1 << 16
    SMALL_READ = 512  # on the stack of each thread that waits
    BRIEF = 1024  # bytes of payload that are copied behind their header

if make_queue():
    raise MemoryError('pthread_atfork')

cdef unsigned char shared_room[ROOM]
cdef bint room_is_busy = False

# Threads in recv: others may want the GIL while one writes.
cdef Py_ssize_t waiting = 0


cdef unsigned char *enter_room() except NULL:
    """Where to receive to; give it back by ``leave_room``."""
    global room_is_busy
    cdef unsigned char *room
    if not room_is_busy:
        room_is_busy = True
        return shared_room
    room = <unsigned char *>malloc(ROOM)
    if room is NULL:
        raise MemoryError
    return room


cdef void leave_room(unsigned char *room) noexcept:
    global room_is_busy
    if room is shared_room:
        room_is_busy = False
    else:
        free(room)


cdef Py_ssize_t receive(int fd, unsigned char *target, Py_ssize_t size) except -2:
    """recv that does not wait: -1 where it would."""
    cdef Py_ssize_t came
    while True:
        came = recv(fd, target, size, MSG_DONTWAIT)
        if came >= 0:
            return came
        if errno == EAGAIN:
            return -1
        if errno != EINTR:
            PyErr_SetFromErrno(OSError)
        PyErr_CheckSignals()


cdef object decoded(CompiledDecoder decoder, const unsigned char *data, Py_ssize_t size):
    """What ``pump.Came`` says."""
    if decoder is None or not size:
        return PyByteArray_FromStringAndSize(<const char *>data, size)
    message = decoder.message_in(data, size)
    return decoder.take_in(data, size) if message is None else message


cdef object take(int fd, CompiledDecoder decoder, Py_ssize_t size):
    """Take what TCP has, at most so many bytes, and do not wait.

    :returns: what came, see ``pump.Came``; None where nothing was there.
    """
    cdef Py_ssize_t came
    cdef unsigned char *room = enter_room()
    try:
        came = receive(fd, room, min(size, <Py_ssize_t>ROOM))
        return None if came < 0 else decoded(decoder, room, came)
    finally:
        leave_room(room)


def wait_and_take(wire, CompiledDecoder decoder, Py_ssize_t size, list arrived):
    """See ``pump.wait_and_take``."""
    fileno = wire.fileno
    if fileno is None:
        python_wait_and_take(wire, decoder, size, arrived)
    else:
        arrived.append(wait_and_decode(fileno(), decoder, size))


cdef object wait_and_decode(int fd, CompiledDecoder decoder, Py_ssize_t size):
    """Wait in recv: for a thread that may block."""
    global waiting
    cdef unsigned char brief[SMALL_READ]
    cdef Py_ssize_t came
    while True:
        waiting += 1
        with nogil:
            came = recv(fd, brief, SMALL_READ, 0)
            enter_queue()
        leave_queue()
        waiting -= 1
        if came >= 0:
            break
        if errno != EINTR:
            PyErr_SetFromErrno(OSError)
        PyErr_CheckSignals()
    if came < SMALL_READ:
        return decoded(decoder, brief, came)
    return with_the_rest(fd, decoder, brief, size)


cdef object with_the_rest(
    int fd, CompiledDecoder decoder, const unsigned char *brief, Py_ssize_t size
):
    """More than a small read has come: take what else there is."""
    cdef Py_ssize_t came
    cdef unsigned char *room = enter_room()
    try:
        memcpy(room, brief, SMALL_READ)
        try:
            came = receive(fd, room + SMALL_READ, min(size, <Py_ssize_t>ROOM) - SMALL_READ)
        except OSError:
            came = 0  # the next read will tell
        return decoded(decoder, room, SMALL_READ + max(came, 0))
    finally:
        leave_room(room)


def put(wire, int opcode, payload, bint masked):
    """See ``pump.put``."""
    cdef Py_buffer view
    cdef Py_ssize_t size = 0
    cdef const char *text
    fileno = wire.fileno
    if fileno is None:
        return python_put(wire, opcode, payload, masked)
    cdef int fd = fileno()
    if isinstance(payload, str):
        text = PyUnicode_AsUTF8AndSize(payload, &size)
        return put_payload(fd, opcode, <const unsigned char *>text, size, masked)
    if type(payload) is bytes:
        text = PyBytes_AS_STRING(payload)
        size = PyBytes_GET_SIZE(payload)
        return put_payload(fd, opcode, <const unsigned char *>text, size, masked)
    PyObject_GetBuffer(payload, &view, PyBUF_SIMPLE)
    try:
        return put_payload(fd, opcode, <const unsigned char *>view.buf, view.len, masked)
    finally:
        PyBuffer_Release(&view)


cdef Py_ssize_t send_frame(int fd, bytes frame) noexcept:
    """One send of a frame, with the GIL and whatever comes of it; see errno."""
    return send_both(
        fd, NULL, 0, <unsigned char *>PyBytes_AS_STRING(frame), PyBytes_GET_SIZE(frame)
    )


cdef bytes put_payload(
    int fd, int opcode, const unsigned char *payload, Py_ssize_t size, bint masked
):
    cdef unsigned char head[HEADER + BRIEF]
    cdef Py_ssize_t used, sent
    opcode |= 0x80  # FIN
    if masked:
        return put_bytes(fd, frame_of(opcode, payload, size, True))
    used = put_header(head, opcode, size, False, 0)
    if size <= BRIEF:
        memcpy(head + used, payload, size)
        used += size
        size = 0
    sent = put_both(fd, head, used, payload, size)
    return None if sent == used + size else what_is_left(sent, head, used, payload, size)


cdef bytes put_bytes(int fd, bytes frame):
    cdef Py_ssize_t size = PyBytes_GET_SIZE(frame), sent
    cdef unsigned char *start = <unsigned char *>PyBytes_AS_STRING(frame)
    sent = put_both(fd, NULL, 0, start, size)
    return None if sent == size else what_is_left(sent, NULL, 0, start, size)


cdef bytes what_is_left(
    Py_ssize_t sent,
    const unsigned char *head,
    Py_ssize_t used,
    const unsigned char *payload,
    Py_ssize_t size,
):
    """What TCP did not take of the one and the other."""
    cdef bytes left = PyBytes_FromStringAndSize(NULL, used + size - sent)
    cdef unsigned char *at = <unsigned char *>PyBytes_AS_STRING(left)
    if sent < used:
        memcpy(at, head + sent, used - sent)
        at += used - sent
        sent = used
    memcpy(at, payload + (sent - used), used + size - sent)
    return left


cdef Py_ssize_t put_both(
    int fd, unsigned char *head, Py_ssize_t used, const unsigned char *payload, Py_ssize_t size
) except -1:
    """Send the one and the other; returns how much of them TCP took."""
    cdef Py_ssize_t sent
    while True:
        if waiting or size >= LONG:
            with nogil:
                sent = send_both(fd, head, used, payload, size)
        else:
            sent = send_both(fd, head, used, payload, size)
        if sent >= 0:
            return sent
        if errno == EAGAIN:
            return 0
        if errno != EINTR:
            PyErr_SetFromErrno(OSError)
        PyErr_CheckSignals()
