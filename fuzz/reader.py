"""What the targets have in common: reading choices off an input, ways to cut
bytes into pieces, frames."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TypeVar

from tests.support.frames import Frame

T = TypeVar('T')


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


def frame(opcode: int, payload: bytes, masked: bool, fin: bool = True, rsv: int = 0) -> bytes:
    """A frame as section 5.2 draws it, masked with the same key every time."""
    return Frame(opcode, payload, fin, rsv).raw(masked)
