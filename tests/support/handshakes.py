"""The opening handshake of RFC 6455 section 4 as two tables.

`REQUESTS` says what a server answers to each request, to the byte; `RESPONSES`
what a client makes of each response. A row names the section and the demand
that it is about. The pure functions are held to all rows (`tests/core`), the
connections to all that a socket can carry (`tests/sync`, `tests/aio`).
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable
from typing import Any, NamedTuple

# Section 1.3: the example of the RFC.
KEY = 'dGhlIHNhbXBsZSBub25jZQ=='
ACCEPT = 's3pPLMBiTxaQ9kYGzzhZRbK+xOo='
GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11'

Pairs = list[tuple[str, str]]


def token(key: str) -> str:
    digest = hashlib.sha1((key + GUID).encode()).digest()
    return base64.b64encode(digest).decode()


def nonce(size: int) -> str:
    return base64.b64encode(bytes(size)).decode()


# The server's answers, whole.


def switching(*more: str) -> bytes:
    lines = (
        'HTTP/1.1 101 Switching Protocols',
        'Upgrade: websocket',
        'Connection: Upgrade',
        f'Sec-WebSocket-Accept: {ACCEPT}',
        *more,
    )
    return '\r\n'.join([*lines, '', '']).encode()


def refusal(status: str, text: str, *fields: str) -> bytes:
    lines = (
        f'HTTP/1.1 {status}',
        'Content-Type: text/plain; charset=utf-8',
        f'Content-Length: {len(text) + 1}',
        *fields,
    )
    return '\r\n'.join([*lines, '', text + '\n']).encode()


def bad(text: str) -> bytes:
    """A 400; it names the version, as section 4.4 has it."""
    return refusal('400 Bad Request', text, 'Connection: close', 'Sec-WebSocket-Version: 13')


def upgrade_required(text: str) -> bytes:
    fields = 'Connection: close, Upgrade', 'Upgrade: websocket', 'Sec-WebSocket-Version: 13'
    return refusal('426 Upgrade Required', text, *fields)


OPEN = switching()
NOT_GET = refusal(
    '405 Method Not Allowed',
    'A WebSocket is opened with the method GET.',
    'Connection: close',
    'Allow: GET',
)
NO_UPGRADE = upgrade_required(
    'This is a WebSocket: connect with a WebSocket client (ws:// or wss://). '
    'A proxy in between must pass on the headers Upgrade and Connection.'
)
OTHER_VERSION = upgrade_required('The only WebSocket version spoken here is 13.')
OLD_HTTP = bad(
    'A WebSocket needs HTTP/1.1; a proxy in between may be set to another version.'
)
BODY = bad('A WebSocket request has no body.')
HOST = bad('Send one header Host: the name of this server, and the port if need be.')
VERSION = bad('Send one header Sec-WebSocket-Version: 13.')
NONCE = bad('Send one header Sec-WebSocket-Key: 16 bytes in base64.')
PROTOCOLS = bad('The header Sec-WebSocket-Protocol is not a list of tokens.')
TWICE = bad('The header Sec-WebSocket-Protocol names a subprotocol twice.')


class Request(NamedTuple):
    section: str
    demand: str
    #: Headers that replace those of `BASE`: None for none, a list for several.
    changes: dict[str, Any]
    answer: bytes
    method: str = 'GET'
    version: str = 'HTTP/1.1'

    @property
    def name(self) -> str:
        said = [f'{name}={value}' for name, value in self.changes.items()]
        said = ' '.join([self.method, self.version, *said])
        return f'{self.section}: {self.demand}: {said}'

    @property
    def pairs(self) -> Pairs:
        return changed(BASE, self.changes)

    @property
    def environ(self) -> dict[str, Any]:
        """What a WSGI server makes of it: repeated headers joined."""
        result = {
            'REQUEST_METHOD': self.method,
            'SERVER_PROTOCOL': self.version,
            'PATH_INFO': '/chat',
        }
        for name, value in self.pairs:
            key = name.upper().replace('-', '_')
            key = key if key == 'CONTENT_LENGTH' else f'HTTP_{key}'
            result[key] = f'{result[key]},{value}' if key in result else value
        return result


BASE: Pairs = [
    ('Host', 'server.example.com'),
    ('Upgrade', 'websocket'),
    ('Connection', 'Upgrade'),
    ('Sec-WebSocket-Key', KEY),
    ('Sec-WebSocket-Version', '13'),
]


def changed(base: Pairs, changes: dict[str, Any]) -> Pairs:
    names = {name.lower() for name in changes}
    pairs = [pair for pair in base if pair[0].lower() not in names]
    for name, value in changes.items():
        values = value if isinstance(value, list) else [] if value is None else [value]
        pairs += [(name, one) for one in values]
    return pairs


def requests(
    section: str, demand: str, answer: bytes, *changes: dict[str, Any], **line: str
) -> list[Request]:
    return [Request(section, demand, one, answer, **line) for one in changes]


U, C, K, V = 'Upgrade', 'Connection', 'Sec-WebSocket-Key', 'Sec-WebSocket-Version'
P, X = 'Sec-WebSocket-Protocol', 'Sec-WebSocket-Extensions'

REQUESTS = [
    *requests('4.2.1 (1)', 'a GET of HTTP/1.1', OPEN, {}),
    *requests('4.2.1 (1)', 'HTTP/1.1 or higher', OPEN, {}, version='HTTP/1.2'),
    *(
        Request('4.2.1 (1)', 'the method is GET', {}, NOT_GET, method=method)
        for method in ('POST', 'PUT', 'OPTIONS', 'CONNECT', 'get', 'GET ')
    ),
    Request(
        '4.2.1 (1)', 'the method is GET, and HEAD has no body', {},
        NOT_GET.partition(b'\r\n\r\n')[0] + b'\r\n\r\n', method='HEAD',
    ),
    *(
        Request('4.2.1 (1)', 'HTTP/1.1 or higher', {}, OLD_HTTP, version=version)
        for version in ('HTTP/1.0', 'HTTP/0.9', 'HTTP/1', 'HTTP/2.0', 'HTTP/11', 'HTTP/1.1 ')
    ),
    *requests(
        '4.2.1 (2)',
        "a Host with the server's authority",
        OPEN,
        {'Host': 'server.example.com:8080'},
        {'Host': '127.0.0.1'},
        {'Host': '[::1]:80'},
        {'Host': '[fe80::1%25eth0]:80'},
        {'Host': 'my_host.local.'},
        {'Host': 'a%20b'},
        {'hOST': 'server.example.com'},
    ),
    *requests(
        '4.2.1 (2)',
        "a Host with the server's authority",
        HOST,
        {'Host': None},
        {'Host': ''},
        {'Host': ':80'},
        {'Host': 'a b'},
        {'Host': 'a/b'},
        {'Host': 'u@a'},
        {'Host': 'a:b'},
        {'Host': 'a:80:80'},
        {'Host': '::1'},
        {'Host': '[::1'},
        {'Host': '[]'},
        {'Host': 'a%2'},
        {'Host': '\xe9'},
        {'Host': ['server.example.com', 'server.example.com']},
        {'Host': ['server.example.com', 'evil.example.com']},
    ),
    *requests(
        '4.2.1 (3)',
        'Upgrade contains websocket, in any case',
        OPEN,
        {U: 'WebSocket'},
        {U: 'WEBSOCKET'},
        {U: 'h2c, websocket'},
        {U: ['h2c', 'websocket']},
        {U: 'websocket , '},
        {'uPGRADE': 'websocket'},
    ),
    *requests(
        '4.2.1 (3)',
        'Upgrade contains websocket, in any case',
        NO_UPGRADE,
        {U: None},
        {U: ''},
        {U: 'websockets'},
        {U: 'web socket'},
        {U: 'websocket/13'},
        {U: '"websocket"'},
        {U: 'websocket;q=1'},
        {U: 'webso\u0441ket'},  # no ASCII at all
        {U: 'websoc\u212aet'},  # a letter whose lower case is in ASCII
    ),
    *requests(
        '4.2.1 (4)',
        'Connection contains Upgrade, in any case',
        OPEN,
        {C: 'upgrade'},
        {C: 'UPGRADE'},
        {C: 'keep-alive, Upgrade'},
        {C: 'Upgrade,keep-alive'},
        {C: ['keep-alive', 'Upgrade']},
        {C: ',\t Upgrade\t ,'},
    ),
    *requests(
        '4.2.1 (4)',
        'Connection contains Upgrade, in any case',
        NO_UPGRADE,
        {C: None},
        {C: ''},
        {C: 'close'},
        {C: 'keep-alive'},
        {C: 'Upgraded'},
        {C: 'keep-alive Upgrade'},
        {C: '"Upgrade"'},
    ),
    *requests(
        '4.2.1 (5)',
        'a key of 16 bytes in base64',
        NONCE,
        {K: None},
        {K: ''},
        {K: nonce(0)},
        {K: nonce(15)},
        {K: nonce(17)},
        {K: nonce(18)},
        {K: KEY[:-1]},
        {K: KEY[:-2]},
        {K: KEY + '='},
        {K: KEY + 'AAAA'},
        {K: '=' + KEY[:-1]},
        {K: KEY[:5] + ' ' + KEY[6:]},
        {K: KEY[:5] + '-' + KEY[6:]},
        {K: KEY[:5] + '_' + KEY[6:]},
        {K: KEY[:5] + '\xe9' + KEY[6:]},
        {K: f'"{KEY}"'},
        {K: 'x' * 24},
    ),
    *requests(
        '11.3.1',
        'the key MUST NOT appear more than once',
        NONCE,
        {K: [KEY, KEY]},
        {K: [KEY, nonce(16)]},
        {K: [KEY, '']},
    ),
    *requests('4.2.1 (6)', 'the version is 13', VERSION, {V: None}, {V: ''}),
    *requests(
        '11.3.5',
        'the version MUST NOT appear more than once',
        VERSION,
        {V: ['13', '13']},
        {V: ['13', '8']},
        {V: '13, 8'},
    ),
    *requests(
        '4.4',
        'another version: an error that names ours',
        OTHER_VERSION,
        {V: '0'},
        {V: '7'},
        {V: '8'},
        {V: '12'},
        {V: '14'},
        {V: '25'},
        {V: '255'},
        {V: '013'},
        {V: '13.0'},
        {V: '+13'},
        {V: '\u0661\u0663'},
        {V: 'x'},
    ),
    *requests(
        '4.2.1 (7)',
        'an Origin, where a browser sends one',
        OPEN,
        {'Origin': 'http://example.com'},
        {'Origin': 'null'},
    ),
    *requests(
        '4.2.1 (8)',
        'a list of subprotocols; none is chosen that is not ours',
        OPEN,
        {P: 'other'},
        {P: 'other, another'},
        {P: 'CHAT'},
    ),
    *requests(
        '4.2.2 (5)',
        'the subprotocol is one that the client offered',
        switching(f'{P}: chat'),
        {P: 'chat'},
        {P: 'other, chat'},
        {P: ['other', 'chat']},
        {P: ', chat,'},
    ),
    *requests(
        '4.2.2 (5)',
        'the first that the client offers is preferred',
        switching(f'{P}: superchat'),
        {P: 'superchat, chat'},
    ),
    *requests(
        '4.1 (10)',
        'an empty list of subprotocols, which some clients send, is none',
        OPEN,
        {P: ''},
        {P: ', ,'},
    ),
    *requests(
        '4.1 (10)',
        'subprotocols are tokens',
        PROTOCOLS,
        {P: 'chat chat2'},
        {P: 'chat;x'},
        {P: 'chat/1'},
        {P: '"chat"'},
        {P: '{chat}'},
        {P: 'ch\xe2t'},
        {P: 'chat\x7f'},
    ),
    *requests(
        '4.1 (10)',
        'subprotocols MUST all be unique',
        TWICE,
        {P: 'chat, chat'},
        {P: ['chat', 'chat']},
        {P: 'chat, superchat, chat'},
    ),
    *requests(
        '4.2.1 (10)',
        'unknown fields are ignored',
        OPEN,
        {'X-Unknown': 'anything at all'},
        {'Sec-WebSocket-Unknown': 'x'},
        {'Cookie': 'a=b; c=d'},
        {'Sec-WebSocket-Accept': 'x'},
    ),
    *requests(
        '4.2.1',
        'no body can come along, for frames follow the head',
        BODY,
        {'Content-Length': '1'},
        {'Content-Length': 'x'},
        {'Content-Length': '-0'},
        {'Content-Length': ['0', '1']},
        {'Transfer-Encoding': 'chunked'},
        {'Transfer-Encoding': 'identity'},
    ),
    *requests('4.2.1', 'no body is no body', OPEN, {'Content-Length': '0'}),
    *requests(
        '9.1',
        'an extension that is not known is not accepted',
        OPEN,
        {X: 'x-unknown'},
        {X: 'x-unknown; a; b=1; c="2", x-other'},
        {X: ['x-unknown', 'x-other']},
        {X: 'Permessage-Deflate'},
    ),
]


class Response(NamedTuple):
    section: str
    demand: str
    #: Headers that replace those of the right 101.
    changes: dict[str, Any]
    #: None where the connection opens, else what `ConnectionError` must match.
    error: str | None = None
    status: int | None = None
    line: str = 'HTTP/1.1 101 Switching Protocols'
    before: str = ''

    @property
    def name(self) -> str:
        said = ' '.join([self.line, *(f'{name}={value}' for name, value in self.changes.items())])
        return f'{self.section}: {self.demand}: {said} {self.before!r}'

    def raw(self, key: str) -> bytes:
        """The response to a client with this key."""
        base = [(U, 'websocket'), (C, 'Upgrade'), ('Sec-WebSocket-Accept', '{accept}')]
        fields = [f'{name}: {value}' for name, value in changed(base, self.changes)]
        text = self.before + '\r\n'.join([self.line, *fields, '', ''])
        return text.replace('{accept}', token(key)).encode('latin-1')


def responses(
    section: str, demand: str, error: str | None, *changes: dict[str, Any]
) -> list[Response]:
    return [Response(section, demand, one, error) for one in changes]


def lines(demand: str, error: str | None, lines: Iterable[str]) -> list[Response]:
    return [Response('4.2.2', demand, {}, error, line=line) for line in lines]


A = 'Sec-WebSocket-Accept'
WRONG_ACCEPT = 'Sec-WebSocket-Accept is missing, repeated or wrong'
REASONS = {
    200: 'OK',
    204: 'No Content',
    301: 'Moved Permanently',
    302: 'Found',
    307: 'Temporary Redirect',
    400: 'Bad Request',
    401: 'Unauthorized',
    403: 'Forbidden',
    404: 'Not Found',
    407: 'Proxy Authentication Required',
    426: 'Upgrade Required',
    429: 'Too Many Requests',
    500: 'Internal Server Error',
    503: 'Service Unavailable',
}

#: To a client that offers the subprotocols `chat` and `superchat`, and no extension.
RESPONSES = [
    *responses('4.1', 'the right 101 opens', None, {}),
    *(
        Response(
            *('4.1 (1)', 'any other status is for HTTP', {}, reason, status),
            line=f'HTTP/1.1 {status} {reason}',
        )
        for status, reason in REASONS.items()
    ),
    *(
        Response('4.1 (1)', 'an informational response is not the answer', {}, before=before)
        for before in (
            'HTTP/1.1 100 Continue\r\n\r\n',
            'HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n',
            'HTTP/1.1 100 Continue\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n',
        )
    ),
    *responses(
        '4.1 (2)',
        'Upgrade is websocket, in any case',
        None,
        {U: 'WebSocket'},
        {U: 'WEBSOCKET'},
        {U: ' \twebsocket \t'},
        {'uPGRADE': 'websocket'},
    ),
    *responses(
        '4.1 (2)',
        'Upgrade is websocket, and nothing else',
        'upgrades to something else',
        {U: None},
        {U: ''},
        {U: 'h2c'},
        {U: 'websockets'},
        {U: 'websocket/13'},
        {U: 'websocket, h2c'},
        {U: 'websocket, websocket'},
        {U: 'websocket,'},
        {U: ['websocket', 'h2c']},
        {U: ['websocket', 'websocket']},
    ),
    *responses(
        '4.1 (3)',
        'Connection contains Upgrade, in any case',
        None,
        {C: 'upgrade'},
        {C: 'UPGRADE'},
        {C: 'keep-alive, Upgrade'},
        {C: ['keep-alive', 'Upgrade']},
    ),
    *responses(
        '4.1 (3)',
        'Connection contains Upgrade, in any case',
        'no Connection: Upgrade',
        {C: None},
        {C: ''},
        {C: 'close'},
        {C: 'keep-alive'},
        {C: 'Upgraded'},
        {C: 'keep-alive Upgrade'},
    ),
    *responses('4.1 (4)', 'white space around the token is ignored', None, {A: ' \t{accept}\t '}),
    *responses(
        '4.1 (4)',
        'the accept token is that of our key',
        WRONG_ACCEPT,
        {A: None},
        {A: ''},
        {A: ACCEPT},
        {A: '{accept}='},
        {A: '"{accept}"'},
        {A: 'x{accept}'},
        {A: '{accept}, {accept}'},
        {A: '\xe9'},
    ),
    *responses(
        '11.3.3',
        'the accept token MUST NOT appear more than once',
        WRONG_ACCEPT,
        {A: ['{accept}', '{accept}']},
        {A: ['{accept}', 'x']},
        {A: ['x', '{accept}']},
    ),
    *responses(
        '4.1 (5)',
        'an extension that was not asked for',
        'extension where none was asked for',
        {X: 'permessage-deflate'},
        {X: 'x-unknown'},
        {X: ';'},
    ),
    *responses(
        '9.1',
        'a list of extensions has one at least',
        'extension where none was asked for',
        {X: ''},
        {X: ', ,'},
    ),
    *responses('4.1 (6)', 'a subprotocol that was offered', None, {P: 'chat'}, {P: 'superchat'}),
    *responses(
        '4.1 (6)',
        'a subprotocol that was not offered',
        'not asked for',
        {P: 'other'},
        {P: 'CHAT'},
        {P: ''},
        {P: 'chat, superchat'},
        {P: 'chat,'},
        {P: '"chat"'},
    ),
    *responses(
        '11.3.4',
        'the subprotocol MUST NOT appear more than once',
        'more than one subprotocol',
        {P: ['chat', 'chat']},
        {P: ['chat', 'superchat']},
        {P: ['chat', '']},
    ),
    *responses(
        '4.1',
        'other fields are ignored',
        None,
        {'X-Unknown': 'anything'},
        {'Sec-WebSocket-Version': '8'},
        {'Set-Cookie': ['a=b', 'c=d']},
        {'Date': 'Sun, 06 Nov 1994 08:49:37 GMT'},
    ),
    *lines('a reason phrase says nothing', None, ['HTTP/1.1 101 No', 'HTTP/1.1 101 ']),
    *lines(
        'HTTP/1.1 or higher',
        'HTTP version',
        ['HTTP/1.0 101 Switching Protocols', 'HTTP/0.9 101 X', 'HTTP/2.0 101 Switching Protocols'],
    ),
    *lines(
        'a status line',
        'does not speak HTTP',
        [
            'HTTP/1.1 0101 Switching Protocols',
            'HTTP/1.1  101 Switching Protocols',
            'HTTP/1.1\t101 Switching Protocols',
            'http/1.1 101 Switching Protocols',
            'HTTP/1 101 Switching Protocols',
            'HTTP/1.1 1O1 Switching Protocols',
            ' HTTP/1.1 101 Switching Protocols',
            'WS/1.1 101 Switching Protocols',
            'GET / HTTP/1.1',
        ],
    ),
    *(
        Response('4.2.2', 'lines of HTTP', {name: value}, 'does not speak HTTP')
        for name, value in (
            ('X ', 'white space before the colon'),
            ('X Y', 'white space in a name'),
            ('', 'no name'),
            ('X', 'a NUL \0'),
            ('X\xe9', 'a name that is not ASCII'),
        )
    ),
]
