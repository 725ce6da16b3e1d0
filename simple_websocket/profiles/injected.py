"""A reader on the thread class that the caller injected.

Little is asked of the classes: ``thread_class(target=...)`` with ``start()``;
an event with ``set()``, ``clear()`` and ``wait(timeout)``; a selector with
``register``, ``select(timeout)`` and ``close``.  So the reader owns its
selector, makes a new one when it wants to watch for something else, and is
called back by a waker that the selector watches too.

With green classes the reader lives in the thread that made the link.  A call
from any other OS thread must not touch a green event then: it waits on a real
one, and has the reader notify the others.

Most messages come in one piece while somebody waits for them.  Then the reader
hands the message over (``_handed``), past the queue, and sets the event: both
sides of that are short, since it is most of what a message costs here.
"""

from __future__ import annotations

import selectors
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ..errors import SimpleWebsocketError
from ..inbox import Message
from ..protocol import ENDING, Protocol
from .link import TURN
from .locked import LockedLink
from .originals import RealEvent, original
from .pump import END, take
from .watchman import Waker
from .wire import Wire


class InjectedLink(LockedLink):
    """A link with a reader of its own.

    :param thread_class: runs the reader.
    :param event_class: what ``receive`` waits on.
    :param selector_class: watches the socket.
    """

    def __init__(
        self,
        wire: Wire,
        protocol: Protocol,
        now: Callable[[], float],
        thread_class: Any,
        event_class: Any,
        selector_class: Any,
    ) -> None:
        super().__init__(wire, protocol, now)
        self._event_class = event_class
        self._selector_class = selector_class
        self.event = event_class()
        self._watchers: list[tuple[Callable[[], bool], Any]] = []
        self._want = (True, False)
        self._deadline: float | None = None
        self._waiting = 1  # the reader
        self._reader_waits = [True]  # until it leaves, or could not be started
        self._begun = False
        self._get_ident: Callable[[], int] = original('threading', 'get_ident')
        self._home = self._get_ident()
        self._taken = 0  # messages since the receiver last waited
        self._parked = False  # a receiver will look at what is handed over
        self._handed: Message | None = None
        self._green = True  # until the reader finds itself in a thread of its own
        self.thread = thread_class(target=self._run)
        self._waker = Waker()

    def start(self) -> None:
        self._guarded(self._settle)
        try:
            self.thread.start()
        except BaseException:
            self._guarded(self._poison)
            # Nobody reads, nobody would close.  A reader that has begun all the
            # same closes itself: it would not wake from what is closed under it.
            if not self._begun:
                self._leave_wait(self._reader_waits)
            raise

    def _run(self) -> None:
        self._green = self._get_ident() == self._home
        self._begun = True  # before it looks whether the link is finished
        try:
            while True:  # see link.py
                if self.finished:
                    break
                self._turn()
        except (OSError, ValueError):
            self._guarded(self._poison)  # somebody closed the socket under us
        except BaseException:
            # The reader was killed (GreenletExit): nobody would notice anything.
            self._guarded(self._poison)
            raise
        finally:
            self._guarded(self._notify)
            self._leave_wait(self._reader_waits)

    def _turn(self) -> None:
        """Watch for one thing until it changes."""
        want = self._want
        plain = want == (True, False) and not self.wire.tls
        mask = (selectors.EVENT_READ if want[0] else 0) | (selectors.EVENT_WRITE if want[1] else 0)
        selector = self._selector_class()
        try:
            selector.register(self._waker.fd, selectors.EVENT_READ)
            if mask:
                selector.register(self.wire.fd, mask)
            while True:
                if want is not self._want or self.finished:
                    break
                deadline = self._deadline
                left = None if deadline is None else max(deadline - self.now(), 0)
                called = False
                for key, _ in selector.select(left):
                    if key.fd == self._waker.fd:
                        self._waker.clear()
                        called = True
                early = deadline is None or self.now() < deadline
                if plain and early and self._parked and not called:
                    self._hand_over()
                else:
                    self._guarded(self._attend)
        finally:
            with suppress(OSError, ValueError, KeyError):
                selector.close()

    def _attend(self) -> None:
        if self._abandoned:
            self._poison()
            return
        read, write = self._want
        if read:
            self._on_readable()
        else:
            self._notify()  # of what came about in other threads
        if write and not self.finished:
            self._on_writable()
        if not self.finished and self._deadline is not None and self.now() >= self._deadline:
            self._on_deadline()

    def _hand_over(self) -> None:
        """Read for the receiver that waits: the hot path.  A step in the words
        of ``_guarded``, of ``_on_readable`` what a whole message needs."""
        message = None
        with self._lock:
            protocol = self.protocol
            decoder = protocol.direct()
            if decoder is None or self._inside or self.finished or not self._parked:
                self._guarded(self._attend)  # all has changed on the way here
                return
            self._inside = True
            try:
                try:
                    came = take(self.wire, decoder, protocol.appetite)
                except OSError:
                    came = END
                if came is None:
                    return
                if isinstance(came, (str, bytes)):
                    protocol.heard = protocol.answering = True
                    self._parked = False
                    self._handed = message = came
                else:
                    self._take_in(came)
                    self._after()
            except BaseException:
                self._poison()  # what was read may be lost
                raise
            finally:
                if self._deferred:
                    self._do_deferred()
                self._inside = False
        if message is not None:
            self.event.set()

    def _watch(self, read: bool, write: bool) -> None:
        if (read, write) != self._want:
            self._want = (read, write)
            self._waker.wake()

    def _arm(self, deadline: float | None) -> None:
        if deadline != self._deadline:
            self._deadline = deadline
            self._waker.wake()

    def _release(self) -> None:
        pass  # the reader sees that the link is finished

    def _interrupt(self) -> None:
        super()._interrupt()
        self._waker.wake()

    def _close_wire(self) -> None:
        super()._close_wire()
        self._waker.close()

    # -- receive ----------------------------------------------------------

    def receive(self, timeout: float | None) -> Message | None:
        if self._taken >= TURN:
            self._give_way()
        mine = self._handing = False
        deadline = None if timeout is None else self.now() + timeout
        try:
            while True:
                with self._lock:
                    if not mine:
                        if self._has_message():
                            self._taken += 1
                            message = self._take()
                            return message  # a name: the lock is let go of for sure
                        mine = self._receiving = True
                        self._taken = 0
                    # Clear, look again, then wait: what comes in between sets it.
                    foreign = self._green and self._get_ident() != self._home
                    if not foreign:
                        self._parked = True
                        self.event.clear()
                    if self._look_again(timeout):
                        message = self._take_or_end()
                        return message
                left = None if deadline is None else deadline - self.now()
                if left is not None and left <= 0:
                    return None
                if foreign:
                    self._wait_changed(self._ready, left)
                    continue
                self.event.wait(left)
                if self._handed is not None:
                    self._handing = True
                    message, self._handed = self._handed, None
                    return message
        except SimpleWebsocketError:
            raise
        except BaseException:
            if self._handing:  # a signal handler raised: a message was on its way out
                self._guarded(self._poison)
            raise
        finally:
            # No call where a message is on its way out: it could be interrupted.
            if mine:
                self._receiving = False
                if self._parked or self._handed is not None:
                    self._guarded(self._unpark)

    def _give_way(self) -> None:
        """Let other greenlets run; threads do so by themselves."""
        self._taken = 0
        if self._green and not self._is_foreign():
            self._event_class().wait(0.0001)

    def _has_message(self) -> bool:
        """Whether a receiver that begins can take one at once.

        :raises SimpleWebsocketError: when there is none for it, but a receiver.
        """
        if self._receiving and (self._handed is not None or not self.protocol.messages):
            raise self._second_receiver()
        return bool(self.protocol.messages) or self._handed is not None

    def _look_again(self, timeout: float | None) -> bool:
        """Ask for a message; whether the receiver has something to be told.
        Call it with the lock held."""
        protocol = self.protocol
        if self._handed is None:
            if protocol.direct() is None or protocol.out or protocol.dirty:
                self._guarded(self._ask)
            else:
                protocol.answering = False  # all that asking would do
        if timeout is not None and timeout <= 0:
            self._guarded(self._on_readable)  # not to wait still means to look
        return self._ready()

    def _ask(self) -> None:
        protocol = self.protocol
        if not (protocol.messages or self._handed is not None):
            protocol.ask()
        if protocol.out or protocol.dirty:
            self._after()

    def _take(self) -> Message | None:
        """The oldest message; with the lock held, and who takes waits no longer."""
        self._handing = True
        self._parked = False
        message, self._handed = self._handed, None
        if message is not None:
            return message
        message = self.protocol.take()
        self._handing = message is not None
        if message is not None and not self._want[0] and not self.protocol.paused:
            self.protocol.dirty = True  # there is room again
            self._guarded(self._catch_up)
        return message

    def _take_or_end(self) -> Message:
        message = self._take()
        if message is None:
            raise self._closed()
        return message

    def _catch_up(self) -> None:
        if self.wire.tls:
            self._read_all()  # what TLS holds makes nothing readable
        self._after()

    def _unpark(self) -> None:
        """The receiver leaves: what was handed to it goes back to the queue."""
        self._parked = False
        message, self._handed = self._handed, None
        if message is not None:
            self.protocol.input_buffer().appendleft(message)

    def _ready(self) -> bool:
        protocol = self.protocol
        return bool(protocol.messages) or protocol.state > ENDING or self._handed is not None

    # -- waiting ----------------------------------------------------------

    def _is_foreign(self) -> bool:
        return self._green and self._get_ident() != self._home

    def _notify(self) -> None:
        if self._is_foreign():
            self._waker.wake()
            return
        if self._ready():
            self.event.set()
        for condition, event in self._watchers:
            if condition():
                event.set()

    def _wait_changed(self, condition: Callable[[], bool], timeout: float | None) -> None:
        foreign = self._is_foreign()
        event = RealEvent() if foreign else self._event_class()
        entry = (condition, event)
        with self._lock:
            self._watchers.append(entry)
        try:
            if not condition():
                event.wait(timeout)
        finally:
            with self._lock:
                self._watchers.remove(entry)

    def _help_out(self, mark: int, timeout: float | None) -> None:
        # The reader writes the rest: eventlet bears one watcher a descriptor.
        self._wait_changed(lambda: self._sent >= mark or self.finished, timeout)

    def abandon(self) -> None:
        # The reader does it, so that no lock is taken here.
        self._abandoned = True
        self._waker.wake()

    _abandoned = False
    _handing = False  #: a message is between the queue and the caller of receive()
