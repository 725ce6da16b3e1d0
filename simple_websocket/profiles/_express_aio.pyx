# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The ways of ``express.py`` in C, for asyncio."""

from .._codec cimport CompiledDecoder
from ._pump cimport decoded
from ._express cimport ALL, NOTHING, SOME, Put, direct, put_at_once
from ._slots cimport SLOT, get, is_none, is_set, set_slot, slot

from ..errors import ConnectionClosed
from ..protocol import MAX_APPETITE, OPEN, Protocol
from .link import Link

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_SetObject
from cpython.memoryview cimport PyMemoryView_GET_BUFFER
from cpython.object cimport PyObject
from cpython.ref cimport Py_DECREF, Py_INCREF

cdef extern from "Python.h":
    ctypedef enum PySendResult:
        PYGEN_RETURN, PYGEN_ERROR, PYGEN_NEXT

    ctypedef struct PyAsyncMethods:
        void *am_send

    ctypedef struct PyTypeObject:
        PyAsyncMethods *tp_as_async
        void *tp_iternext

    PySendResult PyIter_Send(object, object, PyObject **) except PYGEN_ERROR
    int PyContext_Enter(object) except -1
    int PyContext_Exit(object) except -1

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

    # Of AioLink, which is made after this file.
    object AioLink
    Py_ssize_t RECEIVER, READING, LOOP, PENDING, RUNG, ROOM, USUAL_ROOM, ROOM_SIZE
    object USUAL = MAX_APPETITE


cdef class NextMessage:
    """A wait for a message: what a task awaits.

    There are no coroutines in between, each of which a message would go through.
    Nor does a message wait for the loop's next turn.  The task waits for a future of
    asyncio's, on which it leaves a callback; a message comes in a callback of the loop,
    and there and then the task's is taken off that future and called (``come``).  So
    the future is as it was, and serves for the next message.  All else that ends the
    wait is found on the long way, in the words of ``AioLink.receive``.
    """

    cdef object _link, _long_receive
    cdef object _connection  # that is iterated over; it closes when nobody holds it
    cdef object _long  # the long way, once it is taken
    cdef bint _over  # whoever awaited this has had what comes of it
    cdef bint _waiting, _done
    cdef bint _held  # who ends the wait is in a callback that wakes the task itself
    cdef object _message

    # What a task awaits.

    def __await__(self):
        return self

    def __iter__(self):
        return self

    def __next__(self):
        cdef PyObject *made = NULL
        cdef PySendResult outcome = self.advance(&made)
        what = <object>made
        Py_DECREF(what)
        if outcome == PYGEN_RETURN:
            raise StopIteration(what)
        return what

    @property
    def __qualname__(self):
        return 'receive'  # for the repr of a task

    def send(self, value):
        return next(self)

    def throw(self, *error):
        if self._long is None:
            self.close()
            self._over = True
            raise error[1] if len(error) > 1 and error[1] is not None else error[0]
        try:
            return self._long.throw(*error)
        except ConnectionClosed:
            self.end_iteration()
            raise

    def close(self):
        if self._long is not None:
            self._long.close()
        if self._waiting:
            self.leave()
            set_slot(self._link, PENDING, None)  # it may be cancelled
            if self._message is not None:  # then the next receiver has it
                self._link.protocol.input_buffer().appendleft(self._message)

    cdef PySendResult advance(self, PyObject **made) except PYGEN_ERROR:
        """Go on: begin to wait, or end it with the message, or by what happened."""
        if self._over:
            raise RuntimeError('cannot reuse already awaited receive()')
        if self._waiting:
            self.leave()
            if self._message is not None:
                self._over = True
                message, self._message = self._message, None
                return give_out(PYGEN_RETURN, message, made)
        elif self._long is None and is_quiet(self._link):
            return give_out(PYGEN_NEXT, self.begin(), made)
        if self._long is None:
            self._long = self._long_receive(self._link, None)
        try:
            return PyIter_Send(self._long, None, made)
        except ConnectionClosed:
            self.end_iteration()
            raise

    cdef object begin(self):
        future = get(self._link, PENDING)
        if future is None:
            future = self.prepare()
        future._asyncio_future_blocking = True  # says: awaited, and not merely yielded
        set_slot(get(self._link, PROTOCOL), ANSWERING, False)
        set_slot(self._link, RECEIVER, self)
        self._waiting = True
        return future

    cdef object prepare(self):
        loop = get(self._link, LOOP)
        if is_none(self._link, RUNG):
            rung = loop.create_future()
            rung.set_result(None)
            set_slot(self._link, RUNG, rung)
        set_slot(self._link, PENDING, loop.create_future())
        return get(self._link, PENDING)

    cdef int leave(self) except -1:
        self._waiting = False
        if SLOT(self._link, RECEIVER) is <PyObject *>self:
            set_slot(self._link, RECEIVER, None)

    cdef int end_iteration(self) except -1:
        """The connection is closed."""
        if self._connection is not None:  # of an iteration
            raise StopAsyncIteration from None

    # What the link knows of a receiver.

    def done(self):
        return self._done or get(self._link, PENDING).done()

    def set_result(self, message):
        self._done, self._message = True, message
        if not self._held:
            self.wake_soon()

    cdef int wake_soon(self) except -1:
        """Have the loop wake the task, in its next turn."""
        future = get(self._link, PENDING)
        if future is not None and not future.done():
            set_slot(self._link, PENDING, None)
            future.set_result(None)

    cdef object claim(self):
        """What is to be called when the wait ends, and in which context; None where
        it has ended, or others wait for the future as well."""
        if self._done:
            return None
        callbacks = getattr(get(self._link, PENDING), '_callbacks', None)
        return callbacks[0] if callbacks and len(callbacks) == 1 else None

    cdef int come(self, message, claimed) except -1:
        """The wait has ended, in a callback of the loop."""
        self._done, self._message = True, message
        callback, context = claimed
        try:
            PyContext_Enter(context)
        except RuntimeError:
            return self.wake_soon()  # we are in the very context of the task
        future = get(self._link, PENDING)
        try:
            future.remove_done_callback(callback)
            callback(get(self._link, RUNG))
            if self._waiting and self._message is not None:
                self.wake_soon()  # it was not the task's: somebody waits for the future
        except (KeyboardInterrupt, SystemExit) as error:
            # It ends the loop, but uvloop keeps what a protocol raises to itself.
            get(self._link, LOOP).call_soon(raise_, error)
        except RuntimeError:
            if not self._waiting:
                raise
            # That would have been a task within a task.
            future.add_done_callback(callback, context=context)
            self.wake_soon()
        finally:
            PyContext_Exit(context)


def raise_(error):
    raise error


cdef PySendResult give_out(PySendResult outcome, what, PyObject **made) noexcept:
    Py_INCREF(what)
    made[0] = <PyObject *>what
    return outcome


cdef PySendResult send_next(
    PyObject *wait, PyObject *value, PyObject **made
) except PYGEN_ERROR:
    return (<NextMessage>wait).advance(made)


cdef PyObject *next_or_stop(PyObject *wait) except? NULL:
    """``__next__``, whose StopIteration gets no traceback."""
    cdef PyObject *made = NULL
    if (<NextMessage>wait).advance(&made) == PYGEN_NEXT:
        return made
    what = <object>made
    Py_DECREF(what)
    PyErr_SetObject(StopIteration, what)
    return NULL


# Python has the message from one of these: 3.10 and 3.11 from the first, without any
# exception, later ones from the second.
(<PyTypeObject *>NextMessage).tp_as_async.am_send = <void *>send_next
(<PyTypeObject *>NextMessage).tp_iternext = <void *>next_or_stop


cdef class Messages:
    """The messages of a connection, until it closes.

    :param connection: what has ``receive()``, ``AioBase``'s own.
    :param link: its link.
    :param long_receive: ``AioLink.receive``.
    """

    cdef object _connection, _link, _long_receive

    def __init__(self, connection, link, long_receive):
        self._connection, self._link = connection, link
        self._long_receive = long_receive

    def __aiter__(self):
        return self

    def __anext__(self):
        if is_quiet(self._link):
            return next_message(self._link, self._long_receive, self._connection)
        return self._connection.__anext__()


cdef bint is_quiet(object link) except -1:
    """Whether there is nothing to do before a wait for a message."""
    protocol = get(link, PROTOCOL)
    return (
        is_none(link, RECEIVER) and is_set(link, READING)
        and direct(protocol) is not None and not is_set(protocol, DIRTY)
    )


cdef NextMessage next_message(link, long_receive, connection):
    """
    :param connection: what is iterated over; None outside of an iteration.
    """
    cdef NextMessage wait = NextMessage.__new__(NextMessage)
    wait._link = link
    wait._long_receive = long_receive
    wait._connection = connection
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
    claimed = None
    cdef CompiledDecoder decoder = direct(get(link, PROTOCOL))
    if decoder is None or is_set(link, FINISHED) or not size:
        return False
    if type(get(link, RECEIVER)) is NextMessage:
        wait = <NextMessage>get(link, RECEIVER)
        claimed = wait.claim()
    came = decoded(decoder, start, size)
    if claimed is None or type(came) is list:
        give(link, came, wait, claimed)
    else:
        protocol = get(link, PROTOCOL)
        set_slot(protocol, HEARD, True)
        set_slot(protocol, ANSWERING, True)
        wait.come(came, claimed)
    if type(came) is list or get(link, ROOM_SIZE) != USUAL:
        link._measure(size)
    return True


cdef int give(object link, came, NextMessage wait, claimed) except -1:
    """Take what has come by the way that all things go."""
    if claimed is not None:
        wait._held = True
    try:
        link._take_in(came)
        link._after()
    finally:
        if claimed is not None:
            wait._held = False
            if wait._done:
                wait.come(message_made(link), claimed)


def aio(kind):
    """See ``express.aio``."""
    global AioLink, RECEIVER, READING, LOOP, PENDING, RUNG, ROOM, USUAL_ROOM, ROOM_SIZE
    AioLink = kind
    RECEIVER, READING = slot(kind, '_receiver'), slot(kind, '_reading')
    LOOP, PENDING, RUNG = slot(kind, '_loop'), slot(kind, '_pending'), slot(kind, '_rung')
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
            return next_message(link, long_receive, None)
        return long_receive(link, timeout)

    def iterate(link, connection):
        if not isinstance(link, AioLink):
            return connection
        return Messages(connection, link, long_receive)

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
