"""What the tests of the protocol feed it with, and read its answers with.

The frames are those of `frames.py`. Time is a number that a test sets.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from hypothesis import settings

from simple_websocket import codec as seam
from simple_websocket.close_codes import close_payload
from simple_websocket.protocol import ENDED, Protocol

from .frames import CLOSE, Frame, parse, wire

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
