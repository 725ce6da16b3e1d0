"""How one thread makes another come back from a poll."""

from __future__ import annotations

import os
from contextlib import suppress
from itertools import repeat

from .originals import builtin, original


class Waker:
    """Makes a thread that waits in a poll come back.

    One thread may close it while another is about to wake: then whoever is the last
    gives the descriptors back, for what is written must not go to the next that has
    the number.
    """

    def __init__(self) -> None:
        # In one step of C: a signal handler in between would cost a descriptor.
        self._fds = fds = _Descriptors()
        if hasattr(os, 'eventfd'):
            flags = os.EFD_NONBLOCK | os.EFD_CLOEXEC
            fds.extend(map(os.eventfd, (0,), (flags,)))
        else:
            fds.extend(os.pipe())
            for fd in fds:
                os.set_blocking(fd, False)
        self.fd, self._write_fd = fds[0], fds[-1]
        self._write = original('os', 'write')
        self._read = original('os', 'read')
        self._closed = False
        self._waking: list[None] = []  # one for each who is in wake()

    def wake(self) -> None:
        try:
            self._waking.append(None)  # in here: a signal handler may raise after it
            if not self._closed:
                with suppress(OSError):  # full: then it is awake
                    self._write(self._write_fd, b'\1\0\0\0\0\0\0\0')
        finally:
            self._waking.pop()
            if self._closed and not self._waking:
                self._fds.close()

    def clear(self) -> None:
        with suppress(OSError):
            self._read(self.fd, 4096)

    def close(self) -> None:
        self._closed = True
        self.fd = -1
        if not self._waking:
            self._fds.close()


class _Descriptors(list[int]):
    """Some that are closed with this, each once."""

    def close(self) -> None:
        # In one step of C: a signal handler in between would cost a descriptor.
        while self:
            with suppress(IndexError, OSError):
                any(map(builtin('os', 'close'), map(self.pop, repeat(-1))))

    def __del__(self) -> None:
        with suppress(Exception):  # what it takes may be gone at exit
            self.close()
