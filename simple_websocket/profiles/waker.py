"""How one thread makes another come back from a poll."""

from __future__ import annotations

import os
from collections.abc import Sequence
from contextlib import suppress

from .originals import original


class Waker:
    """Makes a thread that waits in a poll come back."""

    _fds: Sequence[int] = ()

    def __init__(self) -> None:
        # In one step of C: a signal handler in between would cost a descriptor.
        fds: list[int] = []
        self._fds = fds
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

    def wake(self) -> None:
        with suppress(OSError):  # full: then it is awake, or gone
            self._write(self._write_fd, b'\1\0\0\0\0\0\0\0')

    def clear(self) -> None:
        with suppress(OSError):
            self._read(self.fd, 4096)

    def close(self) -> None:
        fds, self._fds = self._fds, ()
        self.fd = self._write_fd = -1  # the numbers are somebody else's soon
        for fd in fds:
            original('os', 'close')(fd)

    def __del__(self) -> None:
        with suppress(Exception):  # what it takes may be gone at exit
            self.close()
