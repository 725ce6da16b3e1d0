# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The ways of ``express.py`` in C, for asyncio."""

from .._codec cimport CompiledDecoder
from ._pump cimport decoded
from ._express cimport ALL, NOTHING, SOME, Put, direct, put_at_once
from ._slots cimport SLOT, get, is_none, is_set, set_slot, slot

from asyncio import CancelledError, current_task

from ..errors import ConnectionClosed
from ..protocol import MAX_APPETITE, OPEN, Protocol
from .link import Link

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.memoryview cimport PyMemoryView_GET_BUFFER
from cpython.object cimport PyObject

cdef:
    Py_ssize_t WIRE = slot(Link, 'wire')
    Py_ssize_t PROTOCOL = slot(Link, 'protocol')
    Py_ssize_t FINISHED = slot(Link, 'finished')

    Py_ssize_t STATE = slot(Protocol, 'state')
    Py_ssize_t MESSAGES = slot(Protocol, 'messages')
    Py_ssize_t CHUNKS = slot(Protocol, '_chunks')
    Py_ssize_t DIRTY = slot(Protocol, 'dirty')
    Py_ssize_t HEARD = slot(Protocol, 'heard')
    Py_ssize_t ANSWERING = slot(Protocol, 'answering')

    # Of AioLink, which is made behind this file.
    object AioLink
    Py_ssize_t RECEIVER, READING, LOOP, ROOM, USUAL_ROOM, ROOM_SIZE
    object USUAL = MAX_APPETITE


cdef class NextMessage:
    """A wait for a message: what a task awaits, and the future that it waits for.

    There are no coroutines in between, each of which a message would go through.
    Nor does a message wait for the loop's next turn: it comes in a callback of the
    loop, and the task goes on there and then (``come``).  All else that ends the
    wait is found on the long way, in the words of ``AioLink.receive``.
    """

    cdef object _link, _long_receive
    cdef object _long  # the long way, once it is taken
    cdef bint _iterating  # the end is a StopAsyncIteration
    cdef bint _waiting, _done, _cancelled
    cdef bint _held  # who ends the wait is in a callback that wakes the task itself
    cdef object _message, _reason
    cdef object _wake_up, _context  # of the task
    cdef public object _asyncio_future_blocking

    # What a task awaits.

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        if self._waiting:
            self._leave()
            if self._message is not None:
                raise StopIteration(self._message)
        elif self._long is None and is_quiet(self._link):
            set_slot(get(self._link, PROTOCOL), ANSWERING, False)
            set_slot(self._link, RECEIVER, self)
            self._waiting = True
            self._asyncio_future_blocking = True
            return self
        if self._long is None:
            self._long = self._long_receive(self._link, None)
        return self._go_on(self._long.send, (None,))

    def send(self, value):
        return next(self)

    def throw(self, *error):
        if self._long is not None:
            return self._go_on(self._long.throw, error)
        self.close()
        raise error[1] if len(error) > 1 and error[1] is not None else error[0]

    def close(self):
        if self._long is not None:
            self._long.close()
        if self._waiting:
            self._leave()
            if self._message is not None:  # then the next receiver has it
                self._link.protocol.input_buffer().appendleft(self._message)

    cdef object _go_on(self, step, arguments):
        try:
            return step(*arguments)
        except ConnectionClosed:
            if not self._iterating:
                raise
            raise StopAsyncIteration from None

    cdef int _leave(self) except -1:
        self._waiting = False
        self._wake_up = self._context = None
        if SLOT(self._link, RECEIVER) is <PyObject *>self:
            set_slot(self._link, RECEIVER, None)

    # The future that it waits for.

    def get_loop(self):
        return get(self._link, LOOP)

    def add_done_callback(self, callback, *, context=None):
        self._wake_up, self._context = callback, context
        if self._done:
            self._wake_up_soon()

    def remove_done_callback(self, callback):
        self._wake_up = None

    def done(self):
        return self._done

    def cancelled(self):
        return self._cancelled

    def cancel(self, msg=None):
        if self._done:
            return False
        self._cancelled, self._reason = True, msg
        self.set_result(None)
        return True

    def exception(self):
        return None

    def result(self):
        if self._cancelled:
            raise CancelledError() if self._reason is None else CancelledError(self._reason)
        return self._message

    def set_result(self, message):
        self._done, self._message = True, message
        self._wake_up_soon()

    cdef int _wake_up_soon(self) except -1:
        if self._wake_up is not None and not self._held:
            get(self._link, LOOP).call_soon(self._wake_up, self, context=self._context)

    cdef int come(self, message) except -1:
        """The wait has ended, in a callback of the loop."""
        self._done, self._message = True, message
        if self._wake_up is None or self._context is None or current_task(self.get_loop()):
            self._wake_up_soon()  # that would be a task within a task
            return 0
        try:
            self._context.run(self._wake_up, self)
        except RuntimeError:
            if not self._waiting:
                raise
            self._wake_up_soon()  # the callback has the very context of the task


cdef bint is_quiet(object link) except -1:
    """Whether there is nothing to do before a wait for a message."""
    protocol = get(link, PROTOCOL)
    return (
        is_none(link, RECEIVER) and is_set(link, READING)
        and direct(protocol) is not None and not is_set(protocol, DIRTY)
    )


cdef NextMessage next_message(link, long_receive, bint iterating):
    cdef NextMessage wait = NextMessage.__new__(NextMessage)
    wait._link = link
    wait._long_receive = long_receive
    wait._iterating = iterating
    return wait


cdef object message_made(object link):
    """The message, of several frames, or compressed, that is complete now and that
    nothing stands behind but perhaps other messages; else None."""
    protocol = get(link, PROTOCOL)
    if (
        get(protocol, STATE) == OPEN and is_set(link, READING)
        and not is_set(protocol, DIRTY) and not get(protocol, CHUNKS)
        and get(protocol, MESSAGES)
    ):
        return protocol.take()
    return None


cdef const unsigned char *room_of(object link) except NULL:
    return <const unsigned char *>PyMemoryView_GET_BUFFER(get(link, ROOM)).buf


cdef bint hand_in(object link, const unsigned char *start, Py_ssize_t size) except -1:
    """Take what has come: a message goes to the task that waits.

    :returns: False where there is something before it.
    """
    cdef NextMessage wait = None
    cdef CompiledDecoder decoder = direct(get(link, PROTOCOL))
    if decoder is None or is_set(link, FINISHED) or not size:
        return False
    if type(get(link, RECEIVER)) is NextMessage:
        wait = <NextMessage>get(link, RECEIVER)
        if wait._done:
            wait = None
    came = decoded(decoder, start, size)
    if wait is None or type(came) is list:
        give(link, wait, came)
    else:
        protocol = get(link, PROTOCOL)
        set_slot(protocol, HEARD, True)
        set_slot(protocol, ANSWERING, True)
        wait.come(came)
    if type(came) is list or get(link, ROOM_SIZE) != USUAL:
        link._measure(size)
    return True


cdef int give(object link, NextMessage wait, came) except -1:
    """Take what has come by the way that all things go."""
    if wait is not None:
        wait._held = True
    try:
        link._take_in(came)
        link._after()
    finally:
        if wait is not None:
            wait._held = False
            if wait._done:
                wait.come(None if wait._cancelled else message_made(link))


def aio(kind):
    """See ``express.aio``."""
    global AioLink, RECEIVER, READING, LOOP, ROOM, USUAL_ROOM, ROOM_SIZE
    AioLink = kind
    RECEIVER, READING = slot(kind, '_receiver'), slot(kind, '_reading')
    LOOP = slot(kind, '_loop')
    ROOM, USUAL_ROOM = slot(kind, '_room'), slot(kind, '_usual_room')
    ROOM_SIZE = slot(kind, '_room_size')
    long_receive, long_send = kind.receive, kind.send
    long_get, long_updated, long_data = (
        kind.get_buffer, kind.buffer_updated, kind.data_received
    )

    def get_buffer(link, sizehint):
        if isinstance(link, AioLink) and get(link, ROOM_SIZE) == USUAL:
            return get(link, USUAL_ROOM)
        return long_get(link, sizehint)

    def buffer_updated(link, Py_ssize_t nbytes):
        if not (isinstance(link, AioLink) and hand_in(link, room_of(link), nbytes)):
            long_updated(link, nbytes)

    def data_received(link, data):
        if not (
            isinstance(link, AioLink) and type(data) is bytes
            and hand_in(link, <unsigned char *>PyBytes_AS_STRING(data), PyBytes_GET_SIZE(data))
        ):
            long_data(link, data)

    def receive(link, timeout):
        if timeout is None and isinstance(link, AioLink) and is_quiet(link):
            return next_message(link, long_receive, False)
        return long_receive(link, timeout)

    def iterate(link):
        if isinstance(link, AioLink) and is_quiet(link):
            return next_message(link, long_receive, True)
        return None

    def send(link, int opcode, payload, timeout):
        cdef Put put = NOTHING
        if isinstance(link, AioLink) and not get(link, WIRE).full:
            put = put_at_once(link, opcode, payload)
        if put is ALL:
            return None
        if put is SOME:
            return link._send_rest(timeout)
        return long_send(link, opcode, payload, timeout)

    kind.receive, kind.iterate = receive, iterate
    kind.send, kind.data_received = send, data_received
    kind.get_buffer, kind.buffer_updated = get_buffer, buffer_updated
    return kind
