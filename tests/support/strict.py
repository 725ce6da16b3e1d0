"""A strict listener: all the bytes that one end of a connection says, judged.

It takes them as they come, whole frames or not, and fails at the first one
that RFC 6455 or RFC 7692 does not allow: a wrong mask, a length in too many
bytes, a reserved bit or opcode, a torn message, anything after a Close.
"""

from __future__ import annotations

import struct
import zlib
from typing import Any

from .codes import VALID
from .frames import BINARY, CLOSE, PING, PONG, TEXT, xor


class Strict:
    """What one end says.

    :param masked: whether it is the client, and so has to mask.
    :param deflate: whether permessage-deflate was negotiated.
    """

    def __init__(self, masked: bool, deflate: bool = False) -> None:
        self.masked = masked
        #: (opcode, payload) of every message and control frame, in order.
        self.said: list[tuple[int, bytes]] = []
        #: The payload of the Close, None before there is one.
        self.close: bytes | None = None
        self._buffer = bytearray()
        self._inflater: Any = zlib.decompressobj(wbits=-15) if deflate else None
        self._opcode = 0
        self._compressed = False
        self._parts: list[bytes] | None = None  # of a message in fragments

    @property
    def torn(self) -> bool:
        """Whether a frame or a message has begun and not ended."""
        return bool(self._buffer) or self._parts is not None

    @property
    def messages(self) -> list[bytes]:
        return [payload for opcode, payload in self.said if opcode in (TEXT, BINARY)]

    def feed(self, data: bytes) -> list[tuple[int, bytes]]:
        """Take bytes; returns what became whole with them."""
        self._buffer += data
        before = len(self.said)
        while self._frame():
            pass
        if self.close is not None:
            assert not self._buffer, f'bytes behind the Close: {bytes(self._buffer[:50])!r}'
        return self.said[before:]

    def _frame(self) -> bool:
        buffer = self._buffer
        if len(buffer) < 2:
            return False
        assert self.close is None, f'a frame behind the Close: {bytes(buffer[:50])!r}'
        first, second = buffer[0], buffer[1]
        self._check_head(first, second)
        size, at = second & 0x7F, 2
        if size > 125:
            form, least, wide = ('!H', 126, 2) if size == 126 else ('!Q', 65536, 8)
            at += wide
            if len(buffer) < at:
                return False
            (size,) = struct.unpack_from(form, buffer, 2)
            assert least <= size < 1 << 63, f'a length of {size} in {wide} bytes'
        key = bytes(buffer[at : at + 4]) if self.masked else b''
        at += len(key) if len(key) == 4 or not self.masked else 4
        if len(buffer) < at + size:
            return False
        payload = bytes(buffer[at : at + size])
        del buffer[: at + size]
        if self.masked:
            payload = xor(payload, key)
        self._take(first, payload)
        return True

    def _check_head(self, first: int, second: int) -> None:
        opcode, final = first & 0xF, bool(first & 0x80)
        assert opcode in (0, TEXT, BINARY, CLOSE, PING, PONG), f'opcode {opcode}'
        assert bool(second & 0x80) is self.masked, 'masked where it must not be, or the reverse'
        if opcode >= 8:
            assert final and second & 0x7F < 126, 'a control frame in pieces, or too long'
            assert not first & 0x70, 'a reserved bit in a control frame'
        else:
            allowed = 0x40 if self._inflater is not None and opcode else 0
            assert not first & 0x70 & ~allowed, 'a reserved bit'
            assert (opcode == 0) is (self._parts is not None), 'a message inside another'

    def _take(self, first: int, payload: bytes) -> None:
        opcode, final = first & 0xF, bool(first & 0x80)
        if opcode == CLOSE:
            assert len(payload) != 1, 'half a close code'
            if payload:
                code = int.from_bytes(payload[:2], 'big')
                assert code in VALID, f'close code {code}'
                payload[2:].decode()
            self.close = payload
        elif opcode < 8:
            if self._parts is None:
                self._opcode, self._compressed, self._parts = opcode, bool(first & 0x40), []
            self._parts.append(payload)
            if not final:
                return
            opcode, payload = self._opcode, b''.join(self._parts)
            self._parts = None
            if self._compressed:
                payload = self._inflater.decompress(payload + b'\0\0\xff\xff')
                assert not self._inflater.unconsumed_tail and not self._inflater.unused_data
            if opcode == TEXT:
                payload.decode()
        self.said.append((opcode, payload))


__all__ = ['Strict']
