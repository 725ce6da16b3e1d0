"""A scripted peer on asyncio streams: see `support.peer`."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator
from typing import Any

from support.frames import CLOSE, frame, reading
from support.peer import KEY, reset_at_close, switching

from simple_websocket import AioClient, AioServer

HEADERS = {
    'Host': 'localhost',
    'Upgrade': 'websocket',
    'Connection': 'Upgrade',
    'Sec-WebSocket-Key': KEY,
    'Sec-WebSocket-Version': '13',
}


class Peer:
    """One end of a TCP connection that speaks frames.

    `client` says whether it is the WebSocket client, and so masks.
    """

    def __init__(self, reader: Any, writer: Any, client: bool) -> None:
        self.reader = reader
        self.writer = writer
        self.client = client

    async def send(self, *frames: tuple[Any, ...] | bytes) -> None:
        """Send frames, given as arguments of `frame`, or raw bytes."""
        data = (one if isinstance(one, bytes) else self.frame(*one) for one in frames)
        self.writer.write(b''.join(data))
        await self.writer.drain()

    def frame(self, opcode: int, payload: bytes = b'', **how: Any) -> bytes:
        return frame(opcode, payload, self.client, **how)

    def close_frame(self, code: int | None = None, reason: str = '') -> bytes:
        payload = b'' if code is None else code.to_bytes(2, 'big') + reason.encode()
        return self.frame(CLOSE, payload)

    async def head(self) -> bytes:
        """Read an HTTP head."""
        return (await self.reader.readuntil(b'\r\n\r\n'))[:-4]

    async def read(self) -> tuple[int, bytes]:
        """Read a frame: its first byte without FIN, and its payload."""
        one = reading(masked=not self.client)
        size = next(one)
        try:
            while True:
                size = one.send(await self.reader.readexactly(size))
        except StopIteration as end:
            got = end.value
        assert got.fin, 'a fragment'
        return got.opcode | got.rsv << 4, got.payload

    async def expect(self, opcode: int, payload: bytes | None = None) -> bytes:
        got, data = await self.read()
        assert got == opcode, f'{got:#x} {data[:100]!r} instead of {opcode:#x}'
        if payload is not None:
            assert data == payload
        return data

    async def expect_close(self, code: int | None) -> str:
        """Read a Close with this code; returns its reason."""
        payload = await self.expect(CLOSE)
        assert payload[:2] == (b'' if code is None else code.to_bytes(2, 'big'))
        return payload[2:].decode()

    async def expect_eof(self) -> None:
        assert await self.reader.read(1000) == b'', 'bytes behind the end'

    def reset(self) -> None:
        reset_at_close(self.writer.get_extra_info('socket'))
        self.writer.transport.abort()

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


async def tcp_pair() -> tuple[socket.socket, socket.socket]:
    loop = asyncio.get_running_loop()
    with socket.create_server(('127.0.0.1', 0)) as listener:
        listener.setblocking(False)
        one = socket.socket()
        one.setblocking(False)
        await loop.sock_connect(one, listener.getsockname())
        two, _ = await loop.sock_accept(listener)
    return one, two


async def accepted(**options: Any) -> tuple[AioServer, Peer]:
    """An `AioServer` on a socket, and its peer."""
    theirs, ours = await tcp_pair()
    extra = options.pop('request', {})
    peer = Peer(*await asyncio.open_connection(sock=theirs), client=True)
    ws = await AioServer.accept(sock=ours, headers={**HEADERS, **extra}, **options)
    peer.response = await peer.head()
    return ws, peer


@contextlib.asynccontextmanager
async def listening(serve: Any, **options: Any) -> AsyncIterator[int]:
    """A server of raw TCP; `serve` gets a `Peer`. Yields its port."""
    failures: list[BaseException] = []
    tasks: list[asyncio.Task[None]] = []

    async def run(reader: Any, writer: Any) -> None:
        tasks.append(asyncio.current_task())
        try:
            await serve(Peer(reader, writer, client=False))
        except BaseException as error:
            failures.append(error)
        finally:
            writer.close()

    server = await asyncio.start_server(run, '127.0.0.1', 0, **options)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        if tasks:
            await asyncio.wait(tasks, timeout=5)
    for failure in failures:
        raise failure


async def connected(leftover: bytes = b'', **options: Any) -> tuple[AioClient, Peer]:
    """An `AioClient` and its peer; `leftover` comes in the packet of the 101."""
    made: asyncio.Future[Peer] = asyncio.get_running_loop().create_future()

    async def serve(reader: Any, writer: Any) -> None:
        peer = Peer(reader, writer, client=False)
        peer.request = await peer.head()
        await peer.send(switching(peer.request) + leftover)
        made.set_result(peer)

    server = await asyncio.start_server(serve, '127.0.0.1', 0)
    port = server.sockets[0].getsockname()[1]
    ws = await AioClient.connect(f'ws://127.0.0.1:{port}', **options)
    peer = await made
    server.close()
    return ws, peer


@contextlib.asynccontextmanager
async def end(role: str, **options: Any) -> AsyncIterator[tuple[Any, Peer]]:
    """A connection in a role, and its scripted peer."""
    ws, peer = await (accepted if role == 'server' else connected)(**options)
    try:
        yield ws, peer
    finally:
        await peer.close()
        ws._link.give_up()
        await ws._link.join(5)


async def until(condition: Any, timeout: float = 5) -> None:
    """Let the loop run until something has come about."""
    deadline = asyncio.get_running_loop().time() + timeout
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, 'it did not come about'
        await asyncio.sleep(0.002)


def fds() -> int:
    return len(os.listdir('/proc/self/fd'))
