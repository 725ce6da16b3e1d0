"""What is measured: messages, cases, and the values that were promised."""

from __future__ import annotations

import json
import random
import struct
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

#: Anything but random: whoever cares may look at it.
_MASK = b'\x12\x34\x56\x78'

#: How much of a message a compressor may look back at; some servers ask for
#: less than the usual 32 KiB.
_WINDOW = -12

Messages = list[tuple[bytes, bool, bytes]]


def _repeat(size: int, text: bool) -> Callable[[], Messages]:
    return lambda: [(b'x' * size, text, b'')]


def _json_messages() -> Messages:
    """Objects of 1 to 4 KiB, as an API would send them, with their DEFLATE form."""
    source = random.Random(1)
    messages = []
    for number in range(64):
        goal = source.randrange(1024, 4096)
        record = {'id': number, 'type': 'update', 'items': []}
        while len(text := json.dumps(record)) < goal:
            item = {
                'id': source.randrange(10**9),
                'name': ''.join(source.choices('abcdefghijklmnopqrstuvwxyz', k=8)),
                'price': round(source.random() * 1000, 2),
                'active': source.random() < 0.5,
            }
            record['items'].append(item)
        compressor = zlib.compressobj(wbits=_WINDOW)
        data = compressor.compress(text.encode()) + compressor.flush(zlib.Z_SYNC_FLUSH)
        messages.append((text.encode(), True, data[:-4]))
    return messages


def _frame(payload: bytes, text: bool, compressed: bool) -> bytes:
    """A masked frame, as a client sends it (RFC 6455 section 5.2)."""
    size = len(payload)
    first = 0x80 | (0x40 if compressed else 0) | (1 if text else 2)
    if size < 126:
        head = struct.pack('!BB', first, 0x80 | size)
    elif size < 1 << 16:
        head = struct.pack('!BBH', first, 0x80 | 126, size)
    else:
        head = struct.pack('!BBQ', first, 0x80 | 127, size)
    mask = int.from_bytes((_MASK * (size // 4 + 1))[:size], 'big')
    masked = (int.from_bytes(payload, 'big') ^ mask).to_bytes(size, 'big')
    return head + _MASK + masked


@dataclass(frozen=True)
class Echo:
    """Messages that are sent back.

    :param name: what to select it by.
    :param title: what to call it in the tables.
    :param connections: how many there are, each with one message on its way.
    :param messages: makes them: payload, whether it is text, compressed form.
    :param roles: which servers it is for.
    :param names: which of those, if not all.
    :param deflate: whether permessage-deflate is offered and used.
    :param key: what is compared: ``cpu``, of the server a message, or ``p50``.
    :param short: whether it is part of a short run.
    """

    name: str
    title: str
    connections: int
    messages: Callable[[], Messages]
    roles: tuple[str, ...] = ('ours', 'bare', 'peer', 'mark')
    names: tuple[str, ...] = ()
    deflate: bool = False
    key: str = 'cpu'
    short: bool = True

    def write(self, path: Path, raw: bool) -> Path:
        """Write the messages as bench/load.c reads them."""
        with open(path, 'wb') as file:
            for payload, text, compressed in self.messages():
                if raw:
                    wire = payload
                elif self.deflate:
                    wire = _frame(compressed, text, True)
                else:
                    wire = _frame(payload, text, False)
                echo = b'' if self.deflate else payload
                file.write(struct.pack('=II', len(wire), len(echo)) + wire + echo)
        return path


ECHOES = [
    Echo('small', '64 B × 100 connections', 100, _repeat(64, True)),
    Echo('medium', '16 KiB × 20 connections', 20, _repeat(16 << 10, False)),
    # Some peers take seconds for it.
    Echo('large', '1 MiB × 4 connections', 4, _repeat(1 << 20, False), short=False),
    Echo('latency', '64 B × 1 connection: latency', 1, _repeat(64, True), key='p50'),
    Echo(
        'deflate',
        'permessage-deflate, JSON of 1–4 KiB × 20 connections',
        20,
        _json_messages,
        roles=('ours', 'peer', 'mark'),
        deflate=True,
    ),
    Echo(
        'hundreds',
        '64 B × 500 connections',
        500,
        _repeat(64, True),
        names=('threads', 'bare-threads'),
    ),
    Echo(
        'many',
        '64 B × 1,000 connections',
        1000,
        _repeat(64, True),
        roles=('ours', 'bare'),
        short=False,
    ),
    Echo(
        'crowd',
        '64 B × 10,000 connections',
        10000,
        _repeat(64, True),
        names=('gevent', 'bare-gevent', 'eventlet', 'bare-eventlet', 'bare-c'),
        short=False,
    ),
]

#: Besides the echoes.
OTHER_CASES = ('rate', 'idle', 'keepalive', 'broadcast', 'loop', 'stream')

_AT_LOAD = ('small', 'medium', 'many')

#: Table, ours, other, and how many times the other's value ours may be.
RATIOS = [
    *((case, 'gevent', 'bare-gevent', 1.35) for case in _AT_LOAD),
    *((case, 'eventlet', 'bare-eventlet', 1.35) for case in _AT_LOAD),
    *((case, 'threads', 'bare-threads', 1.4) for case in ('small', 'hundreds')),
    ('small', 'aiohttp', 'bare-asyncio', 1.5),
    ('small', 'aio-sock', 'bare-asyncio', 1.5),
    ('small', 'injected', '1.1-gevent', 0.5),
    ('rate', 'gevent', '1.1-gevent', 0.5),
]

#: Table, ours, and the highest value.
VALUES = [
    ('idle', 'gevent', 16.0),
    ('idle', 'eventlet', 29.0),
    ('idle', 'threads', 31.0),
    ('keepalive', 'keepalive-gevent', 3.0),
    ('broadcast', 'broadcast-gevent', 5.0),
]
