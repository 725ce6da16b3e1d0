"""A target with faults in it: what ``make fuzz ARGS=--self-test`` looks for, so
that a table without findings means something."""

from __future__ import annotations

import threading

FAULTS = (b'crash', b'hang', b'memory')

_hoard: list[bytearray] = []


def check(data: bytes) -> None:
    if data == b'crash':
        raise KeyError('planted')
    if data == b'hang':
        threading.Event().wait()
    if data == b'memory':
        while True:
            _hoard.append(bytearray(b'x' * (16 << 20)))
