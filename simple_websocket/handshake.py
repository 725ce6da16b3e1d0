"""The opening handshake (RFC 6455 section 4): HTTP in, HTTP out, bytes only.

The server's half, and what the client's (``client_handshake``) needs too.  A
server reads a request that somebody else has parsed, from a WSGI environ or a
list of headers, and writes a 101 or a refusal.  The rules:

* One validator for every kind of server.  What isn't a valid upgrade gets the
  status that tells why (``Rejected``): 405 for the method, 426 for a request
  that asks for no upgrade or another version, 400 for a malformed one.
* Whatever the caller gives (headers, subprotocols, origins) is checked before
  a byte is made of it, and a mistake is a ``TypeError`` or a ``ValueError``
  that names the argument.  No string can smuggle in a line.
* Whatever the peer sends can only end in ``Rejected``.

This file refuses to know sockets, time, frames, and what an extension means:
``deflate`` makes and judges those header values.
"""

from __future__ import annotations

import binascii
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from http import HTTPStatus
from typing import Any

from .authority import DEFAULT_PORTS, bracketed, split_authority

try:
    # OpenSSL's goes through so much code that is in no cache when a connection
    # comes that it takes 12 us there, and Python's own 5.
    from _sha1 import sha1 as _sha1
except ImportError:  # Python was built without it
    from hashlib import sha1

    _sha1 = partial(sha1, usedforsecurity=False)

Headers = list[tuple[str, str]]

#: The values of each header, in their order, by its name in lower case.
Fields = dict[str, list[str]]

VERSION = '13'
_GUID = b'258EAFA5-E914-47DA-95CA-C5AB0DC85B11'  # RFC 6455 section 1.3

#: Headers that the handshake writes itself, or that a handshake can't have.
_OWN_HEADERS = frozenset({
    'upgrade', 'connection', 'content-length', 'transfer-encoding',
    'sec-websocket-key', 'sec-websocket-version', 'sec-websocket-accept',
    'sec-websocket-extensions', 'sec-websocket-protocol',
})  # fmt: skip

_http_version = re.compile(r'HTTP/1\.[1-9]')
# 16 bytes in base64 (RFC 6455 section 4.1).
_key = re.compile('[A-Za-z0-9+/]{22}==')
_token = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")
# Field values that a peer can't misread: RFC 9110 section 5.5 without obs-text.
FIELD_VALUE = re.compile(r'[\t\x20-\x7e]*')
# RFC 9110 section 7.2.  A comma would be in the grammar too, but in no name;
# it is what a WSGI server makes of two Host headers.
_host = re.compile(
    r"(?:\[[0-9A-Za-z:._~%-]+\]"
    r"|(?=[^:])[A-Za-z0-9._~!$&'()*+;=-]*(?:%[0-9A-Fa-f]{2}[A-Za-z0-9._~!$&'()*+;=-]*)*)"
    r'(?::[0-9]*)?'
)


def accept_token(key: str) -> str:
    """Return the ``Sec-WebSocket-Accept`` for a key (RFC 6455 section 4.2.2)."""
    digest = _sha1(key.encode('latin-1') + _GUID).digest()
    return binascii.b2a_base64(digest, newline=False).decode('ascii')


# What the caller gives


def _members(argument: str, value: object, expected: str) -> Iterable[Any]:
    """Return the value of an argument that must be a collection."""
    scalar = isinstance(value, (str, bytes, bytearray, memoryview))
    if scalar or not isinstance(value, Iterable):
        raise TypeError(f'{argument} must be {expected}, not {type(value).__name__}')
    return value


def parse_subprotocols(option: object) -> list[str]:
    """Return a ``subprotocols=`` argument as a list.

    :param option: None, one name, or an iterable of names in order of
                   preference.
    :raises TypeError: it is something else.
    :raises ValueError: a name isn't a token (RFC 9110 section 5.6.2), or comes
        twice (RFC 6455 section 4.1).
    """
    if option is None or option == '':
        return []
    if isinstance(option, str):
        option = [option]
    names: list[str] = []
    for name in _members('subprotocols', option, 'a str or a list of them'):
        if not isinstance(name, str):
            raise TypeError(f'subprotocols must be strings, not {type(name).__name__}')
        if _token.fullmatch(name) is None:
            raise ValueError(f'subprotocols: {name!r} is not a token')
        if name in names:
            raise ValueError(f'subprotocols: {name!r} is there twice')
        names.append(name)
    return names


class CheckedHeaders(Headers):
    """What ``normalize_headers`` returns, and takes as it is."""


def _items(headers: Any) -> Any:
    """The pairs of a mapping, or of what is like one (``http.client``'s headers)."""
    return headers.items() if callable(getattr(headers, 'items', None)) else headers


def normalize_headers(headers: object) -> Headers:
    """Return a ``headers=`` argument as a list of pairs.

    :param headers: None, a mapping, or an iterable of pairs, of strings or bytes.
    :raises TypeError: it is something else.
    :raises ValueError: a name isn't a token, a value has anything but
        printable ASCII, or the header is one that the handshake writes itself.
    """
    if headers is None:
        return CheckedHeaders()
    if isinstance(headers, CheckedHeaders):
        return headers
    pairs = CheckedHeaders()
    for pair in _members('headers', _items(headers), 'a mapping or a list of pairs'):
        if (
            isinstance(pair, (str, bytes))
            or not isinstance(pair, Sequence)
            or len(pair) != 2
        ):
            raise TypeError('headers must be pairs of a name and a value')
        name, value = (
            part.decode('latin-1') if isinstance(part, bytes) else part for part in pair
        )
        if not isinstance(name, str) or not isinstance(value, str):
            raise TypeError(
                f'headers must be strings, not {type(name).__name__}: {type(value).__name__}'
            )
        if _token.fullmatch(name) is None:
            raise ValueError(f'headers: {name!r} is no header name')
        if FIELD_VALUE.fullmatch(value) is None:
            # The value may be a secret, so it isn't shown.
            raise ValueError(f'headers: the value of {name} is not printable ASCII')
        if name.lower() in _OWN_HEADERS:
            raise ValueError(f'headers: {name} is set by the handshake')
        pairs.append((name, value.strip(' \t')))
    return pairs


# Server: the request


class Rejected(Exception):
    """A request that doesn't become a WebSocket.

    :param status: the HTTP status to answer.
    :param reason: what is wrong, in words for who sent the request.
    :param headers: header fields that go with the status.
    :param detail: more of it, for who runs the server.
    """

    def __init__(
        self,
        status: int,
        reason: str,
        headers: Iterable[tuple[str, str]] = (),
        detail: str = '',
    ) -> None:
        #: What is wrong, with the detail.
        self.explanation = f'{reason} ({detail})' if detail else reason
        super().__init__(f'{status} {self.explanation}')
        self.status = status
        self.reason = reason
        self.headers: Headers = list(headers)


@dataclass
class UpgradeRequest:
    """A valid request for a WebSocket (RFC 6455 section 4.2.1).

    ``Server.choose_subprotocol`` is given one.
    """

    subprotocols: list[str]  #: what the client offers, best first
    extensions: list[str]  #: values of ``Sec-WebSocket-Extensions``, unparsed
    origin: str | None  #: the page that connects, if a browser does
    host: str | None  #: the ``Host`` header; over HTTP/2 there may be none
    target: str  #: path and query, as sent where that is known
    key: str  #: the ``Sec-WebSocket-Key``
    headers: Headers  #: all of them

    @property
    def extra_headers(self) -> list[tuple[bytes, bytes]]:
        """Those that are no part of the handshake, as pairs of bytes, in the manner of
        1.x."""
        return [
            (name.lower().encode('latin-1'), _field_bytes(value))
            for name, value in self.headers
            if name.lower() not in _OWN_HEADERS and name.lower() != 'host'
        ]


def _field_bytes(value: str) -> bytes:
    """A value as it came, from servers that have decoded it in either way."""
    try:
        return value.encode('latin-1')
    except UnicodeEncodeError:
        return value.encode('utf-8', 'surrogateescape')


def request_from_headers(
    method: str,
    target: str,
    http_version: str,
    headers: Mapping[str, str] | Iterable[tuple[str, str]],
) -> UpgradeRequest:
    """Read the request from its parts.

    :param method: the HTTP method.
    :param target: path and query.
    :param http_version: ``'1.1'`` or ``'HTTP/1.1'``.
    :param headers: all header fields, repeated ones too.
    :raises Rejected: it isn't a valid upgrade.
    """
    if not http_version.upper().startswith('HTTP/'):
        http_version = f'HTTP/{http_version}'
    listed = list(_items(headers))
    fields = index_fields(listed)
    subprotocols, extensions, host = validate(method, http_version, fields)
    return UpgradeRequest(
        subprotocols,
        extensions,
        checked_origin(header_values(fields, 'origin')),
        host,
        target,
        checked_key(header_values(fields, 'sec-websocket-key')),
        listed,
    )


def index_fields(headers: Headers) -> Fields:
    """Return the values of each header, by its name in lower case."""
    fields: Fields = {}
    for name, value in headers:
        fields.setdefault(name.lower(), []).append(value.strip(' \t'))
    return fields


def header_values(fields: Fields, name: str) -> list[str]:
    """The values of a header, one for each time it was sent."""
    return fields.get(name, [])


def header_tokens(fields: Fields, name: str) -> list[str]:
    """Return the elements of a list header, over all its fields."""
    return [
        part
        for value in header_values(fields, name)
        for element in value.split(',')
        if (part := element.strip(' \t'))
    ]


def has_token(fields: Fields, name: str, token: str) -> bool:
    """Whether a list header has an element, in any case."""
    for value in header_values(fields, name):
        for part in value.split(','):
            # Only ASCII has case here: the lower case of U+212A is a k.
            if part.strip(' \t').lower() == token and part.isascii():
                return True
    return False


def _joined(fields: Fields, name: str) -> str:
    """Return a header's value; what is repeated is joined, as WSGI servers do."""
    return ','.join(header_values(fields, name))


def validate(
    method: str, http_version: str, fields: Fields
) -> tuple[list[str], list[str], str]:
    """Check all of a request but its origin and its key (RFC 6455 section 4.2.1); first
    what makes it no upgrade at all.

    :returns: the subprotocols, the extensions and the host.
    :raises Rejected: it isn't a valid upgrade.
    """
    if method != 'GET':
        raise Rejected(
            405, 'A WebSocket is opened with the method GET.', [('Allow', 'GET')]
        )
    if http_version != 'HTTP/1.1' and _http_version.fullmatch(http_version.upper()) is None:
        raise Rejected(
            400,
            'A WebSocket needs HTTP/1.1; '
            'a proxy in between may be set to another version.',
        )
    upgrade = has_token(fields, 'upgrade', 'websocket')
    if not upgrade or not has_token(fields, 'connection', 'upgrade'):
        raise Rejected(
            426,
            'This is a WebSocket: connect with a WebSocket client (ws:// or wss://). '
            'A proxy in between must pass on the headers Upgrade and Connection.',
        )
    lengths = header_values(fields, 'content-length')
    if 'transfer-encoding' in fields or (
        lengths and any(set(length) != {'0'} for length in lengths)
    ):
        raise Rejected(400, 'A WebSocket request has no body.')
    _check_version(fields)
    return (
        _offered_subprotocols(fields),
        header_values(fields, 'sec-websocket-extensions'),
        _checked_host(fields),
    )


def checked_origin(values: list[str]) -> str | None:
    """The origin, out of the values of its headers.

    :raises Rejected: there is more than one.
    """
    if len(values) > 1:  # RFC 6454 section 7.3
        raise Rejected(400, 'More than one Origin header.')
    return values[0] if values else None


def _checked_host(fields: Fields) -> str:
    host = _joined(fields, 'host')
    if _host.fullmatch(host) is None:
        raise Rejected(
            400, 'Send one header Host: the name of this server, and the port if need be.'
        )
    return host


def _check_version(fields: Fields) -> None:
    version = _joined(fields, 'sec-websocket-version')
    if not version or ',' in version:
        raise Rejected(400, 'Send one header Sec-WebSocket-Version: 13.')
    if version != VERSION:  # 4.4
        raise Rejected(426, 'The only WebSocket version spoken here is 13.')


def checked_key(values: list[str]) -> str:
    """The key, out of the values of its headers.

    :raises Rejected: it isn't 16 bytes in base64, once.
    """
    key = ','.join(values)  # as WSGI servers do with what is repeated
    if _key.fullmatch(key) is None:
        raise Rejected(400, 'Send one header Sec-WebSocket-Key: 16 bytes in base64.')
    return key


def _offered_subprotocols(fields: Fields) -> list[str]:
    offered = header_tokens(fields, 'sec-websocket-protocol')
    if not offered:
        return offered
    if any(_token.fullmatch(name) is None for name in offered):
        raise Rejected(
            400, 'The header Sec-WebSocket-Protocol is not a list of tokens.'
        )
    if len(set(offered)) != len(offered):  # 4.1: "MUST all be unique strings"
        raise Rejected(
            400, 'The header Sec-WebSocket-Protocol names a subprotocol twice.'
        )
    return offered


# Server: the origin (RFC 6455 section 10.2, RFC 6454)


class Origins(frozenset[str | None]):
    """What ``parse_origins`` returns, and takes as it is."""


def parse_origins(origins: object) -> Origins | None:
    """Return an ``origins=`` argument as a set of normalised origins.

    :param origins: None for no check; or one origin; or an iterable of them.
        An origin is ``'https://example.com'`` (with ``:port`` where it isn't
        the scheme's); ``'same'`` for that of the server; ``'null'`` for
        documents without one; or, in an iterable, None for requests that
        don't say, which browsers never make.
    :raises TypeError: it is something else.
    :raises ValueError: a string isn't an origin.
    """
    if origins is None or isinstance(origins, Origins):
        return origins
    if isinstance(origins, str):
        origins = [origins]
    given = tuple(_members('origins', origins, 'a str or a list of them'))
    for origin in given:
        if origin is not None and not isinstance(origin, str):
            raise TypeError(f'origins must be strings or None, not {type(origin).__name__}')
    return _normalized(given)


@lru_cache(maxsize=64)  # every connection of a server has the same
def _normalized(origins: tuple[str | None, ...]) -> Origins:
    allowed: set[str | None] = set()
    for origin in origins:
        if origin is None or origin == 'same':
            allowed.add(origin)
            continue
        normal = _normalize_origin(origin)
        if normal is None:
            raise ValueError(
                f'origins: {origin!r} is no origin; one looks like https://example.com '
                '(no path, no wildcard)'
            )
        allowed.add(normal)
    return Origins(allowed)


def is_secure(scheme: object) -> bool:
    """Whether a URL scheme, as a server or a proxy reports it, is that of TLS."""
    return isinstance(scheme, str) and scheme.lower() in ('https', 'wss')


def check_origin(request: UpgradeRequest, origins: object, secure: bool) -> None:
    """Keep out pages of other sites.

    ``'same'`` compares scheme, host and port with what the client connected
    to.  It lets requests without an Origin pass: the check protects people
    with a browser, and browsers always send one.  A list of origins lets them
    pass only if it has None as a member.

    :param request: the request.
    :param origins: what ``parse_origins`` takes, or has returned: an option
                    is parsed when it is given, and costs nothing here.
    :param secure: whether the client sees TLS.
    :raises Rejected: 403.
    :raises TypeError: ``origins`` has a wrong type.
    :raises ValueError: ``origins`` has a string that isn't an origin.
    """
    allowed: frozenset[str | None] | None = parse_origins(origins)
    if allowed is None:
        return
    if request.origin is None:
        if None in allowed or 'same' in allowed:
            return
        raise Rejected(
            403, 'This WebSocket is for pages of certain origins; none was given.'
        )
    origin = _normalize_origin(request.origin)
    detail = f'Origin: {request.origin[:100]!r}'
    if 'same' in allowed:
        # A host that is no origin adds None: tested for below.
        scheme = 'https' if secure else 'http'
        same = _normalize_origin(f'{scheme}://{request.host or ""}')
        allowed |= {same}
        detail += f"; 'same' is {same!r} here, by the request's scheme and Host"
    if origin is None or origin not in allowed:
        raise Rejected(
            403, 'Pages of this origin may not open this WebSocket.', detail=detail
        )


def _normalize_origin(origin: str) -> str | None:
    """Return an origin in the one spelling, None if it isn't one."""
    if origin == 'null':
        return origin
    scheme, separator, authority = origin.partition('://')
    scheme = scheme.lower()
    if not separator or re.fullmatch(r'[a-z][a-z0-9+.-]*', scheme) is None:
        return None
    try:
        host, port = split_authority(authority)
    except ValueError:
        return None
    text = bracketed(host)
    if port not in (None, DEFAULT_PORTS.get(scheme)):
        text += f':{port}'
    return f'{scheme}://{text}'


# Server: the response


def choose_subprotocol(offered: Iterable[str], supported: Iterable[str]) -> str | None:
    """Return the first that the client offers and we support, or None.

    :param offered: the client's subprotocols, best first.
    :param supported: ours, in any order.
    """
    ours = set(supported)
    if not ours:
        return None
    return next((name for name in offered if name in ours), None)


_OPENING = (
    'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n'
    'Connection: Upgrade\r\nSec-WebSocket-Accept: '
)


def accept_response(
    request: UpgradeRequest,
    subprotocol: str | None,
    extensions: str | None,
    headers: object = None,
) -> bytes:
    """Return the response that opens the WebSocket (RFC 6455 section 4.2.2).

    :param request: the request.
    :param subprotocol: one that the client offered, or None.
    :param extensions: the value of ``Sec-WebSocket-Extensions``, or None.
    :param headers: further header fields, what ``normalize_headers`` takes,
                    or has returned.
    :raises ValueError: the client didn't offer that subprotocol (and would
        have to fail the connection), or a header isn't valid.
    :raises TypeError: ``headers`` has a wrong type.
    """
    fields: Headers = []
    if subprotocol is not None:
        if subprotocol not in request.subprotocols:
            raise ValueError(
                f'subprotocol {subprotocol!r} is not one that the client offered'
            )
        fields.append(('Sec-WebSocket-Protocol', subprotocol))
    if extensions is not None:
        fields.append(('Sec-WebSocket-Extensions', extensions))
    return _head(_OPENING + accept_token(request.key), fields + normalize_headers(headers))


def phrase_of(status: int) -> str:
    """The words that go with an HTTP status."""
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return 'Refused'


def rejection_response(rejected: Rejected, method: object = 'GET') -> bytes:
    """Return the whole HTTP/1.1 response for a request that was rejected.

    :param method: the request's; what answers HEAD has no body (RFC 9110 section
                   9.3.2).
    """
    body = rejected.reason.encode() + b'\n'
    fields = [
        ('Content-Type', 'text/plain; charset=utf-8'),
        ('Content-Length', str(len(body))),
    ]
    if rejected.status == 426:
        # RFC 9110 section 7.8: who sends Upgrade names it in Connection.
        fields += [('Connection', 'close, Upgrade'), ('Upgrade', 'websocket')]
    else:
        fields.append(('Connection', 'close'))
    if rejected.status in (400, 426):
        fields.append(('Sec-WebSocket-Version', VERSION))  # RFC 6455 section 4.4
    status = f'{rejected.status} {phrase_of(rejected.status)}'
    head = _head(f'HTTP/1.1 {status}', fields + rejected.headers)
    return head if method == 'HEAD' else head + body


def _head(beginning: str, fields: Headers) -> bytes:
    """The head of a response, out of its first lines and the fields after them."""
    lines = [f'{name}: {value}' for name, value in fields]
    if any('\r' in line or '\n' in line or '\0' in line for line in lines):
        raise ValueError('a header has a line break or a NUL in it')
    return '\r\n'.join([beginning, *lines, '', '']).encode('latin-1')
