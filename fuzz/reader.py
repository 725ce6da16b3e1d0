"""What the targets have in common: reading choices off an input, ways to cut
bytes into pieces, frames built and parsed with `struct` alone."""

from __future__ import annotations

import struct
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeVar

T = TypeVar('T')

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0, 1, 2, 8, 9, 10
KEY = b'\x37\xfa\x21\x3d'


class Reader:
    """Takes choices from the front of an input; an exhausted one gives zeros.

    One byte a choice, so that libFuzzer can change one and leave the others.
    """

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def byte(self) -> int:
        self._at += 1
        return self._data[self._at - 1] if self._at <= len(self._data) else 0

    def take(self, size: int) -> bytes:
        """Up to ``size`` bytes as they are."""
        start, self._at = self._at, self._at + size
        return self._data[start : self._at]

    def rest(self) -> bytes:
        return self.take(len(self._data))

    def pick(self, options: Sequence[T]) -> T:
        return options[self.byte() % len(options)]


def cuts(data: bytes, way: int) -> Iterator[bytes]:
    """Cut bytes into pieces: whole, one by one, or of sizes that ``way`` says."""
    if way == 0 or not data:
        yield data
        return
    at, state = 0, way
    while at < len(data):
        size = 1 if way == 1 else 1 + state % 7 + (state >> 5) % 3 * 40
        state = (state * 37 + 11) & 0xFF
        yield data[at : at + size]
        at += size


def frame(
    opcode: int, payload: bytes, masked: bool, fin: bool = True, rsv: int = 0
) -> bytes:
    """A frame as section 5.2 draws it."""
    size = len(payload)
    bit = 0x80 if masked else 0
    head = bytes([(opcode & 15) | (rsv & 7) << 4 | fin << 7])
    if size < 126:
        head += bytes([bit | size])
    elif size < 65536:
        head += struct.pack('!BH', bit | 126, size)
    else:
        head += struct.pack('!BQ', bit | 127, size)
    return head + KEY + unmasked(payload, KEY) if masked else head + payload


def unmasked(payload: bytes, key: bytes) -> bytes:
    size = len(payload)
    wide = (key * (size // 4 + 1))[:size]
    return (int.from_bytes(payload, 'big') ^ int.from_bytes(wide, 'big')).to_bytes(size, 'big')


class Parsed(NamedTuple):
    opcode: int
    payload: bytes
    fin: bool
    rsv: int


def parse(data: bytes, masked: bool) -> list[Parsed]:
    """The frames of what we wrote: whole, and as section 5 wants them."""
    frames = []
    at = 0
    while at < len(data):
        first, second = data[at], data[at + 1]
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
        key = data[at : at + 4] if masked else bytes(4)
        at += 4 if masked else 0
        payload = data[at : at + size]
        assert len(payload) == size, 'half a frame'
        at += size
        opcode = first & 15
        assert opcode in (CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG), 'a reserved opcode'
        assert opcode < CLOSE or (first & 0x80 and size < 126), 'no control frame'
        assert not first & 0x30, 'RSV2 or RSV3'
        frames.append(Parsed(opcode, unmasked(payload, key), bool(first & 0x80), first >> 4 & 7))
    return frames
