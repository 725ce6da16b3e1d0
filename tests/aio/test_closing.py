"""Closing: a handshake with truthful codes, and everything ends in time."""

from __future__ import annotations

import asyncio
import socket

import pytest
from aio.peer import HEADERS, accepted, connected, end, fds, tcp_pair, until
from support.frames import BINARY, TEXT

from simple_websocket import AioClient, AioServer, ConnectionClosed, ConnectionError, protocol


async def closed_with(ws):
    with pytest.raises(ConnectionClosed) as closed:
        while await asyncio.wait_for(ws.receive(), 5) is not None:
            pass
    return closed.value.reason


async def test_our_close_is_answered_and_reported_with_our_code(role):
    async with end(role) as (ws, peer):
        closing = asyncio.ensure_future(ws.close(4321, 'that was it'))
        assert await peer.expect_close(4321) == 'that was it'
        assert not closing.done()
        await peer.send(peer.close_frame(4321))
        if role == 'server':
            await peer.expect_eof()  # 7.1.1: the server ends TCP first
        await peer.close()
        await closing
        assert (ws.close_reason, ws.close_message) == (4321, 'that was it')
        assert not ws.connected
        for _ in range(2):
            assert await closed_with(ws) == 4321
        for call in (ws.close(), ws.send('x')):
            with pytest.raises(ConnectionClosed):
                await call
        assert repr(ws).endswith('closed: 4321>')


@pytest.mark.parametrize(('code', 'reported'), [(1000, 1000), (4999, 4999), (None, 1005)])
async def test_the_peers_close_is_echoed_by_both_roles(role, code, reported):  # A9, A10
    async with end(role) as (ws, peer):
        await peer.send(peer.close_frame(code, '' if code is None else 'bye'))
        assert await closed_with(ws) == reported
        assert ws.close_message == (None if code is None else 'bye')
        await peer.expect_close(code)


@pytest.mark.only('asyncio-loop')  # whose transports let us send past them
@pytest.mark.parametrize('taken', [4, 2, None])
async def test_the_servers_last_close_waits_for_the_end_of_tcp(taken):
    async with end('server') as (ws, peer):
        wire, flagged = ws._link.wire, []
        send = wire.raw_send

        def note_send(data, flags):
            flagged.append(flags)
            if taken is None:
                raise BlockingIOError
            return send(data[:taken], flags)

        wire.raw_send = note_send
        await peer.send(peer.close_frame(1000))
        assert await closed_with(ws) == 1000
        assert flagged == [socket.MSG_DONTWAIT | socket.MSG_MORE]
        await peer.expect_close(1000)
        await peer.expect_eof()


async def test_messages_before_the_close_come_first_and_may_be_answered(role):
    async with end(role) as (ws, peer):
        await peer.send((TEXT, b'one'), (TEXT, b'two'), peer.close_frame(1000))
        for text in ('one', 'two'):
            assert await ws.receive() == text
            await ws.send(text.upper())
        assert await closed_with(ws) == 1000
        await peer.expect(TEXT, b'ONE')
        await peer.expect(TEXT, b'TWO')
        await peer.expect_close(1000)


async def test_a_peer_that_closed_its_half_still_gets_the_answer(role):
    async with end(role) as (ws, peer):
        await peer.send((TEXT, b'one'), peer.close_frame(1000))
        peer.writer.write_eof()
        assert await ws.receive() == 'one'
        await ws.send('ONE')
        assert await closed_with(ws) == 1000
        await peer.expect(TEXT, b'ONE')
        await peer.expect_close(1000)
        await peer.expect_eof()


async def test_the_end_without_a_close_is_1006(role):  # A10
    async with end(role) as (ws, peer):
        await peer.send((TEXT, b'last words'))
        await peer.close()
        assert await ws.receive() == 'last words'
        assert await closed_with(ws) == 1006
        assert not ws.connected


async def test_a_reset_is_1006(role):  # B13
    async with end(role) as (ws, peer):
        await peer.send(b'\x81')
        peer.reset()
        with pytest.raises(ConnectionClosed) as closed:
            await ws.receive()
        assert closed.value.reason == 1006
        assert isinstance(closed.value.__cause__, ConnectionResetError)


@pytest.mark.parametrize('goodbye', [False, True], ids=['no Close', 'a Close'])
async def test_a_reset_is_noticed_while_the_queue_is_full(role, monkeypatch, goodbye):
    monkeypatch.setattr(protocol, 'TCP_LOOK_INTERVAL', 0.05)
    async with end(role, max_queue=2) as (ws, peer):
        for number in range(5):
            await peer.send((TEXT, b'%d' % number))
        await until(lambda: ws._link.protocol.paused)
        assert ws.connected
        more = [b'%d' % number + bytes(1000) for number in range(50)]
        last = [peer.close_frame(4000)] if goodbye else []
        await peer.send(*((BINARY, message) for message in more), *last)
        peer.reset()
        await until(lambda: not ws.connected)
        received = []
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                received.append(await ws.receive(5))
        assert received == ['0', '1', '2', '3', '4', *more]
        assert closed.value.reason == (4000 if goodbye else 1006)
        assert goodbye or isinstance(closed.value.__cause__, ConnectionResetError)


async def test_close_releases_a_receiver_at_once(role):  # A5
    async with end(role) as (ws, peer):
        receiving = asyncio.ensure_future(ws.receive())
        await asyncio.sleep(0)
        closing = asyncio.ensure_future(ws.close(4000))
        with pytest.raises(ConnectionClosed) as closed:
            await asyncio.wait_for(receiving, 5)
        assert closed.value.reason == 4000
        assert not closing.done()
        await peer.close()
        await closing


async def test_close_ends_in_time_with_a_silent_peer(role):  # A6
    async with end(role, close_timeout=0.05) as (ws, peer):
        loop = asyncio.get_running_loop()
        started = loop.time()
        await ws.close()
        assert 0.04 < loop.time() - started < 2
        assert ws._link.wire.lost
        await peer.expect_close(1000)
        await peer.expect_eof()


async def test_close_ends_in_time_with_a_peer_that_streams_on(role):  # A4, B12
    async with end(role, close_timeout=0.05) as (ws, peer):
        closing = asyncio.ensure_future(ws.close())
        with pytest.raises(OSError):
            while True:
                await peer.send((TEXT, bytes(1000)))
                await asyncio.sleep(0)
        await closing
        assert not ws.connected
        assert await closed_with(ws) == 1000


async def test_close_ends_in_time_with_a_peer_that_does_not_read(role):
    async with end(role, close_timeout=0.05, compression=None) as (ws, peer):
        sending = asyncio.ensure_future(ws.send(bytes(32 << 20)))
        await until(lambda: ws._link.wire.full)
        await ws.close()
        with pytest.raises(ConnectionClosed):
            await sending


async def test_a_cancelled_close_goes_on_by_itself(role):
    async with end(role, close_timeout=0.05) as (ws, peer):
        closing = asyncio.ensure_future(ws.close())
        await peer.expect_close(1000)
        closing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await closing
        assert await ws._link.join(5)


async def test_both_close_at_once(role):  # B12
    async with end(role) as (ws, peer):
        closing = asyncio.ensure_future(ws.close(4001))
        await asyncio.sleep(0)
        await peer.send(peer.close_frame(4002))
        await peer.expect_close(4001)
        await peer.close()
        await closing
        assert ws.close_reason == 4001


@pytest.mark.parametrize('wrong', [(999, None), (1005, None), (5000, None), (1000, 'x' * 124)])
async def test_a_close_that_must_not_be_sent_is_refused(role, wrong):  # B11
    async with end(role) as (ws, peer):
        with pytest.raises(ValueError):
            await ws.close(*wrong)
        await ws.send('still there')
        await peer.expect(TEXT, b'still there')


async def test_messages_after_our_close_do_not_reopen(role):  # A4
    async with end(role) as (ws, peer):
        closing = asyncio.ensure_future(ws.close())
        await peer.expect_close(1000)
        await peer.send((TEXT, b'late'), peer.close_frame(1000))
        await peer.close()
        await closing
        assert not ws.connected and not len(ws.input_buffer)


async def test_the_two_ends_understand_each_other():
    client_sock, server_sock = await tcp_pair()
    loop = asyncio.get_running_loop()

    async def read_request():
        data = b''
        while b'\r\n\r\n' not in data:
            data += await loop.sock_recv(server_sock, 65536)
        lines = data.decode().split('\r\n')[1:-2]
        return [tuple(line.split(': ', 1)) for line in lines]

    connecting = asyncio.ensure_future(
        AioClient.connect('ws://x/', sock=client_sock, subprotocols=['b', 'a'])
    )
    server = await AioServer.accept(
        sock=server_sock, headers=await read_request(), subprotocols=['a', 'b']
    )
    client = await connecting
    assert (server.mode, server.subprotocol, client.subprotocol) == ('custom', 'b', 'b')
    await client.send('x' * 70_000)
    assert await server.receive() == 'x' * 70_000
    assert client.sock.getpeername() == server.sock.getsockname()
    await asyncio.gather(client.close(4000, 'bye'), closed_with(server))
    assert (server.close_reason, server.close_message) == (4000, 'bye')
    await server._link.join(5)


@pytest.mark.parametrize(
    ('headers', 'options', 'status'),
    [
        ({'Upgrade': 'h2c'}, {}, 426),  # A15
        ({'Sec-WebSocket-Key': 'short'}, {}, 400),
        ({'Sec-WebSocket-Version': '8'}, {}, 426),
        ({'Origin': 'https://evil.example'}, {'origins': 'same'}, 403),
    ],
)
async def test_a_request_that_is_no_upgrade_is_answered(headers, options, status):
    theirs, ours = await tcp_pair()
    with pytest.raises(ConnectionError) as refused:
        await AioServer.accept(sock=ours, headers={**HEADERS, **headers}, **options)
    assert refused.value.status_code == status
    reader, writer = await asyncio.open_connection(sock=theirs)
    response = await reader.read()
    assert response.startswith(f'HTTP/1.1 {status} '.encode())
    writer.close()
    await writer.wait_closed()
    for _ in range(3):
        await asyncio.sleep(0)


async def test_accept_wants_one_source():
    one, two = socket.socketpair()
    with one, two:
        both = {'sock': one, 'headers': {}, 'aiohttp': object()}
        for wrong in ({}, {'sock': one}, {'headers': {}}, both):
            with pytest.raises(ValueError, match='give one of .*, which are the request.s'):
                await AioServer.accept(**wrong)
        with pytest.raises(TypeError, match='socket'):
            await AioServer.accept(sock=object(), headers=HEADERS)


async def test_two_hundred_connections_leave_nothing():
    async def cycle(i):
        ws, peer = await (accepted if i % 2 else connected)()
        await peer.send((TEXT, b'x'))
        await ws.send(await ws.receive())
        await peer.expect(TEXT, b'x')
        peer.writer.transport.abort()
        assert await closed_with(ws) == 1006
        await ws._link.join(5)

    await cycle(0)
    before, tasks = fds(), len(asyncio.all_tasks())
    for i in range(200):
        await cycle(i)
    await until(lambda: fds() <= before and len(asyncio.all_tasks()) <= tasks)


async def test_a_with_block_that_the_peer_has_closed_ends_with_tcp(role):
    """Else a loop that ends right behind the block leaves a transport open."""
    opener = accepted if role == 'server' else connected
    ws, peer = await opener()

    async def application():
        async with ws:
            assert [message async for message in ws] == []
        assert ws._link.wire.lost

    running = asyncio.ensure_future(application())
    await peer.send(peer.close_frame(4001))
    await peer.expect_close(4001)
    if role == 'client':
        await until(lambda: not ws.connected)
        assert not running.done()
    await peer.close()
    await running
    assert ws.close_reason == 4001


async def test_a_with_block_waits_no_longer_than_close_timeout_for_tcp():
    ws, peer = await connected(close_timeout=0.05)
    async with ws:
        await peer.send(peer.close_frame(4001))
        assert [message async for message in ws] == []
    assert ws._link.wire.lost
    await peer.close()
