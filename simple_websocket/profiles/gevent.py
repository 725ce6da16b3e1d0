"""gevent: a persistent watcher, whose callback reads.

Two watchers on one fd are fine in libev and libuv, so the host's own stay
where they are.  Nothing here needs monkey-patching.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gevent
from gevent import getcurrent
from gevent.socket import wait_read, wait_write

from ..protocol import Protocol
from .hub import HubLink
from .readers import Ear
from .wire import Wire

_READ, _WRITE = 1, 2


class _Ear(Ear):
    def start(self) -> None:
        self._handle = self._hub.loop.io(self._fd, _READ)
        self._handle.start(self._callback)

    def stop(self) -> None:
        self.leave()
        if self._handle is not None:
            self._handle.close()

    def leave(self) -> None:
        if self._handle is not None:  # else an interrupted start
            self._handle.stop()


class GeventLink(HubLink):
    """A link in the hub of the thread that makes it."""

    __slots__ = ('_loop', '_timer', '_writer')

    def __init__(self, wire: Wire, protocol: Protocol, now: Callable[[], float]) -> None:
        hub = gevent.get_hub()
        super().__init__(wire, protocol, now, hub, _Ear)
        self._loop = hub.loop
        self._writer: Any = None
        self._timer: Any = None

    def _current(self) -> Any:
        current = getcurrent()
        return None if current is self._hub else current

    def _pause(self, timeout: float | None) -> None:
        if timeout is None:
            self._hub.switch()
            return  # pragma: no cover (coverage is not back from the switch yet)
        timer = self._loop.timer(timeout)
        try:
            timer.start(getcurrent().switch, None, update=True)
            self._hub.switch()
        finally:
            timer.stop()
            timer.close()

    def _soon(self, function: Callable[[], None]) -> None:
        self._loop.run_callback(function)

    def _call_home(self, function: Callable[[], None]) -> bool:
        self._loop.run_callback_threadsafe(function)
        return True

    def _spawn(self, function: Callable[[], None]) -> None:
        gevent.spawn(function)

    def _start_writing(self) -> None:
        if self._writer is None:
            self._writer = self._loop.io(self.wire.fd, _WRITE)
        self._writer.start(self._on_writable)

    def _stop_writing(self) -> None:
        if self._writer is not None:
            self._writer.stop()

    def _arm(self, deadline: float | None) -> None:
        if deadline == self._armed:
            return
        self._armed = deadline
        if self._timer is not None:
            self._timer.stop()
            self._timer.close()
            self._timer = None
        if deadline is not None:
            # The loop's idea of now may be old: without an update the timer
            # would fire early.
            self._timer = self._loop.timer(max(deadline - self.now(), 0))
            self._timer.start(self._on_time, update=True)

    def _orphan(self) -> None:
        for watcher in (self._writer, self._timer):
            if watcher is not None:
                watcher.stop()
        super()._orphan()

    def _release(self) -> None:
        super()._release()
        if self._writer is not None:
            self._writer.close()
            self._writer = None


class Thread(gevent.Greenlet):  # type: ignore[misc]
    """A greenlet that is made like a ``threading.Thread``."""

    def __init__(self, target: Callable[[], Any]) -> None:
        super().__init__(target)


def wait_for(fd: int, write: bool, timeout: float | None) -> bool:
    """Wait in the hub until a descriptor is ready.

    :param fd: the descriptor.
    :param write: whether for writing, instead of reading.
    :param timeout: seconds, None for ever.
    :returns: False when the time ran out.
    """
    wait = wait_write if write else wait_read
    late = TimeoutError()
    try:
        wait(fd, None if timeout is None else max(timeout, 0), late)
    except TimeoutError as error:
        if error is not late:  # the caller's own gevent.Timeout
            raise
        return False
    finally:
        late.__traceback__ = None  # it leads back to here
    return True
