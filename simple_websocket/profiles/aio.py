"""asyncio: a link on a transport, whose waits are coroutines.

The transport is a wire of a peculiar kind:

* it takes any write whole, so a frame is never torn.  With a high-water mark
  of 0 it says at once whether TCP has taken all of it, and until it has, it
  counts as full: frames queue up in the link, in their order;
* it pushes what arrives, so there is nothing to pull.  It reads into the room of
  its loop, so that nothing is allocated for what may come;
* it cannot close TLS one way: closed, it resets a peer that is still sending,
  who may then never read our Close.  So the close_notify is sent past it.

Everything happens in the event loop that the connection was made in.  A message
that comes in one piece while a task waits in ``receive`` costs no turn of the loop:
``express`` has the task go on in the very callback that has received it.
"""

from __future__ import annotations

import asyncio
import asyncio.selector_events
import errno
import os
import socket
import ssl
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any, cast
from weakref import WeakKeyDictionary

from ..inbox import Message
from ..protocol import ENDING, MAX_APPETITE, Protocol
from . import express
from .link import LAST_READS, Link, Payload
from .originals import builtin
from .wire import LAST, Wire, plain_fileno

#: asyncio's own transport, which has no promise to stay where it is.
_SelectorTransport: Any = getattr(
    asyncio.selector_events, '_SelectorSocketTransport', None
)

#: Bytes to read at once while a read leaves more behind.  Not always: of tiny
#: frames that many would take too long.
_LARGE_READ = 4 * MAX_APPETITE

#: Where each loop reads to, and the beginning of that, which is mostly enough.  One
#: for all its connections: what came is taken out before the loop does anything else.
_rooms: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[memoryview, memoryview]] = (
    WeakKeyDictionary()
)


def _room_of(loop: asyncio.AbstractEventLoop) -> tuple[memoryview, memoryview]:
    if loop not in _rooms:
        whole = memoryview(bytearray(_LARGE_READ))
        _rooms[loop] = whole, whole[:MAX_APPETITE]
    return _rooms[loop]


#: Messages taken in a row from the queue before other tasks get a turn.
_TURN = 32

_read: Callable[[int, int], bytes] = builtin('os', 'read')


class TransportWire(Wire):
    """A transport, reduced to what ``Link`` does with a wire.  Of ``Wire``'s own
    methods none that reads works: ``AioLink`` is told what comes."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        # Not Wire's, which wants a socket: it is the transport's here.
        self.sock = self.raw_send = None
        self.full = False  #: TCP has not taken all that was written
        self.lost = False  #: the transport is gone, and the socket with it
        self.tls = False
        self.fileno: Any = None
        self._tls_protocol: Any = None  # asyncio's own, between transport and TCP
        self._below: Any = None  # the transport below TLS
        self._notified = False  # our close_notify is sent, and we read on
        self._buffered = 0  # bytes that TCP had not taken, when that was last asked

    def attach(self, transport: asyncio.Transport) -> None:
        """Take a transport that calls us from now on."""
        self.transport = transport
        self.tls = transport.get_extra_info('sslcontext') is not None
        self.sock = transport.get_extra_info('socket')
        # Before Python 3.12, one with TLS does not tell that TCP is gone.
        self._tls_protocol = getattr(transport, '_ssl_protocol', None)
        self._below = getattr(self._tls_protocol, '_transport', None)
        # Full is what has anything unwritten: over TLS from 1 byte on (there,
        # a mark of 0 is reached by an empty buffer).
        transport.set_write_buffer_limits(high=int(self.tls), low=0)
        # asyncio's own transport does nothing before it calls send itself, and
        # takes what is left over; others keep writes for later.
        if type(transport) is _SelectorTransport:
            tcp = getattr(self.sock, '_sock', None)
            self.fileno = plain_fileno(tcp)
            self.raw_send = getattr(tcp, 'send', None)

    @property
    def closing(self) -> bool:
        """Whether it neither reads nor writes any more."""
        if self.lost or self.transport.is_closing():
            return True
        return self._below is not None and bool(self._below.is_closing())

    def send(self, data: bytes | memoryview, last: bool = False) -> int:
        if self.closing:
            raise OSError(errno.EPIPE, 'the transport is closing')
        if self.full:
            return 0
        size = len(data)
        if last and self.fileno is not None:
            with suppress(BlockingIOError):
                data = memoryview(data)[self.raw_send(data, LAST) :]
        if data:  # what is left over, or all
            self.transport.write(data)
        if self.closing:  # it raises nothing
            raise OSError(errno.EPIPE, 'the write broke the transport')
        return size

    def read(self, wanted: bool) -> None:
        """Have the transport read, or let TCP keep what the peer sends."""
        if wanted and getattr(self._tls_protocol, '_ssl_reading_paused', False):
            return  # asyncio has paused it as well, and will end that itself
        source = self.source
        if not self.closing and source.is_reading() != wanted:
            (source.resume_reading if wanted else source.pause_reading)()

    def has_drained(self) -> bool:
        """Whether TCP has taken some of what was full at the last look."""
        size = self.transport.get_write_buffer_size() if self.full else 0
        if self._below is not None and self.full:
            size += self._below.get_write_buffer_size()
        before, self._buffered = self._buffered, size
        return size < before

    @property
    def source(self) -> asyncio.ReadTransport:
        """What is told to read or not: over TLS TCP itself.  Of what asyncio has
        deciphered for who does not read, most is lost at the end of TCP."""
        source: asyncio.ReadTransport = self._below or self.transport
        return source

    def error(self) -> int:
        # Over TLS what is left could not be read any more; and not all have a socket.
        return 0 if self.tls or self.sock is None else super().error()

    def let_go(self) -> None:
        # In a forked child, whose loop shares the parent's poll: it is left alone.
        tcp = getattr(self.sock, '_sock', None)
        if isinstance(tcp, socket.socket):
            with suppress(OSError):
                os.close(tcp.detach())

    def shutdown_write(self) -> None:
        if self.transport.can_write_eof():
            with suppress(OSError):
                self.transport.write_eof()
        elif not self._notify_past_it():
            self.transport.close()

    def _notify_past_it(self) -> bool:
        """Send TLS's close_notify, and read on, as ``Wire`` does.

        :returns: whether that could be done: not with another loop's TLS.  (Of
                  those, uvloop's reads on by itself when it is closed.)
        """
        pipe = getattr(self._tls_protocol, '_sslpipe', self._tls_protocol)  # before 3.11
        try:
            unwrap, pending = pipe._sslobj.unwrap, pipe._outgoing
        except AttributeError:
            return False
        self._notified = True
        with suppress(ssl.SSLError):  # it would read the peer's; what comes is not that
            unwrap()
        self._below.write(pending.read())
        return True

    def close(self) -> None:
        # What TCP has not taken by now goes with it: nobody waits any longer.
        if self.full or self.closing or self._notified:
            self.transport.abort()
        else:
            self.transport.close()


@express.aio
class AioLink(Link, asyncio.BufferedProtocol):
    """A link on an asyncio transport, and the protocol of that transport.

    :param protocol: the connection's state; its clock is ``loop.time``.
    :param loop: the running event loop.
    """

    __slots__ = (
        '_armed',
        '_loop',
        '_pending',
        '_reading',
        '_receiver',
        '_room',
        '_room_size',
        '_rung',
        '_usual_room',
        '_accepted',
        '_timer',
        '_in_a_row',
        '_waiters',
        'on_lost',
    )

    wire: TransportWire

    def __init__(self, protocol: Protocol, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(TransportWire(), protocol, loop.time)
        self.on_lost: Callable[[BaseException | None], None] | None = None
        self._loop = loop
        self._room, self._usual_room = _room_of(loop)
        self._room_size = MAX_APPETITE  #: bytes to read at once
        self._timer: asyncio.TimerHandle | None = None
        self._armed: float | None = None
        self._accepted = 0  # bytes, of those in _sent, that TCP has taken
        self._reading = True
        self._in_a_row = 0  # messages, since the receiver last waited
        self._receiver: asyncio.Future[Message | None] | None = None
        # Of the short way to wait: a future that is never done, and one that is.
        self._pending: asyncio.Future[None] | None = None
        self._rung: asyncio.Future[None] | None = None
        self._waiters: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []

    # -- called by the transport -------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.wire.attach(cast(asyncio.Transport, transport))
        self._reading = self.wire.source.is_reading()
        self._settle()

    def get_buffer(self, sizehint: int) -> memoryview:
        return self._room[: self._room_size]

    def buffer_updated(self, nbytes: int) -> None:
        self.data_received(bytes(self._room[:nbytes]))

    def data_received(self, data: bytes) -> None:
        """Take what has come: in the room, or after the request."""
        receiver = self._receiver
        if receiver is None or receiver.done():
            if not self.finished:
                self.protocol.feed(data)
                self._after()
        else:
            decoder = self.protocol.direct()
            message = None if decoder is None else decoder.whole(data)
            if message is None:
                self.protocol.feed(data)
                self._after()
            else:
                self.protocol.heard = self.protocol.answering = True
                receiver.set_result(message)
        self._measure(len(data))

    def _measure(self, size: int) -> None:
        """Decide how much to read next, now that so much has come."""
        if self.wire.tls and not self._reading:
            # asyncio hands over what it had deciphered, and then reads on (its pauses
            # and ours are one switch): after that, not again.
            self._loop.call_soon(self._stay_paused)
        appetite = self.protocol.appetite
        self._room_size = _LARGE_READ if size >= appetite == MAX_APPETITE else appetite

    def _stay_paused(self) -> None:
        if not self._reading and not self.finished:
            self.wire.read(False)

    def eof_received(self) -> bool:
        if not self.finished:
            self.protocol.eof()
            self._after()
        return not self.wire.tls  # TLS ends both ways at once

    def pause_writing(self) -> None:
        self.wire.full = True
        self.wire.has_drained()  # from now on

    def resume_writing(self) -> None:
        self.wire.full = False
        self._accepted = self._sent
        # Not at once: asyncio goes on with the transport when we return, and
        # one that a write of ours had just broken would end twice.
        self._loop.call_soon(self._on_writable)

    def connection_lost(self, exc: BaseException | None) -> None:
        self.wire.lost = True
        if isinstance(exc, OSError):
            self._broke_with(exc)
        if not self.finished:
            # What has arrived can still be taken, a Close among it too.
            self.protocol.eof()
            self.protocol.abort()
            self._settle()
        self._arm(None)
        self._notify()
        if self.on_lost is not None:
            on_lost, self.on_lost = self.on_lost, None
            on_lost(exc)

    # -- what a backend adds to Link ----------------------------------------

    def start(self) -> None:
        """Nothing to do: ``connection_made`` has started it."""

    def _read(self) -> bool:
        return False  # the transport pushes

    def _read_rest(self) -> None:
        # The broken transport gives nothing more; TCP's own socket does.
        if not self.wire.tls:
            with suppress(OSError):
                fd = self.wire.sock.fileno()
                for _ in range(LAST_READS):
                    data = _read(fd, MAX_APPETITE)
                    if not data:
                        break
                    self.protocol.feed(data)

    def _flush(self) -> bool:
        if super()._flush() and not self.wire.full:
            self._accepted = self._sent
            return True
        return False

    def _watch(self, read: bool, write: bool) -> None:
        if read != self._reading:
            self._reading = read
            self.wire.read(read)

    def _arm(self, deadline: float | None) -> None:
        if deadline == self._armed:
            return
        self._armed = deadline
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if deadline is not None:
            self._timer = self._loop.call_at(deadline, self._on_time)

    def _on_time(self) -> None:
        # No verdict over a peer whose bytes are here already: the loop's poll is
        # between the first of these and the second.
        self._loop.call_soon(self._loop.call_soon, self._on_deadline)

    def _on_deadline(self, *_: Any) -> None:
        # A loop may call a hair too early; then this arms the timer again.
        self._armed = None
        self.protocol.dirty = True
        if not self.finished and self.wire.has_drained():
            self.protocol.heard = True  # who takes our bytes is alive
        super()._on_deadline()

    def _release(self) -> None:
        self._arm(None)
        if self.wire.tls and not self.wire.lost:
            # Closing TLS waits for the peer's close_notify, far too long.
            self._armed = self.now() + self.protocol.close_timeout
            self._timer = self._loop.call_at(self._armed, self.wire.transport.abort)

    def _notify(self) -> None:
        receiver = self._receiver
        if receiver is not None and not receiver.done() and self._ready():
            receiver.set_result(None)
        for ready, waiter in self._waiters:
            if not waiter.done() and ready():
                waiter.set_result(None)

    def wake(self) -> None:
        self._notify()

    def make_room(self) -> None:
        self._use_room()

    def abandon(self) -> None:
        with suppress(RuntimeError):  # the loop is closed; so is the transport soon
            self._loop.call_soon_threadsafe(self.give_up)

    def give_up(self) -> None:
        """Fail the connection: 1006, and TCP is closed at once."""
        if not self.wire.lost:
            self._poison()
            self.wire.transport.abort()

    # -- for AioBase ---------------------------------------------------------

    async def _until(self, ready: Callable[[], bool], deadline: float | None) -> bool:
        """Wait for something that ``_notify`` tells of; whether it came about
        before the deadline."""
        while not ready():
            waiter = self._loop.create_future()
            entry = (ready, waiter)
            self._waiters.append(entry)
            try:
                if not await self._pause(waiter, deadline):
                    return ready()
            finally:
                self._waiters.remove(entry)
        return True

    async def _pause(self, waiter: asyncio.Future[Any], deadline: float | None) -> bool:
        """Wait for a future that ``_notify`` or the deadline resolves.

        :returns: True: look again.  False, without a wait, where the deadline has
                  passed already.
        """
        if deadline is None:
            await waiter
            return True
        if deadline <= self.now():
            return False
        timer = self._loop.call_at(deadline, _finish, waiter)
        try:
            await waiter
        finally:
            timer.cancel()
        return True

    def receive(self, timeout: float | None) -> Coroutine[Any, Any, Message | None]:
        if self._receiver is not None:
            raise self._second_receiver()
        if self.protocol.messages or not self._reading:
            return self._take_in_turn(timeout)
        self._in_a_row = 0
        return self._wait_for_message(timeout)

    def iterate(self, connection: Any) -> Any:
        """What iterates over the messages of a connection of this link."""
        return connection

    async def _take_in_turn(self, timeout: float | None) -> Message | None:
        self._in_a_row += 1
        if self._in_a_row > _TURN:
            self._in_a_row = 0
            await asyncio.sleep(0)
        message = self.protocol.take()
        if message is None:
            message = await self._wait_for_message(timeout)
        if not self._reading and not self.finished:
            # There is room again, and what waited for it may have had answers.
            self.protocol.dirty = True
            self._settle()
            self._notify()
        return message

    async def _wait_for_message(self, timeout: float | None) -> Message | None:
        if self._receiver is not None:  # since we were called
            raise self._second_receiver()
        message: Message | None
        deadline = None if timeout is None else self.now() + timeout
        # Not waiting still means to look at what is there: the loop's next
        # poll is between the first of these and the second.
        looks = 2 if timeout is not None and timeout <= 0 else 0
        protocol = self.protocol
        while True:
            if not protocol.messages:
                protocol.ask()
                if protocol.dirty:
                    self._settle()
                    self._notify()
            if protocol.messages or protocol.state > ENDING:
                break
            receiver = self._receiver = self._loop.create_future()
            try:
                if deadline is None:
                    message = await receiver
                elif looks:
                    looks -= 1
                    await asyncio.sleep(0)
                    message = receiver.result() if receiver.done() else None
                elif await self._pause(receiver, deadline):
                    message = receiver.result()
                else:
                    return None
            except asyncio.CancelledError:
                if receiver.done() and not receiver.cancelled() and receiver.result() is not None:
                    protocol.input_buffer().appendleft(receiver.result())
                raise
            finally:
                self._receiver = None
            if message is not None:
                return message
        message = protocol.take()
        if message is None:
            raise self._closed()
        return message

    def send(
        self, opcode: int, payload: Payload, timeout: float | None
    ) -> Coroutine[Any, Any, None] | None:
        """Write a message.

        :returns: the wait until TCP has taken it, where it has not yet.
        """
        protocol, wire = self.protocol, self.wire
        if wire.fileno is not None and not wire.full:
            self._put_message(opcode, payload)
        elif self._unsent or protocol.out or wire.full or wire.closing:
            protocol.out.append(protocol.frame(opcode, payload))
            if not self._unsent:
                self._flush()
        else:
            frame = protocol.frame(opcode, payload)
            self._sent += len(frame)
            wire.transport.write(frame)
            if not wire.full:
                self._accepted = self._sent
        return self._wait_for_tcp(timeout)

    def _send_rest(self, timeout: float | None) -> Coroutine[Any, Any, None] | None:
        self._flush()
        return self._wait_for_tcp(timeout)

    def _wait_for_tcp(self, timeout: float | None) -> Coroutine[Any, Any, None] | None:
        if self.protocol.dirty:
            self._settle()
            self._notify()
        if self.wire.full or self._unsent:
            return self._wait_until_taken(timeout)
        if self.finished:
            raise self._closed()
        return None

    async def _wait_until_taken(self, timeout: float | None) -> None:
        mark = self._unsent_mark()
        deadline = None if timeout is None else self.now() + timeout
        try:
            await self._until(lambda: self._accepted >= mark or self.finished, deadline)
        except asyncio.CancelledError:
            # No frame would be torn if it stayed.  But who cancels a send
            # takes it for not sent, may repeat it, and so may fill the memory
            # on behalf of a peer that does not read (invariants 2 and 6).
            if self._accepted < mark:
                self._poison()
            raise
        if self._accepted < mark:
            if not self.finished:
                self._poison()
                raise self._not_taken(timeout)
            raise self._closed()

    async def close(
        self, payload: bytes, code: int, reason: str | None, wait: bool = True
    ) -> None:
        self.begin_close(payload, code, reason)
        if wait:
            await self.join(None)

    def begin_close(self, payload: bytes, code: int, reason: str | None) -> None:
        """Put the Close on its way.

        :raises ConnectionClosed: when the connection is closed already.
        """
        self._begin_close(payload, code, reason)

    async def join(self, timeout: float | None) -> bool:
        deadline = None if timeout is None else self.now() + timeout
        return await self._until(lambda: self.wire.lost, deadline)


def _finish(future: asyncio.Future[Any]) -> None:
    if not future.done():
        future.set_result(None)
