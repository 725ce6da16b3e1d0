"""permessage-deflate where it turns over: bounds of the options, final blocks,
windows that reach over streams, and how much is made at a time."""

from __future__ import annotations

import itertools
import random
import struct
import zlib

import pytest

from simple_websocket.deflate import (
    Deflate,
    InflateError,
    InflateTooBig,
    PerMessageDeflate,
    accept_offer,
    negotiate,
)

HELLO = bytes.fromhex('f248cdc9c90700')
HELLO_AGAIN = bytes.fromhex('f200110000')  # a reference into the message before
HELLO_FINAL = bytes.fromhex('f348cdc9c90700')  # and no empty block behind it
ENDED = b'\x03\x00'  # an empty stream


@pytest.mark.parametrize(
    'options',
    [
        {'level': 0},
        {'level': 9},
        {'mem_level': 1},
        {'mem_level': 9},
        {'server_max_window_bits': 9},
        {'server_max_window_bits': 15},
        {'client_max_window_bits': 9},
        {'client_max_window_bits': 15},
        {'threshold': 0},
    ],
)
def test_the_bounds_themselves_are_allowed_and_work(options):
    sender, answer = negotiate(
        Deflate(**options), ['permessage-deflate; client_max_window_bits=12']
    )
    receiver = accept_offer(Deflate(**options | {'server_max_window_bits': 15}), [answer])
    message = random.Random(1).randbytes(100) * 50
    assert receiver.decompress(sender.compress(message), True) == message
    assert sender.decompress(receiver.compress(message), True) == message


@pytest.mark.parametrize(
    'make_engine',
    [
        lambda own: negotiate(own, ['permessage-deflate'])[0],
        lambda own: accept_offer(own, ['permessage-deflate; server_max_window_bits=12']),
    ],
    ids=['server', 'client'],
)
def test_level_memory_and_threshold_are_those_of_the_options(make_engine, monkeypatch):
    engine = make_engine(Deflate(level=2, mem_level=3, threshold=4))
    assert (engine.level, engine.mem_level, engine.threshold) == (2, 3, 4)
    asked = []
    make = zlib.compressobj
    monkeypatch.setattr(zlib, 'compressobj', lambda *a: asked.append(a) or make(*a))
    engine.compress(b'x')
    assert asked == [(2, zlib.DEFLATED, -engine.compress_bits, 3)]


def test_by_default_it_is_fast_and_takes_32_kib(monkeypatch):
    engine, _ = negotiate(Deflate(), ['permessage-deflate'])
    asked = []
    make = zlib.compressobj
    monkeypatch.setattr(zlib, 'compressobj', lambda *a: asked.append(a) or make(*a))
    engine.compress(b'x')
    assert asked == [(3, zlib.DEFLATED, -12, 5)]  # 2 ** (12 + 2) + 2 ** (5 + 9)


@pytest.mark.parametrize(
    ('offer', 'bits'),
    [
        ('permessage-deflate', 15),
        ('permessage-deflate; client_max_window_bits', 10),
        ('permessage-deflate; client_max_window_bits=11', 10),
        ('permessage-deflate; client_max_window_bits=9', 9),
    ],
)
def test_the_window_to_receive_with_is_the_one_that_was_agreed(offer, bits):
    engine, _ = negotiate(Deflate(client_max_window_bits=10), [offer])
    assert engine.decompress_bits == bits


class TestFinalBlocks:
    def test_a_message_may_end_with_one_and_be_referred_to(self):
        engine = PerMessageDeflate()
        for _ in range(3):
            assert engine.decompress(HELLO_FINAL, True) == b'Hello'
            assert engine.decompress(HELLO_AGAIN, True) == b'Hello'

    @pytest.mark.parametrize('takeover', [True, False])
    def test_a_message_behind_one_still_needs_data(self, takeover):
        engine = PerMessageDeflate(decompress_takeover=takeover)
        assert engine.decompress(HELLO_FINAL, True) == b'Hello'
        with pytest.raises(InflateError):
            engine.decompress(b'', True)

    def test_no_more_than_17_may_be_in_one_fragment(self):
        engine = PerMessageDeflate()
        for _ in range(2):
            assert engine.decompress(ENDED * 17, True) == b''
        with pytest.raises(InflateError, match='too many final blocks'):
            engine.decompress(ENDED * 18, True)

    @pytest.mark.parametrize('piece', [1, 2, 3, 7])
    def test_they_are_counted_over_the_pieces_of_a_fragment(self, piece):
        """However it comes: what is refused whole is refused in pieces, and as late."""
        data = ENDED * 18
        engine = PerMessageDeflate()
        for at in range(0, 34, piece):
            assert engine.decompress(data[at : min(at + piece, 34)], False, None, False) == b''
        with pytest.raises(InflateError, match='too many final blocks'):
            engine.decompress(data[34:], True)

    @pytest.mark.parametrize('cut', [False, True])
    def test_a_sender_may_end_each_fragment_with_one(self, cut):
        engine = PerMessageDeflate()
        for _ in range(2000):
            if cut:
                assert engine.decompress(HELLO_FINAL[:3], False, None, False) == b'He'
                assert engine.decompress(HELLO_FINAL[3:], False) == b'llo'
            else:
                assert engine.decompress(HELLO_FINAL, False) == b'Hello'
        assert engine.decompress(HELLO_FINAL, True) == b'Hello'

    def test_fragments_without_one_do_not_allow_more_later(self):
        engine = PerMessageDeflate()
        for _ in range(100):
            assert engine.decompress(HELLO + b'\0\0\xff\xff', False) == b'Hello'
        with pytest.raises(InflateError, match='too many final blocks'):
            engine.decompress(ENDED * 18, True)

    def test_each_fragment_allows_one_more(self):
        engine = PerMessageDeflate()
        assert engine.decompress(ENDED * 17, False) == b''
        assert engine.decompress(ENDED, False) == b''
        with pytest.raises(InflateError, match='too many final blocks'):
            engine.decompress(ENDED * 2, True)

    @pytest.mark.parametrize('behind', [HELLO, HELLO_FINAL, HELLO_FINAL + HELLO])
    @pytest.mark.parametrize('size', [65530, 65531, 65532])
    def test_one_may_lie_wherever_the_input_is_cut(self, behind, size):
        payload = random.Random(2).randbytes(size)
        stored = b'\x01' + struct.pack('<HH', size, size ^ 0xFFFF) + payload
        engine = PerMessageDeflate()
        message = engine.decompress(stored + behind, True)
        assert message[:size] == payload
        assert message[size:] in (b'Hello', b'HelloHello')
        assert engine.decompress(HELLO_AGAIN, True) == b'Hello'


class Streams:
    """A sender that ends streams as it likes, and refers to all it has ever sent."""

    def __init__(self, seed):
        self.random = random.Random(seed)
        self.sent = b''

    def stream(self, end):
        old = self.sent[-32768:]
        parts = [self.random.randbytes(self.random.randrange(1, 40))]
        for _ in range(self.random.randrange(4)):
            at = self.random.randrange(len(old) + 1)
            parts.append(old[at : at + self.random.randrange(3, 3000)])
        data = b''.join(parts)
        packer = zlib.compressobj(9, zlib.DEFLATED, -15, zdict=old)
        self.sent += data
        return packer.compress(data) + packer.flush(end)

    def message(self):
        """Compressed, and what it says."""
        before = len(self.sent)
        ended = [self.stream(zlib.Z_FINISH) for _ in range(self.random.randrange(1, 5))]
        return b''.join(ended) + b'\x00' * self.random.randrange(2), self.sent[before:]


@pytest.mark.parametrize('seed', range(8))
def test_whatever_is_ended_wherever_it_is_cut_the_window_reaches_back(seed):
    sender, engine = Streams(seed), PerMessageDeflate()
    for _ in range(25):
        data, expected = sender.message()
        cuts = sender.random.sample(range(1, len(data)), k=seed % 4)
        points = [0, *sorted(cuts), len(data)]
        out = b''
        for start, end in itertools.pairwise(points):
            out += engine.decompress(data[start:end], end == len(data))
        assert out == expected


class Recorder:
    """An inflater that notes how much it was allowed to make each time."""

    def __init__(self, *arguments, **options):
        self.real = REAL(*arguments, **options)

    def decompress(self, data, bound=0):
        BOUNDS.append(bound)
        return self.real.decompress(data, bound)

    def __getattr__(self, name):
        return getattr(self.real, name)


REAL = zlib.decompressobj
BOUNDS: list[int] = []


@pytest.mark.parametrize('limit', [0, 1, 1000, 1 << 18])
def test_no_more_is_ever_asked_for_than_one_byte_past_the_limit(limit, monkeypatch):
    monkeypatch.setattr(zlib, 'decompressobj', Recorder)
    BOUNDS.clear()
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_SYNC_FLUSH)
    with pytest.raises(InflateTooBig):
        PerMessageDeflate().decompress(bomb[:-4], True, limit)
    assert BOUNDS[0] == min(limit + 1, 1 << 18)
    assert all(0 < bound <= limit + 1 for bound in BOUNDS)


def test_without_a_limit_it_is_made_in_steps(monkeypatch):
    monkeypatch.setattr(zlib, 'decompressobj', Recorder)
    BOUNDS.clear()
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    sent = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_SYNC_FLUSH)
    assert PerMessageDeflate().decompress(sent[:-4], True) == bytes(1 << 20)
    assert set(BOUNDS[:-1]) == {1 << 18}
    assert len(BOUNDS) >= 5


def stored(size):
    """A message that takes so many bytes compressed, since it isn't, and itself."""
    payload = random.Random(3).randbytes(size - 6)
    header = struct.pack('<xHH', len(payload), len(payload) ^ 0xFFFF)
    return header + payload + b'\x00', payload


def packed(size):
    """A message of so many bytes, compressed, and itself."""
    payload = (b'Hello' * size)[:size]
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    sent = packer.compress(payload) + packer.flush(zlib.Z_SYNC_FLUSH)
    return sent[:-4], payload


@pytest.mark.parametrize('first', [0, 5], ids=['whole', 'fragments'])
@pytest.mark.parametrize('limited', [True, False])
@pytest.mark.parametrize('around', [-1, 0, 1])
@pytest.mark.parametrize(('make', 'step'), [(stored, 1 << 16), (packed, 1 << 18)])
def test_a_message_about_as_long_as_a_step_is_whole(make, step, around, limited, first):
    data, payload = make(step + around)
    engine = PerMessageDeflate()
    out = engine.decompress(data[:first], False) if first else b''
    left = len(payload) - len(out) if limited else None
    assert out + engine.decompress(data[first:], True, left) == payload
    assert engine.decompress(HELLO, True) == b'Hello'
