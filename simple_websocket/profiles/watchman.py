"""One thread for all connections that nobody is receiving on.

With the profile ``threads`` the application's own thread reads the socket in
``receive()``.  While it is busy with something else (a long handler, one that
only sends, a closing handshake whose caller has left) somebody must answer
pings, notice a Close and keep the time: the watchman.

It costs the hot path nothing.  Ten times a second it makes its round; a link
whose application has not called ``receive`` since the last one and is not in
it now is *adopted*: its socket is watched by the watchman's epoll until the
application comes back.  A link that is adopted, or has been in the same recv
since the last round, is passed over from then on, until its receiver comes out
of ``receive``: of however many idle connections, none costs a thing.  Deadlines
are in a heap.  The thread is a daemon, starts with the first link and goes
when there has been none for a moment.
"""

from __future__ import annotations

import heapq
import logging
import os
import selectors
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from .originals import original
from .waker import Waker

if TYPE_CHECKING:
    from .threads import ThreadLink

_logger = logging.getLogger('simple_websocket')

#: Seconds between two rounds: after one to two of them a link is adopted.
LOOK_INTERVAL = 0.1

#: Seconds that the thread outlives its last link.
LINGER = 0.5


class _Epoll:
    """Readiness by Linux' epoll, which has edges."""

    def __init__(self) -> None:
        self._epoll = original('select', 'epoll')()
        self._registered: set[int] = set()

    def set(self, fd: int, read: bool, write: bool, edge: bool) -> None:
        # EPOLLIN, EPOLLOUT, EPOLLET.  After shutdown(SHUT_RD) a socket always
        # reads as ready, but an edge still comes with each new packet.
        mask = (0x001 if read else 0) | (0x004 if write else 0) | (1 << 31 if edge else 0)
        if not (read or write):
            self.remove(fd)
        else:
            if fd in self._registered:
                with suppress(FileNotFoundError):
                    self._epoll.modify(fd, mask)
                    return
                # Somebody else has closed it, and the number is in use again.
            self._epoll.register(fd, mask)
            self._registered.add(fd)

    def remove(self, fd: int) -> None:
        if fd in self._registered:
            self._registered.discard(fd)
            with suppress(OSError):
                self._epoll.unregister(fd)

    def poll(self, timeout: float | None) -> list[int]:
        return [fd for fd, _ in self._epoll.poll(-1 if timeout is None else timeout)]

    def close(self) -> None:
        self._epoll.close()


class _Selector:
    """Readiness where there is no epoll; edges are replaced by short waits."""

    def __init__(self) -> None:
        self._selector = original('selectors', 'DefaultSelector')()
        self._edges: set[int] = set()

    def set(self, fd: int, read: bool, write: bool, edge: bool) -> None:
        self.remove(fd)
        if edge and read:
            self._edges.add(fd)
        mask = (selectors.EVENT_READ if read and not edge else 0) | (
            selectors.EVENT_WRITE if write else 0
        )
        if mask:
            self._selector.register(fd, mask)

    def remove(self, fd: int) -> None:
        self._edges.discard(fd)
        with suppress(KeyError, ValueError, OSError):
            self._selector.unregister(fd)

    def poll(self, timeout: float | None) -> list[int]:
        if self._edges:
            timeout = min(timeout or 0.02, 0.02)
        return [key.fd for key, _ in self._selector.select(timeout)] + list(self._edges)

    def close(self) -> None:
        self._selector.close()


def _make_poller() -> Any:
    try:
        return _Epoll()  # also where gevent has taken it out of the module
    except AttributeError:
        return _Selector()


class Watchman:
    """See the top of this file.  Every method may be called from any thread."""

    _current: Watchman | None = None
    _birth = original('threading', 'Lock')()

    @classmethod
    def look_after_from_now(cls, link: ThreadLink) -> None:
        """Give a link the process's watchman, who calls it from now on."""
        with cls._birth:
            watchman = cls._current
            if watchman is None:
                watchman = cls()
                # None of ``threading``'s, which others count to find their own leaks.
                start = original('_thread', 'start_new_thread')
                started: list[int] = []
                try:
                    # In one step of C: a signal handler may raise right after the start.
                    started.extend(map(start, (watchman._run,), ((),)))
                except RuntimeError:  # there are no more threads to be had
                    watchman._close()
                    raise
                finally:
                    if started:
                        cls._current = watchman
            link._watchman = watchman  # first: its round may come at once
            watchman._links[link.wire.fd] = link
            watchman.include(link)

    def __init__(self) -> None:
        self.ident: int | None = None  #: of its thread
        self._links: dict[int, ThreadLink] = {}
        self._round: dict[int, ThreadLink] = {}  #: those that are looked at
        #: When a link has to be attended to, and its descriptor: what is new, and a
        #: heap, which is the watchman's own.  An entry counts while the link's
        #: ``due`` says the same.
        self._expected: deque[tuple[float, int]] = deque()
        self._deadlines: list[tuple[float, int]] = []
        self._poller = _make_poller()
        self._waker = Waker()
        self._poller.set(self._waker.fd, True, False, False)
        self._abandoned: deque[ThreadLink] = deque()
        self._wake_at = 0.0

    def watch(self, fd: int, read: bool, write: bool, edge: bool) -> None:
        """Have ``on_ready`` of the link with this descriptor called."""
        self._poller.set(fd, read, write, edge)

    def drop(self, fd: int, link: ThreadLink) -> None:
        """Forget a link, before its descriptor is given back."""
        if self._links.get(fd) is link:
            self._poller.remove(fd)
            self._links.pop(fd, None)
            self._round.pop(fd, None)

    def include(self, link: ThreadLink) -> None:
        """Look at a link in each round."""
        link.passed_over = False
        if self._links.get(link.wire.fd) is link:  # else it has been dropped
            self._round[link.wire.fd] = link

    def pass_over(self, link: ThreadLink) -> None:
        """Leave a link out of the rounds; as ``include``, with its lock held."""
        link.passed_over = True
        if self._links.get(link.wire.fd) is link:
            self._round.pop(link.wire.fd, None)

    def expect(self, link: ThreadLink, deadline: float) -> None:
        """Call the link's ``on_time`` then; call this inside a step of the link."""
        if link.due is None or deadline < link.due:
            link.due = deadline
            self._expected.append((deadline, link.wire.fd))
            if deadline < self._wake_at:
                self._waker.wake()

    def abandon(self, link: ThreadLink) -> None:
        """Close a link that nobody holds; safe in a finaliser."""
        self._abandoned.append(link)
        self._waker.wake()

    def _run(self) -> None:
        self.ident = original('threading', 'get_ident')()
        idle_since: float | None = None
        next_round = 0.0
        while True:
            now = time.monotonic()
            self._keep_time(now)
            if now >= next_round:
                next_round = now + LOOK_INTERVAL
                for link in list(self._round.values()):
                    self._attend(link, link.look_after)
            if self._links:
                idle_since = None
            else:
                idle_since = now if idle_since is None else idle_since
                if now - idle_since >= LINGER and self._retire():
                    return
            self._wait(next_round)
            while self._abandoned:
                link = self._abandoned.popleft()
                self._attend(link, link.give_up)

    def _wait(self, until: float) -> None:
        """Wait for descriptors, a deadline or the next round."""
        if self._deadlines:
            until = min(until, self._deadlines[0][0])
        self._wake_at = until
        # What was expected before that wakes nobody.
        timeout = 0 if self._expected else max(until - time.monotonic(), 0)
        for fd in self._poller.poll(timeout):
            if fd == self._waker.fd:
                self._waker.clear()
            else:
                link = self._links.get(fd)
                if link is not None:
                    self._attend(link, link.on_ready)

    def _keep_time(self, now: float) -> None:
        """Attend to the links whose time has come."""
        while self._expected:
            heapq.heappush(self._deadlines, self._expected.popleft())
        if len(self._deadlines) > 2 * len(self._links) + 100:  # of links that are gone
            # Not of ``items()``: each of these is a tuple, so the collector may run, and
            # with it another thread that adds a link.
            links = [(fd, self._links.get(fd)) for fd in list(self._links)]
            self._deadlines = [
                (link.due, fd)
                for fd, link in links
                if link is not None and link.due is not None
            ]
            heapq.heapify(self._deadlines)
        while self._deadlines and self._deadlines[0][0] <= now:
            due, fd = heapq.heappop(self._deadlines)
            link = self._links.get(fd)
            if link is not None and link.due == due:
                self._attend(link, link.on_time)

    def _attend(self, link: ThreadLink, step: Callable[[], object]) -> None:
        """Take a step of a link.  Should it raise, that is the end of this link and
        not of all the others."""
        try:
            step()
        except Exception as error:
            # An OSError here is a socket that the application has closed itself.
            level = logging.DEBUG if isinstance(error, OSError) else logging.ERROR
            _logger.log(level, 'a connection has failed', exc_info=True)
            self.drop(link.wire.fd, link)
            with suppress(Exception):
                link.give_up()

    def _retire(self) -> bool:
        with self._birth:
            if self._links:
                return False
            if Watchman._current is self:
                Watchman._current = None
        self._close()
        return True

    def _close(self) -> None:
        self._poller.close()
        self._waker.close()

    @classmethod
    def forget(cls) -> None:
        """In a forked child: the thread has stayed with the parent."""
        cls._current = None
        cls._birth = original('threading', 'Lock')()


if hasattr(os, 'register_at_fork'):  # pragma: no branch (Windows has no fork)
    os.register_at_fork(after_in_child=Watchman.forget)
