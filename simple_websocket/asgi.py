"""``WebSocketASGI``: a connection inside an ASGI application.

An ASGI server speaks RFC 6455 itself and hands out messages, so there is no
``Protocol`` here and no socket.  What this file adds is the interface that
every connection of this package has, and the options that can be honoured from
here: ``subprotocols``, ``origins``, ``max_message_size``, and the timeouts of
``send`` and ``receive``.  Pings, compression, the receive queue, and the time to open
and to close are the ASGI server's: it has settings of its own for them, and those
given here are checked and have no effect.

``Conversation`` is what all asyncio connections, on whatever they stand, do
with ``async with`` and ``async for``.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar, overload

from . import handshake
from .aiotime import in_time, retrieve
from .close_codes import ABNORMAL_CLOSURE, NO_STATUS, NORMAL_CLOSURE, close_payload
from .codec import BINARY, MESSAGE_TOO_BIG
from .connection import as_refusal, encode_message, exit_code
from .errors import ConnectionClosed, ConnectionError, SimpleWebsocketError
from .options import Options, Origins, Subprotocols, check_timeout

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .options import ASGIAcceptKeywords, ASGIKeywords

# As wide as frameworks declare theirs.
Scope = Mapping[str, Any]
Receive = Callable[[], Awaitable[Any]]
Send = Callable[[Any], Awaitable[None]]
Event = dict[str, Any]
_Self = TypeVar('_Self', bound='Conversation')
_ASGI = TypeVar('_ASGI', bound='WebSocketASGI')


class Conversation:
    """``async with`` and ``async for`` over ``receive`` and ``close``."""

    @overload
    async def receive(self, timeout: None = None) -> str | bytes: ...

    @overload
    async def receive(self, timeout: float | None) -> str | bytes | None: ...

    @abstractmethod
    async def receive(self, timeout: float | None = None) -> Any:
        """Receive a message; see the classes that do it."""

    async def close(self, reason: int | None = None, message: str | None = None) -> None:
        """Close the connection (RFC 6455 section 7.1.2).

        Returns when the peer has answered the Close and TCP is closed,
        ``close_timeout`` seconds later at most; in an ASGI application, where
        the server does that, at once.  Note the order: ``reason`` is the
        numeric code, ``message`` the text (other libraries call the text
        "reason").

        :param reason: the close code, 1000 by default; 4000 to 4999 are for
                       applications.
        :param message: a text of at most 123 bytes in UTF-8.
        :raises ConnectionClosed: when the connection is closed already.
        :raises ValueError: for a code that must not be sent, or too long a
                            text; nothing was sent then.
        """
        await self._close(reason, message, wait=True)

    @abstractmethod
    async def _close(self, reason: int | None, message: str | None, wait: bool) -> None:
        """Close; with ``wait``, until the peer has answered."""

    async def __aenter__(self: _Self) -> _Self:
        return self

    async def __aexit__(self, kind: Any, error: Any, traceback: Any) -> None:
        """Close: with 1000, after an exception with 1011, when cancelled 1001."""
        # Who is cancelled, or interrupted, must not wait for a peer's answer.
        wait = kind is None or issubclass(kind, Exception)
        try:
            await self._close(exit_code(kind), None, wait)
        except ConnectionClosed:
            if wait:
                await self._ended()

    async def _ended(self) -> None:
        """Wait for what ``close`` would have waited for, had the peer not been first."""

    def __aiter__(self) -> AsyncIterator[str | bytes]:
        return self

    async def __anext__(self) -> str | bytes:
        """The next message, until the connection closes."""
        try:
            return await self.receive()
        except ConnectionClosed:
            raise StopAsyncIteration from None


class WebSocketASGI(Conversation):
    """A WebSocket connection that an ASGI application accepts.

    Make one with ``await WebSocketASGI.accept(scope, receive, send)`` or
    ``AioServer.accept(asgi=(scope, receive, send))``.

    Any number of tasks may be in ``send``, one in ``receive``, and ``close``
    may be called at any moment; all of them in the event loop that runs the
    application.

    What the ASGI server keeps to itself is not here: ``input_buffer`` and
    ``sock``.

    :param scope: the connection's ASGI scope, of type ``websocket``.
    :param receive: the server's awaitable ``receive``.
    :param send: the server's awaitable ``send``.
    :param subprotocols: the names that this server supports, one or a list.
    :param origins: see ``Server``.
    :param choose_subprotocol: called in place of the method.
    :param options: as for ``AioServer``.  Of them ``max_message_size`` and
                    ``logger`` have an effect: pings, compression, queue, and the time
                    to open and to close are the ASGI server's.
    :raises ValueError: for another type of scope, or a wrong option.
    :raises TypeError: for an argument of a wrong type.
    """

    #: Where the connection comes from: an ASGI server.
    mode = 'asgi'

    #: None: the pings are the ASGI server's.
    latency: float | None = None

    #: The connection's ASGI scope.
    scope: Scope

    #: The subprotocols that were given, a list.
    subprotocols: list[str]

    #: The negotiated subprotocol, or None (RFC 6455 section 1.9).
    subprotocol: str | None

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        subprotocols: Subprotocols = None,
        *,
        origins: Origins = None,
        choose_subprotocol: Callable[[handshake.UpgradeRequest], str | None] | None = None,
        **options: Unpack[ASGIKeywords],
    ) -> None:
        kind = scope.get('type') if hasattr(scope, 'get') else None
        if kind is None:  # not shown: it may have a request's headers
            raise TypeError(f"asgi: the scope must be the server's, not a {type(scope).__name__}")
        if kind != 'websocket':
            raise ValueError(f'asgi: the scope is for {kind!r}, not for a WebSocket')
        for name, value in (('receive', receive), ('send', send)):
            if not callable(value):
                raise TypeError(f"asgi: {name} must be the server's, not {value!r}")
        self.scope = scope
        self.subprotocols = handshake.parse_subprotocols(subprotocols)
        self.subprotocol = None
        self._options = Options(**options)
        self._origins = handshake.parse_origins(origins)
        self._server_receive = receive
        self._server_send = send
        self._choose = choose_subprotocol or self.choose_subprotocol
        self._open = False
        self._drained = True  #: nothing more comes out of the server's receive
        self._code = NO_STATUS
        self._text: str | None = None
        self._receiving = False
        self._next: asyncio.Future[Event] | None = None

    @classmethod
    async def accept(
        cls: type[_ASGI],
        scope: Scope,
        receive: Receive,
        send: Send,
        subprotocols: Subprotocols = None,
        **options: Unpack[ASGIAcceptKeywords],
    ) -> _ASGI:
        """Accept a WebSocket; takes what the class takes.

        :raises ConnectionError: when the origin is not allowed (403 was
                                 answered), or the client has gone already.
        :raises TypeError: for an argument of a wrong type.
        :raises ValueError: for another type of scope, or a wrong option, or when
                            the server's first event is not the connection's.
        """
        ws = cls(scope, receive, send, subprotocols, **options)
        await ws._accept()
        return ws

    def choose_subprotocol(self, request: handshake.UpgradeRequest) -> str | None:
        """Choose a subprotocol; override it for another policy.

        :param request: the upgrade request; ``request.subprotocols`` lists
                        what the client offers, best first.
        :returns: one of them, or None.
        """
        return handshake.choose_subprotocol(request.subprotocols, self.subprotocols)

    def _request(self) -> handshake.UpgradeRequest:
        # Not validated: the server did that, and over HTTP/2 (RFC 8441) there
        # is neither a key nor an Upgrade.
        scope = self.scope
        headers = [
            (name.decode('latin-1'), value.decode('latin-1')) for name, value in scope['headers']
        ]
        first = {name.lower(): value for name, value in reversed(headers)}
        target = (scope.get('raw_path') or scope.get('path', '/').encode()).decode('latin-1')
        if scope.get('query_string'):
            target += '?' + scope['query_string'].decode('latin-1')
        return handshake.UpgradeRequest(
            subprotocols=list(scope.get('subprotocols') or ()),
            extensions=[value for name, value in headers if name == 'sec-websocket-extensions'],
            origin=first.get('origin'),
            host=first.get('host'),
            target=target,
            key=first.get('sec-websocket-key', ''),
            headers=headers,
        )

    async def _accept(self) -> None:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            message = 'AioServer needs asyncio, and the ASGI server runs on another loop'
            raise RuntimeError(message) from None
        event = await self._server_receive()
        if event['type'] == 'websocket.disconnect':
            raise ConnectionError(None, 'the client is gone')
        if event['type'] != 'websocket.connect':
            raise ValueError(
                f'asgi: {event["type"]!r} where websocket.connect was due; '
                'was it accepted already?'
            )
        request = self._request()
        try:
            secure = handshake.is_secure(self.scope.get('scheme'))
            handshake.check_origin(request, self._origins, secure)
            with as_refusal():
                chosen = self._choose(request) or None
        except handshake.Rejected as rejected:
            await self._server_send({'type': 'websocket.close'})  # before the accept: a 403
            raise ConnectionError(rejected.status, rejected.explanation) from rejected
        if chosen is not None and chosen not in request.subprotocols:
            raise ValueError(f'subprotocol {chosen!r} is not one that the client offered')
        try:
            await self._server_send({'type': 'websocket.accept', 'subprotocol': chosen})
        except Exception as error:  # uvloop says RuntimeError
            raise ConnectionError(None, 'the client is gone') from error
        self.subprotocol = chosen
        self._open = True
        self._drained = False
        self._options.logger.debug('accepted %s', self)

    @property
    def connected(self) -> bool:
        """Whether messages can be sent.  Once false it stays so."""
        return self._open

    @property
    def close_reason(self) -> int:
        """The close code (RFC 6455 section 7.4), once closed; 1005 until then."""
        return self._code

    @property
    def close_message(self) -> str | None:
        """The text that came with the close code, or None."""
        return self._text

    async def send(self, data: Any, timeout: float | None = None) -> None:
        """Send a message (RFC 6455 section 5.6).

        :param data: ``bytes``, ``bytearray`` or ``memoryview`` for a binary
                     message; ``str`` for a text message, as is ``str(data)``
                     of anything else.
        :param timeout: seconds that the server may take; then the connection
                        counts as failed, and the server closes it when the
                        application returns.  None (the default) for no limit.
        :raises ConnectionClosed: on a closed connection, or when ``timeout``
                                  ran out (with 1006).
        """
        check_timeout(timeout)
        event: Event = {'type': 'websocket.send'}
        opcode, payload = encode_message(data)
        if opcode == BINARY:
            event['bytes'] = bytes(payload)  # type: ignore[arg-type]
        else:
            event['text'] = payload
            str(payload).encode()  # a lone surrogate is the caller's mistake
        if not self._open:
            raise self._closed()
        try:
            if timeout is None:
                await self._server_send(event)
            else:
                await in_time(asyncio.ensure_future(self._server_send(event)), timeout)
        except Exception as error:
            # What the client said last is still to be read: see _take.
            if self._open:
                self._end(ABNORMAL_CLOSURE, None)
            raise self._closed() from error

    @overload
    async def receive(self, timeout: None = None) -> str | bytes: ...

    @overload
    async def receive(self, timeout: float | None) -> str | bytes | None: ...

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
        if self._receiving:
            raise SimpleWebsocketError(
                'receive() is already waiting in another task: one receiver at a time'
            )
        self._receiving = True
        try:
            return await self._receive(timeout)
        finally:
            self._receiving = False

    async def _receive(self, timeout: float | None) -> Any:
        loop = asyncio.get_running_loop()
        deadline = None if timeout is None else loop.time() + timeout
        while not self._drained or self._next is not None:
            # A task of its own, which outlives this call: not every server's
            # receive() can be cancelled without losing a message.
            if self._next is None:
                self._next = asyncio.ensure_future(self._server_receive())
                self._next.add_done_callback(retrieve)
            if not self._next.done():
                left = None if deadline is None else max(0, deadline - loop.time())
                await asyncio.wait((self._next,), timeout=left)
                if not self._next.done():
                    return None
            event, self._next = self._next, None
            message = await self._take(event)
            if message is not None:
                return message
        raise self._closed()

    async def _take(self, done: asyncio.Future[Event]) -> str | bytes | None:
        """The message in what the server gave; None where there is none."""
        error = None if done.cancelled() else done.exception()
        if done.cancelled() or error is not None:
            self._end(ABNORMAL_CLOSURE, None)
            self._drained = True
            raise self._closed() from error
        event = done.result()
        if event['type'] == 'websocket.receive':
            text = event.get('text')
            message: str | bytes = text if text is not None else event.get('bytes') or b''
            if self._too_big(message):
                text = f'message over {self._options.max_message_size} bytes'
                with suppress(ConnectionClosed):
                    await self._close(MESSAGE_TOO_BIG, text, wait=False)
                raise self._closed()
            return message
        if event['type'] == 'websocket.disconnect':
            self._drained = True
            code = event.get('code')
            self._end(NO_STATUS if code is None else int(code), event.get('reason') or None)
        return None

    def _too_big(self, message: str | bytes) -> bool:
        limit = self._options.max_message_size
        if not limit or len(message) * 4 <= limit:
            return False
        size = len(message) if isinstance(message, bytes) else len(message.encode())
        return size > limit

    async def _close(self, reason: int | None, message: str | None, wait: bool) -> None:
        code = NORMAL_CLOSURE if reason is None else reason
        close_payload(code, message)
        if not self._open:
            raise self._closed()
        self._end(int(code), message or None)
        self._drained = True
        if self._next is not None:
            self._next.cancel()  # releases whoever waits for a message
        event = {'type': 'websocket.close', 'code': int(code), 'reason': message or ''}
        try:
            await self._server_send(event)
        except Exception as error:
            # The client was faster, which is no concern of who closes.
            self._options.logger.debug('%s: the Close did not go out: %r', self, error)

    def _end(self, code: int, text: str | None) -> None:
        # 1006, as of a failed send, gives way to the code that the client gave.
        if self._open or self._code == ABNORMAL_CLOSURE:
            self._code, self._text = code, text
        self._open = False

    def _closed(self) -> ConnectionClosed:
        return ConnectionClosed(self._code, self._text)

    def __repr__(self) -> str:
        state = 'open' if self._open else f'closed: {self._code}'
        return f'<simple_websocket.{type(self).__name__} {state}>'


__all__ = ['WebSocketASGI']
