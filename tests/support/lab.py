"""What the tests of the protocol feed it with, and read its answers with.

The frames are built and parsed here with `struct` alone, strictly and slowly,
so that what a test says about the wire does not depend on the package. Time
is a number that a test sets.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from hypothesis import settings

from simple_websocket import codec as seam
from simple_websocket.closure import close_payload
from simple_websocket.protocol import ENDED, Protocol

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

ROLES = {'server': False, 'client': True}  # client=

#: For tests by Hypothesis: the same examples every time.
quick = settings(deadline=None, derandomize=True, database=None, max_examples=200)


class Codec(NamedTuple):
    """An implementation of the seam."""

    name: str
    Decoder: Callable[..., Any]
    encode: Callable[..., bytes]


#: The reference, and the one in use where that is another.
CODECS = {'wsproto': Codec('wsproto', seam.WsprotoDecoder, seam.wsproto_encode)}
CODECS.setdefault(seam.NAME, Codec(seam.NAME, seam.Decoder, seam.encode))

KEY = b'\x37\xfa\x21\x3d'


class Frame(NamedTuple):
    """A frame as section 5.2 draws it; `raw` sets what must not be."""

    opcode: int
    payload: bytes = b''
    fin: bool = True
    rsv: int = 0  # RSV1 is 4
    form: int | None = None  # bits of the length field: 7, 16 or 64
    length: int | None = None  # declared, where it is not the payload's
    flip_mask: bool = False

    def raw(self, masked: bool, key: bytes = KEY) -> bytes:
        size = len(self.payload) if self.length is None else self.length
        form = self.form or (7 if size < 126 else 16 if size < 65536 else 64)
        masked ^= self.flip_mask
        head = bytes([self.opcode | self.rsv << 4 | self.fin << 7])
        bit = 0x80 if masked else 0
        if form == 7:
            head += bytes([bit | size])
        elif form == 16:
            head += struct.pack('!BH', bit | 126, size)
        else:
            head += struct.pack('!BQ', bit | 127, size)
        return head + key + xor(self.payload, key) if masked else head + self.payload


def xor(payload: bytes, key: bytes) -> bytes:
    return bytes(byte ^ key[index % 4] for index, byte in enumerate(payload))


def closing(code: int | None = None, reason: str = '') -> Frame:
    return Frame(CLOSE, b'' if code is None else struct.pack('!H', code) + reason.encode())


def wire(frames: Sequence[Frame | bytes], masked: bool) -> bytes:
    """The bytes of frames; bytes among them stand for themselves."""
    return b''.join(one if isinstance(one, bytes) else one.raw(masked) for one in frames)


def parse(data: bytes, masked: bool) -> list[Frame]:
    """The frames in `data`: whole ones, masked or not as they must be."""
    frames = []
    at = 0
    while at < len(data):
        first, second = data[at : at + 2]
        at += 2
        size = second & 0x7F
        if size == 126:
            (size,) = struct.unpack_from('!H', data, at)
            at += 2
            assert size > 125, 'a length in too many bytes'
        elif size == 127:
            (size,) = struct.unpack_from('!Q', data, at)
            at += 8
            assert size > 65535, 'a length in too many bytes'
        assert bool(second & 0x80) is masked, 'masked where it must not be, or the reverse'
        key = data[at : at + 4] if masked else b'\0\0\0\0'
        at += 4 if masked else 0
        payload = data[at : at + size]
        assert len(payload) == size, 'half a frame'
        at += size
        opcode = first & 0xF
        assert opcode < 8 or (first & 0x80 and size < 126), 'no control frame'
        frames.append(Frame(opcode, xor(payload, key), bool(first & 0x80), first >> 4 & 7))
    return frames


def fragments(opcode: int, *payloads: bytes, compressed: bool = False) -> list[Frame]:
    """A message in as many frames as there are payloads."""
    last = len(payloads) - 1
    return [
        Frame(
            CONTINUATION if index else opcode,
            payload,
            index == last,
            4 if compressed and not index else 0,
        )
        for index, payload in enumerate(payloads)
    ]


def deflated(payload: bytes, final: bool = False) -> bytes:
    """A message as RFC 7692 section 7.2.1 compresses it, by zlib alone."""
    compressor = zlib.compressobj(6, zlib.DEFLATED, -15)
    data = compressor.compress(payload)
    if final:  # 7.2.3.4: a block with BFINAL set, then an empty one
        return data + compressor.flush(zlib.Z_FINISH) + b'\0'
    return (data + compressor.flush(zlib.Z_SYNC_FLUSH))[:-4]


def ways(data: bytes) -> Iterator[list[bytes]]:
    """Ways for bytes to arrive: whole, byte by byte, cut in two anywhere."""
    yield [data]
    if len(data) > 3000:  # the two are slow then, and show nothing more
        yield [data[at : at + 1000] for at in range(0, len(data), 1000)]
    else:
        yield [data[at : at + 1] for at in range(len(data))]
    step = max(len(data) // 300, 1)
    for at in range(1, len(data), step):
        yield [data[:at], data[at:]]


class Clock:
    """A monotonic clock that a test sets."""

    def __init__(self) -> None:
        self.time = 1000.0

    def __call__(self) -> float:
        return self.time


class End:
    """One end of a connection, with a scripted peer and an application.

    The application is in `receive()` all the time unless `reading` is false;
    then the test takes messages itself, with `take`.
    """

    def __init__(self, client: bool = False, reading: bool = True, **options: Any) -> None:
        self.client = client
        self.reading = reading
        self.clock = Clock()
        self.protocol = Protocol(client, self.clock, **options)
        self.got: list[str | bytes] = []
        self.said: list[Frame] = []
        self.written = b''

    def say(self, *frames: Frame | bytes) -> End:
        """Have the peer send frames, or raw bytes, in one piece."""
        self.feed(wire(frames, masked=not self.client))
        return self

    def feed(self, data: bytes) -> None:
        self.protocol.feed(data)
        self._run()

    def eof(self) -> End:
        self.protocol.eof()
        self._run()
        return self

    def _run(self) -> None:
        if self.reading:
            self.drain()

    def take(self) -> str | bytes | None:
        """What `receive(0)` does: take, or ask where nothing is there."""
        message = self.protocol.take()
        if message is None:
            self.protocol.ask()
            message = self.protocol.take()
        if message is not None:
            self.got.append(message)
        return message

    def drain(self) -> list[str | bytes]:
        """Take all messages until there is none."""
        while self.take() is not None:
            pass
        return self.got

    def close(self, code: int = 1000, reason: str | None = None) -> None:
        self.protocol.close(close_payload(code, reason), code, reason)

    def at(self, time: float) -> End:
        """Let `time` seconds since the beginning have come, tick by tick."""
        end = 1000.0 + time
        while self.protocol.deadline is not None and self.protocol.deadline <= end:
            self.clock.time = max(self.protocol.deadline, self.clock.time)
            self.protocol.tick(self.clock.time)
        self.clock.time = end
        self.protocol.tick(end)
        return self

    def hear(self) -> list[tuple[int, bytes]]:
        """What was said since the last call: opcodes and payloads."""
        data = b''.join(self.protocol.out)
        self.protocol.out.clear()
        self.written += data
        frames = parse(data, masked=self.client)
        self.said += frames
        assert all(one.opcode != CLOSE for one in self.said[:-1]), 'a frame behind the Close'
        return [(one.opcode, one.payload) for one in frames]

    @property
    def closed(self) -> tuple[int, str | None]:
        """Code and reason of a connection that has ended."""
        assert self.protocol.state >= ENDED
        return self.protocol.close_code, self.protocol.close_reason

    def close_said(self) -> int | None:
        """The code of the Close that was said last; None for one without."""
        opcode, payload = self.hear()[-1]
        assert opcode == CLOSE
        return int.from_bytes(payload[:2], 'big') if payload else None
