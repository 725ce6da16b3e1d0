"""A reader on the thread class that the caller injected.

Little is asked of the classes: ``thread_class(target=...)`` with ``start()``;
an event with ``set()``, ``clear()`` and ``wait(timeout)``; a selector with
``register``, ``select(timeout)`` and ``close``.  So the reader owns its
selector, makes a new one when it wants to watch for something else, and is
called back by a waker that the selector watches too.

With green classes the reader lives in the thread that made the link.  A call
from any other OS thread must not touch a green event then: it waits on a real
one, and has the reader notify the others.

Most messages come in one piece while somebody waits for them.  ``express`` has a
short way for these, past the queue: the receiver is ``_parked``, the reader puts
the message where it finds it (``_handed``) and sets the event.
"""

from __future__ import annotations

import selectors
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from ..errors import SimpleWebsocketError
from ..inbox import Message
from ..protocol import Protocol
from . import express
from .link import TURN, bounded
from .locked import LockedLink
from .originals import RealEvent, original
from .waker import Waker
from .wire import Wire


class _Reader:
    """What a thread of an injected class runs: it may keep that for good, and the link
    keeps the thread."""

    def __init__(self, link: InjectedLink) -> None:
        self._link: InjectedLink | None = link

    def __call__(self) -> None:
        link, self._link = self._link, None
        if link is not None:
            link.read()


@express.injected
class InjectedLink(LockedLink):
    """A link with a reader of its own.

    :param thread_class: runs the reader.
    :param event_class: what ``receive`` waits on.
    :param selector_class: watches the socket.
    """

    __slots__ = (
        '_abandoned',
        '_begun',
        '_deadline',
        '_event_class',
        '_get_ident',
        '_green',
        '_parked',
        '_reader_waits',
        '_selector_class',
        '_taken',
        '_waker',
        '_want',
        '_watchers',
        'event',
        'thread',
    )

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
        self._abandoned = False
        self._taken = 0  # messages since the receiver last waited
        self._parked = False  # a receiver will look at what is handed over
        self._green = True  # until the reader finds itself in a thread of its own
        self.thread = thread_class(target=_Reader(self))
        if hasattr(self.thread, 'daemon'):  # no program waits for a peer to end
            with suppress(AttributeError):
                self.thread.daemon = True
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

    def read(self) -> None:
        """The reader, in its thread, until the end."""
        self._green = self._get_ident() == self._home
        self._begun = True  # before it looks whether the link is finished
        try:
            while True:  # see blocking.py
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
        mask = (selectors.EVENT_READ if want[0] else 0) | (selectors.EVENT_WRITE if want[1] else 0)
        selector = self._selector_class()
        try:
            selector.register(self._waker.fd, selectors.EVENT_READ)
            if mask:
                selector.register(self.wire.fd, mask)
            while True:
                if want is not self._want or self.finished:
                    break
                self._look(selector)
        finally:
            with suppress(OSError, ValueError, KeyError):
                selector.close()

    def _look(self, selector: Any) -> None:
        """Wait for something to attend to."""
        deadline = self._deadline
        left = None if deadline is None else max(deadline - self.now(), 0)
        self._attend_to(selector.select(bounded(left)))

    def _attend_to(self, events: Any) -> None:
        for key, _ in events:
            if key.fd == self._waker.fd:
                self._waker.clear()
        self._guarded(self._attend)

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
                    foreign = self._is_foreign()
                    if not foreign:
                        self.event.clear()
                    if self._look_again(timeout):
                        message = self._take_or_end()
                        return message
                left = None if deadline is None else deadline - self.now()
                if left is not None and left <= 0:
                    return None
                if foreign:
                    self._wait_changed(self._ready, left)
                else:
                    self.event.wait(bounded(left))
        except SimpleWebsocketError:
            raise
        except BaseException:
            if self._handing:  # a signal handler raised: a message was on its way out
                self._guarded(self._poison)
            raise
        finally:
            if mine:
                self._receiving = False

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
        if self._handed is not None:
            self._guarded(self._reclaim)
        return bool(self.protocol.messages)

    def _look_again(self, timeout: float | None) -> bool:
        """Ask for a message; whether the receiver has something to be told.
        Call it with the lock held."""
        self._guarded(self._ask)
        if timeout is not None and timeout <= 0:
            self._guarded(self._on_readable)  # not to wait still means to look
        return self._ready()

    def _ask(self) -> None:
        protocol = self.protocol
        if not protocol.messages:
            protocol.ask()
        if protocol.out or protocol.dirty:
            self._after()

    def _take(self) -> Message | None:
        """The oldest message; with the lock held."""
        self._handing = True
        message = self.protocol.take()
        self._handing = message is not None
        if message is not None and (self.protocol.dirty or self.protocol.out):
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
                event.wait(bounded(timeout))
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
