"""The client's opening handshake: any response in any split, and any URL.

An input: some bytes of options, then what the server sends; `{accept}` in it
stands for the right token, which nobody could guess.
"""

from __future__ import annotations

import re

from fuzz.reader import Reader, cuts
from simple_websocket import deflate
from simple_websocket.client_handshake import (
    MAX_RESPONSE_HEAD,
    ClientHandshake,
    Response,
    parse_url,
)
from simple_websocket.errors import ConnectionError
from simple_websocket.handshake import accept_token

URL = parse_url('ws://example.com/chat')
SUBPROTOCOLS = (None, ['chat', 'superchat'])
KEY = 'dGhlIHNhbXBsZSBub25jZQ=='
ACCEPT = accept_token(KEY).encode()


def check(data: bytes) -> None:
    reader = Reader(data)
    flags, way = reader.byte(), reader.byte()
    if flags & 1:
        urls(reader.rest().decode('utf-8', 'surrogateescape'))
        return
    compression = deflate.Deflate() if flags & 2 else None
    subprotocols = SUBPROTOCOLS[flags >> 2 & 1]
    answer = reader.rest().replace(b'{accept}', ACCEPT)
    if flags & 0xF8 == 0xA8:  # more than a head may have, without its end
        answer = answer[:-2] + b'X-Long: ' + b'x' * (MAX_RESPONSE_HEAD - 40) + b'\r\n\r\n'
    ends = [talk(answer, how, compression, subprotocols) for how in (0, 1, way or 2)]
    assert all(end == ends[0] for end in ends), f'the splits differ: {ends}'
    if isinstance(ends[0][0], Response):
        opened(ends[0][0], ends[0][1], answer, subprotocols)
        negotiated(ends[0][0], compression)


def talk(
    answer: bytes,
    way: int,
    compression: deflate.Deflate | None,
    subprotocols: list[str] | None,
) -> tuple[Response | str, object]:
    """How a handshake ends, and the bytes behind it or the status."""
    offer = deflate.offer(compression) if compression else None
    one = ClientHandshake(URL, subprotocols, extensions=offer)
    one.key = KEY
    if way and len(answer) > 5000:
        pieces = iter([answer[at : at + 1000] for at in range(0, len(answer), 1000)])
    else:
        pieces = cuts(answer, way)
    try:
        for piece in pieces:
            response = one.receive(piece)
            if response is not None:
                rest = response.leftover + b''.join(pieces)
                return Response(*without_leftover(response)), rest
    except ConnectionError as error:
        return 'refused', error.status_code
    try:
        one.receive_eof()
    except ConnectionError as error:
        return 'hung up', error.status_code
    raise AssertionError('the end of the stream is no error')


def without_leftover(response: Response) -> tuple[object, ...]:
    return response.subprotocol, response.extensions, response.headers, b''


def opened(
    response: Response, rest: object, answer: bytes, subprotocols: list[str] | None
) -> None:
    """Only a 101 with all that section 4.1 asks for opens a connection."""
    assert isinstance(rest, bytes) and answer.endswith(rest)
    head = answer[: len(answer) - len(rest)]
    assert len(head) <= MAX_RESPONSE_HEAD
    assert re.search(rb'(?:^|\n)HTTP/1\.[1-9] 101', head), 'no 101'
    assert head.count(ACCEPT) >= 1, 'no accept token'
    lower = head.lower()
    assert b'upgrade' in lower and b'websocket' in lower and b'connection' in lower
    assert response.subprotocol is None or response.subprotocol in (subprotocols or ())


def negotiated(response: Response, compression: deflate.Deflate | None) -> None:
    try:
        engine = deflate.accept_offer(compression, response.extensions)
    except deflate.DeflateError:
        return
    if engine is not None:
        assert compression is not None and 9 <= engine.compress_bits <= 12


def urls(text: str) -> None:
    """A URL is refused with a ValueError or names exactly one place."""
    try:
        url = parse_url(text)
    except ValueError:
        return
    assert re.fullmatch('[!-~]+', url.target) and url.target.startswith('/'), url
    assert 0 < url.port < 65536 and url.host and url.host.isascii()
    assert not re.search('[\\s/@?#]', url.host_header + url.host)
    request = ClientHandshake(url).request()
    lines = request.split(b'\r\n')
    assert request.endswith(b'\r\n\r\n') and request.count(b'\n') == len(lines) - 1
    assert lines[0] == b'GET ' + url.target.encode() + b' HTTP/1.1'
    assert len(lines) == 8 + (url.authorization is not None)
