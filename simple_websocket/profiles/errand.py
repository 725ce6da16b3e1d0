"""A call that an OS thread has made by the hub of another.

The caller waits while a greenlet of the hub's thread does what is asked: on a real
lock or, where its own thread has a hub, in that, which goes on and may run errands for
the other.  A caller that leaves early, interrupted (Ctrl-C) or out of time while the
hub is busy, recalls the errand, whether it has not begun, is waiting, or is done: a
message that it has fetched goes to the next receiver.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import Any
from weakref import ref

from greenlet import getcurrent

from . import calling_hub, get_profile
from .originals import original
from .waker import Waker

#: Seconds beyond the caller's that a hub has, to get round to an errand: what is done
#: in it keeps the timeout itself, and one of 0 still means to look.
_GRACE = 0.25

#: Seconds between two looks whether the hub's thread is there still.
_LOOK_INTERVAL = 0.5


class Busy(Exception):
    """The hub had no time for an errand."""


class _Recalled(BaseException):
    """Thrown into a greenlet whose caller has left."""


class _Presence:
    """In the memory of a thread: goes when it does."""

    def __init__(self) -> None:
        self._process = os.getpid()

    def __del__(self) -> None:
        try:
            # A forked child has the memory of threads that go on in the parent.
            if os.getpid() == self._process and not sys.is_finalizing():
                for tell in _on_end:
                    tell(self)
        except Exception:
            pass  # at exit what this takes may be gone, ``suppress`` too


#: Called when a thread that ``presence`` was asked in ends, with what it gave.
_on_end: list[Callable[[Any], None]] = []


def tell_of_ends(function: Callable[[Any], None]) -> None:
    """In a thread that ends, call a function with what ``presence`` gave there."""
    _on_end.append(function)


_memory: threading.local | None = None


def presence() -> Callable[[], Any]:
    """What gives None once the thread that calls has ended."""
    global _memory
    if _memory is None:
        _memory = original('threading', 'local')()
    try:
        here = _memory.here
    except AttributeError:
        here = _memory.here = _Presence()
    return ref(here)


class Errand:
    """One call.

    :param function: what to call.
    :param give_back: called in the hub's thread with what ``function`` returned when
                      there is nobody any more to take it.
    """

    def __init__(self, function: Callable[[], Any], give_back: Callable[[Any], None]) -> None:
        self._function = function
        self._give_back = give_back
        self._lock = original('threading', 'Lock')()
        self._lock.acquire()
        own = calling_hub()
        self._wait_in_hub = None if own is None else get_profile(own).wait
        self._waker = None if own is None else Waker()
        self._greenlet: Any = None
        self._result: Any = None
        self._error: BaseException | None = None
        self._recalled = self._over = False

    def run(self) -> None:
        """In a greenlet of the hub's thread."""
        try:
            if not self._recalled:
                self._greenlet = getcurrent()
                self._result = self._function()
        except BaseException as error:  # carried over to the caller
            self._error = error
        finally:
            self._over = True
            self._lock.release()
            if self._waker is not None:
                self._waker.wake()

    def wait(self, timeout: float | None, is_there: Callable[[], Any]) -> bool:
        """Wait until it is done.

        :param timeout: seconds that it may take, None for any; the hub has
                        ``_GRACE`` to get round to it.
        :param is_there: from ``presence``, of the hub's thread.
        :returns: False when the time ran out, or there is nobody to do it.
        """
        if timeout is not None:
            timeout = max(timeout, 0) + _GRACE
        while True:
            interval = _LOOK_INTERVAL if timeout is None else min(timeout, _LOOK_INTERVAL)
            if self._is_over_in(interval):
                return True
            if timeout is not None:
                timeout -= interval
                if timeout <= 0:
                    return False
            if is_there() is None:
                return False

    def _is_over_in(self, seconds: float) -> bool:
        if self._wait_in_hub is None or self._waker is None:
            acquired: bool = self._lock.acquire(True, seconds)
            return acquired
        self._wait_in_hub(self._waker.fd, False, seconds)
        return self._over

    def result(self) -> Any:
        """What came of it, raised or returned."""
        if self._error is not None:
            try:
                raise self._error
            finally:
                # Its traceback leads back here, and our waker is a descriptor.
                self._error = None
        return self._result

    def leave(self) -> None:
        """By the caller, who goes; ``recall`` has to follow in the hub's thread."""
        self._recalled = True

    def recall(self) -> None:
        """By the hub itself: whatever it calls after this finds all of it undone."""
        if not self._over and self._greenlet is not None:
            self._greenlet.throw(_Recalled)
        self.return_what_came()

    def return_what_came(self) -> None:
        """Give back what there is nobody any more to take."""
        self._error = None
        if self._over and self._result is not None:
            self._give_back(self._result)
