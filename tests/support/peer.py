"""A scripted peer: the other end of a connection, byte by byte.

It has a frame parser and builder of its own, strict and slow, so that what it
says about the wire does not depend on the package.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import os
import struct
from collections.abc import Iterator
from typing import Any

from simple_websocket import Client, Server

TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
KEY = base64.b64encode(b'0123456789abcdef').decode()
GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11'


def frame(
    opcode: int, payload: bytes = b'', masked: bool = False, fin: bool = True, rsv: int = 0
) -> bytes:
    """A frame as section 5.2 draws it."""
    size = len(payload)
    head = bytes([opcode | (0x80 if fin else 0) | rsv << 4])
    bit = 0x80 if masked else 0
    if size < 126:
        head += bytes([bit | size])
    elif size < 65536:
        head += struct.pack('!BH', bit | 126, size)
    else:
        head += struct.pack('!BQ', bit | 127, size)
    if not masked:
        return head + payload
    key = os.urandom(4)
    return head + key + xor(payload, key)


def xor(payload: bytes, key: bytes) -> bytes:
    mask = key * (len(payload) // 4 + 1)
    number = int.from_bytes(payload, 'big') ^ int.from_bytes(mask[: len(payload)], 'big')
    return number.to_bytes(len(payload), 'big')


class Peer:
    """One end of a TCP connection that speaks frames.

    `client` says whether it is the WebSocket client, and so masks.
    """

    def __init__(self, sock: Any, client: bool) -> None:
        self.sock = sock
        self.client = client
        self.buffer = b''
        sock.settimeout(5)

    def send(self, *frames: tuple[Any, ...] | bytes) -> None:
        """Send frames, given as arguments of `frame`, or raw bytes."""
        data = b''
        for one in frames:
            data += one if isinstance(one, bytes) else self.frame(*one)
        self.sock.sendall(data)

    def frame(self, opcode: int, payload: bytes = b'', **how: Any) -> bytes:
        return frame(opcode, payload, self.client, **how)

    def close_frame(self, code: int | None = None, reason: str = '') -> bytes:
        payload = b'' if code is None else code.to_bytes(2, 'big') + reason.encode()
        return self.frame(CLOSE, payload)

    def _exactly(self, size: int) -> bytes:
        chunks, have = [self.buffer], len(self.buffer)
        while have < size:
            chunk = self.sock.recv(65536)
            if not chunk:
                raise EOFError(f'the end after {have} of {size} bytes')
            chunks.append(chunk)
            have += len(chunk)
        data = b''.join(chunks)
        self.buffer = data[size:]
        return data[:size]

    def head(self) -> bytes:
        """Read an HTTP head."""
        while b'\r\n\r\n' not in self.buffer:
            chunk = self.sock.recv(65536)
            if not chunk:
                raise EOFError('the end inside an HTTP head')
            self.buffer += chunk
        head, _, self.buffer = self.buffer.partition(b'\r\n\r\n')
        return head

    def read(self) -> tuple[int, bytes]:
        """Read a frame: its first byte without FIN, and its payload."""
        first, second = self._exactly(2)
        assert first & 0x80, 'a fragment'
        assert bool(second & 0x80) is not self.client, 'masked by the wrong end'
        size = second & 0x7F
        if size == 126:
            (size,) = struct.unpack('!H', self._exactly(2))
            assert size > 125, 'not the shortest length'
        elif size == 127:
            (size,) = struct.unpack('!Q', self._exactly(8))
            assert size > 65535, 'not the shortest length'
        key = self._exactly(4) if second & 0x80 else None
        payload = self._exactly(size)
        return first & 0x7F, payload if key is None else xor(payload, key)

    def expect(self, opcode: int, payload: bytes | None = None) -> bytes:
        got, data = self.read()
        assert got == opcode, f'{got:#x} {data[:100]!r} instead of {opcode:#x}'
        if payload is not None:
            assert data == payload
        return data

    def expect_close(self, code: int | None) -> str:
        """Read a Close with this code; returns its reason."""
        payload = self.expect(CLOSE)
        assert payload[:2] == (b'' if code is None else code.to_bytes(2, 'big'))
        return payload[2:].decode()

    def expect_eof(self) -> None:
        assert self.buffer + self.sock.recv(1000) == b'', 'bytes behind the end'

    def close(self) -> None:
        self.sock.close()


def environ_for(sock: Any, **headers: str) -> dict[str, Any]:
    """A WSGI environ of a request that came over `sock`."""
    environ = {
        'REQUEST_METHOD': 'GET',
        'PATH_INFO': '/',
        'SERVER_PROTOCOL': 'HTTP/1.1',
        'HTTP_HOST': 'localhost',
        'HTTP_UPGRADE': 'websocket',
        'HTTP_CONNECTION': 'Upgrade',
        'HTTP_SEC_WEBSOCKET_KEY': KEY,
        'HTTP_SEC_WEBSOCKET_VERSION': '13',
        'werkzeug.socket': sock,
    }
    environ.update({f'HTTP_{name.upper()}': value for name, value in headers.items()})
    return environ


def tcp_pair(world: Any) -> tuple[Any, Any]:
    """A connected pair of TCP sockets: some things are not the same on others."""
    listener, port = world.listen()
    one = world.connect(port)
    one.settimeout(None)
    two = world.closing(listener.accept()[0])
    listener.close()
    return one, two


def accepted(world: Any, **options: Any) -> tuple[Server, Peer]:
    """A `Server` and its peer."""
    theirs, ours = tcp_pair(world)
    ws = Server.accept(environ_for(ours, **options.pop('request', {})), **options)
    peer = Peer(theirs, client=True)
    peer.response = peer.head()
    return ws, peer


def connected(
    world: Any,
    leftover: bytes = b'',
    url: str = 'ws://127.0.0.1:{}',
    headers_of_101: tuple[bytes, ...] = (),
    **options: Any,
) -> tuple[Client, Peer]:
    """A `Client` and its peer; `leftover` comes in the packet of the 101."""
    listener, port = world.listen()

    def serve() -> Peer:
        peer = Peer(world.closing(listener.accept()[0]), client=False)
        peer.request = peer.head()
        peer.send(switching(peer.request, *headers_of_101) + leftover)
        return peer

    task = world.spawn(serve)
    ws = Client.connect(url.format(port), **options)
    peer = task.join()
    listener.close()
    return ws, peer


def switching(request: bytes, *headers: bytes) -> bytes:
    """The 101 to a request."""
    fields = dict(
        line.lower().split(b': ', 1) if i == 0 else line.split(b': ', 1)
        for i, line in enumerate(request.split(b'\r\n')[1:])
    )
    key = {name.lower(): value for name, value in fields.items()}[b'sec-websocket-key']
    token = base64.b64encode(hashlib.sha1(key + GUID.encode()).digest())
    lines = [
        b'HTTP/1.1 101 Switching Protocols',
        b'Upgrade: websocket',
        b'Connection: Upgrade',
        b'Sec-WebSocket-Accept: ' + token,
        *headers,
    ]
    return b'\r\n'.join([*lines, b'', b''])


@contextlib.contextmanager
def both_ends(
    world: Any, server: Any = None, client: Any = None
) -> Iterator[tuple[Server, Client]]:
    """A `Server` and a `Client` joined by TCP."""
    listener, port = world.listen()

    def serve() -> Server:
        sock = world.closing(listener.accept()[0])
        peer = Peer(sock, client=True)
        head = peer.head().decode().split('\r\n')[1:]
        fields = dict(line.split(': ', 1) for line in head)
        sock.settimeout(None)
        names = {name.replace('-', '_'): value for name, value in fields.items()}
        return Server.accept(environ_for(sock, **names), **(server or {}))

    task = world.spawn(serve)
    there = Client.connect(f'ws://127.0.0.1:{port}', **(client or {}))
    here = task.join()
    listener.close()
    try:
        yield here, there
    finally:
        for ws in (there, here):
            ws._link.abandon()
            world.settles_to(lambda ws=ws: ws._link.finished, True)
