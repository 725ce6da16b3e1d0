# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
"""The ways of ``express.py`` in C; those of broadcasts and of asyncio have files of
their own.

What they look at are slots of ``Link``, ``Protocol`` and ``Wire``; an object of any
other class than these goes the long way.  Nothing else runs between two lines here,
but where a call says so: no signal handler, no other greenlet, no other thread.
"""

from .._codec cimport CompiledDecoder
from ._lock cimport StepLock
from ._pump cimport put_payload, take, wait_and_decode
from ._slots cimport SLOT, get, is_none, is_set, set_slot, slot

from functools import partial, wraps

from ..codec import BINARY as _BINARY, TEXT as _TEXT
from ..errors import ConnectionClosed, SimpleWebsocketError
from ..options import check_timeout
from ..protocol import ENDING as _ENDING, OPEN as _OPEN, Protocol
from .link import READ_SIZE as _READ_SIZE, Link, bounded
from .pump import END
from .wire import Wire, is_of_tcp

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from cpython.exc cimport PyErr_CheckSignals
from cpython.long cimport PyLong_AsLong, PyLong_AsSsize_t
from cpython.object cimport PyObject, PyTypeObject

cdef extern from "Python.h":
    const char *PyUnicode_AsUTF8AndSize(object, Py_ssize_t *) except NULL
    unsigned long PyThread_get_thread_ident()
    bint PyObject_TypeCheck(object, PyTypeObject *)

cdef long ENDING = _ENDING
cdef int TEXT = _TEXT, BINARY = _BINARY
cdef Py_ssize_t READ_SIZE = _READ_SIZE
assert _OPEN == 0


class NotYet:
    """In place of a class that is made after this file: it has no instances."""


# Those in _express.pxd are of others, too.
WIRE, PROTOCOL = slot(Link, 'wire'), slot(Link, 'protocol')
OUT, DECODER = slot(Protocol, 'out'), slot(Protocol, '_decoder')
FILENO = slot(Wire, 'fileno')

cdef:
    Py_ssize_t HOME = slot(Link, '_home')
    Py_ssize_t INSIDE = slot(Link, '_inside')
    Py_ssize_t DEFERRED = slot(Link, '_deferred')
    Py_ssize_t UNSENT = slot(Link, '_unsent')
    Py_ssize_t HANDED = slot(Link, '_handed')
    Py_ssize_t HANDING = slot(Link, '_handing')
    Py_ssize_t FINISHED = slot(Link, 'finished')

    Py_ssize_t STATE = slot(Protocol, 'state')
    Py_ssize_t MESSAGES = slot(Protocol, 'messages')
    Py_ssize_t CHUNKS = slot(Protocol, '_chunks')
    Py_ssize_t DIRTY = slot(Protocol, 'dirty')
    Py_ssize_t HEARD = slot(Protocol, 'heard')
    Py_ssize_t ANSWERING = slot(Protocol, 'answering')
    Py_ssize_t APPETITE = slot(Protocol, 'appetite')
    Py_ssize_t CLIENT = slot(Protocol, 'client')
    Py_ssize_t PLAIN_BELOW = slot(Protocol, 'plain_below')

    Py_ssize_t FD = slot(Wire, 'fd')
    Py_ssize_t POLLED = slot(Wire, 'polled')

    # Of HubLink, which is made after this file.
    Py_ssize_t HUB, READING, TAKEN
    object getcurrent, greenlet, long_reading

HubLink = NotYet


cdef CompiledDecoder direct(object protocol):
    """``Protocol.direct``: None, too, where it is something else than ours."""
    if type(protocol) is not Protocol or PyLong_AsLong(get(protocol, STATE)):
        return None
    if not is_empty(protocol):
        return None
    decoder = get(protocol, DECODER)
    return decoder if type(decoder) is CompiledDecoder else None


cdef inline bint is_empty(object protocol) except -1:
    """Whether all that came was taken."""
    if not is_none(protocol, CHUNKS) and get(protocol, CHUNKS):
        return False
    return is_none(protocol, MESSAGES) or not get(protocol, MESSAGES)


cdef inline bint is_home(object link) except -1:
    """Whether this is the only thread that may touch the link."""
    cdef unsigned long home = get(link, HOME)
    return home == PyThread_get_thread_ident()


cdef bint is_a(object what, object kind) noexcept:
    """isinstance, where no class says anything about it itself."""
    return PyObject_TypeCheck(what, <PyTypeObject *>kind)


cdef object fileno_of(object link):
    """``wire.fileno``: None where recv and send are more than system calls."""
    wire = get(link, WIRE)
    return get(wire, FILENO) if is_a(wire, Wire) else None


cdef int leave_step(object link) except -1:
    """The end of a step, as ``_run_step`` has it."""
    if not is_none(link, DEFERRED) and get(link, DEFERRED):
        link._do_deferred()
    set_slot(link, INSIDE, False)


cdef CompiledDecoder may_wait(object link):
    """The decoder, where there is nothing to do before a wait for a message."""
    protocol = get(link, PROTOCOL)
    cdef CompiledDecoder decoder = direct(protocol)
    if decoder is None or not is_none(link, HANDED):
        return None
    if is_set(protocol, DIRTY) or <list?>get(protocol, OUT):
        return None
    return decoder


cdef CompiledDecoder may_take(object link):
    """The decoder, where a message that is read now has nothing before it."""
    if is_set(link, INSIDE) or fileno_of(link) is None:
        return None
    return direct(get(link, PROTOCOL))


cdef bint may_put(object link, Py_ssize_t size) except -1:
    """Whether a message of that many bytes may leave as it is, with nothing before."""
    protocol = get(link, PROTOCOL)
    return (
        type(protocol) is Protocol and fileno_of(link) is not None
        and not is_set(link, INSIDE) and not is_set(protocol, DIRTY)
        and not get(link, UNSENT) and not <list?>get(protocol, OUT)
        and PyLong_AsLong(get(protocol, STATE)) <= ENDING
        and size < PyLong_AsSsize_t(get(protocol, PLAIN_BELOW))
    )


cdef Put put_at_once(object link, int opcode, payload) except *:
    """Send a message where nothing is before it; with nobody else inside.

    :returns: how much of it; what is left is in ``_unsent``.
    """
    cdef Py_ssize_t size = 0
    cdef const char *data
    cdef bytes left
    if type(payload) is str:
        if not may_put(link, 0):  # what is wrong with the connection is told first
            return NOTHING
        data = PyUnicode_AsUTF8AndSize(payload, &size)
    elif type(payload) is bytes:
        data = PyBytes_AS_STRING(payload)
        size = PyBytes_GET_SIZE(payload)
    else:
        return NOTHING
    if not may_put(link, size):
        return NOTHING
    set_slot(link, INSIDE, True)
    set_slot(get(link, PROTOCOL), ANSWERING, False)
    try:
        left = put_payload(
            fileno_of(link)(), opcode, <const unsigned char *>data, size,
            is_set(get(link, PROTOCOL), CLIENT),
        )
        if left is not None:
            set_slot(link, UNSENT, left)
    except BaseException as error:
        if is_of_tcp(error):
            return NOTHING  # and the long way finds the same
        link._poison()  # a signal handler raised
        raise
    finally:
        leave_step(link)
    return ALL if left is None else SOME


cdef int put_rest(object link, timeout) except -1:
    """Wait until the rest is sent, as well; an exception out of nowhere leaves
    none of it behind."""
    try:
        link._send_rest(timeout)
    except BaseException:
        link._guarded(link._fail_if_torn)  # it may not even have begun
        raise


cdef int hand_out(object link, message) except -1:
    """The last that is done before ``receive`` returns a message: after this, an
    exception out of nowhere fails the connection (see ``BlockingLink.interrupted``)."""
    try:
        PyErr_CheckSignals()
    except BaseException:
        set_slot(link, HANDED, message)  # the next receive() has it
        raise
    set_slot(link, HANDING, True)


cdef object take_in_step(object link, CompiledDecoder decoder):
    """Read for somebody who waits for a message, with nobody else inside.

    :param decoder: from ``may_take``.
    :returns: a message that came in one piece; else None, and what came is
              where all else goes.
    """
    protocol = get(link, PROTOCOL)
    set_slot(link, INSIDE, True)
    try:
        try:
            came = take(
                fileno_of(link)(), decoder, PyLong_AsSsize_t(get(protocol, APPETITE))
            )
        except OSError as error:
            if not is_of_tcp(error):
                raise
            link._broke_with(error)
            came = END
        if came is None:
            return None
        if type(came) is str or type(came) is bytes:
            set_slot(protocol, HEARD, True)
            set_slot(protocol, ANSWERING, True)
            return came
        link._take_in(came)
        link._after()
        return None
    except BaseException:
        link._poison()  # a signal handler raised: what was read may be lost
        raise
    finally:
        leave_step(link)


# -- hubs -------------------------------------------------------------------

cdef bint hand_over(object link) except -1:
    """Read for the greenlet that waits, and switch to it.

    :returns: False where something is before what would be read.
    """
    receiver = get(link, RECEIVER)
    decoder = None if receiver is None else may_take(link)
    if decoder is None:
        return False
    came = take_in_step(link, decoder)
    if came is None:
        link._switch_out()
    else:
        set_slot(link, RECEIVER, None)
        set_slot(link, HANDED, came)
        switch_to(receiver)  # it comes back when it waits again
    return True


cdef object KIND = NotYet, SWITCH  # of the last one; nearly always of the next, too


cdef int switch_to(object green) except -1:
    """``green.switch()``, as its class has it: where thousands wait, whether the
    object has one of its own is a look at memory that is far away."""
    global KIND, SWITCH
    if type(green) is not KIND:
        KIND, SWITCH = type(green), type(green).switch
    SWITCH(green)


cdef object wait_in_peace(object link):
    """Wait for a message where there is nothing to do before.

    :returns: None where there is, or was, something else than a message.
    """
    if not is_none(link, RECEIVER) or is_set(link, INSIDE) or may_wait(link) is None:
        return None
    protocol = get(link, PROTOCOL)
    hub, current = get(link, HUB), getcurrent()
    if current is (hub if isinstance(hub, greenlet) else hub.greenlet):
        return None  # it can't wait
    set_slot(link, TAKEN, 0)
    set_slot(protocol, ANSWERING, False)
    set_slot(link, RECEIVER, current)
    try:
        hub.switch()
    finally:
        if SLOT(link, RECEIVER) is <PyObject *>current:
            set_slot(link, RECEIVER, None)
    message = get(link, HANDED)
    if message is not None:
        set_slot(link, HANDED, None)
        hand_out(link, message)
        if is_set(protocol, DIRTY) or not is_set(link, READING):
            link._make_room()
    return message


cdef int on_readable(object link) except -1:
    """``_on_readable`` of a ``HubLink``."""
    try:
        if not hand_over(link):
            long_reading(link)
    except BaseException as error:
        link.raise_soon(error)  # see ``_step_of_hub``


cdef bint is_over(object link) except -1:
    """Whether ``receive`` would say that the connection is closed."""
    if not is_a(link, HubLink) or not is_home(link) or is_set(link, INSIDE):
        return False
    protocol = get(link, PROTOCOL)
    return (
        type(protocol) is Protocol and PyLong_AsLong(get(protocol, STATE)) > ENDING
        and is_empty(protocol) and is_none(link, HANDED) and is_none(link, RECEIVER)
    )


def hub(kind):
    """See ``express.hub``."""
    global HubLink, HUB, RECEIVER, READING, TAKEN, getcurrent, greenlet, long_reading
    from greenlet import getcurrent, greenlet
    HubLink = kind
    HUB, RECEIVER = slot(kind, '_hub'), slot(kind, '_receiver')
    READING, TAKEN = slot(kind, '_reading'), slot(kind, '_taken')
    long_reading = kind._on_readable

    def _on_readable(link, *_):
        if is_a(link, HubLink):
            on_readable(link)
        else:
            long_reading(link)

    kind._on_readable = _on_readable
    return kind


# -- what has a lock --------------------------------------------------------

# Of LockedLink and those below it, which are made after this file.
cdef:
    object LockedLink = NotYet, InjectedLink = NotYet, ThreadLink = NotYet
    Py_ssize_t LOCK, LOST, RECEIVING, WAITING
    Py_ssize_t VISITS, ADOPTED, BLOCKED, PASSED_OVER, READER
    Py_ssize_t EVENT, GREEN, PARKED, LINK_TAKEN, WANT, DEADLINE


cdef StepLock lock_of(object link):
    """None where it is something else than ours."""
    lock = get(link, LOCK)
    return lock if type(lock) is StepLock else None


cdef Put put_with_lock(object link, int opcode, payload) except *:
    cdef StepLock lock = lock_of(link)
    if lock is None:
        return NOTHING
    lock.take()
    try:
        return NOTHING if is_set(link, LOST) else put_at_once(link, opcode, payload)
    finally:
        lock.give_back()


def locked(kind):
    """See ``express.locked``."""
    global LockedLink, LOCK, LOST, RECEIVING, WAITING
    LockedLink = kind
    LOCK, LOST = slot(kind, '_lock'), slot(kind, '_lost')
    RECEIVING, WAITING = slot(kind, '_receiving'), slot(kind, '_waiting')
    return kind


# -- threads ----------------------------------------------------------------

cdef object begin_to_wait(object link):
    """Be the receiver, if there is nothing to do before.

    :returns: the decoder, or None.
    """
    cdef CompiledDecoder decoder
    cdef StepLock lock = lock_of(link)
    if lock is None:
        return None
    lock.take()
    try:
        decoder = may_wait(link)
        if (
            decoder is None or fileno_of(link) is None or is_set(get(link, WIRE), POLLED)
            or is_set(link, RECEIVING) or is_set(link, ADOPTED)
        ):
            return None
        set_slot(link, VISITS, get(link, VISITS) + 1)
        set_slot(link, RECEIVING, True)
        set_slot(get(link, PROTOCOL), ANSWERING, False)
        set_slot(link, READER, PyThread_get_thread_ident())
        set_slot(link, WAITING, get(link, WAITING) + 1)
        set_slot(link, BLOCKED, True)
        return decoder
    finally:
        lock.give_back()


cdef object come_back(object link, came):
    """Behind the wait: a message that came in one piece; else None, and what came
    is where all else goes."""
    cdef StepLock lock = get(link, LOCK)
    protocol = get(link, PROTOCOL)
    try:
        lock.take()
    except BaseException:
        if type(came) is not bytearray or came:
            link._guarded(partial(link._take_in, came))
        raise
    try:
        if (
            (type(came) is str or type(came) is bytes)
            and not PyLong_AsLong(get(protocol, STATE)) and not is_set(link, FINISHED)
            and (is_none(protocol, MESSAGES) or not get(protocol, MESSAGES))
        ):
            set_slot(link, BLOCKED, False)
            set_slot(link, WAITING, get(link, WAITING) - 1)
            set_slot(protocol, HEARD, True)
            set_slot(protocol, ANSWERING, True)
        else:
            came = link._came(came)
    except BaseException:
        link._guarded(link._poison)
        raise
    finally:
        lock.give_back()
    if came is not None:
        hand_out(link, came)
    return came


cdef object wait_in_recv(object link):
    """Wait for a message; None: look what there is."""
    cdef CompiledDecoder decoder = begin_to_wait(link)
    if decoder is None:
        return None
    try:
        try:
            while True:
                try:
                    came = wait_and_decode(fileno_of(link)(), decoder, READ_SIZE)
                    break
                except BlockingIOError as error:
                    if not is_of_tcp(error):
                        raise
                    get(link, WIRE).be_blocking()  # the application has given it a timeout
        except OSError as error:
            if not is_of_tcp(error):
                raise  # a signal handler's
            link._broke_with(error)
            came = END
        return come_back(link, came)
    except MemoryError:
        link._guarded(link._poison)  # what came is lost
        raise
    finally:
        try:
            if is_set(link, BLOCKED) or is_set(link, PASSED_OVER):
                leave_recv(link)
        finally:
            set_slot(link, RECEIVING, False)


cdef int leave_recv(object link) except -1:
    try:
        link._leave_recv()
    except BaseException:  # a signal handler raised: do it again
        link._leave_recv()
        raise


def threads(kind):
    """See ``express.threads``."""
    global ThreadLink, VISITS, ADOPTED, BLOCKED, PASSED_OVER, READER
    ThreadLink = kind
    VISITS, ADOPTED = slot(kind, '_visits'), slot(kind, '_adopted')
    BLOCKED, PASSED_OVER = slot(kind, '_blocked'), slot(kind, 'passed_over')
    READER = slot(kind, '_reader')
    return kind


# -- injected classes -------------------------------------------------------

cdef bint pass_on(object link) except -1:
    """Read for the receiver that waits, and wake it.

    :returns: False where something is before what would be read.
    """
    cdef StepLock lock = lock_of(link)
    if lock is None:
        return False
    lock.take()
    try:
        decoder = may_take(link) if is_set(link, PARKED) else None
        if decoder is None:
            return False
        came = take_in_step(link, decoder)
        if came is None:
            return True
        set_slot(link, PARKED, False)
        set_slot(link, HANDED, came)
    finally:
        lock.give_back()
    get(link, EVENT).set()
    return True


cdef bint park(object link) except -1:
    """Be the receiver that ``pass_on`` knows, if nothing is before it."""
    cdef StepLock lock = lock_of(link)
    if lock is None:
        return False
    lock.take()
    try:
        if is_set(link, RECEIVING) or (is_set(link, GREEN) and not is_home(link)):
            return False
        if may_wait(link) is None:
            return False
        # Clear, look again, then wait: what comes in between sets it.
        get(link, EVENT).clear()
        if may_wait(link) is None:
            return False
        set_slot(link, LINK_TAKEN, 0)
        set_slot(link, RECEIVING, True)
        set_slot(link, PARKED, True)
        set_slot(get(link, PROTOCOL), ANSWERING, False)
        return True
    finally:
        lock.give_back()


cdef object wait_parked(object link):
    """Wait for what ``pass_on`` hands over; None: look what there is."""
    if not park(link):
        return None
    try:
        get(link, EVENT).wait(None)
    finally:
        set_slot(link, RECEIVING, False)
        set_slot(link, PARKED, False)
    message = get(link, HANDED)
    if message is not None:
        set_slot(link, HANDED, None)
        hand_out(link, message)
    return message


cdef bint look_for_messages(object link, selector) except -1:
    """Pass on what comes until there is something else to attend to.

    :returns: False where there is already.
    """
    cdef int fd
    want, wire = get(link, WANT), get(link, WIRE)
    if want[1] or not want[0] or fileno_of(link) is None:
        return False
    fd = get(wire, FD)
    while get(link, WANT) is want and not is_set(link, FINISHED):
        deadline = get(link, DEADLINE)
        left = None if deadline is None else max(deadline - link.now(), 0)
        events = list(selector.select(bounded(left)))
        late = deadline is not None and link.now() >= deadline
        if late or len(events) != 1 or events[0][0].fd != fd or not pass_on(link):
            link._attend_to(events)
    return True


def injected(kind):
    """See ``express.injected``."""
    global InjectedLink, EVENT, GREEN, PARKED, LINK_TAKEN, WANT, DEADLINE
    InjectedLink = kind
    EVENT, GREEN, PARKED = slot(kind, 'event'), slot(kind, '_green'), slot(kind, '_parked')
    LINK_TAKEN = slot(kind, '_taken')
    WANT, DEADLINE = slot(kind, '_want'), slot(kind, '_deadline')
    long_look = kind._look

    def _look(link, selector):
        if not (is_a(link, InjectedLink) and look_for_messages(link, selector)):
            long_look(link, selector)

    kind._look = _look
    return kind


# -- send and receive ---------------------------------------------------------

cdef Put short_put(object link, int opcode, payload) except *:
    if is_a(link, HubLink):
        return put_at_once(link, opcode, payload) if is_home(link) else NOTHING
    if is_a(link, LockedLink):
        return put_with_lock(link, opcode, payload)
    return NOTHING


cdef object short_receive(object link, timeout):
    """A message; None: go the long way."""
    if not is_a(link, Link):
        return None
    set_slot(link, HANDING, False)
    if timeout is not None:
        return None
    if is_a(link, HubLink):
        return wait_in_peace(link) if is_home(link) else None
    if is_a(link, ThreadLink):
        return wait_in_recv(link)
    if is_a(link, InjectedLink):
        return wait_parked(link)
    return None


cdef object long_send, long_receive  # of ``Base``


cdef class Holder:
    """See ``express.Holder``."""

    cdef public object _link


cdef inline object link_of(object connection):
    return (<Holder>connection)._link if isinstance(connection, Holder) else connection._link


def send(self, data, timeout=None):
    cdef Put put = NOTHING
    if timeout is not None:
        check_timeout(timeout)
    link = link_of(self)
    if type(data) is str:
        put = short_put(link, TEXT, data)
    elif type(data) is bytes:
        put = short_put(link, BINARY, data)
    if put is SOME:
        put_rest(link, timeout)
    elif put is NOTHING:
        long_send(self, data, timeout)


def receive(self, timeout=None):
    link = link_of(self)
    try:
        message = short_receive(link, timeout)
    except SimpleWebsocketError:
        raise
    except BaseException:
        link.interrupted()
        raise
    return long_receive(self, timeout) if message is None else message


def connection(kind):
    """See ``express.connection``."""
    global long_send, long_receive
    long_send, long_receive = kind.send, kind.receive
    kind.send, kind.receive = wraps(long_send)(send), wraps(long_receive)(receive)
    return kind


cdef class Messages:
    """See ``express.Messages``; ``Base.receive`` is part of it."""

    cdef object _connection, _link

    def __init__(self, connection):
        self._connection = connection  # it closes when nobody holds it
        self._link = connection._open_link

    def __iter__(self):
        return self

    def __next__(self):
        try:
            message = short_receive(self._link, None)
            if message is not None:
                return message
            if not is_over(self._link):
                return self._link.receive(None)
        except ConnectionClosed:
            pass
        except SimpleWebsocketError:
            raise
        except BaseException:
            self._link.interrupted()
            raise
        raise StopIteration
