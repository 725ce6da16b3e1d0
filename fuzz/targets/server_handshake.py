"""The server's opening handshake: any request, from a WSGI environ and from a
list of headers; and what strings of an application get through.

An input: some bytes of options, then a request line and header fields, one a
line, as a server would have split them.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable

import h11

from fuzz.reader import Reader
from simple_websocket import deflate, handshake
from simple_websocket.environ import request_from_environ
from simple_websocket.handshake import Rejected, UpgradeRequest

ORIGINS = (None, 'same', ['https://example.com', None], 'null', ['same', 'http://[::1]:81'])
SUBPROTOCOLS = ('chat', 'superchat', 'a.b')
STATUSES = {400, 405, 426}


def check(data: bytes) -> None:
    reader = Reader(data)
    flags = reader.byte()
    origins = reader.pick(ORIGINS)
    text = reader.rest().decode('utf-8' if flags & 1 else 'latin-1', 'replace')
    if flags & 2:
        callers(text)
        return
    first, *lines = text.split('\n')
    method, _, rest = first.partition(' ')
    target, _, version = rest.rpartition(' ')
    headers = [
        (name.strip(), value.strip(' \t\r'))
        for name, colon, value in (line.partition(':') for line in lines)
        if colon
    ]
    parts = method, target, version, headers
    listed = verdict(lambda: handshake.request_from_headers(*parts))
    mapped = verdict(lambda: request_from_environ(environ_of(*parts)))
    names = [name.lower() for name, _ in headers]
    if len(set(names)) == len(names) and plain(names) and version.startswith('HTTP/'):
        same(listed, mapped)
    for request in (listed, mapped):
        if isinstance(request, UpgradeRequest):
            opened(request, origins, bool(flags & 4))


def plain(names: list[str]) -> bool:
    """Whether a WSGI server passes all of them on under their own names."""
    ends = ('content-length', 'content-type')
    return all(re.fullmatch('[a-z-]+', name) and name not in ends for name in names)


def environ_of(
    method: str, target: str, version: str, headers: list[tuple[str, str]]
) -> dict[str, object]:
    """What a WSGI server makes of the request (PEP 3333)."""
    path, _, query = target.partition('?')
    environ: dict[str, object] = {
        'REQUEST_METHOD': method,
        'SCRIPT_NAME': '',
        'PATH_INFO': path,
        'QUERY_STRING': query,
        'SERVER_PROTOCOL': version,
        'wsgi.version': (1, 0),
    }
    for name, value in headers:
        key = name.upper().replace('-', '_')
        if key not in ('CONTENT_LENGTH', 'CONTENT_TYPE'):
            key = f'HTTP_{key}'
        environ[key] = f'{environ[key]},{value}' if key in environ else value
    return environ


def verdict(read: Callable[[], UpgradeRequest]) -> UpgradeRequest | int:
    """The request, or the status of its refusal."""
    try:
        request = read()
    except Rejected as rejected:
        assert rejected.status in STATUSES
        refused(rejected)
        return rejected.status
    assert len(base64.b64decode(request.key, validate=True)) == 16
    assert len(set(request.subprotocols)) == len(request.subprotocols)
    fields = {name.lower(): value.lower() for name, value in request.headers}
    assert 'websocket' in fields['upgrade'] or 'websocket' in str(request.headers).lower()
    assert 'sec-websocket-key' in fields and 'transfer-encoding' not in fields
    return request


def same(listed: UpgradeRequest | int, mapped: UpgradeRequest | int) -> None:
    if isinstance(listed, int) or isinstance(mapped, int):
        assert listed == mapped, 'an environ and headers are judged differently'
        return
    for name in ('subprotocols', 'extensions', 'origin', 'host', 'key'):
        assert getattr(listed, name) == getattr(mapped, name), name


def refused(rejected: Rejected) -> None:
    """A refusal is a whole HTTP response that says so."""
    client = asking()
    client.receive_data(handshake.rejection_response(rejected))
    response = client.next_event()
    assert isinstance(response, h11.Response) and response.status_code == rejected.status
    body = b''
    while isinstance(event := client.next_event(), h11.Data):
        body += event.data
    assert isinstance(event, h11.EndOfMessage) and body
    assert client.trailing_data[0] == b''


def asking() -> h11.Connection:
    client = h11.Connection(h11.CLIENT)
    fields = [('Host', 'x'), ('Upgrade', 'websocket'), ('Connection', 'Upgrade')]
    client.send(h11.Request(method='GET', target='/', headers=fields))
    client.send(h11.EndOfMessage())
    return client


def opened(request: UpgradeRequest, origins: object, secure: bool) -> None:
    """What follows for a valid request: the origin, extensions, the 101."""
    try:
        handshake.check_origin(request, origins, secure)
    except Rejected as rejected:
        assert rejected.status == 403 and origins is not None
        refused(rejected)
    else:
        if origins == 'null':
            assert request.origin == 'null'
    try:
        _, extensions = deflate.negotiate(deflate.Deflate(), request.extensions)
    except deflate.ExtensionSyntaxError:
        extensions = None
    chosen = handshake.choose_subprotocol(request.subprotocols, SUBPROTOCOLS)
    response = handshake.accept_response(request, chosen, extensions, {'X-Own': 'yes'})
    client = asking()
    client.receive_data(response)
    event = client.next_event()
    assert isinstance(event, h11.InformationalResponse) and event.status_code == 101
    fields = dict(event.headers)
    assert fields[b'sec-websocket-accept'] == handshake.accept_token(request.key).encode()
    assert fields.get(b'sec-websocket-protocol') == (chosen.encode() if chosen else None)
    assert fields.get(b'sec-websocket-extensions') == (
        extensions.encode() if extensions else None
    )  # fmt: skip
    assert client.trailing_data[0] == b'' and len(fields) == len(event.headers)


def callers(text: str) -> None:
    """Strings of the application: refused as what they are, or safe."""
    lines = text.split('\x1f')
    for call in (handshake.parse_subprotocols, handshake.parse_origins):
        for value in (text, lines):
            try:
                result = call(value)
            except ValueError:
                continue
            assert result is not None
            assert not re.search('[\0\r\n]', ''.join(one or '' for one in result))
    pairs = [line.partition('=')[::2] for line in lines]
    try:
        headers = handshake.normalize_headers(pairs)
    except ValueError:
        pass
    else:
        assert not re.search('[^\t -~]', ''.join(name + value for name, value in headers))
        assert all(name and not re.search('[\\s:]', name) for name, _ in headers)
    try:
        host, port = handshake.split_authority(text)
    except ValueError:
        pass
    else:
        assert host and (port is None or 0 < port < 65536)
        assert not re.search('[\\s/@?#\\[\\]]', host)
