"""What is not read, and what is not sent, stays in TCP."""

from __future__ import annotations

import asyncio

import pytest
from aio.peer import HEADERS, connected, listening, tcp_pair, until
from support.frames import BINARY, TEXT, frame
from support.peer import switching

from simple_websocket import AioClient, AioServer, ConnectionClosed
from simple_websocket.aiodial import AioDial

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
