"""Writes the seed corpus, ``fuzz/corpus/``: what each target starts from.

    python -m fuzz.seeds

One file a case, named for it. The tests compare what is committed with this.
"""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Iterator
from pathlib import Path

from fuzz.reader import frame
from tests.support.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT

ROOT = Path(__file__).resolve().parent
CORPUS = ROOT / 'corpus'

Seeds = Iterator[tuple[str, bytes]]

SMILE = '\U0001f600'.encode()


def deflated(data: bytes, level: int = 6, final: bool = False) -> bytes:
    packer = zlib.compressobj(level, zlib.DEFLATED, -15)
    if final:
        return packer.compress(data) + packer.flush(zlib.Z_FINISH) + b'\0'
    return (packer.compress(data) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]


def conversations(masked: bool) -> Seeds:
    """What peers send, right and wrong."""

    def wire(*frames: tuple[object, ...]) -> bytes:
        return b''.join(frame(*one[:2], masked, *one[2:]) for one in frames)  # type: ignore

    yield 'hello', wire((TEXT, b'hello'), (BINARY, b'\0\1\2'), (CLOSE, b'\x03\xe8bye'))
    yield 'empty', wire((TEXT, b''), (BINARY, b''), (PING, b''), (PONG, b''), (CLOSE, b''))
    yield 'fragments', wire(
        (TEXT, SMILE[:2], False), (PING, b'1'), (CONTINUATION, SMILE[2:], False), (0, b'')
    )
    for size in (125, 126, 200):
        yield f'of-{size}', wire((BINARY, bytes(size)))
    yield 'close-1005', wire((CLOSE, b'\x03\xed'))
    yield 'close-one-byte', wire((CLOSE, b'\x03'))
    yield 'close-invalid-text', wire((CLOSE, b'\x03\xe8\xff'))
    yield 'behind-close', wire((CLOSE, b'\x0f\xa0'), (TEXT, b'late'), (PING, b'late'))
    yield 'invalid-text', wire((TEXT, b'ok'), (TEXT, b'ab\xed\xa0\x80'))
    yield 'text-cut', wire((TEXT, SMILE[:3]))
    yield 'compressed', wire((TEXT, deflated(b'hello ' * 20), True, 4), (TEXT, b'plain'))
    half = deflated(b'hello ' * 20)
    yield 'compressed-fragments', wire(
        (TEXT, half[:5], False, 4), (PING, b'between'), (CONTINUATION, half[5:])
    )
    yield 'compressed-final', wire((BINARY, deflated(b'end', final=True), True, 4))
    yield 'bomb', wire((BINARY, deflated(bytes(100_000)), True, 4))
    yield 'pings', wire(*[(PING, bytes([one])) for one in range(20)])
    yield 'messages', wire(*[(TEXT, bytes([65 + one])) for one in range(40)])
    yield 'inside', wire((TEXT, b'a', False), (TEXT, b'b'))
    yield 'without', wire((CONTINUATION, b'a'))
    yield 'ping-fragment', wire((PING, b'', False))
    yield 'ping-126', wire((PING, bytes(126)))
    for rsv in (1, 2, 4):
        yield f'rsv-{rsv}', wire((TEXT, b'x', True, rsv))
    for opcode in (3, 7, 11, 15):
        yield f'opcode-{opcode}', wire((opcode, b''))
    bit = 0x80 if masked else 0
    yield 'long', bytes([0x82, bit | 127]) + b'\x80' + bytes(7)
    yield 'large', bytes([0x82, bit | 127]) + b'\x7f' + b'\xff' * 7 + b'\1\2\3\4payload'
    yield 'not-minimal', bytes([0x82, bit | 126, 0, 125])


def codec() -> Seeds:
    for client in (0, 1):
        for name, data in conversations(not client):
            for kind, choice in (('', 0), ('-limits', 2 << 1 | 2 << 3), ('-deflate', 32)):
                if kind == '-deflate' and not name.startswith(('compressed', 'rsv', 'bomb')):
                    continue
                role = 'client' if client else 'server'
                yield f'{role}-{name}{kind}', bytes([choice | client, 77]) + data


#: Of `fuzz.targets.protocol`: the role, no limit, a long queue, no limit of
#: fragments, no keepalive, 5 seconds to close, pieces of 1, compression.
OPTIONS = bytes([0, 0, 0, 0, 0, 0, 0, 0, 0])
FRAME, RAW, COMPRESSED, TAKE, SEND, CLOSING, WAIT, TCP, PONGS, FIN, ABORT = (
    0, 3, 4, 5, 7, 8, 9, 10, 11, 12, 13
)  # fmt: skip


def protocol() -> Seeds:
    for client in (0, 1):
        role = 'client' if client else 'server'
        plain = bytes([client]) + OPTIONS[1:]
        for name, data in conversations(not client):
            if len(data) > 1000:
                continue
            steps = b''.join(
                bytes([RAW, len(data[at : at + 100])]) + data[at : at + 100]
                for at in range(0, len(data), 100)
            )
            yield f'{role}-{name}', plain[:8] + b'\3' + steps + bytes([TAKE, TAKE, TAKE])
        small = bytes([client, 4, 1, 0, 0, 0, 0, 0, 3])
        alive = bytes([client, 0, 0, 0, 1, 1, 0, 0, 0])
        hello = bytes([FRAME, TEXT, 2])
        yield f'{role}-queue', small + hello * 3 + bytes([CLOSING, 0, 0, TAKE, TAKE])
        yield f'{role}-queue-fin', small + hello * 3 + bytes([FIN, TAKE, TAKE, TAKE, TAKE])
        yield f'{role}-queue-abort', small + hello * 2 + bytes([FRAME, CLOSE, 12, ABORT, TAKE])
        yield f'{role}-answer', plain + hello + bytes([FRAME, CLOSE, 11, TAKE, SEND, 2, TAKE])
        yield f'{role}-both-close', plain + bytes([CLOSING, 0, 1, FRAME, CLOSE, 12, FIN])
        yield f'{role}-silent', alive + bytes([WAIT, 3, WAIT, 4])
        yield f'{role}-alive', alive + bytes([WAIT, 2, PONGS, WAIT, 2, PONGS, WAIT, 1, hello[0]])
        yield f'{role}-slow', alive + bytes([TCP, SEND, 9, FRAME, PING, 1, FRAME, PING, 2])
        yield f'{role}-slow-end', plain + bytes([TCP, SEND, 9, FRAME, PING, 1, TCP, WAIT, 2])
        packed = bytes([COMPRESSED, 0x22, COMPRESSED, 0x92, COMPRESSED, 0x73, TAKE, TAKE])
        yield f'{role}-packed', plain[:8] + b'\3' + packed
        yield f'{role}-packed-small', small + packed + bytes([SEND, 2, SEND, 26])
        yield f'{role}-no-close', plain + hello + bytes([CLOSING, 3, 2, WAIT, 4])


def deflate() -> Seeds:
    header = bytes(4)
    texts = {
        'offer': 'permessage-deflate; client_max_window_bits',
        'offers': 'permessage-deflate; server_max_window_bits=8, permessage-deflate',
        'all': 'permessage-deflate; server_no_context_takeover; client_no_context_takeover; '
        'server_max_window_bits=10; client_max_window_bits="11"',
        'other': 'x-webkit-deflate-frame, foo; bar="a\\"b", permessage-deflate',
        'twice': 'permessage-deflate; client_max_window_bits; client_max_window_bits',
        'fields': 'foo\npermessage-deflate\n\n,',
        'bits-7': 'permessage-deflate; server_max_window_bits=7',
        'zero': 'permessage-deflate; server_max_window_bits=08',
        'open': 'permessage-deflate; a="',
    }
    for name, text in texts.items():
        yield f'strings-{name}', b'\0' + header + text.encode()
    for name, one in {'default': 6, 'none': 64 | 128 | 9, 'store': 0}.items():
        sides = bytes([one, 4, 3, 3]) + bytes([one, 8, 6, 0])
        yield f'bargain-{name}', b'\1' + sides + b'\5hello\x20\5hello\0\0\0'
        yield f'there-and-back-{name}', b'\5' + bytes([one | 24, 6, 6, 7]) + b'\5hello\x20\2hi\0'
    messages = {
        'empty': b'\0',
        'hello': deflated(b'hello'),
        'stored': deflated(b'hello', 0),
        'dynamic': deflated(bytes(range(97, 123)) * 3 + b'abcabcabd' * 9),
        'final': deflated(b'hello', final=True),
        'finals': b'\3\0' * 20,
        'bomb': deflated(bytes(60_000)),
        'corrupt': b'\xff\xff',
        'cut': deflated(b'hello hello hello')[:-3],
        'far': b'\x4a\x04\x02\xff',
    }
    for name, data in messages.items():
        for kind, flags in (('', 0), ('-limit', 129), ('-takeover', 228)):
            size = len(data) - 1
            again = bytes([size]) + data
            yield f'inflate-{name}{kind}', b'\2' + bytes([flags, 9, 0]) + again + again


REQUEST = (
    'GET /chat?x=1 HTTP/1.1\nHost: example.com\nUpgrade: websocket\nConnection: Upgrade\n'
    'Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\nSec-WebSocket-Version: 13'
)


def server_handshake() -> Seeds:
    cases = {
        'plain': REQUEST,
        'deflate': REQUEST + '\nSec-WebSocket-Extensions: permessage-deflate; '
        'client_max_window_bits',
        'subprotocols': REQUEST + '\nSec-WebSocket-Protocol: superchat, chat',
        'origin': REQUEST + '\nOrigin: https://example.com',
        'origin-null': REQUEST + '\nOrigin: null',
        'connection': REQUEST.replace('n: Upgrade', 'n: keep-alive, upgrade'),
        'post': REQUEST.replace('GET', 'POST'),
        'http-1.0': REQUEST.replace('1.1', '1.0'),
        'version-8': REQUEST.replace('13', '8'),
        'no-key': REQUEST.replace('Sec-WebSocket-Key', 'X-Key'),
        'short-key': REQUEST.replace('dGhl', ''),
        'two-keys': REQUEST + '\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==',
        'no-upgrade': 'GET / HTTP/1.1\nHost: x',
        'body': REQUEST + '\nContent-Length: 5',
        'chunked': REQUEST + '\nTransfer-Encoding: chunked',
        'ipv6': REQUEST.replace('example.com', '[::1]:81') + '\nOrigin: http://[::1]:81',
    }
    for name, text in cases.items():
        for kind, number in (('', 0), ('-same', 1), ('-list', 4)):
            if not kind or name.startswith(('origin', 'ipv6', 'plain')):
                yield f'{name}{kind}', bytes([0, number]) + text.encode()
    strings = (
        'chat\x1fa b', 'X-A=b\x1fHost=c', 'https://example.com', 'http://[::1%25a]:80', 'null'
    )  # fmt: skip
    for index, string in enumerate(strings):
        yield f'strings-{index}', b'\3\0' + string.encode()


def client_handshake() -> Seeds:
    answer = (
        'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n'
        'Sec-WebSocket-Accept: {accept}\r\n'
    )
    hints = 'HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n'
    cases = {
        'plain': answer + '\r\n',
        'frames': answer + '\r\n\x01\x05hello',
        'subprotocol': answer + 'Sec-WebSocket-Protocol: chat\r\n\r\n',
        'deflate': answer + 'Sec-WebSocket-Extensions: permessage-deflate\r\n\r\n',
        'deflate-bits': answer + 'Sec-WebSocket-Extensions: permessage-deflate; '
        'server_max_window_bits=10; client_max_window_bits=9\r\n\r\n',
        'wrong-token': answer.replace('{accept}', 'x') + '\r\n',
        'two-tokens': answer + 'Sec-WebSocket-Accept: {accept}\r\n\r\n',
        'hints': hints + answer + '\r\n',
        'many-hints': hints * 20,
        'redirect': 'HTTP/1.1 302 Found\r\nLocation: ws://elsewhere/\r\n\r\n',
        'refused': 'HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno',
        'no-http': 'SSH-2.0-OpenSSH\r\n',
        'cut': answer[:60],
    }
    for name, text in cases.items():
        for kind, flags in (('', 0), ('-asked', 2 | 4)):
            yield f'{name}{kind}', bytes([flags, 9]) + text.encode('latin-1')
    yield 'endless', b'\xa8\x09' + answer.encode() + b'\r\n'
    urls = (
        'ws://example.com', 'wss://user:p%40ss@host:444/a?b=c', 'ws://[::1]:80/', 'http://b\xfccher/',
        'ws://[fe80::1%25eth0]/', 'ws://h:0/', 'ws://h/#f', 'ws://h?', 'ws://a..b/', 'ftp://h/',
    )  # fmt: skip
    for index, url in enumerate(urls):
        yield f'url-{index}', b'\1\0' + url.encode()


def seeds(target: str) -> dict[str, bytes]:
    """The seeds of a target, by the names of their files."""
    return dict(globals()[target]())


def main() -> None:
    from fuzz.targets import TARGETS

    for target in TARGETS:
        folder = CORPUS / target
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir(parents=True)
        for name, data in seeds(target).items():
            (folder / name).write_bytes(data)
        print(f'{target}: {len(seeds(target))} seeds')


if __name__ == '__main__':
    main()
