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
import errno
import socket
import ssl
from abc import abstractmethod
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, overload

from . import client_handshake, deflate, handshake
from .asgi import Conversation, Receive, Scope, Send, WebSocketASGI
from .close_codes import NORMAL_CLOSURE, close_payload
from .codec import TEXT
from .connection import Connection, encode_message, name_the_host
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
        ws = cls(
            aiohttp, subprotocols, receive_bytes, ping_interval, max_message_size, **options
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
            request.method, request.raw_path, version, request.headers, request.secure
        )
        self._link = link
        take_over(request, link, self, rejected.status if rejected else 101)
        self._report(rejected)

    async def _accept_sock(self, sock: Any, headers: Any) -> None:
        _check_socket(sock)
        self.mode = 'custom'
        self.headers = headers
        link, rejected = self._answer('GET', '/', '1.1', headers, False)
        self._link = link
        try:
            sock.setblocking(False)
            await asyncio.get_running_loop().connect_accepted_socket(lambda: link, sock)
        except BaseException:
            link.protocol.abort()
            raise
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


def _check_request(request: Any) -> None:
    """Not for its class: there are wrappers of aiohttp's."""
    wanted = ('headers', 'transport', 'protocol', 'version', 'method', 'raw_path', 'secure')
    if not all(hasattr(request, name) for name in wanted):
        raise TypeError(f"aiohttp must be aiohttp's Request, not {_short(request)}")


def _check_asgi(asgi: Any) -> tuple[Scope, Receive, Send]:
    try:
        scope, receive, send = asgi
    except (TypeError, ValueError):
        raise TypeError(
            f'asgi must be (scope, receive, send), not {_short(asgi)}'
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
        self.result.add_done_callback(_retrieve)
        self._transport: Any = None
        self._opening = opening
        self._make_link = make_link

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport
        self._transport.write(self._opening.request())

    def give_up(self, sock: Any) -> None:
        """Nothing comes of it; the socket is the transport's, once there is one."""
        self.result.cancel()
        if self._transport is not None:
            self._transport.abort()
        else:
            sock.close()

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


def _retrieve(result: asyncio.Future[Any]) -> None:
    """Whoever has asked for it may have been cancelled: that is no error."""
    if not result.cancelled():
        result.exception()


async def _in_time(task: asyncio.Task[None], seconds: float | None) -> None:
    """Wait for a task; unlike Python 3.11's ``wait_for``, in another one as well, this
    does not swallow that it is cancelled.

    :raises asyncio.TimeoutError: when the time is over.
    """
    task.add_done_callback(_retrieve)
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
    finally:
        task.cancel()
    if not done:
        raise asyncio.TimeoutError
    task.result()


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
        self._options.logger.debug('connected %s to %s', self, self._target)

    async def _dial(self) -> AioLink:
        """DNS, TCP to the first address that answers, TLS, HTTP."""
        loop = asyncio.get_running_loop()
        target = self._target
        opening = _Opening(self._opening, self._make_link, loop)
        sock = self._sock or await self._connect(loop)
        tls: dict[str, Any] = {}
        try:
            sock.setblocking(False)
            if target.secure:
                tls['ssl'] = self._ssl_context or ssl.create_default_context()
                tls['server_hostname'] = self._server_hostname or target.tls_name
            transport, _ = await loop.create_connection(lambda: opening, sock=sock, **tls)
        except BaseException:
            opening.give_up(sock)
            raise
        try:
            return await opening.result
        except BaseException:
            transport.abort()
            raise

    async def _connect(self, loop: asyncio.AbstractEventLoop) -> socket.socket:
        """TCP.  An address that is silent gets its share of the time, as in ``Dial``."""
        timeout, began = self._options.open_timeout, loop.time()
        first_error: BaseException | None = None
        host, port = self._target.host, self._target.port
        with name_the_host(host):
            addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        for place, (family, kind, proto, _, address) in enumerate(addresses):
            share = None
            if timeout is not None:
                share = (began + timeout - loop.time()) / (len(addresses) - place)
            sock = None
            try:
                sock = socket.socket(family, kind, proto)
                sock.setblocking(False)
                await _in_time(loop.create_task(loop.sock_connect(sock, address)), share)
                return sock
            except BaseException as error:
                if sock is not None:  # else the system has none of that family
                    sock.close()
                if not isinstance(error, (OSError, asyncio.TimeoutError)):
                    raise
                first_error = first_error or error
        raise first_error or OSError(errno.EHOSTUNREACH, f'{host} has no address')

    def _make_link(self, response: client_handshake.Response) -> AioLink:
        loop = asyncio.get_running_loop()
        try:
            engine = deflate.accept_offer(self._options.compression, response.extensions)
        except deflate.DeflateError as error:
            raise ConnectionError(None, str(error)) from error
        self.subprotocol = response.subprotocol
        return AioLink(self._options.protocol(True, loop.time, engine), loop)


__all__ = ['AioBase', 'AioClient', 'AioServer']
