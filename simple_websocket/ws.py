"""``Server`` and ``Client``: WebSocket for code that blocks.

A connection here is three things: a ``Protocol`` (what is said), a ``Wire``
(the socket) and the ``Link`` that joins the two in the way of a profile (how
to wait).  These classes make them, and hold on to the link only: when nobody
holds the connection any more the link closes the socket.

What may run at the same time: any number of ``send`` and one ``receive``, and
``close`` at any moment, from whatever threads or greenlets, also from OS
threads other than the one whose hub serves the connection.
"""

from __future__ import annotations

import ssl
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, Any, TypeVar, overload
from weakref import ref

from . import client_handshake, deflate, handshake, hosts
from .close_codes import INTERNAL_ERROR, NORMAL_CLOSURE, close_payload
from .codec import TEXT
from .connection import Connection, Event, as_refusal, encode_message, exit_code
from .dial import Dial, check_context, check_server_hostname
from .environ import request_from_environ
from .errors import ConnectionClosed, ConnectionError, SimpleWebsocketError
from .options import Headers, Options, Origins, Subprotocols, check_timeout
from .profiles import Profile, express, resolve
from .profiles.blocking import BlockingLink
from .profiles.link import discard
from .profiles.wire import Wire
from .protocol import ENDING, Protocol

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .options import AcceptKeywords, CommonKeywords, DialKeywords, SyncConnectKeywords

_Base = TypeVar('_Base', bound='Base')
_Server = TypeVar('_Server', bound='Server')
_Client = TypeVar('_Client', bound='Client')

#: The clock of every connection; looked up when called, for tests that
#: replace it.
_now: Callable[[], float] = time.monotonic


#: The key by which a request holds its connection until its host is done.
_IN_ENVIRON = 'simple_websocket.connection'


class _Thread:
    """The ``thread`` of a connection that has none of its own."""

    def __init__(self, link: BlockingLink) -> None:
        self._link = link
        self.name = 'simple_websocket connection'
        self.daemon = True

    def join(self, timeout: float | None = None) -> None:
        """Wait until TCP is closed, ``timeout`` seconds at most."""
        self._link.join(timeout)

    def is_alive(self) -> bool:
        """Whether TCP is still open."""
        return not self._link.finished


@express.connection
class Base(Connection):
    """What the two ends have in common; made by ``Server`` and ``Client``."""

    #: The socket, to ask for its peer's address and the like.
    sock: Any

    #: The subprotocols that were given, a list.
    subprotocols: list[str]

    _link: BlockingLink | None

    def _open(
        self,
        profile: Profile,
        wire: Wire,
        protocol: Protocol,
        leftover: bytes,
    ) -> None:
        """Bring the connection to life, or leave nothing: there may be no file
        descriptor or no thread for it, or Ctrl-C in the middle."""
        try:
            link = profile.make_link(wire, protocol, _now)
            if leftover:
                protocol.feed(leftover)
            self._link = link
            self.sock = wire.sock
            link.start()
        except BaseException:
            discard(wire)
            raise

    @cached_property
    def thread(self) -> Any:
        """The reader of injected classes; else what stands for it."""
        return getattr(self._open_link, 'thread', None) or _Thread(self._open_link)

    @cached_property
    def event(self) -> Any:
        """What ``receive`` of injected classes waits on; else what stands for it."""
        return getattr(self._open_link, 'event', None) or Event(self._open_link)

    def send(self, data: Any, timeout: float | None = None) -> None:
        """Send a message (RFC 6455 section 5.6).

        Returns when TCP has taken all of it.  A message leaves whole or the
        connection fails: when the wait is interrupted by an exception, or by
        ``timeout``, half a frame may be out, so nothing can follow it.

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
        (self._link or self._open_link).send(opcode, payload, timeout)

    @overload
    def receive(self, timeout: None = None) -> str | bytes: ...

    @overload
    def receive(self, timeout: float | None) -> str | bytes | None: ...

    def receive(self, timeout: float | None = None) -> Any:
        """Receive a message.

        What was received before the connection closed comes first.  An
        exception thrown into the wait (a kill, a timeout of a green library,
        Ctrl-C) loses nothing; call again.

        :param timeout: seconds to wait; 0 does not wait, None (the default)
                        waits as long as the connection lasts.
        :returns: ``str`` or ``bytes``; None when ``timeout`` ran out.
        :raises ConnectionClosed: when the connection is closed and every
                                  message was taken; every time.
        :raises SimpleWebsocketError: when another thread or greenlet is
                                      waiting in ``receive`` already.
        """
        if timeout is not None:
            check_timeout(timeout)
        link = self._link or self._open_link
        try:
            return link.receive(timeout)
        except SimpleWebsocketError:
            raise
        except BaseException:
            link.interrupted()
            raise

    def close(self, reason: int | None = None, message: str | None = None) -> None:
        """Close the connection (RFC 6455 section 7.1.2).

        Returns when the peer has answered the Close, ``close_timeout`` seconds
        later at most.  Note the order: ``reason`` is the numeric code,
        ``message`` the text (other libraries call the text "reason").

        :param reason: the close code, 1000 by default; 4000 to 4999 are for
                       applications.
        :param message: a text of at most 123 bytes in UTF-8.
        :raises ConnectionClosed: when the connection is closed already.
        :raises ValueError: for a code that must not be sent, or too long a
                            text; nothing was sent then.
        """
        self._close(reason, message, wait=True)

    def _close(self, reason: int | None, message: str | None, wait: bool) -> None:
        code = NORMAL_CLOSURE if reason is None else reason
        payload = close_payload(code, message)
        # At the end of the program what a wait takes is gone.
        wait = wait and not sys.is_finalizing()
        self._open_link.close(payload, int(code), message or None, wait)

    def __enter__(self: _Base) -> _Base:
        return self

    def __exit__(self, kind: Any, error: Any, traceback: Any) -> None:
        """Close: with 1000, after an exception with 1011, on the way out of
        the program (Ctrl-C, a killed greenlet) with 1001."""
        if self._open_link.protocol.state > ENDING:
            return  # as nearly always, since it was the peer that ended it
        with suppress(ConnectionClosed):
            # An exception must not wait for a peer's answer.
            self._close(exit_code(kind), None, wait=kind is None)

    def __iter__(self) -> Iterator[str | bytes]:
        """The messages, until the connection closes."""
        ours = getattr(self.receive, '__func__', None) is Base.receive
        return (express.Messages if ours else express.AnyMessages)(self)


class Server(Base):
    """A WebSocket connection that a WSGI application accepts.

    Make one with ``Server.accept(environ)``, inside the handler of the
    request; the WSGI server must be one that hands out its socket (Werkzeug,
    gunicorn, gevent's pywsgi, eventlet's wsgi, or one that
    ``register_host`` describes).  From then on the socket is this object's:
    whatever the handler returns goes nowhere, and a connection that is left
    open when the handler returns is closed.

    :param environ: the WSGI environ.
    :param subprotocols: the names that this server supports, one or a list.
    :param receive_bytes: accepted for 1.x; without effect.
    :param ping_interval: seconds between keepalive pings; None (the default)
                          for none.  Any byte that arrives counts as life.
    :param max_message_size: bytes that a message may have, inflated and
                             reassembled; a larger one closes the connection
                             with 1009.  None (the default) for no limit: set
                             one on a server that strangers can reach.
    :param thread_class: run a reader on this class; ``event_class`` and
                         ``selector_class`` are what it waits with.  Not
                         needed on any server: see ``profile``.
    :param event_class: see ``thread_class``.
    :param selector_class: see ``thread_class``.
    :param profile: ``"threads"``, ``"gevent"``, ``"eventlet"`` or a
                    ``Profile``; by default what the socket is made for.
    :param ping_timeout: seconds that a ping may go without any sign of life
                         before the connection fails with 1011; by default
                         ``ping_interval``.
    :param close_timeout: seconds that each step of closing may take; default 5.
    :param max_queue: messages that may wait to be received before TCP slows
                      the peer down; default 32.
    :param max_fragments: frames that one message may come in; default 131072, None
                          for no limit.
    :param compression: permessage-deflate (RFC 7692) if the client offers it:
                        True (the default), a ``Deflate``, or None for none.
    :param origins: the origins that may connect (RFC 6455 section 10.2):
                    ``"same"`` for pages of this very host, or a list; None
                    (the default) for all.
    :param headers: further headers for the response, a mapping or pairs.
    :param logger: a ``logging.Logger``; default ``"simple_websocket"``.
    :raises ConnectionError: when the request is no valid upgrade; it was
                             answered with ``status_code`` (400, 403, 405, 426).
    :raises RuntimeError: when the WSGI server hands out no socket, or this request
                          was accepted before.
    :raises TypeError: for an argument of a wrong type.
    :raises ValueError: for a wrong value.
    """

    #: The WSGI server: ``'werkzeug'``, ``'gunicorn'``, ``'eventlet'``,
    #: ``'gevent'``, or a registered host's name.
    mode: str

    #: The WSGI environ of the request.
    environ: dict[str, Any]

    def __init__(
        self,
        environ: dict[str, Any],
        subprotocols: Subprotocols = None,
        receive_bytes: int = 4096,
        ping_interval: float | None = None,
        max_message_size: int | None = None,
        thread_class: Any = None,
        event_class: Any = None,
        selector_class: Any = None,
        *,
        profile: Profile | str | None = None,
        origins: Origins = None,
        headers: Headers = None,
        **options: Unpack[CommonKeywords],
    ) -> None:
        if not isinstance(environ, dict):
            hint = '; pass request.environ' if hasattr(environ, 'environ') else ''
            raise TypeError(f'environ must be the WSGI environ, not {environ!r}{hint}')
        self.environ = environ
        self.subprotocols = handshake.parse_subprotocols(subprotocols)
        self._options = Options.of(
            'Server', receive_bytes, ping_interval, max_message_size, options
        )
        allowed = handshake.parse_origins(origins)
        fields = handshake.normalize_headers(headers)
        host, sock = hosts.find_socket(environ)
        self.mode = host.mode
        chosen = resolve(profile, thread_class, event_class, selector_class, sock)
        self.sock = sock
        protocol, rejected = self._answer(host, allowed, fields)
        wire = Wire(sock)
        try:
            leftover = hosts.take_over(host, environ, sock, _HostCallback(self))
            self._open(chosen, wire, protocol, b'' if rejected else leftover)
        except BaseException:
            wire.close()
            raise
        if rejected is not None:
            self._options.logger.debug('refused: %s', rejected)
            try:
                raise ConnectionError(rejected.status, rejected.explanation) from rejected
            finally:
                del rejected  # its traceback leads back to here
        # A handler that returns without closing leaves the rest to the host
        # (``_host_did``), which has to find the connection alive.
        environ[_IN_ENVIRON] = self
        self._options.logger.debug('accepted %s in %s', self, chosen.name)

    @classmethod
    def accept(
        cls: type[_Server],
        environ: dict[str, Any],
        subprotocols: Subprotocols = None,
        receive_bytes: int = 4096,
        ping_interval: float | None = None,
        max_message_size: int | None = None,
        thread_class: Any = None,
        event_class: Any = None,
        selector_class: Any = None,
        **options: Unpack[AcceptKeywords],
    ) -> _Server:
        """Accept a WebSocket; takes what ``Server`` takes.

        :param options: ``profile``, ``ping_timeout``, ``close_timeout``,
                        ``max_queue``, ``max_fragments``, ``compression``,
                        ``origins``, ``headers``, ``logger``: see ``Server``.
        """
        return cls(  # by name, as in 1.x: subclasses have constructors of their own
            environ,
            subprotocols=subprotocols,
            receive_bytes=receive_bytes,
            ping_interval=ping_interval,
            max_message_size=max_message_size,
            thread_class=thread_class,
            event_class=event_class,
            selector_class=selector_class,
            **options,
        )

    def choose_subprotocol(self, request: handshake.UpgradeRequest) -> str | None:
        """Choose a subprotocol; override it for another policy.

        :param request: the upgrade request; ``request.subprotocols`` lists
                        what the client offers, best first.
        :returns: one of them, or None.  By default the client's first that
                  is among ``subprotocols``.
        :raises ConnectionError: (ours) to refuse the client, with the error's
                                 ``status_code``.  Any other exception comes out of
                                 ``accept``, and the WSGI server has the socket still.
        """
        return handshake.choose_subprotocol(request.subprotocols, self.subprotocols)

    def _answer(
        self,
        host: hosts.Host,
        origins: handshake.Origins | None,
        headers: handshake.Headers,
    ) -> tuple[Protocol, handshake.Rejected | None]:
        """The protocol with the response to write first, and why if it is a refusal.

        The host still has the socket: what ``choose_subprotocol`` raises it answers as
        any exception of a handler, a framework's ``abort(403)`` among them.  But a
        ``ConnectionError`` of ours says that it was answered.
        """
        environ = self.environ
        if not host.tells_version:
            environ = {**environ, 'SERVER_PROTOCOL': 'HTTP/1.1'}
        try:
            request = request_from_environ(environ)
            secure = handshake.is_secure(self.environ.get('wsgi.url_scheme'))
            engine, extension = self._options.negotiate(request, origins, secure)
            with as_refusal():
                self.subprotocol = self.choose_subprotocol(request) or None
        except handshake.Rejected as rejected:
            protocol = self._options.protocol(False, _now, None)
            method = self.environ.get('REQUEST_METHOD')
            protocol.refuse(handshake.rejection_response(rejected, method))
            return protocol, rejected
        protocol = self._options.protocol(False, _now, engine)
        protocol.out.append(
            handshake.accept_response(request, self.subprotocol, extension, headers)
        )
        return protocol, None

    def _where(self) -> str:
        return repr(self.environ.get('PATH_INFO', '')[:100])

    def _host_did(self, data: bytes | None) -> None:
        """The host is done with the request: so must we be."""
        self.environ.pop(_IN_ENVIRON, None)
        if self.connected:
            code = INTERNAL_ERROR if hosts.reports_error(data) else None
            with suppress(ConnectionClosed):
                self._close(code, None, wait=False)


class _HostCallback(ref[Server]):
    """Tells a connection what its host does.

    A weak reference: the host's socket object must not keep alive a connection
    that the application has let go of.
    """

    __slots__ = ()

    def __call__(self, data: bytes | None) -> None:  # type: ignore[override]
        server = super().__call__()
        if server is not None:
            server._host_did(data)


class Client(Base):
    """A WebSocket connection to a server.

    Make one with ``Client.connect(url)``.

    :param url: ``ws://`` or ``wss://`` (``http``, ``https`` too).
    :param subprotocols: the names to offer, one or a list in order of
                         preference.
    :param headers: further headers, a mapping or an iterable of pairs.
    :param receive_bytes: accepted for 1.x; without effect.
    :param ping_interval: see ``Server``, as for all that is not listed here.
    :param max_message_size: see ``Server``.
    :param ssl_context: an ``ssl.SSLContext``; by default one that verifies
                        the server's certificate and name.
    :param thread_class: see ``Server``.
    :param event_class: see ``Server``.
    :param selector_class: see ``Server``.
    :param profile: see ``Server``; by default what the process is patched
                    for, else the hub that the call is made in, else threads.
    :param open_timeout: seconds for everything until the connection is open:
                         TCP, TLS and the handshake; default 10.  (The time
                         that a name takes to resolve can't be cut short.)
    :param compression: permessage-deflate to offer; default True.
    :param sock: a connected socket to use instead of making one.
    :param server_hostname: the name to verify the certificate against, where
                            it is not the URL's.
    :raises ConnectionError: when the server refuses (with ``status_code``) or
                             does not speak WebSocket.
    :raises OSError: when it can't be reached or TLS fails; TimeoutError when
                     ``open_timeout`` runs out.
    :raises TypeError: for an argument of a wrong type.
    :raises ValueError: for a wrong value.
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
        selector_class: Any = None,
        *,
        profile: Profile | str | None = None,
        sock: Any = None,
        server_hostname: str | None = None,
        **options: Unpack[DialKeywords],
    ) -> None:
        self._options = Options.of(
            'Client', receive_bytes, ping_interval, max_message_size, options, client=True
        )
        self.url = url
        target = client_handshake.parse_url(url)
        compression = self._options.compression
        opening = client_handshake.ClientHandshake(
            target, subprotocols, headers, deflate.offer(compression) if compression else None
        )
        check_context(ssl_context)
        if sock is not None and not hasattr(sock, 'setblocking'):
            raise TypeError(f'sock must be a connected socket, not {sock!r}')
        check_server_hostname(server_hostname)
        self.subprotocols = opening.subprotocols
        chosen = resolve(
            profile, thread_class, event_class, selector_class, sock, client=True
        )
        timeout = self._options.open_timeout
        dial = Dial(chosen, None if timeout is None else _now() + timeout, _now)
        wire = dial.wire(target, sock, ssl_context, server_hostname)
        try:
            response = dial.shake_hands(wire, opening)
            engine = deflate.accept_offer(compression, response.extensions)
        except deflate.DeflateError as error:
            wire.close()
            raise ConnectionError(None, str(error)) from error
        except BaseException:
            wire.close()
            raise
        self.subprotocol = response.subprotocol
        self.response_headers = response.headers
        protocol = self._options.protocol(True, _now, engine)
        self._open(chosen, wire, protocol, response.leftover)
        self._options.logger.debug('connected %s in %s', self, chosen.name)

    @classmethod
    def connect(
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
        selector_class: Any = None,
        **options: Unpack[SyncConnectKeywords],
    ) -> _Client:
        """Connect to a server; takes what ``Client`` takes.

        :param options: ``profile``, ``open_timeout``, ``sock``,
                        ``server_hostname``, ``ping_timeout``, ``close_timeout``,
                        ``max_queue``, ``max_fragments``, ``compression``,
                        ``logger``: see ``Client``.
        """
        # 1.x did not have it, so constructors that were written for it do not.
        late: Any = {} if selector_class is None else {'selector_class': selector_class}
        return cls(  # by name, as in 1.x: subclasses have constructors of their own
            url,
            subprotocols=subprotocols,
            headers=headers,
            receive_bytes=receive_bytes,
            ping_interval=ping_interval,
            max_message_size=max_message_size,
            ssl_context=ssl_context,
            thread_class=thread_class,
            event_class=event_class,
            **late,
            **options,
        )

    def _where(self) -> str:
        return str(client_handshake.parse_url(self.url))


__all__ = ['Base', 'Client', 'Server']
