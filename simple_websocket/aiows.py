"""``AioServer`` and ``AioClient``: the same connections for asyncio.

A connection is a ``Protocol`` (what is said) on an asyncio transport, joined
by an ``AioLink``.  That is one more backend of ``profiles.link.Link``, whose
rules for reading, writing, closing and deadlines it shares; its waits are
coroutines.  The transport is a wire of a peculiar kind:

* it takes any write whole, so a frame is never torn.  With a high-water mark
  of 0 it says at once whether TCP has taken all of it, and until it has, it
  counts as full: frames queue up in the link, in their order;
* it pushes what arrives, so there is nothing to pull;
* TLS cannot be closed one way by it: in place of a half-close it is closed,
  which sends what is left and the close_notify, and waits for the peer's.

Everything happens in the event loop that the connection was made in.  Calls
from other threads or loops are not supported (use
``asyncio.run_coroutine_threadsafe``).
"""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar, cast

from . import client_handshake, deflate, handshake
from .asgi import Conversation, WebSocketASGI
from .codec import BINARY, TEXT
from .errors import ConnectionClosed, ConnectionError, SimpleWebsocketError
from .options import Options, check_timeout
from .profiles.link import Link, Payload
from .profiles.wire import Wire
from .protocol import (
    ENDING,
    INTERNAL_ERROR,
    NORMAL_CLOSURE,
    InputBuffer,
    Message,
    Protocol,
    close_payload,
)

GOING_AWAY = 1001

#: Messages taken in a row from the queue before other tasks get a turn.
_TURN = 32

if TYPE_CHECKING:
    _LoggerAdapter = logging.LoggerAdapter[Any]
else:
    _LoggerAdapter = logging.LoggerAdapter  # takes no [] before Python 3.11

_Base = TypeVar('_Base', bound='AioBase')


class TransportWire(Wire):
    """A transport, reduced to what ``Link`` does with a wire."""

    transport: asyncio.Transport

    def __init__(self) -> None:
        # Nothing of Wire's: it has a socket, which is the transport's here.
        self.full = False  #: TCP has not taken all that was written
        self.lost = False  #: the transport is gone, and the socket with it
        self.tls = False

    def attach(self, transport: asyncio.Transport) -> None:
        """Take a transport that calls us from now on."""
        self.transport = transport
        self.tls = transport.get_extra_info('sslcontext') is not None
        self.sock = transport.get_extra_info('socket')
        # Full is what has anything unwritten: over TLS from 1 byte on (there,
        # a mark of 0 is reached by an empty buffer).
        transport.set_write_buffer_limits(high=int(self.tls), low=0)

    @property
    def closing(self) -> bool:
        """Whether it neither reads nor writes any more."""
        return self.lost or self.transport.is_closing()

    def send(self, data: bytes | memoryview) -> int:
        if self.closing:
            raise OSError('the transport is closing')
        if self.full:
            return 0
        self.transport.write(data)
        return len(data)

    def read(self, wanted: bool) -> None:
        """Have the transport read, or let TCP keep what the peer sends."""
        transport = self.transport
        if not self.closing and transport.is_reading() != wanted:
            (transport.resume_reading if wanted else transport.pause_reading)()

    def shutdown_write(self) -> None:
        if self.transport.can_write_eof():
            with suppress(OSError):
                self.transport.write_eof()
        else:
            self.transport.close()

    def close(self) -> None:
        # What TCP has not taken by now goes with it: nobody waits any longer.
        if self.full or self.closing:
            self.transport.abort()
        else:
            self.transport.close()


class AioLink(Link, asyncio.Protocol):
    """A link on an asyncio transport, and the protocol of that transport.

    :param protocol: the connection's state; its clock is ``loop.time``.
    :param loop: the running event loop.
    """

    wire: TransportWire

    def __init__(self, protocol: Protocol, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(TransportWire(), protocol, loop.time)
        self.on_lost: Callable[[BaseException | None], None] | None = None
        self._loop = loop
        self._timer: asyncio.TimerHandle | None = None
        self._armed: float | None = None
        self._taken = 0  # bytes, of those in _sent, that TCP has taken
        self._reading = True
        self._turn = 0
        self._receiver: asyncio.Future[None] | None = None
        self._waiters: list[tuple[Callable[[], bool], asyncio.Future[None]]] = []

    # -- called by the transport -------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.wire.attach(cast(asyncio.Transport, transport))
        self._reading = self.wire.transport.is_reading()
        self._settle()

    def data_received(self, data: bytes) -> None:
        if not self.finished:
            self.protocol.feed(data)
            self._after()

    def eof_received(self) -> bool:
        if not self.finished:
            self.protocol.eof()
            self._after()
        return not self.wire.tls  # TLS ends both ways at once

    def pause_writing(self) -> None:
        self.wire.full = True

    def resume_writing(self) -> None:
        self.wire.full = False
        self._taken = self._sent
        self._on_writable()

    def connection_lost(self, exc: BaseException | None) -> None:
        self.wire.lost = True
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

    def _flush(self) -> bool:
        if super()._flush() and not self.wire.full:
            self._taken = self._sent
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
            self._timer = self._loop.call_at(deadline, self._on_deadline)

    def _on_deadline(self, *_: Any) -> None:
        # A loop may call a hair too early; then this arms the timer again.
        self._armed = None
        self.protocol.dirty = True
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
        if self._receiver is not None:
            _finish(self._receiver)

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

    async def _pause(self, waiter: asyncio.Future[None], deadline: float | None) -> bool:
        """Wait for a future that _notify resolves; False when time is over."""
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

    async def receive(self, timeout: float | None) -> Message | None:  # type: ignore[override]
        if self._receiver is not None:
            raise self._second_receiver()
        protocol = self.protocol
        self._turn += 1
        if self._turn > _TURN:
            self._turn = 0
            await asyncio.sleep(0)
        message = protocol.take()
        if message is None:
            message = await self._wait_for_message(timeout)
        if not self._reading and not self.finished:
            # There is room again, and what waited for it may have had answers.
            protocol.dirty = True
            self._settle()
            self._notify()
        return message

    async def _wait_for_message(self, timeout: float | None) -> Message | None:
        self._turn = 0
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
            if self._ready():
                break
            self._receiver = self._loop.create_future()
            try:
                if looks:
                    looks -= 1
                    await asyncio.sleep(0)
                elif not await self._pause(self._receiver, deadline):
                    return None
            finally:
                self._receiver = None
        message = protocol.take()
        if message is None:
            raise self._closed()
        return message

    async def send(  # type: ignore[override]
        self, opcode: int, payload: Payload, timeout: float | None
    ) -> None:
        protocol = self.protocol
        protocol.send(opcode, payload)
        if not self._unsent:
            self._flush()
        if protocol.dirty:
            self._settle()
            self._notify()
        if self.wire.full:
            await self._wait_until_taken(timeout)
        elif self.finished:
            raise self._closed()

    async def _wait_until_taken(self, timeout: float | None) -> None:
        mark = self._unsent_mark()
        deadline = None if timeout is None else self.now() + timeout
        try:
            await self._until(lambda: self._taken >= mark or self.finished, deadline)
        except asyncio.CancelledError:
            # No frame would be torn if it stayed.  But who cancels a send
            # takes it for not sent, may repeat it, and so may fill the memory
            # on behalf of a peer that does not read (invariants 2 and 6).
            if self._taken < mark:
                self._poison()
            raise
        if self._taken < mark:
            if not self.finished:
                self._poison()
                error = TimeoutError(f'the peer did not take the message in {timeout} s')
                raise self._closed() from error
            raise self._closed()

    async def close(  # type: ignore[override]
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

    async def join(self, timeout: float | None) -> bool:  # type: ignore[override]
        deadline = None if timeout is None else self.now() + timeout
        return await self._until(lambda: self.wire.lost, deadline)


def _finish(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


class AioBase(Conversation):
    """What the two ends have in common; made by ``AioServer`` and ``AioClient``.

    What may run at the same time: any number of ``send`` and one ``receive``,
    and ``close`` at any moment, in tasks of one event loop.
    """

    #: The negotiated subprotocol, or None (RFC 6455 section 1.9).
    subprotocol: str | None = None

    _link: AioLink | None = None
    _options: Options

    @property
    def _open_link(self) -> AioLink:
        if self._link is None:
            raise SimpleWebsocketError(f'{self!r}: make it with accept() or connect()')
        return self._link

    @property
    def connected(self) -> bool:
        """Whether messages can be sent.  Once false it stays so."""
        return self._link is not None and self._link.protocol.state <= ENDING

    @property
    def close_reason(self) -> int:
        """The close code (RFC 6455 section 7.4), once closed: the peer's; ours
        where we closed or failed the connection; 1006 for an end without a
        Close.  1005 until then, and for a Close without a code."""
        return self._open_link.protocol.close_code

    @property
    def close_message(self) -> str | None:
        """The text that came with the close code, or None."""
        return self._open_link.protocol.close_reason

    @property
    def input_buffer(self) -> InputBuffer:
        """The messages that were received and not yet taken."""
        return self._open_link.protocol.messages

    @property
    def latency(self) -> float | None:
        """Seconds between the last answered keepalive ping and its pong; None
        as long as there is none (see ``ping_interval``)."""
        return self._open_link.protocol.latency

    @property
    def sock(self) -> Any:
        """The transport's view of its socket: ``getpeername()`` and the like."""
        return self._open_link.wire.sock

    async def send(self, data: Any, timeout: float | None = None) -> None:
        """Send a message (RFC 6455 section 5.6).

        Returns when TCP has taken all of it (over TLS: but for 64 KiB at
        most).  A peer that reads slowly makes this wait.  When ``timeout``
        runs out, or the task is cancelled, in that wait, the connection fails:
        the peer sees no Close, and ``ConnectionClosed`` says 1006.

        :param data: ``bytes``, ``bytearray`` or ``memoryview`` for a binary
                     message; ``str`` for a text message, as is ``str(data)``
                     of anything else.
        :param timeout: seconds to wait for a peer that reads slowly; None (the
                        default) to wait as long as it is connected.
        :raises ConnectionClosed: on a closed connection, or when ``timeout``
                                  ran out (with 1006).
        :raises ValueError: for text with lone surrogates, which has no UTF-8
                            form.
        """
        check_timeout(timeout)
        payload: Payload
        if isinstance(data, str):
            opcode, payload = TEXT, data.encode()
        elif isinstance(data, (bytes, bytearray)):
            opcode, payload = BINARY, data
        elif isinstance(data, memoryview):
            opcode, payload = BINARY, data.tobytes()
        else:
            opcode, payload = TEXT, str(data).encode()
        await self._open_link.send(opcode, payload, timeout)

    async def receive(self, timeout: float | None = None) -> Any:
        """Receive a message.

        What was received before the connection closed comes first.  A call
        that is cancelled loses nothing; call again.

        :param timeout: seconds to wait; 0 does not wait, None (the default)
                        waits as long as the connection lasts.
        :returns: ``str`` or ``bytes``; None when ``timeout`` ran out.
        :raises ConnectionClosed: when the connection is closed and every
                                  message was taken; every time.
        :raises SimpleWebsocketError: when another task is waiting in
                                      ``receive`` already.
        """
        check_timeout(timeout)
        return await self._open_link.receive(timeout)

    async def _close(self, reason: int | None, message: str | None, wait: bool) -> None:
        code = reason or NORMAL_CLOSURE
        payload = close_payload(code, message)
        await self._open_link.close(payload, int(code), message or None, wait)

    async def _start(self) -> None:
        raise NotImplementedError

    async def __aenter__(self: _Base) -> _Base:
        if self._link is None:  # made by the constructor
            await self._start()
        return self

    def __del__(self) -> None:
        link = self._link
        if link is None or link.protocol.state > ENDING:
            return  # a close that has begun goes on without us
        link.abandon()
        with suppress(Exception):  # warnings may be errors, or gone at exit
            warnings.warn(f'unclosed {self!r}', ResourceWarning, 2, source=self)

    def __repr__(self) -> str:
        if self._link is None:
            state = 'not open'
        elif self.connected:
            state = 'open'
        else:
            state = f'closed: {self.close_reason}'
        return f'<simple_websocket.{type(self).__name__} {state}>'


class AioServer(AioBase):
    """A WebSocket connection that an asyncio application accepts.

    Make one with ``await AioServer.accept(aiohttp=request)``, with ``asgi=``
    or ``sock=`` and ``headers=``.  (The constructor alone sends nothing;
    ``async with AioServer(request) as ws`` accepts, too.)

    In aiohttp the transport is this object's from then on, with its TLS:
    whatever the handler returns, None too, goes nowhere.  A connection that is
    left open when the handler returns is closed with 1000, or 1011 if the
    handler raised; when the application shuts down, with 1001.

    :param request: aiohttp's request.
    :param origins: the origins that may connect (RFC 6455 section 10.2):
                    ``"same"`` for pages of this very host, or a list; None
                    (the default) for all.
    :param options: ``ping_timeout``, ``open_timeout``, ``close_timeout``,
                    ``max_queue``, ``max_fragments``, ``compression``,
                    ``logger``; they and all that is not listed here are as for
                    ``Server``.
    """

    #: Where the connection comes from: ``'aiohttp'``, or ``'custom'`` for a socket.
    mode = 'unknown'

    def __init__(
        self,
        request: Any,
        subprotocols: Any = None,
        receive_bytes: int = 4096,
        ping_interval: float | None = None,
        max_message_size: int | None = None,
        *,
        origins: Any = None,
        **options: Any,
    ) -> None:
        self.request = request
        self.subprotocols = handshake.parse_subprotocols(subprotocols)
        self._options = Options(receive_bytes, ping_interval, max_message_size, **options)
        handshake.parse_origins(origins)
        self._origins = origins

    @classmethod
    async def accept(
        cls,
        aiohttp: Any = None,
        asgi: Any = None,
        sock: Any = None,
        headers: Any = None,
        subprotocols: Any = None,
        receive_bytes: int = 4096,
        ping_interval: float | None = None,
        max_message_size: int | None = None,
        **options: Any,
    ) -> Any:
        """Accept a WebSocket.

        :param aiohttp: aiohttp's request, inside its handler; or
        :param asgi: ``(scope, receive, send)``, inside an ASGI application; or
        :param sock: a connected socket (without TLS) of which the whole
                     request was read, with ``headers``.
        :param headers: the request's headers, a mapping or pairs.
        :param subprotocols: this and the others are what the class takes.
        :returns: an ``AioServer``; for ``asgi`` a ``WebSocketASGI``, which has
                  the same methods.
        :raises ConnectionError: when the request is no valid upgrade; it was
                                 answered with ``status_code`` (400, 403, 405,
                                 426).
        :raises TypeError: for an argument of a wrong type.
        :raises ValueError: for a wrong value.
        """
        given = [source for source in (aiohttp, asgi, sock) if source is not None]
        if len(given) != 1 or (sock is None) != (headers is None):
            raise ValueError('give one of aiohttp, asgi, or sock with headers')
        ws = cls(
            aiohttp, subprotocols, receive_bytes, ping_interval, max_message_size, **options
        )
        if asgi is not None:
            options.setdefault('choose_subprotocol', ws.choose_subprotocol)
            scope, receive, send = asgi
            return await WebSocketASGI.accept(
                scope,
                receive,
                send,
                subprotocols,
                receive_bytes=receive_bytes,
                ping_interval=ping_interval,
                max_message_size=max_message_size,
                **options,
            )
        if sock is not None:
            await ws._accept_sock(sock, headers)
        else:
            await ws._start()
        return ws

    def choose_subprotocol(self, request: handshake.UpgradeRequest) -> str | None:
        """Choose a subprotocol; override it for another policy.

        :param request: the upgrade request; ``request.subprotocols`` lists
                        what the client offers, best first.
        :returns: one of them, or None.  By default the client's first that
                  is among ``subprotocols``.
        """
        return handshake.choose_subprotocol(request.subprotocols, self.subprotocols)

    async def _start(self) -> None:
        """Accept from aiohttp."""
        request = self.request
        self.mode = 'aiohttp'
        self.headers = request.headers
        transport = request.transport
        if isinstance(transport, _Husk):
            raise RuntimeError('this request was accepted already')
        if transport is None or transport.is_closing():
            request.protocol.logger = _HostLogger(request.protocol.logger)
            raise ConnectionError(None, 'the client is gone')
        version = '.'.join(map(str, request.version))
        link, rejected = self._answer(
            request.method, request.raw_path, version, request.headers, request.secure
        )
        self._link = link
        _take_over(request, link, self, rejected.status if rejected else 101)
        self._report(rejected)

    async def _accept_sock(self, sock: Any, headers: Any) -> None:
        _check_socket(sock)
        self.mode = 'custom'
        self.headers = headers
        link, rejected = self._answer('GET', '/', '1.1', headers, False)
        self._link = link
        sock.setblocking(False)
        await asyncio.get_running_loop().connect_accepted_socket(lambda: link, sock)
        self._report(rejected)

    def _answer(
        self, method: str, target: str, version: str, headers: Any, secure: bool
    ) -> tuple[AioLink, handshake.Rejected | None]:
        """A link with the response to write first, and why if it is a refusal."""
        loop = asyncio.get_running_loop()
        try:
            request = handshake.request_from_headers(method, target, version, headers)
            handshake.check_origin(request, self._origins, secure)
            try:
                engine, extension = deflate.negotiate(
                    self._options.compression, request.extensions
                )
            except deflate.ExtensionSyntaxError as error:
                raise handshake.Rejected(400, str(error)) from error
        except handshake.Rejected as rejected:
            protocol = self._options.protocol(False, loop.time, None)
            protocol.refuse(handshake.rejection_response(rejected))
            return AioLink(protocol, loop), rejected
        self.subprotocol = self.choose_subprotocol(request) or None
        response = handshake.accept_response(request, self.subprotocol, extension)
        protocol = self._options.protocol(False, loop.time, engine)
        protocol.out.append(response)
        return AioLink(protocol, loop), None

    def _report(self, rejected: handshake.Rejected | None) -> None:
        if rejected is not None:
            self._options.logger.debug('refused: %s', rejected)
            raise ConnectionError(rejected.status, rejected.reason) from rejected
        self._options.logger.debug('accepted %s', self)


def _check_socket(sock: Any) -> None:
    if hasattr(sock, 'do_handshake'):
        raise TypeError('sock must not be an SSLSocket: asyncio does TLS itself')
    if not isinstance(sock, socket.socket):
        raise TypeError(f'sock must be a socket.socket, not {sock!r}')


# aiohttp: the transport changes hands


def _take_over(request: Any, link: AioLink, ws: AioServer, status: int) -> None:
    """Take the transport away from aiohttp, and give it one to play with.

    :param status: the HTTP status that goes out, for the access log.
    """
    handler = request.protocol
    transport = request.transport
    # What came behind the request, which aiohttp stores if it knows an
    # upgrade when it sees one (else clients wait for the 101 anyway).
    leftover = getattr(handler, '_message_tail', b'')
    if leftover:
        handler._message_tail = b''
    handler.keep_alive(False)
    handler.close()  # no further request: after the handler, it closes its transport
    handler.logger = logger = _HostLogger(handler.logger)
    if getattr(handler, 'access_logger', None) is not None:
        handler.access_logger = _AccessLogger(handler.access_logger, status)
    handler.transport = _Husk(transport, link, ws, logger)
    if getattr(handler, '_paused', False):  # by a response that was pipelined before
        link.wire.full = True
        handler.resume_writing()
    link.on_lost = handler.connection_lost
    connections = getattr(getattr(handler, '_manager', None), '_connections', None)
    if connections is not None and handler in connections:
        connection = _Connection(handler, link)
        del connections[handler]
        connections[connection] = transport

        def on_lost(exc: BaseException | None) -> None:
            connections.pop(connection, None)
            handler.connection_lost(exc)

        link.on_lost = on_lost
    transport.set_protocol(link)
    link.connection_made(transport)
    if leftover:
        link.data_received(leftover)


def _say_goodbye(link: AioLink, code: int) -> None:
    with suppress(ConnectionClosed):
        link.begin_close(close_payload(code, None), code, None)


class _Husk(asyncio.Transport):
    """What aiohttp writes its response to, once the real one is taken."""

    def __init__(
        self, transport: Any, link: AioLink, ws: AioServer, logger: _HostLogger
    ) -> None:
        super().__init__()
        self._transport = transport
        self._link = link
        self._logger = logger
        # A handler that returns without closing leaves the rest to us, so the
        # connection has to live until then.
        self._ws: AioServer | None = ws

    def _handler_is_done(self, data: bytes) -> None:
        if self._ws is not None:
            failed = data.startswith(b'HTTP/') and data[9:10] == b'5'
            failed = failed and not self._logger.nothing_returned
            _say_goodbye(self._link, INTERNAL_ERROR if failed else NORMAL_CLOSURE)
            self._ws = None

    def write(self, data: Any) -> None:
        self._handler_is_done(bytes(data[:12]))

    def close(self) -> None:
        self._handler_is_done(b'')

    abort = close

    def is_closing(self) -> bool:
        return False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        """Nothing is read for aiohttp."""

    resume_reading = pause_reading


class _Connection:
    """Stands for a handler in aiohttp's list of what to shut down."""

    def __init__(self, handler: Any, link: AioLink) -> None:
        self._handler = handler
        self._link = link

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handler, name)

    def close(self) -> None:
        """The application is about to shut down."""
        _say_goodbye(self._link, GOING_AWAY)

    async def shutdown(self, timeout: float | None = 15.0) -> None:
        """Wait for the handler, which was told by an exception, and for TCP."""
        self.close()
        await self._handler.shutdown(timeout)
        await self._link.join(self._link.protocol.close_timeout)
        self._link.give_up()


class _HostLogger(_LoggerAdapter):
    """Keeps aiohttp from complaining about what is right for a WebSocket."""

    def __init__(self, logger: Any) -> None:
        super().__init__(logger, {})
        self.nothing_returned = False

    def exception(self, msg: object, *args: Any, **kwargs: Any) -> None:
        """Log an error of the handler, if it is one."""
        error = kwargs.get('exc_info')
        if str(msg).startswith(('Missing return statement', 'Web-handler should return')):
            self.nothing_returned = True
        elif isinstance(error, (ConnectionClosed, ConnectionError)):
            # A peer that hung up, or a refusal, which was answered.
            self.debug('%r left the handler', error)
        else:
            super().exception(msg, *args, **kwargs)


class _AccessLogger:
    """Logs the status that went out, not the one of the handler's return value."""

    def __init__(self, logger: Any, status: int) -> None:
        self._logger = logger
        self._status = status

    def log(self, request: Any, response: Any, time: float) -> None:
        """Log a request that took so many seconds."""
        from aiohttp.web import Response

        self._logger.log(request, Response(status=self._status), time)


class _Opening(asyncio.Protocol):
    """The client's opening handshake (RFC 6455 section 4.1) on a transport.

    The transport gets its next protocol in the very call that brought the end
    of the response, so no byte and no event can fall in between.

    :param opening: the handshake.
    :param make_link: makes the link of the connection; it may raise.
    :param loop: the running event loop.
    """

    def __init__(
        self,
        opening: client_handshake.ClientHandshake,
        make_link: Callable[[client_handshake.Response], AioLink],
        loop: asyncio.AbstractEventLoop,
    ) -> None:
        self.result: asyncio.Future[AioLink] = loop.create_future()
        self._opening = opening
        self._make_link = make_link

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        self._transport.write(self._opening.request())

    def data_received(self, data: bytes) -> None:
        if self.result.done():
            return
        try:
            response = self._opening.receive(data)
            if response is None:
                return
            link = self._make_link(response)
        except Exception as error:
            self.result.set_exception(error)
            return
        self._transport.set_protocol(link)
        link.connection_made(self._transport)
        if response.leftover:
            link.data_received(response.leftover)
        self.result.set_result(link)

    def eof_received(self) -> None:
        self.connection_lost(None)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self.result.done():
            return
        try:
            if exc is not None:
                raise ConnectionError(None, f'the handshake failed: {exc}') from exc
            self._opening.receive_eof()
        except ConnectionError as error:
            self.result.set_exception(error)


class AioClient(AioBase):
    """A WebSocket connection to a server.

    Make one with ``await AioClient.connect(url)``.  (The constructor alone
    does nothing; ``async with AioClient(url) as ws`` connects, too.)

    :param url: ``ws://`` or ``wss://`` (``http``, ``https`` too).
    :param subprotocols: the names to offer, one or a list in order of
                         preference.
    :param headers: further headers, a mapping or an iterable of pairs.
    :param receive_bytes: a hint for the size of a read, in bytes.
    :param ping_interval: see ``AioServer``, as for all that is not listed here.
    :param max_message_size: see ``AioServer``.
    :param ssl_context: an ``ssl.SSLContext``; by default one that verifies
                        the server's certificate and name.
    :param thread_class: without effect.
    :param event_class: without effect.
    :param open_timeout: seconds for everything until the connection is open:
                         DNS, TCP, TLS and the handshake; default 10.
    :param compression: permessage-deflate to offer; default True.
    :param sock: a connected socket to use instead of making one; for ``wss``
                 TLS is done over it.
    :param server_hostname: the name to verify the certificate against, where
                            it is not the URL's.
    """

    def __init__(
        self,
        url: str,
        subprotocols: Any = None,
        headers: Any = None,
        receive_bytes: int = 4096,
        ping_interval: float | None = None,
        max_message_size: int | None = None,
        ssl_context: ssl.SSLContext | None = None,
        thread_class: Any = None,
        event_class: Any = None,
        *,
        sock: Any = None,
        server_hostname: str | None = None,
        **options: Any,
    ) -> None:
        self._options = Options(receive_bytes, ping_interval, max_message_size, **options)
        self.url = url
        self._target = client_handshake.parse_url(url)
        compression = self._options.compression
        self._opening = client_handshake.ClientHandshake(
            self._target,
            subprotocols,
            headers,
            deflate.offer(compression) if compression else None,
        )
        self.subprotocols = self._opening.subprotocols
        if ssl_context is not None and not isinstance(ssl_context, ssl.SSLContext):
            raise TypeError(f'ssl_context must be an ssl.SSLContext, not {ssl_context!r}')
        if sock is not None:
            _check_socket(sock)
        self._ssl_context = ssl_context
        self._sock = sock
        self._server_hostname = server_hostname

    @classmethod
    async def connect(
        cls: type[_Client],
        url: str,
        subprotocols: Any = None,
        headers: Any = None,
        receive_bytes: int = 4096,
        ping_interval: float | None = None,
        max_message_size: int | None = None,
        ssl_context: ssl.SSLContext | None = None,
        thread_class: Any = None,
        event_class: Any = None,
        **options: Any,
    ) -> _Client:
        """Connect to a server; takes what ``AioClient`` takes.

        :raises ConnectionError: when the server refuses (with
                                 ``status_code``) or does not speak WebSocket.
        :raises OSError: when it can't be reached or TLS fails; TimeoutError
                         when ``open_timeout`` runs out.
        :raises TypeError: for an argument of a wrong type.
        :raises ValueError: for a wrong value.
        """
        ws = cls(
            url,
            subprotocols,
            headers,
            receive_bytes,
            ping_interval,
            max_message_size,
            ssl_context,
            thread_class,
            event_class,
            **options,
        )
        await ws._start()
        return ws

    async def _start(self) -> None:
        timeout = self._options.open_timeout
        try:
            self._link = await asyncio.wait_for(self._dial(), timeout)
        except asyncio.TimeoutError as error:
            if error.args:  # ETIMEDOUT: TCP gave up before us
                raise
            raise TimeoutError('the connection was not open within open_timeout') from None
        self._options.logger.debug('connected %s to %s', self, self.url)

    async def _dial(self) -> AioLink:
        """DNS, TCP to the first address that answers, TLS, HTTP."""
        loop = asyncio.get_running_loop()
        target = self._target
        opening = _Opening(self._opening, self._make_link, loop)
        where: dict[str, Any] = {'host': target.host, 'port': target.port}
        if self._sock is not None:
            self._sock.setblocking(False)
            where = {'sock': self._sock}
        if target.secure:
            where['ssl'] = self._ssl_context or ssl.create_default_context()
            where['server_hostname'] = self._server_hostname or target.host
        try:
            transport, _ = await loop.create_connection(lambda: opening, **where)
        except BaseException:
            if self._sock is not None:
                self._sock.close()
            raise
        try:
            return await opening.result
        except BaseException:
            transport.abort()
            raise

    def _make_link(self, response: client_handshake.Response) -> AioLink:
        loop = asyncio.get_running_loop()
        try:
            engine = deflate.accept_offer(self._options.compression, response.extensions)
        except deflate.DeflateError as error:
            raise ConnectionError(None, str(error)) from error
        self.subprotocol = response.subprotocol
        return AioLink(self._options.protocol(True, loop.time, engine), loop)


_Client = TypeVar('_Client', bound=AioClient)


__all__ = ['AioBase', 'AioClient', 'AioServer']
