"""What is not read, and what is not sent, stays in TCP."""

from __future__ import annotations

import asyncio

import pytest
from aio.peer import HEADERS, connected, end, listening, tcp_pair, until
from support.frames import BINARY, PONG, TEXT, frame
from support.peer import switching

from simple_websocket import AioClient, AioServer, ConnectionClosed
from simple_websocket.aiodial import AioDial
from simple_websocket.protocol import Protocol

LARGE = b'x' * 8_000_000


async def test_what_the_peer_said_last_is_read_though_a_write_fails():  # invariant 5
    theirs, ours = await tcp_pair()
    ws = await AioServer.accept(sock=ours, headers=HEADERS)
    loop = asyncio.get_running_loop()
    await loop.sock_recv(theirs, 4096)
    theirs.setblocking(True)
    said = [frame(TEXT, b'last', True), frame(8, (4123).to_bytes(2, 'big'), True)]
    theirs.sendall(b''.join(said))
    theirs.close()
    await ws.send('into the void')  # which TCP takes, and is told then
    with pytest.raises(ConnectionClosed):
        for _ in range(10):
            await ws.send('again')
    assert await ws.receive() == 'last'
    with pytest.raises(ConnectionClosed) as closed:
        await ws.receive()
    assert closed.value.reason == 4123


@pytest.mark.only('asyncio-loop')
async def test_who_sends_while_others_wait_for_tcp_waits_too():
    """In the very turn in which TCP takes more, before what waits is written."""
    ws, peer = await connected(compression=None)
    link = ws._link
    first = asyncio.ensure_future(ws.send(LARGE))
    await asyncio.sleep(0)
    assert link.wire.full
    second = asyncio.ensure_future(ws.send(b'second'))
    await asyncio.sleep(0)
    assert link._unsent
    link.wire.full = False  # what resume_writing() does first
    third = asyncio.ensure_future(ws.send(b'third'))
    await asyncio.sleep(0)
    assert not third.done()
    link.wire.full = True
    for payload in (LARGE, b'second', b'third'):
        await peer.expect(BINARY, payload)
    await asyncio.gather(first, second, third)
    link.give_up()
    await peer.close()


@pytest.mark.parametrize('way', ['connect', 'in time'])
async def test_a_cancellation_in_the_turn_that_opens_the_connection_is_one(monkeypatch, way):
    made = []
    link = AioDial.link

    async def link_and_cancel(dial, make_link):
        made.append(await link(dial, make_link))
        if way == 'connect':
            asyncio.get_running_loop().call_soon(connecting.cancel)
        return made[0]

    async def serve(peer):
        peer.writer.write(switching(await peer.head()))
        if way == 'connect':
            await peer.expect_eof()

    monkeypatch.setattr(AioDial, 'link', link_and_cancel)
    async with listening(serve) as port:
        connecting = asyncio.ensure_future(AioClient.connect(f'ws://127.0.0.1:{port}'))
        if way == 'connect':
            with pytest.raises(asyncio.CancelledError):
                await connecting
            await until(lambda: made[0].wire.lost)
        else:
            (await connecting)._link.give_up()


async def test_a_peer_that_takes_a_long_message_slowly_is_alive(role):  # invariant 6
    async with end(role, ping_interval=1000, compression=None) as (ws, peer):
        link = ws._link
        sending = asyncio.ensure_future(ws.send(bytes(64_000_000)))
        await until(lambda: link.wire.full)
        link._on_deadline()
        for _ in range(3):
            before = link.wire.transport.get_write_buffer_size()
            link.protocol.heard = False
            link._on_deadline()
            assert not link.protocol.heard  # it has taken nothing
            while link.wire.transport.get_write_buffer_size() == before:
                await peer.reader.read(1 << 16)
            link._on_deadline()
            assert link.protocol.heard
        link.give_up()
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)


async def test_what_is_there_already_is_read_before_the_verdict(monkeypatch):
    """The process may have stood still, while the time and the bytes came."""
    theirs, ours = await tcp_pair()
    ws = await AioServer.accept(sock=ours, headers=HEADERS, ping_interval=1000)
    protocol = ws._link.protocol
    heard = []
    monkeypatch.setattr(Protocol, 'tick', lambda self, now: heard.append(self.heard))
    await asyncio.sleep(0)
    protocol.heard = False
    theirs.setblocking(True)
    theirs.sendall(frame(PONG, b'', True))
    ws._link._on_time()
    await until(lambda: heard)
    assert heard == [True]
    ws._link.give_up()
    theirs.close()
