"""Pings at an interval, and the verdict over a peer that says nothing after one
(RFC 6455 sections 5.5.2 and 5.5.3).

Anything that the peer says is a sign of life; a pong tells the latency as well.
``Protocol`` has one of these where pings are wanted, and asks it when to send one and
when to give up.

This file refuses to know frames, sockets and clocks: ``now`` is passed in.
"""

from __future__ import annotations

import os

#: How many pings' pongs are waited for, of a peer whose answers take many intervals.
MAX_PINGS = 16


class Keepalive:
    """The pings of one connection.

    :param interval: seconds between two.
    :param timeout: seconds in which something, anything, must arrive after a ping;
                    None never gives up.
    :param now: the time, in seconds.
    """

    __slots__ = ('_due', '_interval', '_next', '_pings', '_stalled', '_timeout')

    def __init__(self, interval: float, timeout: float | None, now: float) -> None:
        self._interval = interval
        self._timeout = timeout
        self._next = now + interval
        self._due: float | None = None  # when something must have arrived
        self._stalled = False  # we were not reading when that clock was started
        self._pings: tuple[tuple[bytes, float], ...] = ()  # unanswered, and when they left

    @property
    def deadline(self) -> float:
        """When there is something to do next."""
        return self._next if self._due is None else min(self._next, self._due)

    def gives_up(self, now: float, heard: bool) -> bool:
        """Whether the peer has been silent for too long.

        :param heard: whether it has said anything since the last ping.
        """
        late = self._due is not None and now >= self._due
        return late and not (heard or self._stalled)

    def advance(self, now: float, heard: bool, paused: bool) -> bool:
        """Go on to ``now``, where ``gives_up`` says that all is well.

        :param heard: as above; where this returns True, it begins anew.
        :param paused: whether we are reading nothing at present.
        :returns: whether to send a ping.
        """
        if self._due is not None and now >= self._due:
            if heard:
                self._due = None
            else:
                # The silence may be ours: while paused we did not read, and
                # with TCP's window shut the peer could not write.
                self.expect_life(now, paused)
        if now < self._next:
            return False
        self._next = now + self._interval
        if heard or self._due is None:
            self.expect_life(now, paused)
        return True

    def expect_life(self, now: float, paused: bool) -> None:
        """From now on something must arrive in time."""
        self._stalled = paused
        if self._timeout is not None:
            self._due = now + self._timeout

    def ping(self, now: float) -> bytes:
        """Return the payload of a ping that is sent now."""
        payload = os.urandom(4)
        self._pings = (*self._pings[1 - MAX_PINGS :], (payload, now))
        return payload

    def pong(self, payload: bytes, now: float) -> float | None:
        """Take a pong.

        :returns: the seconds since its ping; None where there was none of ours.
        """
        for place, (sent, when) in enumerate(self._pings):
            if sent == payload:
                self._pings = self._pings[place + 1 :]  # it answers those before as well
                return now - when
        return None
