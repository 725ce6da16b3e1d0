"""How a client gets from a URL to an open connection: DNS, TCP, TLS, HTTP.

Every socket is a plain one that never blocks; the profile does the waiting, so
the same code connects on threads and in a hub, patched or not.  One deadline
is spent on all the steps.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

from .client_handshake import URL, ClientHandshake, Response, time_for_body
from .errors import ConnectionError
from .profiles import Profile
from .profiles.originals import original
from .profiles.wire import Wire, is_of_tcp


@contextmanager
def name_the_host(host: str) -> Iterator[None]:
    """Say which host it is that can't be resolved; the resolver does not."""
    try:
        yield
    except socket.gaierror as error:
        raise type(error)(error.errno, f'{error.strerror}: {host}') from error


def of_address(address: Any, number: int | None) -> OSError:
    """Return what to raise for an address that does not let us in.

    :param number: the ``errno``; None where it was silent for its share of the time.
    """
    reason = 'no answer within open_timeout' if number is None else os.strerror(number)
    place = f'{address[0]} port {address[1]}'
    return OSError(errno.ETIMEDOUT if number is None else number, f'{reason}: {place}')


def unreachable(host: str, errors: list[OSError]) -> OSError:
    """Return what to raise when no address has let us in.

    :param errors: what came of each address, in order.
    :returns: a new one, of the last one's class and ``errno``, that tells of all.
    """
    if not errors:
        return OSError(errno.EHOSTUNREACH, f'{host} has no address')
    words = '; '.join(dict.fromkeys(error.strerror or str(error) for error in errors))
    return OSError(errors[-1].errno, words)


def check_server_hostname(server_hostname: Any) -> None:
    """Check a ``server_hostname=``, before there is a connection.

    :raises TypeError: for anything but a string.
    :raises ValueError: for one that is no name.
    """
    if server_hostname is None:
        return
    if not isinstance(server_hostname, str):
        raise TypeError(f'server_hostname must be a str, not {server_hostname!r}')
    try:
        valid = server_hostname.encode('idna')[:1] not in (b'', b'.')
    except UnicodeError:
        valid = False
    if not valid or '\0' in server_hostname:
        raise ValueError(f'server_hostname is no host name: {server_hostname!r}')


def check_context(ssl_context: Any) -> None:
    """Check an ``ssl_context=``.

    By what it can do: one that was made before monkey-patching is of another class.

    :raises TypeError: for anything but a context.
    """
    if ssl_context is not None and not hasattr(ssl_context, 'wrap_socket'):
        raise TypeError(f'ssl_context must be an ssl.SSLContext, not {ssl_context!r}')


def _check_tls_of(
    sock: Any, target: URL, context: ssl.SSLContext | None, server_hostname: str | None
) -> None:
    """Check a socket that does TLS already, and is used as it is.

    :raises ValueError: it is with another host, or TLS of its own is asked for.
    """
    if context is not None or server_hostname is not None:
        raise ValueError(
            'sock does TLS already: ssl_context and server_hostname would be ignored '
            '(TLS within TLS is not supported)'
        )
    name = getattr(sock, 'server_hostname', None)
    if name is not None and name.lower() != target.tls_name.lower():
        raise ValueError(f'sock does TLS with {name}, and not with {target.tls_name}')


class Dial:
    """Opens a client's connection, spending one deadline on all of it.

    :param profile: how to wait.
    :param deadline: when to give up, by the clock ``now``; None for never.
    :param now: a monotonic clock, in seconds.
    """

    def __init__(
        self, profile: Profile, deadline: float | None, now: Callable[[], float]
    ) -> None:
        self._profile = profile
        self._deadline = deadline
        self._now = now

    def _left(self) -> float | None:
        return None if self._deadline is None else self._deadline - self._now()

    def _wait(self, fd: int, write: bool) -> None:
        left = self._left()
        if (left is not None and left <= 0) or not self._profile.wait(fd, write, left):
            raise TimeoutError('the connection was not open within open_timeout')

    def wire(
        self,
        target: URL,
        sock: Any,
        context: ssl.SSLContext | None,
        server_hostname: str | None,
    ) -> Wire:
        """A connected socket, with TLS where the URL says so.

        :param sock: one that is connected already; None to make one.
        :param context: for TLS; None for one that verifies.
        :param server_hostname: the name that the certificate has to be for; None for
                                the URL's.
        :raises OSError: when there is no connection, or no TLS; TimeoutError at the
                         deadline.
        """
        own = sock if sock is not None else self._connect(target.host, target.port)
        try:
            if target.secure and hasattr(own, 'do_handshake'):
                _check_tls_of(own, target, context, server_hostname)
            elif target.secure:
                own = self._start_tls(own, context, server_hostname or target.tls_name)
            return Wire(own)
        except BaseException:
            own.close()
            raise

    def _connect(self, host: str, port: int) -> socket.socket:
        """TCP to the first address that answers (RFC 6455 section 4.1)."""
        errors: list[OSError] = []
        with name_the_host(host):
            addresses = list(self._profile.getaddrinfo(host, port, 0, socket.SOCK_STREAM))
        for place, (family, kind, proto, _, address) in enumerate(addresses):
            sock: socket.socket | None = None
            try:
                sock = original('socket', 'socket')(family, kind, proto)
                sock.setblocking(False)
                self._profile.opened(sock.fileno())
                self._connect_to(sock, address, len(addresses) - place)
                return sock
            except BaseException as error:
                if sock is not None:  # else the system has none of that family
                    sock.close()
                if not isinstance(error, OSError) or not is_of_tcp(error):
                    raise
                errors.append(error.with_traceback(None))
        raise unreachable(host, errors)

    def _connect_to(self, sock: socket.socket, address: Any, shares: int) -> None:
        """An address that is silent gets its share of the time, and not all of it:
        the next one may answer."""
        error = sock.connect_ex(address)
        if error in (errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EAGAIN):
            left = self._left()
            left = None if left is None else max(left / shares, 0)
            ready = self._profile.wait(sock.fileno(), True, left)
            if left is not None and not ready:
                raise of_address(address, None)
            error = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if error:
            raise of_address(address, error)

    def _start_tls(
        self, sock: Any, context: ssl.SSLContext | None, server_hostname: str
    ) -> ssl.SSLSocket:
        if context is None:
            context = ssl.create_default_context()
        sock.setblocking(False)
        tls = context.wrap_socket(
            sock, server_hostname=server_hostname, do_handshake_on_connect=False
        )
        try:
            tls.setblocking(False)
            while True:
                try:
                    tls.do_handshake()
                    return tls
                except ssl.SSLWantReadError:
                    self._wait(tls.fileno(), False)
                except ssl.SSLWantWriteError:
                    self._wait(tls.fileno(), True)
        except BaseException:
            tls.close()
            raise

    def shake_hands(
        self, wire: Wire, opening: ClientHandshake
    ) -> Response:
        """The opening handshake (RFC 6455 section 4.1)."""
        try:
            return self._shake_hands(wire, opening)
        except OSError as error:
            if opening.refused:  # and the rest of its body has not come
                raise opening.refusal() from error
            if isinstance(error, TimeoutError):
                raise
            raise ConnectionError(None, f'the handshake failed: {error}') from error

    def _shake_hands(
        self, wire: Wire, opening: ClientHandshake
    ) -> Response:
        request = memoryview(opening.request())
        while request:
            sent = wire.send(request)
            request = request[sent:]
            if not sent:
                self._wait(wire.fd, True)
        in_body = False
        while True:
            data = wire.recv(65536)
            if data is None:
                self._wait(wire.fd, False)
            elif data:
                response = opening.receive(data)
                if response is not None:
                    return response
                if opening.refused and not in_body:
                    in_body = True
                    self._deadline = self._now() + time_for_body(self._left())
            else:
                opening.receive_eof()
