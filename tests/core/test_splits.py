"""Every split of a corpus of frames gives the same events: each cut in two, each
cut in three where the stream is short, and one byte at a time (B6: what
arrives has no boundaries). Both roles; the decoders of all codecs, and the
protocol on the one in use."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest
from support.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Frame,
    closing,
    fragments,
    wire,
)
from support.lab import End, deflated

from simple_websocket.codec import FAILURE
from simple_websocket.deflate import PerMessageDeflate
from simple_websocket.protocol import ENDED, OPEN

#: Streams up to this many bytes are cut in three as well.
SHORT = 70


class Stream(NamedTuple):
    frames: list[Frame | bytes]
    got: list[str | bytes]  #: messages
    said: list[tuple[int, bytes]] = []  #: answers, but for the Close of a failure
    code: int | None = None  #: the close code, where the connection ends
    options: dict[str, Any] = {}


EURO = '\u20ac'.encode()
HELLO = deflated(b'Hello')
TWICE = deflated(b'Hello Hello Hello Hello')
DEFLATE = {'deflate': True}
NORMAL = [(CLOSE, b'\x03\xe8')]

CORPUS = {
    'a text': Stream([Frame(TEXT, b'Hello')], ['Hello']),
    'an empty text': Stream([Frame(TEXT)], ['']),
    'two empty messages': Stream([Frame(BINARY), Frame(TEXT)], [b'', '']),
    'text of all lengths in UTF-8': Stream([Frame(TEXT, 'aé€😀'.encode())], ['aé€😀']),
    'a length in 16 bits': Stream([Frame(BINARY, bytes(126))], [bytes(126)]),
    'lengths of 125 and 126': Stream(
        [Frame(BINARY, b'a' * 125), Frame(TEXT, b'b' * 126)], [b'a' * 125, 'b' * 126]
    ),
    'fragments': Stream(fragments(TEXT, b'Hel', b'', b'lo'), ['Hello']),
    'a character over fragments': Stream(
        fragments(TEXT, EURO[:1], EURO[1:2], EURO[2:]), [EURO.decode()]
    ),
    'a message behind fragments': Stream(
        [*fragments(BINARY, b'\xff', b'\xfe'), Frame(TEXT, b'a')], [b'\xff\xfe', 'a']
    ),
    'a ping': Stream([Frame(PING, b'abc')], [], [(PONG, b'abc')]),
    'pings around a message': Stream(
        [Frame(PING, b'1'), Frame(TEXT, b'a'), Frame(PING)], ['a'], [(PONG, b'1'), (PONG, b'')]
    ),
    'a pong that nobody asked for': Stream([Frame(PONG, b'x'), Frame(TEXT, b'a')], ['a']),
    'a ping between fragments': Stream(
        [Frame(TEXT, b'a', False), Frame(PING, b'p'), Frame(CONTINUATION, b'b')],
        ['ab'],
        [(PONG, b'p')],
    ),
    'a compressed message': Stream([Frame(TEXT, HELLO, rsv=4)], ['Hello'], options=DEFLATE),
    'compressed and not': Stream(
        [Frame(TEXT, HELLO, rsv=4), Frame(TEXT, b'plain'), Frame(BINARY, b'\0', rsv=4)],
        ['Hello', 'plain', b''],
        options=DEFLATE,
    ),
    'compressed fragments with pings between': Stream(
        [
            Frame(TEXT, TWICE[:4], False, 4),
            Frame(PING, b'1'),
            Frame(CONTINUATION, b'', False),
            Frame(CONTINUATION, TWICE[4:]),
            Frame(PING, b'2'),
        ],
        ['Hello Hello Hello Hello'],
        [(PONG, b'1'), (PONG, b'2')],
        options=DEFLATE,
    ),
    'a Close': Stream([Frame(TEXT, b'a'), closing(1000, 'bye')], ['a'], NORMAL, 1000),
    'a Close without a code': Stream([closing()], [], [(CLOSE, b'')], 1005),
    'a Close between fragments': Stream(
        [Frame(TEXT, b'a', False), closing(1000), Frame(CONTINUATION, b'b')], [], NORMAL, 1000
    ),
    'anything behind a Close': Stream([closing(1000), b'\xff' * 9], [], NORMAL, 1000),
    'a Close of one byte': Stream([Frame(TEXT, b'a'), Frame(CLOSE, b'x')], ['a'], code=1002),
    'a Close with a wrong code': Stream([closing(1005)], [], code=1002),
    'a Close with a wrong reason': Stream([Frame(CLOSE, b'\x03\xe8\xff')], [], code=1007),
    'a reserved opcode': Stream([Frame(TEXT, b'a'), Frame(3, b'x')], ['a'], code=1002),
    'a reserved bit': Stream([Frame(TEXT, b'a', rsv=2), Frame(TEXT, b'b')], [], code=1002),
    'RSV1 unasked': Stream([Frame(PING, b'p'), Frame(TEXT, HELLO, rsv=4)], [],
                           [(PONG, b'p')], 1002),
    'RSV1 on a continuation': Stream(
        [Frame(TEXT, HELLO[:3], False, 4), Frame(CONTINUATION, HELLO[3:], rsv=4)],
        [],
        code=1002,
        options=DEFLATE,
    ),
    'a wrong mask': Stream([Frame(TEXT, b'a', flip_mask=True)], [], code=1002),
    'a long ping': Stream([Frame(TEXT, b'a'), Frame(PING, bytes(126))], ['a'], code=1002),
    'a ping in fragments': Stream([Frame(PING, b'a', False)], [], code=1002),
    'a length in too many bytes': Stream([Frame(TEXT, b'a', form=16)], [], code=1002),
    'a length in far too many bytes': Stream([Frame(TEXT, b'a', form=64)], [], code=1002),
    'a length of 2 ** 63': Stream([Frame(TEXT, length=1 << 63, form=64)], [], code=1002),
    'a continuation of nothing': Stream([Frame(CONTINUATION, b'a')], [], code=1002),
    'a message in a message': Stream(
        [Frame(TEXT, b'a', False), Frame(TEXT, b'b')], [], code=1002
    ),
    'invalid UTF-8': Stream([Frame(TEXT, b'a'), Frame(TEXT, b'b\xffc')], ['a'], code=1007),
    'cut UTF-8': Stream([*fragments(TEXT, EURO[:2], b'')], [], code=1007),
    'a surrogate over fragments': Stream(
        fragments(TEXT, b'\xed', b'\xa0', b'\x80'), [], code=1007
    ),
    'compressed data that is none': Stream(
        [Frame(TEXT, HELLO, rsv=4), Frame(TEXT, b'\xff\xff\xff', rsv=4)],
        ['Hello'],
        code=1007,
        options=DEFLATE,
    ),
    'too big': Stream(
        [Frame(TEXT, b'1234567'), Frame(TEXT, b'12345678')],
        ['1234567'],
        code=1009,
        options={'max_message_size': 7},
    ),
    'too big in fragments': Stream(
        fragments(BINARY, b'1234', b'5678'), [], code=1009, options={'max_message_size': 7}
    ),
    'too big once inflated': Stream(
        [Frame(TEXT, HELLO, rsv=4), Frame(TEXT, deflated(bytes(8)), rsv=4)],
        ['Hello'],
        code=1009,
        options={'max_message_size': 7, **DEFLATE},
    ),
    'too many fragments': Stream(
        fragments(BINARY, b'a', b'b', b'c', b'd'), [], code=1009, options={'max_fragments': 3}
    ),
}  # fmt: skip

streams = pytest.mark.parametrize('stream', CORPUS.values(), ids=CORPUS)


def splits(data: bytes) -> Iterator[list[bytes]]:
    """Whole, byte by byte, every cut in two, and every cut in three of what is short."""
    yield [data]
    yield [data[at : at + 1] for at in range(len(data))]
    yield [piece for at in range(len(data)) for piece in (b'', data[at : at + 1])]
    for at in range(1, len(data)):
        yield [data[:at], data[at:]]
    if len(data) <= SHORT:
        for at in range(1, len(data)):
            for other in range(at + 1, len(data)):
                yield [data[:at], data[at:other], data[other:]]


def test_the_splits_are_all_there():
    data = bytes(range(10))
    all_of_them = list(splits(data))
    assert all(b''.join(pieces) == data for pieces in all_of_them)
    assert len(all_of_them) == 3 + 9 + 9 * 8 // 2
    assert len(list(splits(bytes(SHORT + 1)))) == 3 + SHORT


@streams
def test_every_split_gives_the_same_events(client, stream):
    for pieces in splits(wire(stream.frames, not client)):
        options = dict(stream.options)
        if options.pop('deflate', False):
            options['deflate'] = PerMessageDeflate()
        end = End(client, **options)
        for piece in pieces:
            end.feed(piece)
        assert end.got == stream.got
        said = end.hear()
        if stream.code is None:
            assert (said, end.protocol.state) == (stream.said, OPEN)
            continue
        assert end.protocol.state == ENDED
        assert end.protocol.close_code == stream.code
        # Who fails a connection says so, and why, behind all answers.
        if stream.said[-1:] != said[-1:]:
            opcode, payload = said.pop()
            assert (opcode, payload[:2]) == (CLOSE, stream.code.to_bytes(2, 'big'))
        assert said == stream.said


def merged(codec, client, pieces, options):
    """Chunks, with those of one message joined; controls stay where they came."""
    limits = {
        'limit': options.get('max_message_size'),
        'max_fragments': options.get('max_fragments'),
        'compression': 'deflate' in options,
    }
    decoder = codec.Decoder(client, **limits)
    messages, controls, message = [], [], None
    for piece in pieces:
        for opcode, payload, final, compressed, code, _ in decoder.feed(piece):
            if opcode == FAILURE:
                return messages, controls, code
            if opcode >= CLOSE:
                controls.append((opcode, payload, len(messages)))
                continue
            if opcode != CONTINUATION:
                assert message is None
                message = [opcode, b'', compressed]
            message[1] += payload
            assert message[2] is compressed
            if final:
                messages.append(tuple(message))
                message = None
    return messages, controls, None


@streams
def test_every_split_gives_the_same_frames(codec, client, stream):
    data = wire(stream.frames, not client)
    expected = merged(codec, client, [data], stream.options)
    for pieces in splits(data):
        assert merged(codec, client, pieces, stream.options) == expected
