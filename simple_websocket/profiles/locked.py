"""What the profiles with threads have in common: a lock around the protocol.

The lock is held for steps that never wait, so whoever wants it gets it soon;
all waiting is done outside.  It is a real one in every process: with injected
green classes all greenlets of a thread own it together, which is right, since
none of them can be switched away inside.

A signal handler may interrupt a thread inside a step and call ``send``
itself.  The lock is reentrant, so that does not deadlock, and ``_inside``
tells: the interrupted step sends the handler's frame after its own.

A file descriptor may not be given back while a thread waits on its number in
the kernel: another connection could get it.  ``_waiting`` counts them, and
the last one to leave closes.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

from ..errors import ConnectionClosed
from ..protocol import ENDED, Protocol
from . import express
from .blocking import BlockingLink
from .link import Payload
from .wire import Wire


@express.locked
class LockedLink(BlockingLink):
    """A link that threads share; a backend adds how they wait."""

    __slots__ = ('_lock', '_lost', '_receiving', '_waiting')

    def __init__(self, wire: Wire, protocol: Protocol, now: Callable[[], float]) -> None:
        super().__init__(wire, protocol, now)
        self._lock = express.new_lock()
        self._waiting = 0
        self._receiving = False
        self._lost = False  #: TCP takes nothing more, and the receiver will see why

    # -- what a backend adds ---------------------------------------------

    @abstractmethod
    def _help_out(self, mark: int, timeout: float | None) -> None:
        """Wait until TCP takes more and see to it that it gets it; may return
        early.  ``mark`` is what ``_sent`` has to reach."""

    @abstractmethod
    def _wait_changed(self, condition: Callable[[], bool], timeout: float | None) -> None:
        """Wait until ``condition`` holds; it is asked again at each ``_notify``."""

    # -- one at a time ----------------------------------------------------

    def _guarded(self, step: Callable[[], Any]) -> bool:
        with self._lock:
            if self._inside:  # this very thread is: it is a signal handler
                self._defer(step)
                return False
            self._run_step(step)
            return True

    def _leave_wait(self, entered: list[bool]) -> None:
        """After waiting on the descriptor.

        :param entered: one value, whether this wait is counted in ``_waiting``;
                        it becomes false, so that to leave twice does no harm.
        """
        with self._lock:
            if entered[0]:
                entered[0] = False
                self._waiting -= 1
            if self.finished and not self._waiting:
                self._close_wire()

    def _finish(self) -> None:
        self.protocol.abort()
        self._unsent = b''
        self._release()
        if self._waiting:
            self._interrupt()
        else:
            self._close_wire()
        self.finished = True  # last: an interrupted end is begun again

    def _close_wire(self) -> None:
        """Give descriptors back; nobody waits on them any more."""
        self.wire.close()

    def _orphan(self) -> None:
        # A thread that the child does not have may have held it.
        self._lock = express.new_lock()
        self._inside = False
        super()._orphan()

    def _interrupt(self) -> None:
        """Make those who wait on the descriptor come back: it ends."""
        self.wire.shutdown_read()
        self.wire.shutdown_write()

    # -- link -------------------------------------------------------------

    def send(self, opcode: int, payload: Payload, timeout: float | None) -> None:
        with self._lock:
            if self._inside:
                self._defer(lambda: self._put(opcode, payload))
                return
            mark = self._run_step(lambda: self._begin_to_send(opcode, payload))
        if mark:
            self.wait_until_sent(mark, timeout)
        elif self._lost or self.finished:
            raise self._failed()

    def _send_rest(self, timeout: float | None) -> None:
        with self._lock:
            mark = self._unsent_mark()
            dropped = not self._unsent and (self._lost or self.finished)
            self._guarded(self._write_more)
        if dropped:  # by who got in between
            raise self._failed()
        self.wait_until_sent(mark, timeout)

    def go_on(self) -> int:
        mark = super().go_on()
        if self._lost:
            raise self._closed()
        return mark

    def offer(
        self, opcode: int, payload: bytes, made: dict[Any, bytes], insist: bool
    ) -> int | None:
        with self._lock:
            if self._inside:
                self._defer(lambda: self._put(opcode, payload))
                return 0
            mark = self._run_step(lambda: self._offer(opcode, payload, made, insist))
            if self._lost:
                raise self._closed()
            return mark

    def _failed(self) -> ConnectionClosed:
        """What to tell a sender: the receiver may still be about to find out."""
        if not self.finished:
            self._wait_changed(lambda: self.finished, 1)
            self._guarded(self._poison)
        return self._closed()

    def wait_until_sent(self, mark: int, timeout: float | None) -> None:
        deadline = None if timeout is None else self.now() + timeout
        late = False
        try:
            while True:  # see blocking.py
                if self._sent >= mark or self._lost or self.finished:
                    break
                left = None if deadline is None else deadline - self.now()
                if left is not None and left <= 0:
                    self._guarded(self._poison)
                    late = True
                    break
                self._help_out(mark, left)
        except BaseException:
            if self._sent < mark:
                self._guarded(self._poison)
            raise
        if self._sent < mark:
            if late:
                raise self._not_taken(timeout)
            raise self._failed()

    def close(self, payload: bytes, code: int, reason: str | None, wait: bool = True) -> None:
        if self._guarded(lambda: self._begin_close(payload, code, reason)) and wait:
            self._wait_changed(lambda: self.protocol.state >= ENDED, None)

    def join(self, timeout: float | None) -> bool:
        self._wait_changed(lambda: self.finished, timeout)
        return self.finished
