"""A scripted peer: the other end of a connection, byte by byte.

It builds and reads its frames with `frames.py`, and so without the package.
"""

from __future__ import annotations

import base64
import contextlib
import hashlib
import socket
import struct
from collections.abc import Iterator
from typing import Any

from simple_websocket import Client, Server
from simple_websocket.profiles.originals import original

from .frames import CLOSE, TEXT, frame, reading

KEY = base64.b64encode(b'0123456789abcdef').decode()
GUID = '258EAFA5-E914-47DA-95CA-C5AB0DC85B11'


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
        one = reading(masked=not self.client)
        size = next(one)
        try:
            while True:
                size = one.send(self._exactly(size))
        except StopIteration as end:
            got = end.value
        assert got.fin, 'a fragment'
        return got.opcode | got.rsv << 4, got.payload

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

    def reset(self) -> None:
        reset_at_close(self.sock)
        self.close()


def reset_at_close(sock: Any) -> None:
    """Have a TCP socket end with an RST; of a Unix socket it changes nothing."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))


def full_listener() -> tuple[Any, int, list[Any]]:
    """One that answers nobody any more: its queue is full."""
    make = original('socket', 'socket')
    silent = make()
    silent.bind(('127.0.0.1', 0))
    silent.listen(0)
    others = [make() for _ in range(2)]
    for sock in others:
        sock.setblocking(False)
        sock.connect_ex(silent.getsockname())
    return silent, silent.getsockname()[1], others


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
    return accepted_over(*tcp_pair(world), **options)


def accepted_over(theirs: Any, ours: Any, **options: Any) -> tuple[Server, Peer]:
    """The same over a pair of sockets that is there."""
    ws = Server.accept(environ_for(ours, **options.pop('request', {})), **options)
    peer = Peer(theirs, client=True)
    peer.response = peer.head()
    return ws, peer


def is_receiving(ws: Any) -> bool:
    """Whether somebody waits for a message, in whichever way."""
    names = ('_receiver', '_blocked', '_receiving')
    return any(getattr(ws._link, name, None) for name in names)


def answers(ws: Any, peer: Peer) -> None:
    """See that a message of each end reaches the other."""
    peer.send((TEXT, b'hello'))
    assert ws.receive(5) == 'hello'
    ws.send('there')
    peer.expect(TEXT, b'there')


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
    fields = dict(line.split(b': ', 1) for line in request.split(b'\r\n')[1:])
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
