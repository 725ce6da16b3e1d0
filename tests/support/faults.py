"""What can be wrong on the wire, as tables that several suites go through.

A frame here is a `Frame`; `peer.send(wire(frames, peer.client))` puts
it on the wire of a scripted peer.
"""

from __future__ import annotations

import functools
import zlib
from typing import Any

from .frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Frame, closing, fragments
from .lab import deflated
from .peer import accepted, connected

#: Row B1: each of them is answered with 1002.
VIOLATIONS: dict[str, list[Frame]] = {
    'a reserved opcode': [Frame(3, b'x')],
    'a reserved control opcode': [Frame(0xB)],
    'RSV1 that was not negotiated': [Frame(TEXT, b'a', rsv=4)],
    'RSV2': [Frame(BINARY, b'a', rsv=2)],
    'RSV3 on a ping': [Frame(PING, b'a', rsv=1)],
    'RSV1 on a continuation': [Frame(TEXT, b'a', False), Frame(CONTINUATION, b'a', rsv=4)],
    'a wrong mask': [Frame(TEXT, b'a', flip_mask=True)],
    'a wrong mask on a Close': [Frame(CLOSE, b'\x03\xe8', flip_mask=True)],
    'a ping without FIN': [Frame(PING, fin=False)],
    'a Close without FIN': [Frame(CLOSE, b'\x03\xe8', fin=False)],
    'a ping of 126 bytes': [Frame(PING, bytes(126))],
    'a pong of 126 bytes': [Frame(PONG, bytes(126))],
    'a Close of 126 bytes': [Frame(CLOSE, b'\x03\xe8' + bytes(124))],
    'a continuation without a start': [Frame(CONTINUATION, b'a')],
    'a continuation behind a message': [*fragments(TEXT, b'a', b'b')[1:]],
    'a text inside a message': [Frame(TEXT, b'a', False), Frame(TEXT, b'b')],
    'a binary inside a message': [Frame(BINARY, b'a', False), Frame(BINARY, b'b', False)],
    'a length of 2 ** 63': [Frame(BINARY, length=1 << 63, form=64)],
    'a length of 2 ** 64 - 1': [Frame(BINARY, length=(1 << 64) - 1, form=64)],
    '125 bytes in a length of 16 bits': [Frame(BINARY, bytes(125), form=16)],
    '65535 bytes in a length of 64 bits': [Frame(BINARY, length=65535, form=64)],
}

TALE = b'Once upon a time there was a peer. ' * 20
ZIPPED = deflated(TALE)
TEXT_OF_ALL_LENGTHS = 'a \u00e9 \u20ac \U0001f600'

#: Rows B3, B8: compressed messages that are right, and what they say.
COMPRESSED: dict[str, tuple[list[Frame], list[bytes]]] = {
    'control frames between fragments': (
        [
            Frame(BINARY, ZIPPED[:5], False, 4),
            Frame(PING, b'1'),
            Frame(CONTINUATION, ZIPPED[5:9], False),
            Frame(PONG, b'nobody asked'),
            Frame(PING, b'2'),
            Frame(CONTINUATION, ZIPPED[9:]),
        ],
        [TALE],
    ),
    'BFINAL, then a second message': (
        [Frame(BINARY, deflated(TALE, final=True), rsv=4), Frame(BINARY, ZIPPED, rsv=4)],
        [TALE, TALE],
    ),
    'empty fragments': (
        fragments(BINARY, b'', ZIPPED[:7], b'', ZIPPED[7:], b'', compressed=True),
        [TALE],
    ),
    'several blocks': (
        # RFC 7692 section 7.2.3.5
        [Frame(BINARY, b'\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00', rsv=4)],
        [b'Hello'],
    ),
    'not compressed in between': (
        [Frame(BINARY, ZIPPED, rsv=4), Frame(BINARY, b'plain'), Frame(BINARY, ZIPPED, rsv=4)],
        [TALE, b'plain', TALE],
    ),
}

#: Row B8: each of them is answered with 1007.
CORRUPT: dict[str, list[Frame]] = {
    'no block of any kind': [Frame(BINARY, b'\x07corrupt', rsv=4)],
    'a corrupt second fragment': fragments(BINARY, ZIPPED[:9], b'\xff\xff\xff', compressed=True),
    'a corrupt message behind a good one': [
        Frame(BINARY, ZIPPED, rsv=4),
        Frame(BINARY, b'\x07', rsv=4),
    ],
    'no bytes at all': [Frame(BINARY, b'', rsv=4)],
    'a text that inflates to invalid UTF-8': [Frame(TEXT, deflated(b'a\xff'), rsv=4)],
}

#: Row B9: each of them is answered with 1007, as soon as it is there.
INVALID_UTF8: dict[str, list[Frame]] = {
    'a whole frame': [Frame(TEXT, b'good \xff')],
    'a fragment': [Frame(TEXT, b'good \xff', False)],
    'a later fragment': [Frame(TEXT, b'good \xe2', False), Frame(CONTINUATION, b'\x82a', False)],
    'a surrogate': [Frame(TEXT, b'\xed\xa0', False)],
    'an incomplete frame': [Frame(TEXT, b'good \xf4\x90', length=1000)],
    'an incomplete last fragment': [
        Frame(TEXT, b'\xf0', False),
        Frame(CONTINUATION, b'\x80', length=1000),
    ],
    'a character cut by the end': [Frame(TEXT, b'good \xe2\x82')],
}

#: Row B10: what a Close may say, and what is made of it: the code that is
#: reported and the payload of the Close that answers, or its code alone where
#: it fails the connection.
CLOSES: dict[str, tuple[bytes, int, bytes | int]] = {
    'empty': (b'', 1005, b''),
    **{
        f'{code}': (code.to_bytes(2, 'big') + b'why', code, code.to_bytes(2, 'big'))
        for code in (1000, 1001, 1002, 1003, 1007, 1011, 1012, 1013, 1014, 3000, 4000, 4999)
    },
    **{
        f'{code}': (closing(code).payload, 1002, 1002)
        for code in (0, 1, 999, 1004, 1005, 1006, 1015, 1016, 1100, 2000, 2999, 5000, 65535)
    },
    'one byte': (b'\x03', 1002, 1002),
    'invalid UTF-8': (b'\x03\xe8\xff', 1007, 1007),
    'a cut character': (b'\x03\xe8\xe2\x82', 1007, 1007),
    'the longest reason': (b'\x03\xe8' + b'x' * 123, 1000, b'\x03\xe8'),
}

OFFER = 'permessage-deflate; client_max_window_bits'


def compressing(world: Any, role: str, **options: Any) -> tuple[Any, Any]:
    """A connection that has negotiated compression, and its peer."""
    if role == 'server':
        return accepted(world, request={'sec_websocket_extensions': OFFER}, **options)
    agreed = b'permessage-deflate; server_max_window_bits=12'
    return connected(world, headers_of_101=(b'Sec-WebSocket-Extensions: ' + agreed,), **options)


@functools.cache
def bomb(size: int, pieces: int = 1) -> list[Frame]:
    """A message of so many zeros, deflated, in so many fragments."""
    packer = zlib.compressobj(9, wbits=-15)
    chunk = bytes(1 << 20)
    data = b''.join(packer.compress(chunk) for _ in range(size >> 20))
    data = (data + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]
    step = len(data) // pieces + 1
    cut = [data[at : at + step] for at in range(0, len(data), step)]
    return fragments(BINARY, *cut, compressed=True)

