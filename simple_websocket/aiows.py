"""``AioServer`` and ``AioClient``: the same connections for asyncio.

A connection is a ``Protocol`` (what is said) on an asyncio transport, joined
by an ``AioLink`` (``profiles/aio.py``).  These classes make them; ``takeover``
has what aiohttp needs, and ``asgi`` what ASGI servers need.

Everything happens in the event loop that the connection was made in.  Calls
from other threads or loops are not supported (use
``asyncio.run_coroutine_threadsafe``).
"""

from __future__ import annotations

import asyncio
import socket
import ssl
from abc import abstractmethod
from collections.abc import AsyncIterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar, overload

from . import client_handshake, deflate, handshake
from .aiodial import AioDial
from .aiotime import in_time
from .asgi import Conversation, Receive, Scope, Send, WebSocketASGI
from .close_codes import NORMAL_CLOSURE, close_payload
from .codec import TEXT
from .connection import Connection, Event, as_refusal, encode_message
from .dial import check_context, check_server_hostname
from .errors import ConnectionError
from .options import Headers, Options, Origins, Subprotocols, check_timeout
from .profiles.aio import AioLink
from .takeover import HostLogger, Husk, take_over

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .options import AioAcceptKeywords, CommonKeywords, ConnectKeywords, DialKeywords

_Base = TypeVar('_Base', bound='AioBase')
_Server = TypeVar('_Server', bound='AioServer')
_Client = TypeVar('_Client', bound='AioClient')


class _AioEvent(Event):
    """The same, with a wait that is a coroutine."""

    _link: AioLink

    async def wait(self) -> bool:  # type: ignore[override]
        """Wait until ``receive`` would return, or raise, at once."""
        return await self._link._until(self.is_set, None)


class AioBase(Connection, Conversation):
    """What the two ends have in common; made by ``AioServer`` and ``AioClient``.

    What may run at the same time: any number of ``send`` and one ``receive``,
    and ``close`` at any moment, in tasks of one event loop.
    """

    #: The subprotocols that were given, a list.
    subprotocols: list[str]

    _link: AioLink | None
    _options: Options

    @property
    def sock(self) -> Any:
        """The transport's view of its socket: ``getpeername()`` and the like."""
        return self._open_link.wire.sock

    @cached_property
    def event(self) -> Any:
        """Its ``set()`` wakes a waiting ``receive``, harmlessly."""
        return _AioEvent(self._open_link)

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
        if timeout is not None:
            check_timeout(timeout)
        opcode, payload = (TEXT, data) if type(data) is str else encode_message(data)
        wait = (self._link or self._open_link).send(opcode, payload, timeout)
        if wait is not None:
            await wait

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
        if timeout is not None:
            check_timeout(timeout)
        return await (self._link or self._open_link).receive(timeout)

    def __aiter__(self) -> AsyncIterator[str | bytes]:
        """The messages, until the connection closes."""
        kind = type(self)
        ours = kind.receive is AioBase.receive and kind.__anext__ is AioBase.__anext__
        if ours and 'receive' not in self.__dict__:
            messages: AsyncIterator[str | bytes] = self._open_link.iterate(self)
            return messages
        return self

    async def _close(self, reason: int | None, message: str | None, wait: bool) -> None:
        code = NORMAL_CLOSURE if reason is None else reason
        payload = close_payload(code, message)
        await self._open_link.close(payload, int(code), message or None, wait)

    async def _ended(self) -> None:
        await self._open_link.join(None)

    @abstractmethod
    async def _start(self) -> None:
        """Open the connection."""

    async def __aenter__(self: _Base) -> _Base:
        if self._link is None:  # made by the constructor
            await self._start()
        return self


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
    :param options: ``ping_timeout``, ``close_timeout``, ``max_queue``,
                    ``max_fragments``, ``compression``, ``logger``; they and all
                    that is not listed here are as for ``Server``.
    """

    #: Where the connection comes from: ``'aiohttp'``, or ``'custom'`` for a socket.
    mode = 'unknown'

    #: aiohttp's request, None for a socket.
    request: Any

    #: The headers of the request, once it is accepted.
    headers: Any

    def __init__(
        self,
        request: Any,
        subprotocols: Subprotocols = None,
        receive_bytes: int = 4096,
        ping_interval: float | None = None,
        max_message_size: int | None = None,
        *,
        origins: Origins = None,
        **options: Unpack[CommonKeywords],
    ) -> None:
        self.request = request
        self.subprotocols = handshake.parse_subprotocols(subprotocols)
        self._options = Options.of(
            type(self).__name__, receive_bytes, ping_interval, max_message_size, options
        )
        self._origins = handshake.parse_origins(origins)

    @overload
    @classmethod
    async def accept(
        cls: type[_Server],
        aiohttp: Any = None,
        asgi: None = None,
        sock: Any = None,
        headers: Headers = None,
        subprotocols: Subprotocols = None,
        receive_bytes: int = 4096,
        ping_interval: float | None = None,
        max_message_size: int | None = None,
        **options: Unpack[AioAcceptKeywords],
    ) -> _Server: ...

    @overload
    @classmethod
    async def accept(
        cls,
        aiohttp: None = None,
        *,
        asgi: tuple[Scope, Receive, Send],
        subprotocols: Subprotocols = None,
        receive_bytes: int = 4096,
        ping_interval: float | None = None,
        max_message_size: int | None = None,
        **options: Unpack[AioAcceptKeywords],
    ) -> WebSocketASGI: ...

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
        :param options: ``origins``, ``ping_timeout``, ``close_timeout``,
                        ``max_queue``, ``max_fragments``, ``compression``,
                        ``logger``.
        :returns: a connection of this class; for ``asgi`` a ``WebSocketASGI``,
                  which has the same methods.
        :raises ConnectionError: when the request is no valid upgrade; it was
                                 answered with ``status_code`` (400, 403, 405,
                                 426).
        :raises TypeError: for an argument of a wrong type.
        :raises ValueError: for a wrong value.
        """
        given = [source for source in (aiohttp, asgi, sock) if source is not None]
        if len(given) != 1 or (sock is None) != (headers is None):
            raise ValueError(
                'give one of aiohttp, asgi, or sock with headers, '
                "which are the request's and go with sock alone"
            )
        ws = cls(  # by name, as in 1.x: subclasses have constructors of their own
            aiohttp,
            subprotocols=subprotocols,
            receive_bytes=receive_bytes,
            ping_interval=ping_interval,
            max_message_size=max_message_size,
            **options,
        )
        if asgi is not None:
            options['origins'] = ws._origins
            return await WebSocketASGI.accept(
                *_check_asgi(asgi),
                ws.subprotocols,
                receive_bytes=receive_bytes,
                ping_interval=ping_interval,
                max_message_size=max_message_size,
                choose_subprotocol=ws.choose_subprotocol,
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
        :raises ConnectionError: (ours) to refuse the client, with the error's
                                 ``status_code``.
        """
        return handshake.choose_subprotocol(request.subprotocols, self.subprotocols)

    async def _start(self) -> None:
        """Accept from aiohttp."""
        request = self.request
        _check_request(request)
        self.mode = 'aiohttp'
        self.headers = request.headers
        transport = request.transport
        if isinstance(transport, Husk):
            raise RuntimeError('this request was accepted already')
        if transport is None or transport.is_closing():
            request.protocol.logger = HostLogger(request.protocol.logger)
            raise ConnectionError(None, 'the client is gone')
        version = '.'.join(map(str, request.version))
        link, rejected = self._answer(
            request.method,
            request.raw_path,
            version,
            request.headers,
            handshake.is_secure(request.scheme),
        )
        self._link = link
        take_over(request, link, self, rejected.status if rejected else 101)
        try:
            self._report(rejected)
        finally:
            del rejected  # its traceback leads back to here

    async def _accept_sock(self, sock: Any, headers: Any) -> None:
        _check_socket(sock)
        self.mode = 'custom'
        self.headers = headers
        link, rejected = self._answer('GET', '/', '1.1', headers, False)
        self._target = ''  # which nobody knows
        self._link = link
        try:
            sock.setblocking(False)
            await asyncio.get_running_loop().connect_accepted_socket(lambda: link, sock)
        except BaseException:
            link.protocol.abort()
            raise
        try:
            self._report(rejected)
        finally:
            del rejected  # its traceback leads back to here

    def _where(self) -> str:
        path = self._target.partition('?')[0]
        return repr(path[:100]) if path else self.mode

    def _answer(
        self, method: str, target: str, version: str, headers: Any, secure: bool
    ) -> tuple[AioLink, handshake.Rejected | None]:
        """A link with the response to write first, and why if it is a refusal."""
        self._target = target
        loop = asyncio.get_running_loop()
        try:
            request = handshake.request_from_headers(method, target, version, headers)
            engine, extension = self._options.negotiate(request, self._origins, secure)
            with as_refusal():
                self.subprotocol = self.choose_subprotocol(request) or None
        except handshake.Rejected as rejected:
            protocol = self._options.protocol(False, loop.time, None)
            protocol.refuse(handshake.rejection_response(rejected, method))
            return AioLink(protocol, loop), rejected
        response = handshake.accept_response(request, self.subprotocol, extension)
        protocol = self._options.protocol(False, loop.time, engine)
        protocol.out.append(response)
        return AioLink(protocol, loop), None

    def _report(self, rejected: handshake.Rejected | None) -> None:
        if rejected is not None:
            self._options.logger.debug('refused: %s', rejected)
            raise ConnectionError(rejected.status, rejected.explanation) from rejected
        self._options.logger.debug('accepted %s', self)


def _check_request(request: Any) -> None:
    """Not for its class: there are wrappers of aiohttp's."""
    wanted = ('headers', 'transport', 'protocol', 'version', 'method', 'raw_path', 'secure')
    if not all(hasattr(request, name) for name in wanted):
        raise TypeError(f"aiohttp must be aiohttp's Request, not {_short(request)}")


def _check_asgi(asgi: Any) -> tuple[Scope, Receive, Send]:
    try:
        scope, receive, send = asgi
    except (TypeError, ValueError):
        hint = ''
        if all(hasattr(asgi, name) for name in ('scope', 'receive', 'send')):
            hint = ': pass the scope, receive and send of it'  # Starlette's
        raise TypeError(
            f'asgi must be (scope, receive, send), not {_short(asgi)}{hint}'
        ) from None
    return scope, receive, send


def _short(value: Any) -> str:
    """A wrong argument, without what may be secrets in it: a request's headers."""
    inside = isinstance(value, (Mapping, Sequence)) and not isinstance(value, str)
    return f'a {type(value).__name__}' if inside else repr(value)


def _check_socket(sock: Any) -> None:
    if hasattr(sock, 'do_handshake'):
        raise TypeError('sock must not be an SSLSocket: asyncio does TLS itself')
    if not isinstance(sock, socket.socket):
        raise TypeError(f'sock must be a socket.socket, not {sock!r}')


class AioClient(AioBase):
    """A WebSocket connection to a server.

    Make one with ``await AioClient.connect(url)``.  (The constructor alone
    does nothing; ``async with AioClient(url) as ws`` connects, too.)

    :param url: ``ws://`` or ``wss://`` (``http``, ``https`` too).
    :param subprotocols: the names to offer, one or a list in order of
                         preference.
    :param headers: further headers, a mapping or an iterable of pairs.
    :param receive_bytes: accepted for 1.x; without effect.
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

    #: As it was given.
    url: str

    #: The headers of the server's response, pairs of a name, in lower case, and a
    #: value: its cookies, for instance.
    response_headers: list[tuple[str, str]]

    def __init__(
        self,
        url: str,
        subprotocols: Subprotocols = None,
        headers: Headers = None,
        receive_bytes: int = 4096,
        ping_interval: float | None = None,
        max_message_size: int | None = None,
        ssl_context: ssl.SSLContext | None = None,
        thread_class: Any = None,
        event_class: Any = None,
        *,
        sock: Any = None,
        server_hostname: str | None = None,
        **options: Unpack[DialKeywords],
    ) -> None:
        self._options = Options.of(
            type(self).__name__,
            receive_bytes,
            ping_interval,
            max_message_size,
            options,
            client=True,
        )
        self.url = url
        self._target = client_handshake.parse_url(url)
        compression = self._options.compression
        opening = client_handshake.ClientHandshake(
            self._target,
            subprotocols,
            headers,
            deflate.offer(compression) if compression else None,
        )
        self.subprotocols = opening.subprotocols
        check_context(ssl_context)
        check_server_hostname(server_hostname)
        if sock is not None:
            _check_socket(sock)
        self._dial = AioDial(
            self._target, opening, self._options.open_timeout,
            sock, ssl_context, server_hostname,
        )  # fmt: skip

    @classmethod
    async def connect(
        cls: type[_Client],
        url: str,
        subprotocols: Subprotocols = None,
        headers: Headers = None,
        receive_bytes: int = 4096,
        ping_interval: float | None = None,
        max_message_size: int | None = None,
        ssl_context: ssl.SSLContext | None = None,
        thread_class: Any = None,
        event_class: Any = None,
        **options: Unpack[ConnectKeywords],
    ) -> _Client:
        """Connect to a server; takes what ``AioClient`` takes.

        :param options: ``open_timeout``, ``sock``, ``server_hostname``,
                        ``ping_timeout``, ``close_timeout``, ``max_queue``,
                        ``max_fragments``, ``compression``, ``logger``.
        :raises ConnectionError: when the server refuses (with
                                 ``status_code``) or does not speak WebSocket.
        :raises OSError: when it can't be reached or TLS fails; TimeoutError
                         when ``open_timeout`` runs out.
        :raises TypeError: for an argument of a wrong type.
        :raises ValueError: for a wrong value.
        """
        ws = cls(  # by name, as in 1.x, whose own constructor takes no classes
            url,
            subprotocols=subprotocols,
            headers=headers,
            receive_bytes=receive_bytes,
            ping_interval=ping_interval,
            max_message_size=max_message_size,
            ssl_context=ssl_context,
            **options,
        )
        await ws._start()
        return ws

    async def _start(self) -> None:
        timeout = self._options.open_timeout
        dialling = asyncio.ensure_future(self._dial.link(self._make_link))
        try:
            self._link = await in_time(dialling, timeout)
        except BaseException as error:
            dialling.add_done_callback(_give_up_what_came)
            if not isinstance(error, asyncio.TimeoutError) or error.args:
                raise  # ETIMEDOUT, too: TCP gave up before us
            raise TimeoutError('the connection was not open within open_timeout') from None
        finally:
            del dialling  # which has what is raised, and so leads back to here
        self._options.logger.debug('connected %s', self)

    def _where(self) -> str:
        return str(self._target)

    def _make_link(self, response: client_handshake.Response) -> AioLink:
        loop = asyncio.get_running_loop()
        try:
            engine = deflate.accept_offer(self._options.compression, response.extensions)
        except deflate.DeflateError as error:
            raise ConnectionError(None, str(error)) from error
        self.subprotocol = response.subprotocol
        self.response_headers = response.headers
        return AioLink(self._options.protocol(True, loop.time, engine), loop)


def _give_up_what_came(dialling: asyncio.Future[AioLink]) -> None:
    """The caller has left in the very turn in which the connection was open."""
    if not dialling.cancelled() and dialling.exception() is None:
        dialling.result().give_up()


__all__ = ['AioBase', 'AioClient', 'AioServer']
