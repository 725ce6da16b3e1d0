"""A link joins a wire to a protocol, on one backend.

``Link`` holds what is the same everywhere: reading, the one way in which
bytes leave, closing.  It never waits.  ``BlockingLink`` and ``AioLink`` add what
applications call, in code that blocks and on asyncio; backends how to *wait* (for
a message, for TCP to take more, for the end) and how to be *told* (that the socket
is ready, that a deadline has come), and they make sure that one caller at a time
is inside.

The ways for a link to end:

    _begin_close  the closing handshake; TCP ends after it
    _lose         TCP broke under a write: read what it still holds, then 1006
    _poison       half a frame or half a step may be done: 1006, TCP closed at once
    give_up       ``_poison``, for callers outside a step
    abandon       the same soon, from a finaliser: takes no lock, raises nothing
    _end_alone    the hub's thread has ended (``hub.py``)
    _orphan       in a forked child: close our copy of the descriptor, say nothing
    _finish       where all but the last two arrive: watchers and descriptor go
"""

from __future__ import annotations

import os
from abc import abstractmethod
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count
from typing import Any
from weakref import ref

from ..codec import TEXT
from ..errors import ConnectionClosed, SimpleWebsocketError
from ..inbox import Message
from ..protocol import DONE, ENDED, ENDING, OPEN, Protocol
from .pump import Came, put
from .wire import Wire, is_of_tcp

#: Bytes asked of TCP at once, at most: enough for few system calls with large
#: messages, and never more than this beyond what the queue allows.
READ_SIZE = 65536

#: Most bytes in a TLS record (RFC 8446 section 5.1): a read as large leaves nothing
#: in OpenSSL's buffer, of which no poll tells.
TLS_RECORD = 1 << 14

#: Reads in a row, at most, before anything else gets a turn.
READS = 16

#: The same for what is left in a TCP that has broken, which nobody reads afterwards.
LAST_READS = 64

#: Most seconds that a thread waits in one go, since poll() counts milliseconds in 31
#: bits.  Longer waits are made of several.
LONGEST_WAIT = 86400.0

#: Messages that a receiver in a hub takes in a row before others get a turn.
TURN = 64

Payload = str | bytes | bytearray


def bounded(timeout: float | None) -> float | None:
    """As many seconds as a thread can wait in one go; None is for ever."""
    return None if timeout is None else min(timeout, LONGEST_WAIT)


class Link:
    """One open connection; see the top of this file.

    :param wire: the connected socket.
    :param protocol: the connection's state; nobody else touches it.
    :param now: the monotonic clock that the protocol uses, in seconds.
    """

    __slots__ = (
        '__weakref__',
        '_deferred',
        '_half_closed',
        '_handed',
        '_handing',
        '_home',
        '_inside',
        '_sent',
        '_unsent',
        'finished',
        'now',
        'protocol',
        'wire',
    )

    def __init__(self, wire: Wire, protocol: Protocol, now: Callable[[], float]) -> None:
        self.wire = wire
        self.protocol = protocol
        self.now = now
        self.finished = False  #: the file descriptor was given back
        self._unsent: bytes | memoryview = b''  #: begun, and not yet taken by TCP
        #: Bytes that ``_flush`` has written.  Not a total: that it has reached what
        #: ``_unsent_mark`` said is all that it tells.
        self._sent = 0
        self._half_closed = False
        self._home: int | None = None  #: the only thread that may touch it; None for any
        self._inside = False  #: somebody is in a step that must not be interrupted
        self._handed: Message | None = None  #: for who waits in ``receive``, past the queue
        self._handing = False  #: a message is on its way out of ``receive``
        self._deferred: list[Callable[[], Any]] | None = None  #: until nobody is inside
        _live.add(self)

    # -- what a backend adds ---------------------------------------------

    @abstractmethod
    def start(self) -> None:
        """Begin to watch; what arrived with the handshake is in the protocol."""

    def wake(self) -> None:
        """Make a waiting ``receive`` look again."""
        raise NotImplementedError  # pragma: no cover (with an event of its own, that is set)

    @abstractmethod
    def make_room(self) -> None:
        """The application has taken messages out of the queue itself."""

    @abstractmethod
    def give_up(self) -> None:
        """Fail the connection: 1006, and TCP is closed at once."""

    @abstractmethod
    def abandon(self) -> None:
        """Nobody holds the connection any more: close TCP soon.

        Called from a finaliser, so in any thread and between any two
        bytecodes: it takes no lock and raises nothing.
        """

    @abstractmethod
    def _watch(self, read: bool, write: bool) -> None:
        """Call ``_on_readable``, ``_on_writable`` when TCP is ready for them."""

    @abstractmethod
    def _arm(self, deadline: float | None) -> None:
        """Call ``_on_deadline`` at that time; replaces what was armed."""

    @abstractmethod
    def _notify(self) -> None:
        """Wake whoever waits for something that has come about."""

    @abstractmethod
    def _release(self) -> None:
        """Stop watching, for good: the file descriptor is about to go."""

    # -- the same everywhere; call with nobody else inside ----------------

    def _put_message(self, opcode: int, payload: Payload) -> None:
        """Write a message (the hot path of ``send``): in one call, if nothing is
        before it and it goes as it is; else, and what TCP does not take of it,
        by ``_flush``.

        :raises ConnectionClosed: see ``Protocol.frame``; ValueError, too.
        """
        protocol = self.protocol
        size = len(payload)
        if opcode == TEXT and not payload.isascii():
            size *= 4  # bytes, at most
        if (
            self._unsent
            or protocol.out
            or size >= protocol.plain_below
            or protocol.state > ENDING
            or self.wire.tls
        ):
            protocol.out.append(protocol.frame(opcode, payload))
            if not self._unsent:
                self._flush()
            return
        protocol.answering = False
        try:
            self._unsent = put(self.wire, opcode, payload, protocol.client) or b''
        except BaseException as error:
            if not self._lost_by(error):
                raise
        if self._unsent:
            self._flush()

    def _lost_by(self, error: BaseException) -> bool:
        """Whether TCP was lost by what a write raised; if so, the connection is."""
        if is_of_tcp(error):
            self._broke_with(error)
            self._lose()
            return True
        if not isinstance(error, UnicodeEncodeError):
            # A signal handler raised: nobody knows how much is out.
            self._poison()
        return False

    def _read(self) -> bool:
        """Take what TCP has, once; whether there may be more."""
        protocol = self.protocol
        try:
            if protocol.state >= ENDED:
                data = self.wire.discard(READ_SIZE)
            else:
                size = protocol.appetite
                data = self.wire.recv(max(size, TLS_RECORD) if self.wire.tls else size)
        except OSError as error:
            if not is_of_tcp(error):
                raise
            self._broke_with(error)
            data = b''
        if data is None:
            return False
        if data:
            protocol.feed(data)
            return True
        protocol.eof()
        return False

    def _broke_with(self, error: BaseException) -> None:
        """Keep what a system call has told of TCP, as the cause of a 1006."""
        if self.protocol.cause is None and not self.finished:
            # Without the frames that it has come through, which hold the connection.
            error.__context__ = None
            self.protocol.cause = error.with_traceback(None)

    def _take_in(self, came: Came) -> None:
        """Hand what came to the protocol, for who does not wait for a message."""
        protocol = self.protocol
        if isinstance(came, list):
            protocol.take_in(came)
        elif not isinstance(came, bytearray):
            protocol.heard = True
            if protocol.state == OPEN:  # else it came after our Close
                protocol.input_buffer().append(came)
        elif came:
            protocol.feed(came)
        else:
            protocol.eof()

    def _read_all(self) -> bool:
        """Take what TCP has until it has nothing, or we have enough.

        :returns: whether there may be more: a peer that sends faster than we
                  read must not keep us here.
        """
        for _ in range(READS):
            if self.protocol.paused or not self._read():
                return False
            if self.wire.tls and self.protocol.appetite < TLS_RECORD:
                break
        return True

    def _flush(self) -> bool:
        """Write; the only way in which bytes leave (invariant 1).

        :returns: whether everything is written.
        """
        protocol = self.protocol
        while True:
            if not self._unsent:
                out = protocol.out
                if not out:
                    if protocol.congested:
                        protocol.drained()
                        if protocol.out:
                            continue
                    return True
                self._unsent = out[0] if len(out) == 1 else b''.join(out)
                out.clear()
            try:
                sent = self.wire.send(self._unsent, protocol.half_close)
                self._sent += sent
                if sent and protocol.congested:
                    protocol.heard = True  # who takes our bytes is alive
                if sent == len(self._unsent):
                    self._unsent = b''
                elif sent:
                    self._unsent = memoryview(self._unsent)[sent:]
            except BaseException as error:
                if not self._lost_by(error):
                    raise
                return True
            if self._unsent and not sent:
                if not protocol.congested:
                    protocol.congested = True
                    protocol.dirty = True
                return False

    def _lose(self) -> None:
        """TCP takes nothing more; what it still holds for us comes first, since
        the peer may have said goodbye before it hung up."""
        protocol = self.protocol
        self._unsent = b''
        protocol.out.clear()
        self._read_rest()
        protocol.abort()
        protocol.out.clear()

    def _read_rest(self) -> None:
        """Take what is left in a TCP that has broken, however full the queue is."""
        for _ in range(LAST_READS):
            if not self._read():
                break

    def _settle(self) -> None:
        """Bring watchers, deadline and TCP in line with the protocol."""
        protocol = self.protocol
        while protocol.dirty and not self.finished:
            protocol.dirty = False
            flushed = self._flush()
            state = protocol.state
            if state == DONE or (state == ENDED and flushed and protocol.eof_seen):
                self._finish()
                break
            if state == ENDED and flushed and protocol.half_close and not self._half_closed:
                self._half_closed = True
                self.wire.shutdown_write()
            self._watch(not protocol.paused, not flushed)
            self._arm(protocol.deadline)

    def _finish(self) -> None:
        self.protocol.abort()
        self._unsent = b''
        self._release()
        self.wire.close()
        self.finished = True  # last: an interrupted end is begun again

    def _on_readable(self, *_: Any) -> None:
        if self.finished:
            return
        self._read()
        if self.wire.tls:
            self._read_all()
        self._after()

    def _on_writable(self, *_: Any) -> None:
        if self.finished:
            return
        if self._flush():
            self.protocol.dirty = True
        if self.wire.tls:
            self._read_all()  # TLS may have wanted to write in order to read
        self._after()

    def _on_deadline(self, *_: Any) -> None:
        if self.finished:
            return
        if self.protocol.paused:
            self._look_at_tcp()
        self._read_all()  # no verdict over a peer whose bytes are here already
        self.protocol.tick(self.now())
        self._after()

    def _look_at_tcp(self) -> None:
        """While nobody reads or writes, nothing else tells of a reset."""
        number = self.wire.error()
        if number:
            self._broke_with(OSError(number, os.strerror(number)))
            self._lose()

    def _after(self) -> None:
        protocol = self.protocol
        if protocol.out:
            self._flush()
        if protocol.dirty:
            self._settle()
        self._notify()

    def _unsent_mark(self) -> int:
        """What ``_sent`` must reach for all that was put in so far to be out."""
        return self._sent + len(self._unsent) + sum(map(len, self.protocol.out))

    def _poison(self) -> None:
        """A write was interrupted: never let another frame follow half of one
        (invariant 2)."""
        self.protocol.out.clear()
        self._unsent = b''
        self.protocol.abort()
        self._settle()
        self._notify()

    def _begin_close(self, payload: bytes, code: int, reason: str | None) -> None:
        self.protocol.close(payload, code, reason)
        self._settle()
        self._notify()

    def _use_room(self) -> None:
        self.protocol.resume()
        if not self.finished:
            if self.wire.tls:
                self._read_all()  # what TLS holds makes nothing readable
            self._after()

    def _orphan(self) -> None:
        """In a forked child: the connection is the parent's, who goes on with
        it; this copy of the descriptor is closed and nothing is said."""
        self.finished = True
        self.protocol.abort()
        self.wire.let_go()

    # -- for receive(), send() and close() of every backend ----------------

    def _ready(self) -> bool:
        """Whether a receiver has something to be told."""
        protocol = self.protocol
        return bool(protocol.messages) or protocol.state > ENDING

    def _closed(self) -> ConnectionClosed:
        return self.protocol.closed_error()

    def _not_taken(self, timeout: float | None) -> ConnectionClosed:
        """What to tell a sender whose time was over."""
        closed = self._closed()
        closed.__cause__ = TimeoutError(f'the peer did not take the message in {timeout} s')
        return closed

    @staticmethod
    def _second_receiver() -> SimpleWebsocketError:
        return SimpleWebsocketError(
            'receive() is already waiting elsewhere: one receiver at a time '
            '(read in one place and hand the messages on)'
        )


class _Register:
    """The links of this process, held weakly.

    A ``WeakSet`` would run Python for each that goes; here what is left of them is
    looked for when there is more of it than there were links.
    """

    _MORE = 1000

    def __init__(self) -> None:
        # Numbered: all links that are made in the same place have one hash, and what
        # is left of each would be compared with the next.
        self._refs: dict[int, ref[Link]] = {}
        self._numbers = count()
        self._limit = self._MORE

    def add(self, link: Link) -> None:
        self._refs[next(self._numbers)] = ref(link)
        if len(self._refs) > self._limit:
            for number in [key for key in list(self._refs) if self._is_gone(key)]:
                self._refs.pop(number, None)
            self._limit = 2 * len(self._refs) + self._MORE

    def _is_gone(self, number: int) -> bool:
        one = self._refs.get(number)
        return one is not None and one() is None

    def __iter__(self) -> Iterator[Link]:
        """Those that there are now; others may be made and go meanwhile."""
        links = [one() for one in list(self._refs.values())]
        return iter([link for link in links if link is not None])


#: For a child that may be forked.
_live = _Register()


def live_links() -> Iterator[Link]:
    """The links that there are in this process."""
    return iter(_live)


def discard(wire: Wire) -> None:
    """Close a wire, with the link that may have been made on it already."""
    for link in _live:
        if link.wire is wire:
            with suppress(Exception):  # it may be half made
                link.give_up()
    wire.close()


def _leave_to_parent() -> None:
    for link in _live:
        if not link.finished:
            with suppress(Exception):  # the others must be left to the parent, too
                link._orphan()


if hasattr(os, 'register_at_fork'):  # pragma: no branch (Windows has no fork)
    os.register_at_fork(after_in_child=_leave_to_parent)
