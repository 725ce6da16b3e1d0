"""A WebSocket client of its own, on a plain blocking socket.

It shares no code with the package, reads strictly, and can misbehave.
"""

from __future__ import annotations

import base64
import hashlib
import os
import random
import socket
import ssl
import struct
import zlib
from typing import Any

from tests.support.frames import BINARY, CLOSE, PING, PONG, TEXT, Frame, reading

GUID = b'258EAFA5-E914-47DA-95CA-C5AB0DC85B11'
HOST = '127.0.0.1'


def frame(opcode: int, payload: bytes = b'', fin: bool = True, rsv1: bool = False) -> bytes:
    """A masked frame (RFC 6455 section 5.2)."""
    return Frame(opcode, payload, fin, 4 if rsv1 else 0).raw(True, os.urandom(4))


def request(path: str, deflate: bool = False, **headers: str) -> bytes:
    """A request for an upgrade.

    :param headers: others, or the same with other values.
    """
    fields = {
        'Host': 'localhost',
        'Upgrade': 'websocket',
        'Connection': 'Upgrade',
        'Sec-WebSocket-Key': base64.b64encode(random.randbytes(16)).decode(),
        'Sec-WebSocket-Version': '13',
    }
    if deflate:
        fields['Sec-WebSocket-Extensions'] = 'permessage-deflate'
    fields.update({name.replace('_', '-'): value for name, value in headers.items()})
    lines = [f'{name}: {value}' for name, value in fields.items()]
    return '\r\n'.join([f'GET {path} HTTP/1.1', *lines, '', '']).encode()


class Deflater:
    """What we send and receive with permessage-deflate, both with takeover."""

    def __init__(self) -> None:
        self._out = zlib.compressobj(6, zlib.DEFLATED, -15)
        self._in = zlib.decompressobj(-15)

    def compress(self, payload: bytes) -> bytes:
        return (self._out.compress(payload) + self._out.flush(zlib.Z_SYNC_FLUSH))[:-4]

    def decompress(self, payload: bytes) -> bytes:
        return self._in.decompress(payload + b'\0\0\xff\xff')


class Peer:
    """An open connection, for one thread at a time (as is a TLS object).

    :param port: on the loopback interface.
    :param path: of the request.
    :param tls: how to speak TLS; None for without.
    :param deflate: whether to offer permessage-deflate, and use it.
    :param timeout: seconds for whatever blocks.
    :param receive_buffer: bytes that the kernel takes for us unread.
    """

    def __init__(
        self,
        port: int,
        path: str,
        tls: ssl.SSLContext | None = None,
        deflate: bool = False,
        timeout: float = 60,
        receive_buffer: int | None = None,
    ) -> None:
        self.sock = dial(port, tls, timeout, receive_buffer)
        self.file: Any = self.sock.makefile('rb')
        self.deflate: Deflater | None = None
        self.pinged = 0
        asked = request(path, deflate)
        self.sock.sendall(asked)
        status, headers = self.head()
        assert status == 101, status
        key = next(
            line[19:] for line in asked.split(b'\r\n') if line.startswith(b'Sec-WebSocket-Key: ')
        )
        token = base64.b64encode(hashlib.sha1(key + GUID).digest()).decode()
        assert headers['sec-websocket-accept'] == token
        if deflate:
            # Of its own window it may say what it likes: ours is large enough.
            name, *parameters = headers['sec-websocket-extensions'].split('; ')
            assert name == 'permessage-deflate'
            assert all(one.startswith('server_max_window_bits=') for one in parameters)
            self.deflate = Deflater()

    def head(self) -> tuple[int, dict[str, str]]:
        """Read the head of an HTTP response."""
        lines = []
        while (line := self.file.readline(65536)) not in (b'\r\n', b''):
            lines.append(line.decode())
        if not line:
            raise EOFError('the end inside an HTTP head')
        fields = (line.rstrip().split(': ', 1) for line in lines[1:])
        return int(lines[0].split()[1]), {name.lower(): value for name, value in fields}

    def send(self, data: bytes) -> None:
        self.sock.sendall(data)

    def say(self, opcode: int, payload: bytes = b'', fin: bool = True) -> None:
        """Send a frame; data frames are compressed where that was agreed."""
        if self.deflate is not None and opcode in (TEXT, BINARY):
            self.send(frame(opcode, self.deflate.compress(payload), fin, True))
        else:
            self.send(frame(opcode, payload, fin))

    def frame(self) -> tuple[int, bytes]:
        """Read a frame, whatever it is: its opcode and its payload."""
        one = reading(masked=False)
        size = next(one)
        try:
            while True:
                size = one.send(self._exactly(size))
        except StopIteration as end:
            got = end.value
        assert got.fin, 'a fragment'
        if not got.rsv:
            return got.opcode, got.payload
        assert self.deflate is not None, 'RSV1 that was not agreed upon'
        return got.opcode, self.deflate.decompress(got.payload)

    def hear(self) -> tuple[int, bytes]:
        """Read a frame, and answer pings that come before it."""
        while True:
            opcode, payload = self.frame()
            if opcode != PING:
                return opcode, payload
            self.pinged += 1
            self.say(PONG, payload)

    def expect(self, opcode: int, payload: bytes) -> None:
        got, data = self.hear()
        assert got == opcode, f'{got} {data[:60]!r} instead of {opcode}'
        assert data == payload, f'{len(data)} bytes that are not the {len(payload)} expected'

    def echo(self, opcode: int, payload: bytes) -> None:
        """Send a message and see it come back."""
        self.say(opcode, payload)
        self.expect(opcode, payload)

    def expect_close(self, code: int) -> None:
        """Read a Close with this code, and the end of the stream behind it."""
        opcode, payload = self.hear()
        assert opcode == CLOSE, f'{opcode} {payload[:60]!r} instead of a Close'
        assert payload[:2] == code.to_bytes(2, 'big'), payload
        self.say(CLOSE, payload[:2])
        self.expect_end()

    def close(self, code: int = 1000) -> None:
        """Do the closing handshake."""
        self.say(CLOSE, code.to_bytes(2, 'big'))
        opcode, payload = self.hear()
        assert (opcode, payload[:2]) == (CLOSE, code.to_bytes(2, 'big')), (opcode, payload)
        self.expect_end()

    def expect_end(self) -> None:
        rest = self.file.read()
        assert rest == b'', f'{rest[:100]!r} behind the end'
        self.let_go()

    def wait_for_end(self) -> None:
        """Read what there is, to the end, be it a FIN or an RST."""
        try:
            while self.file.read(65536):
                pass
        except (ConnectionError, ssl.SSLError):
            pass
        self.let_go()

    def reset(self) -> None:
        """End with an RST."""
        reset(self.sock)
        self.file.close()

    def let_go(self) -> None:
        self.file.close()
        self.sock.close()

    def _exactly(self, size: int) -> bytes:
        data: bytes = self.file.read(size)
        if len(data) < size:
            raise EOFError(f'the end after {len(data)} of {size} bytes')
        return data


def dial(
    port: int,
    tls: ssl.SSLContext | None,
    timeout: float,
    receive_buffer: int | None = None,
) -> socket.socket:
    """Connect, with TLS if that is said how."""
    sock = socket.socket()
    try:
        if receive_buffer is not None:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        sock.settimeout(timeout)
        sock.connect((HOST, port))
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return sock if tls is None else tls.wrap_socket(sock, server_hostname='localhost')
    except BaseException:
        sock.close()
        raise


def reset(sock: socket.socket) -> None:
    """Close a socket with an RST in place of a FIN."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
    if isinstance(sock, ssl.SSLSocket):
        socket.socket(fileno=sock.detach()).close()
    else:
        sock.close()
