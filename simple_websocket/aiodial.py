"""How an asyncio client gets from a URL to an open connection: ``dial``'s twin.

The loop makes transports of sockets, and speaks TLS.  Whatever is cancelled, in
whichever of its turns, leaves no descriptor and no error that nobody asks for.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable
from typing import Any

from .aiotime import in_time, retrieve
from .client_handshake import URL, ClientHandshake, Response, time_for_body
from .dial import name_the_host, of_address, unreachable
from .errors import ConnectionError
from .profiles.aio import AioLink

MakeLink = Callable[[Response], AioLink]


class AioDial:
    """Opens a client's connection.

    :param target: where to.
    :param opening: the handshake.
    :param open_timeout: seconds that the caller gives it, of which each address has a
                         share; None for no limit.
    :param sock: a connected socket to use; None to make one.
    :param context: for TLS; None for one that verifies.
    :param server_hostname: the name that the certificate has to be for; None for the
                            URL's.
    """

    def __init__(
        self,
        target: URL,
        opening: ClientHandshake,
        open_timeout: float | None,
        sock: Any,
        context: ssl.SSLContext | None,
        server_hostname: str | None,
    ) -> None:
        self._target = target
        self._opening = opening
        self._open_timeout = open_timeout
        self._sock = sock
        self._context = context
        self._server_hostname = server_hostname

    async def link(self, make_link: MakeLink) -> AioLink:
        """DNS, TCP to the first address that answers, TLS, HTTP.

        :param make_link: makes the link of the connection; it may raise.
        """
        loop = asyncio.get_running_loop()
        target = self._target
        deadline = None if self._open_timeout is None else loop.time() + self._open_timeout
        opening: Any = Opening(self._opening, make_link, loop, deadline)
        sock = self._sock or await self._connect(loop, deadline)
        tls: dict[str, Any] = {}
        made: Any = None
        try:
            sock.setblocking(False)
            if target.secure:
                tls['ssl'] = self._context or ssl.create_default_context()
                tls['server_hostname'] = self._server_hostname or target.tls_name
            made = await loop.create_connection(lambda: opening, sock=sock, **tls)
        except BaseException:
            opening.give_up(sock)
            raise
        try:
            link: AioLink = await opening.result
            return link
        except BaseException:
            made[0].abort()
            raise
        finally:
            opening = made = None  # the result has what is raised, and so leads back to here

    async def _connect(
        self, loop: asyncio.AbstractEventLoop, deadline: float | None
    ) -> socket.socket:
        """TCP.  An address that is silent gets its share of the time, as in ``Dial``."""
        errors: list[OSError] = []
        host, port = self._target.host, self._target.port
        with name_the_host(host):
            addresses = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        for place, (family, kind, proto, _, address) in enumerate(addresses):
            share = None
            if deadline is not None:
                share = (deadline - loop.time()) / (len(addresses) - place)
            sock = None
            try:
                sock = socket.socket(family, kind, proto)
                sock.setblocking(False)
                await in_time(loop.create_task(loop.sock_connect(sock, address)), share)
                return sock
            except BaseException as error:
                if sock is not None:  # else the system has none of that family
                    sock.close()
                if isinstance(error, asyncio.TimeoutError) and not error.args:
                    errors.append(of_address(address, None))  # its share is over
                elif isinstance(error, OSError):
                    # asyncio's own words are about its call.
                    errors.append(of_address(address, error.errno or errno.EHOSTUNREACH))
                else:
                    raise
        raise unreachable(host, errors)


class Opening(asyncio.Protocol):
    """The client's opening handshake (RFC 6455 section 4.1) on a transport.

    The transport gets its next protocol in the very call that brought the end
    of the response, so no byte and no event can fall in between.

    :param opening: the handshake.
    :param make_link: makes the link of the connection; it may raise.
    :param loop: the running event loop.
    :param deadline: when the caller gives up, by the loop's clock; None for never.
    """

    def __init__(
        self,
        opening: ClientHandshake,
        make_link: MakeLink,
        loop: asyncio.AbstractEventLoop,
        deadline: float | None,
    ) -> None:
        self.result: asyncio.Future[AioLink] = loop.create_future()
        self.result.add_done_callback(retrieve)
        self._transport: Any = None
        self._opening = opening
        self._make_link = make_link
        self._loop = loop
        self._deadline = deadline
        self._in_body = False

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
                if self._opening.refused and not self._in_body:
                    self._wait_for_body()
                return
            link = self._make_link(response)
        except Exception as error:
            self.result.set_exception(error.with_traceback(None))
            return
        self._transport.set_protocol(link)
        link.connection_made(self._transport)
        if response.leftover:
            link.data_received(response.leftover)
        self.result.set_result(link)

    def _wait_for_body(self) -> None:
        """The server has refused; say so when its words have come, or soon."""
        self._in_body = True
        left = None if self._deadline is None else self._deadline - self._loop.time()
        timer = self._loop.call_later(time_for_body(left), self.connection_lost, None)
        self.result.add_done_callback(lambda _: timer.cancel())

    def eof_received(self) -> None:
        self.connection_lost(None)

    def connection_lost(self, exc: BaseException | None) -> None:
        if self.result.done():
            return
        try:
            if exc is not None and not self._opening.refused:
                raise ConnectionError(None, f'the handshake failed: {exc}') from exc
            self._opening.receive_eof()
        except ConnectionError as error:
            self.result.set_exception(error.with_traceback(None))
