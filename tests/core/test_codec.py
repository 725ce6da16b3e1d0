"""Frames (RFC 6455 section 5): every codec gives the same chunks, or the same
failure, for the same bytes, whatever split they arrive in."""

from __future__ import annotations

import gc
import math
import os
import struct
import subprocess
import sys
import time
from itertools import chain

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    KEY,
    PING,
    PONG,
    TEXT,
    Frame,
    fragments,
    parse,
    wire,
)
from support.lab import CODECS, quick, ways

from simple_websocket.codec import FAILURE, Chunk


def decode(codec, client, pieces, **options):
    """What a decoder makes of pieces: messages' data joined between controls."""
    decoder = codec.Decoder(client, **options)
    merged = []
    for piece in pieces:
        for chunk in decoder.feed(piece):
            opcode, payload, final, compressed, _, ends_frame = chunk
            assert type(payload) is bytes
            assert not merged or merged[-1].opcode != FAILURE, 'a chunk behind the failure'
            last = merged[-1] if merged else None
            if opcode == CONTINUATION and last and not last.final and last.opcode <= BINARY:
                payload = last.payload + payload
                merged[-1] = last._replace(
                    payload=payload, final=final, ends_frame=ends_frame
                )
                assert compressed is last.compressed
            else:
                merged.append(chunk)
    return [one for one in merged if one.payload or one.final or one.opcode]


def failure(codec, client, pieces, **options):
    """The close code of the failure that the pieces end in, and what came before."""
    *before, last = decode(codec, client, pieces, **options)
    assert last.opcode == FAILURE, f'no failure but {last}'
    assert last.payload.decode()
    assert last.final and not last.compressed
    return last.code, before


# Frames that are right


SIZES = [0, 1, 2, 3, 4, 5, 124, 125, 126, 127, 128, 255, 256, 65535, 65536, 65537]


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('opcode', [TEXT, BINARY])
def test_a_frame_of_any_size_is_read_in_any_split(codec, client, opcode, size):
    payload = bytes(range(256)) * (size // 256 + 1)
    payload = payload[:size]
    data = Frame(opcode, payload).raw(masked=not client)
    expected = [Chunk(opcode, payload, True, False)]
    head = len(data) - size
    splits = [[data]] + [[data[:at], data[at:]] for at in range(1, min(head + 6, len(data)))]
    if size < 300:
        splits += list(ways(data))
    for pieces in splits:
        assert decode(codec, client, pieces) == expected


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('masked', [False, True], ids=['plain', 'masked'])
@pytest.mark.parametrize('kind', [bytes, bytearray, memoryview])
def test_a_frame_of_any_size_and_kind_of_bytes_is_written(codec, kind, masked, size):
    payload = os.urandom(size)
    data = codec.encode(BINARY, kind(payload), masked)
    assert type(data) is bytes
    assert parse(data, masked) == [Frame(BINARY, payload)]


@pytest.mark.parametrize(
    ('opcode', 'fin'),
    [(opcode, True) for opcode in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG)]
    + [(opcode, False) for opcode in (CONTINUATION, TEXT, BINARY)],
)
@pytest.mark.parametrize('compressed', [False, True])
def test_opcode_fin_and_rsv1_are_written(codec, opcode, fin, compressed):
    data = codec.encode(opcode, b'x', False, compressed, fin)
    assert parse(data, False) == [Frame(opcode, b'x', fin, 4 if compressed else 0)]


def test_encoding_leaves_the_callers_bytes_alone(codec):
    payload = bytearray(b'as it was')
    codec.encode(BINARY, payload, True)
    assert payload == b'as it was'


@pytest.mark.parametrize('key', [b'\0\0\0\0', b'\xff\xff\xff\xff', b'\1\0\0\0', KEY])
def test_every_key_unmasks(codec, key):
    data = Frame(BINARY, b'payload of some length').raw(True, key)
    for pieces in ways(data):
        assert decode(codec, False, pieces) == [
            Chunk(BINARY, b'payload of some length', True, False)
        ]


def test_control_frames_come_whole_and_between_fragments(codec, client):
    first, second, third = fragments(TEXT, b'ab', b'', b'cd')
    frames = [first, Frame(PING, b'1'), second, Frame(PONG, b'22'), third, Frame(PING)]
    data = wire(frames, not client)
    for pieces in ways(data):
        decoder = codec.Decoder(client)
        chunks = [chunk for piece in pieces for chunk in decoder.feed(piece)]
        controls = [chunk for chunk in chunks if chunk.opcode >= CLOSE]
        assert controls == [
            Chunk(PING, b'1', True, False),
            Chunk(PONG, b'22', True, False),
            Chunk(PING, b'', True, False),
        ]
        rest = [chunk for chunk in chunks if chunk not in controls]
        assert [chunk.opcode for chunk in rest] == [TEXT] + [CONTINUATION] * (len(rest) - 1)
        assert b''.join(chunk.payload for chunk in rest) == b'abcd'
        assert [chunk.final for chunk in rest] == [False] * (len(rest) - 1) + [True]


def test_a_payload_is_handed_on_as_it_arrives(codec, client):
    data = Frame(BINARY, b'abcd').raw(not client)
    head = data[:-4]
    decoder = codec.Decoder(client)
    assert decoder.feed(head) == []
    assert decoder.feed(data[len(head) : len(head) + 1]) == [
        Chunk(BINARY, b'a', False, False, ends_frame=False)
    ]
    assert decoder.feed(b'') == []
    assert decoder.feed(data[len(head) + 1 :]) == [Chunk(CONTINUATION, b'bcd', True, False)]


def test_the_second_part_of_a_frame_that_is_no_fins_is_not_final(codec, client):
    data = Frame(BINARY, b'abcd', fin=False).raw(not client)
    for pieces in ways(data):
        decoder = codec.Decoder(client)
        assert not any(chunk.final for piece in pieces for chunk in decoder.feed(piece))


def test_rsv1_marks_the_whole_message_and_no_control_frame(codec, client):
    frames = fragments(BINARY, b'ab', b'cd', compressed=True)
    frames.insert(1, Frame(PING))
    frames += fragments(BINARY, b'ef', b'gh')
    for pieces in ways(wire(frames, not client)):
        decoder = codec.Decoder(client, compression=True)
        chunks = [chunk for piece in pieces for chunk in decoder.feed(piece)]
        marked = b''.join(chunk.payload for chunk in chunks if chunk.compressed)
        assert marked == b'abcd'


@pytest.mark.parametrize('kind', [bytes, bytearray, memoryview])
def test_any_kind_of_bytes_is_fed_and_not_kept(codec, kind):
    data = bytearray(Frame(BINARY, b'abcd').raw(True))
    decoder = codec.Decoder(False)
    (chunk,) = decoder.feed(kind(data))
    data[:] = bytes(len(data))
    assert chunk.payload == b'abcd'


# Violations (B1)


VIOLATIONS = {
    **{
        f'reserved opcode {opcode:#x}': [Frame(opcode)]
        for opcode in (3, 4, 5, 6, 7, 0xB, 0xC, 0xD, 0xE, 0xF)
    },
    **{
        f'rsv {rsv} on opcode {opcode:#x}': [Frame(opcode, b'x', rsv=rsv)]
        for opcode in (TEXT, BINARY, PING, PONG, CLOSE)
        for rsv in range(1, 8)
    },
    **{
        f'rsv {rsv} on a continuation': [Frame(TEXT, b'x', False), Frame(0, b'y', rsv=rsv)]
        for rsv in range(1, 8)
    },
    **{
        f'a wrong mask on opcode {opcode:#x}': [Frame(opcode, b'x', flip_mask=True)]
        for opcode in (TEXT, BINARY, PING, PONG, CLOSE)
    },
    **{
        f'opcode {opcode:#x} without fin': [Frame(opcode, fin=False)]
        for opcode in (PING, PONG, CLOSE)
    },
    **{
        f'opcode {opcode:#x} of {size} bytes': [Frame(opcode, bytes(size))]
        for opcode in (PING, PONG, CLOSE)
        for size in (126, 65536)
    },
    'a continuation without a message': [Frame(CONTINUATION)],
    'a last continuation without a message': [Frame(TEXT), Frame(CONTINUATION, b'x')],
    'a continuation behind a message': [*fragments(TEXT, b'a', b'b'), Frame(CONTINUATION)],
    'a text inside a message': [Frame(TEXT, b'a', False), Frame(TEXT, b'b')],
    'a binary inside a message': [Frame(TEXT, b'a', False), Frame(BINARY, b'b', False)],
    'a length of 2 ** 63': [Frame(BINARY, length=1 << 63, form=64)],
    'a length of 2 ** 64 - 1': [Frame(BINARY, length=(1 << 64) - 1, form=64)],
    '125 in 16 bits': [Frame(BINARY, bytes(125), form=16)],
    '0 in 16 bits': [Frame(BINARY, form=16)],
    '125 in 64 bits': [Frame(BINARY, bytes(125), form=64)],
    '65535 in 64 bits': [Frame(BINARY, length=65535, form=64)],
}
violations = pytest.mark.parametrize('frames', VIOLATIONS.values(), ids=VIOLATIONS)


@violations
def test_a_violation_is_1002_in_any_split(codec, client, frames):
    data = wire(frames, not client)
    before = decode(codec, client, [wire(frames[:-1], not client)])
    for pieces in ways(data):
        assert failure(codec, client, pieces) == (1002, before)


@violations
def test_what_follows_a_violation_is_ignored(codec, client, frames):
    good = Frame(BINARY, b'good')
    data = wire([good, *frames, good, good], not client)
    code, (first, *_) = failure(codec, client, [data, data])
    assert (code, first) == (1002, Chunk(BINARY, b'good', True, False))


@pytest.mark.parametrize('rsv', [1, 2, 3, 5, 6, 7])
@pytest.mark.parametrize('opcode', [TEXT, BINARY])
def test_of_the_rsv_bits_compression_negotiates_only_the_first(codec, client, opcode, rsv):
    data = Frame(opcode, b'x', rsv=rsv).raw(not client)
    assert failure(codec, client, [data], compression=True)[0] == 1002


@pytest.mark.parametrize(
    'frames',
    [
        [Frame(TEXT, b'x', False, 4), Frame(CONTINUATION, b'x', rsv=4)],
        [Frame(TEXT, b'x', False), Frame(CONTINUATION, b'x', rsv=4)],
        *([Frame(opcode, rsv=4)] for opcode in (CLOSE, PING, PONG)),
    ],
    ids=['compressed continuation', 'continuation', 'close', 'ping', 'pong'],
)
def test_compression_allows_rsv1_on_the_first_frame_of_a_message_only(codec, client, frames):
    for pieces in ways(wire(frames, not client)):
        assert failure(codec, client, pieces, compression=True)[0] == 1002


# Limits (B2, B5)


def header_only(*frames, length, masked, form=None):
    """Frames, and then the header of one without a byte of its payload."""
    opcode = CONTINUATION if frames else BINARY
    head = Frame(opcode, length=length, form=form).raw(masked)
    return wire(frames, masked) + head


@pytest.mark.parametrize('limit', [0, 1, 10, 125, 126, 65535, 65536, 1 << 40])
def test_a_declared_length_over_the_limit_is_1009_before_the_payload(codec, client, limit):
    data = header_only(length=limit + 1, masked=not client)
    for pieces in ways(data):
        assert failure(codec, client, pieces, limit=limit) == (1009, [])
    assert decode(codec, client, [header_only(length=limit, masked=not client)], limit=limit) in (
        [],
        [Chunk(BINARY, b'', True, False)],
    )


def test_the_limit_counts_over_fragments_and_starts_again(codec, client):
    message = fragments(BINARY, b'abc', b'', b'def', b'g')
    message.insert(1, Frame(PING, bytes(125)))
    for last, code in [(3, None), (4, 1009)]:
        head = header_only(
            *message, *fragments(BINARY, b'abcd', b'')[:1], length=last, masked=not client
        )
        if code:
            assert failure(codec, client, [head], limit=7)[0] == code
        else:
            assert decode(codec, client, [head], limit=7)[-1].opcode != FAILURE


def test_a_compressed_message_is_not_judged_by_its_compressed_length(codec, client):
    data = Frame(BINARY, bytes(100), rsv=4).raw(not client)
    (chunk,) = decode(codec, client, [data], limit=10, compression=True)
    assert chunk.final and len(chunk.payload) == 100


@pytest.mark.parametrize('compressed', [False, True])
@pytest.mark.parametrize('most', [1, 2, 100])
def test_a_fragment_too_many_is_1009(codec, client, most, compressed):
    options = {'max_fragments': most, 'compression': True}
    good = fragments(BINARY, *[b'x'] * most, compressed=compressed)
    data = wire([*good, Frame(PING), *good], not client)
    assert [chunk.final for chunk in decode(codec, client, [data], **options)] == [True] * 3
    many = fragments(BINARY, *[b''] * (most + 1), compressed=compressed)
    for pieces in ways(wire(many, not client)):
        assert failure(codec, client, pieces, **options)[0] == 1009


def least(cost, count):
    """The least of some runs, without the garbage collector's share: it walks
    through all the chunks of a test again and again."""
    gc.disable()
    try:
        return min(cost(count) for _ in range(3))
    finally:
        gc.enable()


def test_fragments_are_read_in_linear_time(codec):
    def cost(count):
        data = wire(fragments(BINARY, *[b'x'] * count), True)
        decoder = codec.Decoder(False)
        started = time.process_time()
        for at in range(0, len(data), 65536):
            decoder.feed(data[at : at + 65536])
        return time.process_time() - started

    assert least(cost, 32768) < 20 * least(cost, 4096)


def test_one_byte_reads_take_linear_time(codec):
    def cost(count):
        data = Frame(BINARY, bytes(count)).raw(True)
        decoder = codec.Decoder(False)
        started = time.process_time()
        for byte in data:
            decoder.feed(b'%c' % byte)
        return time.process_time() - started

    assert least(cost, 1 << 17) < 20 * least(cost, 1 << 14)


# Masks (D9)


def masks(codec, count):
    return [codec.encode(PING, b'', True)[2:6] for _ in range(count)]


def test_a_million_masks_repeat_no_more_often_than_chance(codec):
    count = 1_000_000
    distinct = len(set(masks(codec, count)))
    # 32 bits repeat: 116 times of a million, give or take. Twice as many never.
    assert count - distinct < 2 * count * count / 2**33
    # Nor do they avoid it, like a counter would.
    assert distinct < count


def test_masks_are_random_in_every_bit(codec):
    count = 20_000
    numbers = [struct.unpack('!I', mask)[0] for mask in masks(codec, count)]
    for bit in range(32):
        ones = sum(number >> bit & 1 for number in numbers)
        changes = sum((a ^ b) >> bit & 1 for a, b in zip(numbers, numbers[1:], strict=False))
        # Six standard deviations.
        assert abs(ones - count / 2) < 3 * math.sqrt(count)
        assert abs(changes - count / 2) < 3 * math.sqrt(count)


@pytest.mark.skipif(not hasattr(os, 'fork'), reason='no fork on this system')
def test_a_forked_child_shares_no_masks(codec):
    masks(codec, 10)
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.write(writing, b''.join(masks(codec, 1000)))
        os._exit(0)
    os.close(writing)
    with open(reading, 'rb') as pipe:
        theirs = pipe.read()
    os.waitpid(child, 0)
    assert len(theirs) == 4000
    ours = {*masks(codec, 1000)}
    assert len(ours & {theirs[at : at + 4] for at in range(0, 4000, 4)}) < 3


# All codecs, any bytes


@st.composite
def streams(draw):
    """Frames, most of them right, then maybe garbage; and what the peer is."""
    client = draw(st.booleans())
    frames = draw(
        st.lists(
            st.builds(
                Frame,
                opcode=st.sampled_from([0, 0, 1, 2, 8, 9, 10, 3, 15]),
                payload=st.binary(max_size=140),
                fin=st.sampled_from([True, True, False]),
                rsv=st.sampled_from([0, 0, 0, 0, 4, 2]),
                form=st.sampled_from([None, None, None, None, 16, 64]),
                length=st.none(),
                flip_mask=st.sampled_from([False] * 9 + [True]),
            ).filter(lambda one: one.form or len(one.payload) < 126 or one.opcode < 8),
            max_size=6,
        )
    )
    data = wire(frames, not client) + draw(st.binary(max_size=20))
    cuts = draw(st.lists(st.integers(0, len(data)), max_size=8))
    return client, data, sorted(cuts)


@quick
@given(
    stream=streams(),
    limit=st.sampled_from([None, 0, 5, 150]),
    most=st.sampled_from([None, 1, 2]),
    compression=st.booleans(),
)
def test_any_bytes_give_the_same_in_any_split_from_every_codec(stream, limit, most, compression):
    client, data, cuts = stream
    options = {'limit': limit, 'max_fragments': most, 'compression': compression}
    edges = [0, *cuts, len(data)]
    pieces = [data[a:b] for a, b in zip(edges, edges[1:], strict=False)]
    outcomes = []
    for codec in CODECS.values():
        for split in ([data], pieces, [data[at : at + 1] for at in range(len(data))]):
            outcomes.append(decode(codec, client, split, **options))
    assert all(outcome == outcomes[0] for outcome in outcomes)


@quick
@given(stream=streams(), compression=st.booleans(), limit=st.sampled_from([None, 5, 150]))
def test_every_codec_gives_the_same_chunks_at_every_step(stream, compression, limit):
    client, data, cuts = stream
    edges = [0, *cuts, len(data)]
    pieces = [data[a:b] for a, b in zip(edges, edges[1:], strict=False)]
    steps = []
    for codec in CODECS.values():
        decoder = codec.Decoder(client, limit, 3, compression)
        steps.append([decoder.feed(piece) for piece in pieces])
        # Equal are True and 1 as well.
        assert all(map(well_typed, chain.from_iterable(steps[-1])))
    assert all(step == steps[0] for step in steps)


def well_typed(chunk):
    types = [type(field) for field in chunk]
    return type(chunk) is Chunk and types == [int, bytes, bool, bool, int, bool]


@violations
def test_every_codec_has_the_same_words_for_a_violation(client, frames):
    data = wire(frames, not client)
    words = {decode(codec, client, [data])[-1].payload for codec in CODECS.values()}
    assert len(words) == 1


@quick
@given(data=st.binary(max_size=200), client=st.booleans(), step=st.integers(1, 20))
def test_noise_gives_the_same_from_every_codec(data, client, step):
    pieces = [data[at : at + step] for at in range(0, len(data), step)]
    outcomes = [decode(codec, client, pieces, compression=True) for codec in CODECS.values()]
    assert all(outcome == outcomes[0] for outcome in outcomes)


@pytest.mark.parametrize('offset', range(9))
@pytest.mark.parametrize('size', [65535, 65536, 70001, 1 << 20])
def test_a_large_payload_is_unmasked_at_any_alignment(codec, offset, size):
    payload = os.urandom(size)
    data = memoryview(bytes(offset) + Frame(BINARY, payload).raw(True))[offset:]
    for step in (len(data), 65537, 16381):
        pieces = [data[at : at + step] for at in range(0, len(data), step)]
        assert decode(codec, False, pieces) == [Chunk(BINARY, payload, True, False)]


def test_reading_and_writing_leak_nothing(codec):
    data = wire([*fragments(TEXT, b'a' * 300, b'b'), Frame(PING, b'c' * 100), Frame(5)], True)

    def work():
        for _ in range(300):
            decoder = codec.Decoder(False)
            for at in range(0, len(data), 50):
                decoder.feed(data[at : at + 50])
            codec.encode(BINARY, bytearray(300), True)
        gc.collect()
        return sys.getallocatedblocks()

    before = min(work() for _ in range(3))
    assert min(work() for _ in range(3)) < before + 100


def test_what_is_no_bytes_is_a_type_error(codec):
    with pytest.raises(TypeError):
        codec.Decoder(False).feed('text')
    with pytest.raises(TypeError):
        codec.encode(TEXT, 5, True)


@pytest.mark.parametrize('text', ['', 'x', 'zß水🍌' * 9, 'é' * 40000, 'x' * 70000])
@pytest.mark.parametrize('masked', [False, True], ids=['plain', 'masked'])
def test_a_str_is_written_as_its_utf8(codec, masked, text):
    assert parse(codec.encode(TEXT, text, masked), masked) == [Frame(TEXT, text.encode())]


def test_a_str_that_has_no_utf8_is_an_error(codec):
    with pytest.raises(UnicodeEncodeError):
        codec.encode(TEXT, 'half \ud800', True)


# A message that came in one piece


def shortcut(decoder, data):
    """What `whole` says; the compiled codec must see what it is for."""
    message = decoder.whole(data)
    return [] if message is None else [message]


@pytest.mark.parametrize('size', [*SIZES, 1023, 1024, 1025])
@pytest.mark.parametrize('opcode', [TEXT, BINARY])
def test_a_message_in_one_piece_is_seen_by_the_compiled_codec(client, opcode, size):
    payload = (b'ab\xc3\xa9' * (size // 4 + 1))[: size // 4 * 4] + b'x' * (size % 4)
    data = Frame(opcode, payload).raw(masked=not client)
    message = payload.decode() if opcode == TEXT else payload
    assert shortcut(CODECS['wsproto'].Decoder(client), data) == []
    if 'compiled' in CODECS:
        decoder = CODECS['compiled'].Decoder(client, limit=size)
        assert shortcut(decoder, data) == [message]
        assert decoder.feed(data) == [Chunk(opcode, payload, True, False)]
        for other in (data[:-1], data + b'\x81', memoryview(data), bytearray(data)):
            assert decoder.whole(other) is None
        assert CODECS['compiled'].Decoder(client, max_fragments=0).whole(data) is None
        if size:
            assert CODECS['compiled'].Decoder(client, limit=size - 1).whole(data) is None


@quick
@given(
    frames=st.lists(
        st.tuples(
            st.sampled_from([CONTINUATION, TEXT, TEXT, BINARY, BINARY, 3, CLOSE, PING]),
            st.sampled_from([b'', b'text', b'\xff', 'é'.encode(), b'x' * 126, b'x' * 2000]),
            st.booleans(),
            st.sampled_from([0, 0, 4, 2]),
        ).map(lambda arguments: Frame(*arguments)),
        max_size=4,
    ),
    client=st.booleans(),
    masked=st.booleans(),
    cut=st.none() | st.integers(0, 300),
)
def test_the_shortcut_says_what_the_long_way_says_and_takes_nothing(
    frames, client, masked, cut
):
    for codec in CODECS.values():
        one = codec.Decoder(client, limit=1000, compression=True)
        two = codec.Decoder(client, limit=1000, compression=True)
        for frame in frames:
            data = frame.raw(masked)
            for piece in [data] if cut is None else [data[:cut], data[cut:]]:
                message = one.whole(piece)
                chunks = two.feed(piece)
                if message is None:
                    assert one.feed(piece) == chunks
                else:
                    payload = message.encode() if type(message) is str else message
                    opcode = TEXT if type(message) is str else BINARY
                    assert chunks == [Chunk(opcode, payload, True, False)]


@quick
@given(
    opcode=st.sampled_from([TEXT, BINARY, PING]),
    payload=st.binary(max_size=125) | st.binary(min_size=120, max_size=70000),
    masked=st.booleans(),
    compressed=st.booleans(),
)
def test_what_is_written_is_read(opcode, payload, masked, compressed):
    if opcode == PING:
        payload, compressed = payload[:125], False
    for writer in CODECS.values():
        data = writer.encode(opcode, payload, masked, compressed)
        for reader in CODECS.values():
            decoder = reader.Decoder(not masked, compression=True)
            assert decoder.feed(data) == [Chunk(opcode, payload, True, compressed)]


# The choice


def choose(value, script=''):
    """What a process with this SIMPLE_WEBSOCKET_CODEC says of its codec."""
    environ = {k: v for k, v in os.environ.items() if k != 'SIMPLE_WEBSOCKET_CODEC'}
    if value is not None:
        environ['SIMPLE_WEBSOCKET_CODEC'] = value
    script += '\nimport simple_websocket.codec as c; print(c.NAME, c.Decoder.__name__)'
    return subprocess.run(
        [sys.executable, '-c', script], env=environ, capture_output=True, text=True, timeout=30
    )


#: As on a machine where the extension could not be built.
NOT_BUILT = "import sys; sys.modules['simple_websocket._codec'] = None"


@pytest.mark.parametrize('value', ['', None])
def test_the_compiled_codec_is_chosen_where_it_is(value):
    fastest = {'wsproto': 'WsprotoDecoder', 'compiled': 'CompiledDecoder'}
    name = 'compiled' if 'compiled' in CODECS else choose(None).stdout.split()[0]
    assert choose(value).stdout.split() == [name, fastest[name]]


@pytest.mark.parametrize('value', ['', None])
def test_wsproto_is_chosen_for_want_of_another(value):
    assert choose(value, NOT_BUILT).stdout.split() == ['wsproto', 'WsprotoDecoder']


def test_wsproto_is_chosen_by_name():
    assert choose('wsproto').stdout.split() == ['wsproto', 'WsprotoDecoder']


@pytest.mark.parametrize(
    ('value', 'error', 'words'),
    [
        ('compiled', 'ImportError', 'there is no compiled codec'),
        ('fast', 'ValueError', 'SIMPLE_WEBSOCKET_CODEC=fast: neither wsproto nor compiled'),
        ('WSPROTO', 'ValueError', 'SIMPLE_WEBSOCKET_CODEC=WSPROTO: neither'),
    ],
)
def test_a_codec_that_is_not_there_is_an_error_with_words(value, error, words):
    last = choose(value, NOT_BUILT).stderr.splitlines()[-1]
    assert last.startswith(f'{error}: ')
    assert words in last
