"""The client's half of the opening handshake (RFC 6455 section 4): a URL and
headers in, a request out; bytes in, the server's answer out.

The rules of ``handshake`` hold here too: whatever the caller gives is checked
before a byte is made of it.  What the server sends is parsed with h11; it is
bounded in size, and can only end in a ``Response`` or a ``ConnectionError``.
The bytes after the response's head are frames; they are kept.

This file refuses to know sockets, time and frames.
"""

from __future__ import annotations

import base64
import os
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NoReturn
from urllib.parse import unquote_to_bytes, urlsplit

import h11

from .authority import DEFAULT_PORTS, bracketed, split_authority
from .errors import ConnectionError
from .handshake import (
    FIELD_VALUE,
    VERSION,
    Headers,
    accept_token,
    has_token,
    header_values,
    index_fields,
    normalize_headers,
    parse_subprotocols,
)

#: Bytes that the heads of a server's responses may have, 1xx ones included,
#: and how many of those are put up with.
MAX_RESPONSE_HEAD = 65536
MAX_INFORMATIONAL = 16

#: Bytes of a refusal's body that an error keeps, and seconds to wait for them.
MAX_BODY = 1024
BODY_TIME = 0.5

_visible = re.compile(r'[\x21-\x7e]+')
# Before HTTP/1.1 there was no Upgrade, and no 101 (RFC 9110 section 7.8).
_http_version = re.compile(rb'1\.[1-9]')


# The URL


@dataclass(frozen=True)
class URL:
    """Where a client connects to (RFC 6455 section 3)."""

    secure: bool  #: TLS or not
    host: str  #: for the resolver: ASCII, IPv6 without brackets
    port: int
    target: str  #: path and query
    host_header: str  #: with the port where it isn't the scheme's
    #: from ``user:password@``; a secret, so it isn't shown
    authorization: str | None = field(default=None, repr=False)

    def __str__(self) -> str:
        """For the log, without what may be a secret."""
        scheme = 'wss' if self.secure else 'ws'
        return f'{scheme}://{self.host_header}{self.target.partition("?")[0]}'

    @property
    def tls_name(self) -> str:
        """What a certificate is for: a name without the dot of the DNS root (RFC 6066
        section 3), or an address without its zone."""
        return self.host.partition('%')[0].removesuffix('.')


def parse_url(url: str) -> URL:
    """Parse a WebSocket URL.

    :param url: ``ws://`` or ``wss://`` (``http://`` and ``https://`` mean the
                same).  An international host name is turned into ASCII;
                everything else has to be percent-encoded by the caller.
    :raises TypeError: it isn't a string.
    :raises ValueError: it isn't such a URL, or has a fragment.
    """
    if not isinstance(url, str):
        raise TypeError(f'url must be a str, not {type(url).__name__}')
    # Before the standard library sees it, which silently drops line breaks.
    if re.search(r'[\x00-\x20\x7f\\]', url):
        raise ValueError('url has a space, a backslash or a control character in it')
    if '#' in url:
        raise ValueError('url has a fragment, which a WebSocket URL must not have')
    scheme = re.match(r'([a-zA-Z][a-zA-Z0-9+.-]*)://', url)
    if scheme is None:
        raise ValueError(
            f'url must begin with ws:// or wss://, which is missing: {_public(url)!r}'
        )
    if scheme[1].lower() not in DEFAULT_PORTS:
        raise ValueError(f'url must begin with ws:// or wss://, not {scheme[1]}://')
    try:
        parts = urlsplit(url)
        userinfo, at, authority = parts.netloc.rpartition('@')
        if authority[:1] in ('', ':'):
            raise ValueError('it has no host')
        host, port = split_authority(authority)
    except ValueError as error:
        if '@' in url:  # the words may have a part of the password in them
            raise ValueError(
                'url: no host follows the user and password; percent-encode what is in these'
            ) from None
        raise ValueError(f'url: {error}') from error
    target = parts.path or '/'
    if '?' in url:
        target += '?' + parts.query
    if _visible.fullmatch(target) is None:
        raise ValueError('url: path and query must be ASCII; percent-encode the rest')
    default_port = DEFAULT_PORTS[parts.scheme]
    host_header = bracketed(host)
    if port not in (None, default_port):
        host_header += f':{port}'
    return URL(
        secure=default_port == 443,
        host=host,
        port=port or default_port,
        target=target,
        host_header=host_header,
        authorization=_basic(userinfo) if userinfo.strip(':') else None,
    )


def _public(url: str) -> str:
    """The beginning of what should be a URL, without what may be a secret."""
    return url.rpartition('@')[2].partition('?')[0][:80]


def _basic(userinfo: str) -> str:
    """Return the Authorization header for ``user:password`` (RFC 7617)."""
    user, _, password = userinfo.partition(':')
    credentials = unquote_to_bytes(user) + b':' + unquote_to_bytes(password)
    return 'Basic ' + base64.b64encode(credentials).decode('ascii')


# The handshake


class HandshakeError(Exception):
    """What a server's response violates; the cause of a ``ConnectionError``."""


@dataclass(frozen=True)
class Response:
    """A server's agreement (RFC 6455 section 4.1)."""

    subprotocol: str | None  #: one of those offered
    extensions: list[str]  #: values of ``Sec-WebSocket-Extensions``, unparsed
    headers: Headers  #: all of them
    leftover: bytes  #: what was received after the head: frames


class ClientHandshake:
    """A client's side of one opening handshake.

    Send ``request``, feed what arrives to ``receive`` until it returns
    the ``Response``.  Once ``refused`` is true it will raise, and only waits for the
    refusal's body: give that no more than ``time_for_body``, then raise ``refusal``.
    For one thread at a time.

    :param url: where to, from ``parse_url``.
    :param subprotocols: what to offer, as ``parse_subprotocols`` takes it.
    :param headers: further header fields, as ``normalize_headers`` takes
                    them.  ``Host`` and ``Authorization`` replace what would be
                    sent otherwise.
    :param extensions: the value of ``Sec-WebSocket-Extensions``, None to ask
                       for none.
    :raises TypeError: an argument has the wrong type.
    :raises ValueError: an argument can't be sent.
    """

    def __init__(
        self,
        url: URL,
        subprotocols: object = None,
        headers: object = None,
        extensions: str | None = None,
    ) -> None:
        self.key = base64.b64encode(os.urandom(16)).decode('ascii')
        self.subprotocols = parse_subprotocols(subprotocols)
        self.extensions = extensions
        self._received = 0
        self._informational = 0
        self._refused: h11.Response | None = None
        self._body = b''
        self._http = h11.Connection(
            h11.CLIENT, max_incomplete_event_size=MAX_RESPONSE_HEAD
        )
        fields = self._request_headers(url, normalize_headers(headers))
        request = h11.Request(method='GET', target=url.target, headers=fields)
        self._request = self._http.send(request) or b''
        self._http.send(h11.EndOfMessage())

    def _request_headers(self, url: URL, extra: Headers) -> Headers:
        given = [name.lower() for name, _ in extra]
        for name in ('host', 'origin', 'authorization'):
            if given.count(name) > 1:
                raise ValueError(f'headers: more than one {name.title()}')
        fields = [] if 'host' in given else [('Host', url.host_header)]
        fields += [
            ('Upgrade', 'websocket'),
            ('Connection', 'Upgrade'),
            ('Sec-WebSocket-Key', self.key),
            ('Sec-WebSocket-Version', VERSION),
        ]
        if self.subprotocols:
            fields.append(('Sec-WebSocket-Protocol', ', '.join(self.subprotocols)))
        if self.extensions is not None:
            if FIELD_VALUE.fullmatch(self.extensions) is None:
                raise ValueError(f'extensions {self.extensions!r} is no header value')
            fields.append(('Sec-WebSocket-Extensions', self.extensions))
        if url.authorization is not None and 'authorization' not in given:
            fields.append(('Authorization', url.authorization))
        return fields + extra

    def request(self) -> bytes:
        """Return the request to send (RFC 6455 section 4.1)."""
        return self._request

    def receive(self, data: bytes) -> Response | None:
        """Take bytes from the server, in any split.

        Informational responses other than the 101 are skipped (RFC 9110
        section 15.2), redirects are not followed.

        :param data: what was received; nothing isn't the end, see
                     ``receive_eof``.
        :returns: the response, None until it is complete.
        :raises ConnectionError: the server refused, with the status; or its
            response isn't valid.
        """
        try:
            return self._receive(data) if data else None
        except h11.RemoteProtocolError as error:
            if self.refused:  # what is wrong is the body
                raise self.refusal() from error
            raise ConnectionError(
                None, f'the server does not speak HTTP: {error}'
            ) from error
        except HandshakeError as error:
            raise ConnectionError(None, str(error)) from error

    def receive_eof(self) -> NoReturn:
        """Take note that the server hung up before the handshake was complete.

        :raises ConnectionError: always.
        """
        if self.refused:
            raise self.refusal()
        where = 'in the middle of' if self._received else 'before'
        raise ConnectionError(None, f'the server hung up {where} its response')

    @property
    def refused(self) -> bool:
        """Whether the server has refused; its body may still come."""
        return self._refused is not None

    def refusal(self) -> ConnectionError:
        """Return what the server's refusal means, with what has come of its body."""
        assert self._refused is not None
        return _refusal(self._refused, self._body[:MAX_BODY])

    def _receive(self, data: bytes) -> Response | None:
        self._received += len(data)
        self._http.receive_data(data)
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                if not self.refused and self._received > MAX_RESPONSE_HEAD:
                    raise HandshakeError('the response is too long')
                return None
            if isinstance(event, h11.InformationalResponse):
                if event.status_code == 101:
                    if _http_version.fullmatch(event.http_version) is None:
                        raise HandshakeError('the response is of another HTTP version')
                    leftover = self._http.trailing_data[0]
                    if self._received - len(leftover) > MAX_RESPONSE_HEAD:
                        raise HandshakeError('the response is too long')
                    return self._judge(_text(event.headers), leftover)
                self._informational += 1
                if self._informational > MAX_INFORMATIONAL:
                    raise HandshakeError('too many informational responses')
            elif isinstance(event, h11.Response):
                self._refused = event
            elif self.refused:
                if isinstance(event, h11.Data):
                    self._body += event.data
                if len(self._body) >= MAX_BODY or not isinstance(event, h11.Data):
                    raise self.refusal()
            else:  # there is nothing that could follow
                raise HandshakeError('unexpected data in the handshake')

    def _judge(self, headers: Headers, leftover: bytes) -> Response:
        """Check a 101 (RFC 6455 section 4.1)."""
        fields = index_fields(headers)
        upgrade = header_values(fields, 'upgrade')
        if [value.lower() for value in upgrade] != ['websocket']:
            raise HandshakeError('the server upgrades to something else')
        if not has_token(fields, 'connection', 'upgrade'):
            raise HandshakeError('the response has no Connection: Upgrade')
        accept = header_values(fields, 'sec-websocket-accept')
        if accept != [accept_token(self.key)]:
            raise HandshakeError('Sec-WebSocket-Accept is missing, repeated or wrong')
        extensions = header_values(fields, 'sec-websocket-extensions')
        if self.extensions is None and extensions:
            raise HandshakeError(
                'the server chose an extension where none was asked for'
            )
        chosen = header_values(fields, 'sec-websocket-protocol')
        if len(chosen) > 1:
            raise HandshakeError('the server chose more than one subprotocol')
        if chosen and chosen[0] not in self.subprotocols:
            raise HandshakeError(
                f'the server chose subprotocol {chosen[0][:80]!r}, not asked for'
            )
        return Response(chosen[0] if chosen else None, extensions, headers, leftover)


def time_for_body(left: float | None) -> float:
    """Seconds to wait for the body of a refusal.

    :param left: what is left of the time to connect; None for no limit.
    """
    return BODY_TIME if left is None else min(BODY_TIME, left / 2)


def _text(headers: Iterable[tuple[bytes, bytes]]) -> Headers:
    return [
        (name.decode('latin-1'), value.decode('latin-1')) for name, value in headers
    ]


def _refusal(response: h11.Response, body: bytes) -> ConnectionError:
    """Return what a final response means: no WebSocket, with its status."""
    headers = _text(response.headers)
    message = response.reason.decode('latin-1')
    location = header_values(index_fields(headers), 'location')
    if 300 <= response.status_code < 400 and location:
        message += f' (to {location[0]!r}; redirects are not followed)'
    return ConnectionError(response.status_code, message[:300], headers, body)
