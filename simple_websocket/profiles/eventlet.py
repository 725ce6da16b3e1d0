"""eventlet: a persistent hub listener, whose callback reads.

eventlet does not wake a reader when its socket is closed; our waiters are resumed
by us.
"""

from __future__ import annotations

import errno
import os
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from weakref import WeakKeyDictionary

import eventlet.event
import eventlet.hubs
import greenlet

from ..protocol import Protocol
from .hub import HubLink
from .link import bounded
from .readers import Ear
from .waker import Waker
from .wire import Wire


def _listen(
    hub: Any, kind: str, fd: int, callback: Callable[..., None], lost: Any
) -> Any:
    try:
        listener = hub.add(kind, fd, callback, _ignore, lost)
        listener.greenlet = hub.greenlet  # not the one that is running, and all it holds
        return listener
    except (OSError, ValueError) as error:  # the latter of the hub on asyncio
        hub.listeners[kind].pop(fd, None)
        raise OSError(errno.EBADF, os.strerror(errno.EBADF)) from error


def _forget(hub: Any, listener: Any) -> None:
    """Have the hub call a listener no more; None is of an interrupted start."""
    if listener is not None:
        # ``remove`` may call into a poll that no longer knows the number, or find
        # that the listener has gone in an interrupted call before.
        with suppress(OSError, KeyError):
            hub.remove(listener)


def _ignore(*_: Any) -> None:
    pass


class _Ear(Ear):
    """Its ``lost`` is the hub's ``mark_as_closed``, called by whoever makes the next
    descriptor of that number, in any greenlet.
    """

    def start(self) -> None:
        if self._lost is None:
            self._hub.mark_as_reopened(self._fd)  # as eventlet's own sockets tell it
        try:
            self._handle = _listen(
                self._hub, self._hub.READ, self._fd, self._callback, self._lost
            )
        except BaseException:
            if self._lost is None:  # nobody else listens there
                self._hub.remove_descriptor(self._fd)
            raise

    def stop(self) -> None:
        _forget(self._hub, self._handle)
        self._handle = None

    def leave(self) -> None:
        """Nothing: the hub's own poll is the parent's, too."""


class _Mailbox:
    """Lets other OS threads reach a hub, which offers no way of its own.

    It is open as long as there are links in its hub, so that nothing is left
    after the last one.  Made and opened apart: whatever an exception out of
    nowhere lets begin, the link can ``drop``.
    """

    _boxes: WeakKeyDictionary[Any, _Mailbox] = WeakKeyDictionary()

    @classmethod
    def of(cls, hub: Any) -> _Mailbox:
        return cls._boxes.setdefault(hub, cls(hub))

    def __init__(self, hub: Any) -> None:
        self._hub = hub
        self._users: set[int] = set()
        self._calls: deque[Callable[[], None]] = deque()
        self._waker: Waker | None = None
        self._ear: Ear | None = None

    def open(self, user: int) -> None:
        """One link more."""
        self._users.add(user)
        if self._ear is None:
            if self._waker is None:  # else the last start was interrupted
                self._waker = Waker()
            ear = _Ear(self._hub, self._waker.fd, self._on_call)
            ear.start()
            self._ear = ear

    def post(self, function: Callable[[], None]) -> bool:
        """Have the hub call it; False where nobody has a link in the hub any more."""
        self._calls.append(function)
        waker = self._waker
        if waker is not None:
            waker.wake()
        else:  # ``drop`` may have taken the call along already
            with suppress(ValueError):
                self._calls.remove(function)
                return False
        return True

    def _on_call(self, fileno: int) -> None:
        try:
            if self._waker is not None:  # else dropped in this very turn of the hub
                self._waker.clear()
            while self._calls:
                self._calls.popleft()()
        except BaseException as error:  # of a signal handler: out of here, it would deafen us
            self._hub.schedule_call_global(0, _raise, error)
            if self._waker is not None:
                self._waker.wake()  # for the rest

    def drop(self, user: int) -> None:
        """One link less; may be called again after an interruption."""
        self._users.discard(user)
        if not self._users:
            if self._boxes.get(self._hub) is self:
                del self._boxes[self._hub]
            if self._ear is not None:
                self._ear.stop()
                self._ear = None
            if self._waker is not None:
                self._waker.close()
                self._waker = None
            while self._calls:
                self._hub.schedule_call_global(0, self._calls.popleft())


def _raise(error: BaseException) -> None:
    raise error


def _switch_to(waiting: list[Any]) -> None:
    if waiting:
        waiting[0].switch(None)


class EventletLink(HubLink):
    """A link in the hub of the thread that makes it."""

    __slots__ = ('_mailbox', '_timer', '_writer')

    def __init__(self, wire: Wire, protocol: Protocol, now: Callable[[], float]) -> None:
        hub = eventlet.hubs.get_hub()
        super().__init__(wire, protocol, now, hub, _Ear)
        self._writer: Any = None
        self._timer: Any = None
        self._mailbox = _Mailbox.of(hub)

    def start(self) -> None:
        self._mailbox.open(id(self))
        super().start()

    def _current(self) -> Any:
        current = greenlet.getcurrent()
        return None if current is self._hub.greenlet else current

    def _pause(self, timeout: float | None) -> None:
        if timeout is None:
            self._hub.switch()
            return
        waiting = [greenlet.getcurrent()]
        timer = None
        try:
            timer = self._hub.schedule_call_global(bounded(timeout), _switch_to, waiting)
            self._hub.switch()
        finally:
            waiting[:] = ()  # should nobody have got hold of the timer
            if timer is not None:
                timer.cancel()

    def _soon(self, function: Callable[[], None]) -> None:
        self._hub.schedule_call_global(0, function)

    def _call_home(self, function: Callable[[], None]) -> bool:
        return self._mailbox.post(function)

    def _spawn(self, function: Callable[[], None]) -> None:
        eventlet.spawn_n(function)

    def _start_writing(self) -> None:
        hub = self._hub
        self._writer = _listen(hub, hub.WRITE, self.wire.fd, self._on_writable, self.on_stolen)

    def _stop_writing(self) -> None:
        _forget(self._hub, self._writer)
        self._writer = None  # it holds us

    def _arm(self, deadline: float | None) -> None:
        if deadline == self._armed:
            return
        self._armed = deadline
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if deadline is not None:
            delay = bounded(max(deadline - self.now(), 0))
            self._timer = self._hub.schedule_call_global(delay, self._on_time)

    def _end_alone(self) -> None:
        timer, self._timer = self._timer, None
        if timer is not None:
            # As ``cancel`` does, which would make a hub for the thread that calls it.
            timer.called = True
            # It held us, and its own hub may never be let go of.
            timer.__dict__.pop('tpl', None)
        super()._end_alone()

    def _release(self) -> None:
        super()._release()
        self._mailbox.drop(id(self))


class Thread:
    """A green thread that is made like a ``threading.Thread``."""

    def __init__(self, target: Callable[[], Any]) -> None:
        self._target = target
        self._green: Any = None

    def start(self) -> None:
        target = self.__dict__.pop('_target')  # which may lead back to here
        self._green = eventlet.spawn(target)

    def join(self, timeout: float | None = None) -> None:
        with eventlet.Timeout(bounded(timeout), False):
            self._green.wait()


class Event:
    """A ``threading.Event`` for green threads.

    eventlet's own can't be had everywhere: on Python 3.13 its green
    ``threading`` does not import inside a green thread.
    """

    def __init__(self) -> None:
        self._set = False
        self._event = eventlet.event.Event()

    def is_set(self) -> bool:
        return self._set

    def set(self) -> None:
        if not self._set:
            self._set = True
            self._event.send()

    def clear(self) -> None:
        if self._set:
            self._set = False
            self._event = eventlet.event.Event()

    def wait(self, timeout: float | None = None) -> bool:
        if not self._set:
            with eventlet.Timeout(bounded(timeout), False):
                self._event.wait()
        return self._set


def wait_for(fd: int, write: bool, timeout: float | None) -> bool:
    """Wait in the hub until a descriptor is ready.

    :param fd: the descriptor.
    :param write: whether for writing, instead of reading.
    :param timeout: seconds, None for ever.
    :returns: False when the time ran out.
    """
    late = TimeoutError()
    try:
        eventlet.hubs.trampoline(
            fd,
            read=not write,
            write=write,
            timeout=None if timeout is None else bounded(max(timeout, 0)),
            timeout_exc=late,
        )
    except TimeoutError as error:
        if error is not late:  # the caller's own eventlet.Timeout
            raise
        return False
    finally:
        late.__traceback__ = None  # it leads back to here
    return True
