"""Stdlib threads: the application's own thread reads the socket.

``receive()`` blocks in the kernel's recv, so a message costs no hand-over
between threads; nobody else reads meanwhile.  When nobody is in ``receive``,
the watchman reads (``watchman.py``).  The path of one message, call by call:

* ``receive`` lets go of the GIL and waits in recv, in 512 bytes of its stack;
  when they come it takes the GIL and makes the message of them (of more, by a
  second recv that does not wait);
* it looks under the lock that the connection is still open, and returns it;
* ``send`` makes a frame and calls send, which does not wait either, so the GIL
  stays where it is.

So a message costs one recv and one send, and the GIL goes round once.  Where
nothing is in the way of a message, ``express`` does all of that.

A receiver blocked in recv while another thread closes returns with the peer's
next bytes, mostly its Close.  If the peer is silent, ``shutdown(SHUT_RD)`` wakes
it.  A Close can still be read then, but more than TCP's window arrives only with
pauses, since Linux no longer announces room.  TLS would take that shutdown for
truncation, and the peer of a Unix socket could not write any more: there the
receiver polls, with a waker beside the socket.
"""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import Any

from ..errors import SimpleWebsocketError
from ..inbox import Message
from ..protocol import CLOSING, ENDING, OPEN, Protocol
from . import express
from .link import LONGEST_WAIT, READ_SIZE, bounded
from .locked import LockedLink
from .originals import builtin, original
from .pump import END, Came, at_end, wait_and_take
from .waker import Waker
from .watchman import Watchman
from .wire import Wire, is_of_tcp

get_ident: Callable[[], int] = builtin('threading', 'get_ident')

#: Seconds that the peer has to answer our Close, before the watchman releases a
#: receiver.
SILENCE = 0.05


def wait_for(fd: int, write: bool, timeout: float | None, waker_fd: int | None = None) -> bool:
    """Wait in the kernel until a descriptor is ready.

    :param fd: the descriptor.
    :param write: whether for writing, instead of reading.
    :param timeout: seconds, None for ever.
    :param waker_fd: a second descriptor, whose readability ends the wait too.
    :returns: False when the time ran out.
    """
    poll = original('select', 'poll')()
    poll.register(fd, select.POLLOUT if write else select.POLLIN)
    if waker_fd is not None:
        poll.register(waker_fd, select.POLLIN)
    if timeout is None:
        return bool(poll.poll())
    while timeout > LONGEST_WAIT:
        if poll.poll(LONGEST_WAIT * 1000):
            return True
        timeout -= LONGEST_WAIT
    return bool(poll.poll(max(timeout, 0) * 1000))


@express.threads
class ThreadLink(LockedLink):
    """A link whose receiver is the reader."""

    __slots__ = (
        '_adopted',
        '_blocked',
        '_changed',
        '_deadline',
        '_in_doubt',
        '_reader',
        '_release_at',
        '_visits',
        '_visits_seen',
        '_waker',
        '_want',
        '_watching',
        '_watchman',
        'due',
        'passed_over',
    )

    _watchman: Watchman

    def __init__(self, wire: Wire, protocol: Protocol, now: Callable[[], float]) -> None:
        super().__init__(wire, protocol, now)
        self._changed: Any = None  #: a Condition, once somebody waits for one
        self._waker = Waker() if wire.polled else None
        self._blocked = False  #: the receiver is in the kernel
        self._reader: int | None = None  #: its thread
        self._adopted = False  #: the watchman reads
        self._want = (False, False)
        self._watching = (False, False, False)
        self._deadline: float | None = None
        self._in_doubt = False  #: a verdict over the peer was put off
        self._release_at: float | None = None  #: who is in recv, after our Close
        self._visits = 0
        self._visits_seen = -1
        self.due: float | None = None  #: when the watchman is to come
        self.passed_over = False  #: it does not come in its rounds
        wire.be_blocking()
        try:
            Watchman.look_after_from_now(self)
        except BaseException:
            if self._waker is not None:
                self._waker.close()
            raise

    def start(self) -> None:
        self._guarded(self._settle)

    def close(self, payload: bytes, code: int, reason: str | None, wait: bool = True) -> None:
        # Who alone reads, or keeps the time, goes on when this call is over: the receiver
        # that a signal handler has interrupted, the watchman in whom the collector runs.
        awaited = (self._reader if self._blocked else None, self._watchman.ident)
        super().close(payload, code, reason, wait and get_ident() not in awaited)

    # -- receive ----------------------------------------------------------

    def receive(self, timeout: float | None) -> Message | None:
        # The hot path: as long as nothing else is going on, once round the loop.
        self._visits += 1
        deadline = None if timeout is None else self.now() + timeout
        protocol = self.protocol
        message = None
        mine = risky = False
        arrived: list[Came] = []
        try:
            while True:  # see blocking.py
                with self._lock:
                    risky = True
                    del arrived[:]
                    if self._handed is not None:
                        self._guarded(self._reclaim)
                    if not mine and not protocol.messages:
                        if self._receiving:
                            raise self._second_receiver()
                        mine = self._receiving = True
                    decoder = protocol.direct()
                    if decoder is None or self._something_is_up():
                        if mine:
                            self._guarded(self._ask)
                        if self._ready():
                            message = self._take()
                            break
                        decoder = protocol.direct()
                    protocol.answering = False
                    risky = False
                    self._reader = get_ident()
                    self._waiting += 1
                    self._blocked = True
                if deadline is None and not self.wire.polled:
                    message = self._block(decoder, arrived)
                    if message is not None:
                        break
                elif not self._poll(deadline):
                    return None
            return message
        except SimpleWebsocketError:
            raise
        except BaseException:
            if risky or arrived:
                # Not in the wait: a message may have been on its way out.
                self._guarded(self._poison)
            raise
        finally:
            if mine:
                try:
                    self._leave_recv()
                except BaseException:  # a signal handler raised: do it again
                    self._leave_recv()
                    if message is not None:
                        self.protocol.input_buffer().appendleft(message)
                    raise
                finally:
                    self._receiving = False

    def _leave_recv(self) -> None:
        if self._blocked:
            self._unblock()
        if self.passed_over:
            self._come_out()

    def _come_out(self) -> None:
        """Nobody may come back to ``receive`` now: the watchman looks."""
        with self._lock:
            self._visits_seen = -1
            self._watchman.include(self)

    def interrupted(self) -> None:
        super().interrupted()
        if self.passed_over:
            self._come_out()

    def _something_is_up(self) -> bool:
        """Whether there is more to do before a wait than to wait."""
        protocol = self.protocol
        return self._adopted or protocol.dirty or bool(protocol.out) or self.wire.polled

    def _take(self) -> Message:
        message = self.protocol.take()
        if message is None:
            raise self._closed()
        if self.protocol.dirty or self.protocol.out:  # there was a ping after it, or is room
            self._guarded(self._after)
        return message

    def _ask(self) -> None:
        protocol = self.protocol
        if self.wire.tls and not self.finished:
            self._read_all()
        if not protocol.messages:
            protocol.ask()
        if self._adopted and protocol.state <= ENDING:
            self._adopted = False
            self._apply_watch()
        if protocol.out or protocol.dirty:
            self._after()

    def _block(self, decoder: Any, arrived: list[Came]) -> Message | None:
        """Wait in the kernel's recv; the message, or None: look what there is.

        :param arrived: gets what came; see ``wait_and_take``.
        """
        message = None
        begun = False
        try:
            try:
                wait_and_take(self.wire, decoder, READ_SIZE, arrived)
            except BlockingIOError as error:
                if not is_of_tcp(error):
                    raise
                self.wire.be_blocking()  # the application has given it a timeout since
                self._unblock()
                return None
            except OSError as error:
                if not is_of_tcp(error):
                    raise
                self._broke_with(error)
                arrived.append(END)
            with self._lock:
                begun = True
                message = self._came(arrived[0])
            return message
        except BaseException as error:
            if message is not None:
                self.protocol.input_buffer().appendleft(message)
            elif begun or isinstance(error, MemoryError):
                self._guarded(self._poison)
            elif arrived and not at_end(arrived[0]):
                self._guarded(lambda: self._take_in(arrived[0]))
            del arrived[:]
            raise

    def _came(self, came: Came) -> Message | None:
        self._blocked = False
        self._waiting -= 1
        if self.finished:
            if not self._waiting:
                self._close_wire()
            return None
        protocol = self.protocol
        # The application may have put messages into the queue meanwhile.
        if isinstance(came, (str, bytes)) and protocol.state == OPEN and not protocol.messages:
            protocol.heard = protocol.answering = True
            return came
        self._inside = True
        try:
            if not (self.wire.read_shut and at_end(came)):
                self._take_in(came)
            self._look_further()
            return None
        finally:
            if self._deferred:
                self._do_deferred()
            self._inside = False

    def _look_further(self) -> None:
        if self.wire.read_shut:
            # The edge of what came while we were on the way back was the
            # watchman's, who leaves the socket to whoever is in recv.
            self._read_all()
        self._after()

    def _poll(self, deadline: float | None) -> bool:
        left = None if deadline is None else deadline - self.now()
        waker_fd = self._waker.fd if self._waker is not None else None
        late = left is not None and left <= 0
        ready = wait_for(self.wire.fd, False, left, waker_fd)
        with self._lock:
            self._unblock()
            if ready and not self.finished:
                if self._waker is not None:
                    self._waker.clear()
                self._guarded(self._on_readable)
            return self._ready() or not late

    def _unblock(self) -> None:
        with self._lock:
            self._blocked = False
            self._waiting -= 1
            if self.finished and not self._waiting:
                self._close_wire()

    def _on_readable(self) -> None:
        super()._on_readable()
        if self.wire.read_shut and not self.finished:
            self._read_all()  # an edge tells of the first packet only
            self._after()

    def _read_all(self) -> bool:
        # While the receiver is in recv, it is the one who reads.  (Beside a
        # waker it only polls.)
        if self._blocked and not self.wire.polled:
            return False
        more = super()._read_all()
        if more and self.wire.read_shut:
            self._watching = (False, False, False)
            self._apply_watch()  # sets off the edge anew
        return more

    def _lose(self) -> None:
        if not self._blocked or self.wire.polled:
            super()._lose()
        else:
            # On a broken connection its recv comes back.
            self._lost = True
            self._unsent = b''
            self.protocol.out.clear()
            self.wire.shutdown_read()

    # -- waiting ----------------------------------------------------------

    def _help_out(self, mark: int, timeout: float | None) -> None:
        entered = [False]
        try:
            with self._lock:
                if self.finished:
                    return
                self._waiting += 1
                entered[0] = True
            wait_for(self.wire.fd, True, timeout)
        finally:
            try:
                self._leave_wait(entered)
            except BaseException:  # a signal handler raised: do it again
                self._leave_wait(entered)
                raise
        self._guarded(self._on_writable)

    def _wait_changed(self, condition: Callable[[], bool], timeout: float | None) -> None:
        with self._lock:
            if self._changed is None:
                self._changed = original('threading', 'Condition')(self._lock)
            self._changed.wait_for(condition, bounded(timeout))

    def _notify(self) -> None:
        closing = self.protocol.state > ENDING
        if closing and self._changed is not None:
            self._changed.notify_all()
        if self._blocked and self._waker is not None and self._ready():
            self._waker.wake()
        elif self._blocked and closing and not self.finished:
            if self.protocol.state != CLOSING:
                self._release_receiver()
            elif self._release_at is None:
                self._release_at = self.now() + SILENCE
                self._watchman.expect(self, self._release_at)

    def _release_receiver(self) -> None:
        self._release_at = None
        if self._blocked and not self.finished:
            self.wire.shutdown_read()
            self._apply_watch()

    def _orphan(self) -> None:
        super()._orphan()
        self._changed = None

    def _interrupt(self) -> None:
        super()._interrupt()
        if self._waker is not None:
            self._waker.wake()

    def wake(self) -> None:
        waker = self._waker  # another thread may be about to take it away
        if waker is not None:
            waker.wake()
        elif self.protocol.messages:
            self._guarded(self._bring_back)

    def _bring_back(self) -> None:
        if self._blocked:  # nothing but bytes wakes a thread in recv: a pong will do
            self.protocol.ping()
            self._after()

    # -- the watchman's side ----------------------------------------------

    def _watch(self, read: bool, write: bool) -> None:
        self._want = (read, write)
        if self.protocol.state > ENDING:
            self._adopted = True  # whoever received has left, or is about to
        self._apply_watch()

    def _apply_watch(self) -> None:
        read, write = self._want
        watching = (self._adopted and read, write, self.wire.read_shut)
        if watching != self._watching:
            self._watching = watching
            self._watchman.watch(self.wire.fd, *watching)

    def _arm(self, deadline: float | None) -> None:
        self._deadline = deadline
        if deadline is not None:
            self._watchman.expect(self, deadline)

    def _release(self) -> None:
        self._watchman.drop(self.wire.fd, self)

    def _close_wire(self) -> None:
        super()._close_wire()
        if self._waker is not None:
            self._waker.close()
            self._waker = None

    def on_ready(self) -> None:
        """The descriptor is ready and nobody is receiving; by the watchman."""
        self._guarded(self._attend)

    def _attend(self) -> None:
        if self._want[0] and self._adopted and not self._blocked and not self.finished:
            self._on_readable()
        if not self.finished:
            self._on_writable()

    def on_time(self) -> None:
        """What was expected has come; by the watchman."""
        self._guarded(self._on_time)

    def _on_time(self) -> None:
        self.due = None
        now = self.now()
        if self._deadline is not None and now >= self._deadline:
            if self._may_have_heard(now):
                self._deadline = now + SILENCE
            else:
                self._on_deadline()
        if self._release_at is not None and now >= self._release_at:
            self._release_receiver()
        for deadline in (self._deadline, self._release_at):
            if deadline is not None and not self.finished:
                self._watchman.expect(self, deadline)

    def _may_have_heard(self, now: float) -> bool:
        """Whether the verdict over a peer that was not heard has to wait, once: the
        receiver may be on its way back from recv, with what the peer has said."""
        in_recv = self._blocked and not self.wire.polled
        self._in_doubt = in_recv and not self._in_doubt and self.protocol.is_missing(now)
        return self._in_doubt

    def look_after(self) -> None:
        """The watchman's look, in each round that does not pass over us."""
        if self._visits == self._visits_seen:
            self._guarded(self._stay)
        else:
            self._visits_seen = self._visits

    def _stay(self) -> None:
        """Nothing is new since the last round."""
        self._adopt()
        if self._adopted or self._blocked:
            self._watchman.pass_over(self)

    def _adopt(self) -> None:
        if not self._receiving and not self.finished:
            self._adopted = True
            self._apply_watch()

    def abandon(self) -> None:
        self._watchman.abandon(self)


__all__ = ['ThreadLink', 'wait_for']
