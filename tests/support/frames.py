"""Frames as RFC 6455 section 5.2 draws them, built and read with `struct` alone.

Strict and slow, so that what a test says about the wire does not depend on the
package. Nothing beyond the standard library is needed: the fuzz targets and the
soak use it too.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Generator, Sequence
from typing import NamedTuple

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10

#: A masking key for who wants the same bytes every time.
KEY = b'\x37\xfa\x21\x3d'


def xor(payload: bytes, key: bytes) -> bytes:
    """Mask, or unmask (section 5.3)."""
    size = len(payload)
    wide = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, 'big') ^ int.from_bytes(wide, 'big')).to_bytes(size, 'big')


class Frame(NamedTuple):
    """A frame; `raw` builds also what must not be."""

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


def frame(
    opcode: int, payload: bytes = b'', masked: bool = False, fin: bool = True, rsv: int = 0
) -> bytes:
    """The bytes of a frame, with a mask that nobody knows beforehand."""
    return Frame(opcode, payload, fin, rsv).raw(masked, os.urandom(4))


def closing(code: int | None = None, reason: str = '') -> Frame:
    return Frame(CLOSE, b'' if code is None else struct.pack('!H', code) + reason.encode())


def wire(frames: Sequence[Frame | bytes], masked: bool) -> bytes:
    """The bytes of frames; bytes among them stand for themselves."""
    return b''.join(one if isinstance(one, bytes) else one.raw(masked) for one in frames)


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


def reading(masked: bool) -> Generator[int, bytes, Frame]:
    """Read a frame of a correct peer: yields how many bytes it wants, is sent
    exactly these, and returns the frame.  Whoever drives it does the I/O.
    """
    first, second = yield 2
    opcode, size = first & 0xF, second & 0x7F
    assert opcode in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG), 'a reserved opcode'
    assert not first & 0x30, 'RSV2 or RSV3'
    assert opcode < CLOSE or (first & 0x80 and size < 126), 'no control frame'
    if size == 126:
        (size,) = struct.unpack('!H', (yield 2))
        assert size > 125, 'a length in too many bytes'
    elif size == 127:
        (size,) = struct.unpack('!Q', (yield 8))
        assert size > 65535, 'a length in too many bytes'
    assert bool(second & 0x80) is masked, 'masked where it must not be, or the reverse'
    key = (yield 4) if masked else bytes(4)
    payload = xor((yield size), key)
    return Frame(opcode, payload, bool(first & 0x80), first >> 4 & 7)


def parse(data: bytes, masked: bool) -> list[Frame]:
    """The frames in `data`, all of them whole."""
    frames = []
    at = 0
    while at < len(data):
        one = reading(masked)
        size = next(one)
        try:
            while True:
                assert at + size <= len(data), 'half a frame'
                at += size
                size = one.send(data[at - size : at])
        except StopIteration as end:
            frames.append(end.value)
    return frames
