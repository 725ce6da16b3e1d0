"""Messages, waits and limits, in both roles, against a scripted peer."""

from __future__ import annotations

import asyncio
import gc
import zlib

import pytest
from aio.peer import accepted, connected, end, until
from support.frames import BINARY, PING, PONG, TEXT, frame

from simple_websocket import AioServer, ConnectionClosed, SimpleWebsocketError

DEFLATE = {'Sec-WebSocket-Extensions': 'permessage-deflate; client_max_window_bits'}


async def closed_with(ws):
    with pytest.raises(ConnectionClosed) as closed:
        while await asyncio.wait_for(ws.receive(), 5) is not None:
            pass
    return closed.value.reason


@pytest.mark.parametrize(
    ('data', 'opcode', 'payload'),
    [
        ('zażółć', TEXT, 'zażółć'.encode()),
        (b'\x00\xff', BINARY, b'\x00\xff'),
        (bytearray(b'abc'), BINARY, b'abc'),  # A12
        (memoryview(b'abcdef')[::2], BINARY, b'ace'),
        (42, TEXT, b'42'),
        ('', TEXT, b''),
    ],
)
async def test_send_takes_what_it_is_given(role, data, opcode, payload):
    async with end(role) as (ws, peer):
        await ws.send(data)
        await peer.expect(opcode, payload)


async def test_receive_gives_str_and_bytes_in_their_order(role):
    async with end(role) as (ws, peer):
        await peer.send((TEXT, 'ä'.encode()), (BINARY, b'\x01'), (TEXT, b''))
        assert [await ws.receive() for _ in range(3)] == ['ä', b'\x01', '']


async def test_frames_behind_the_101_are_delivered_at_once():  # A8
    ws, peer = await connected(leftover=frame(TEXT, b'one') + frame(TEXT, b'two'))
    assert list(ws.input_buffer) == ['one', 'two']
    assert await ws.receive(0) == 'one'
    assert await ws.receive(0) == 'two'
    await peer.send(peer.close_frame(1000))
    assert await closed_with(ws) == 1000
    await peer.close()
    await ws._link.join(5)


async def test_a_close_behind_the_101_is_a_connection_that_closes():
    ws, peer = await connected(leftover=frame(TEXT, b'bye') + frame(8, b'\x03\xe9'))
    assert await ws.receive() == 'bye'
    assert await closed_with(ws) == 1001
    await peer.close()
    await ws._link.join(5)


async def test_receive_without_waiting_looks_at_what_is_there(role):
    async with end(role) as (ws, peer):
        assert await ws.receive(0) is None
        await peer.send((TEXT, b'x'))
        while True:
            message = await ws.receive(timeout=0)  # nothing else lets the loop run
            if message is not None:
                break
        assert message == 'x'


async def test_receive_gives_none_when_its_time_is_over(role):
    async with end(role) as (ws, peer):
        assert await ws.receive(timeout=0.01) is None
        await peer.send((TEXT, b'later'))
        assert await ws.receive(timeout=5) == 'later'


async def test_a_cancelled_receive_loses_nothing(role):
    async with end(role) as (ws, peer):
        for i in range(50):
            task = asyncio.ensure_future(ws.receive())
            await asyncio.sleep(0)
            await peer.send((TEXT, str(i).encode()))
            if i % 2:
                await until(lambda task=task: len(ws.input_buffer) or task.done())
            task.cancel()
            try:
                message = await task
            except asyncio.CancelledError:
                message = await ws.receive()
            assert message == str(i)


async def test_a_receive_cancelled_with_its_message_in_hand_puts_it_back(role):
    async with end(role) as (ws, peer):
        link = ws._link
        task = asyncio.ensure_future(ws.receive())
        await until(lambda: link._receiver is not None)
        for text in (b'one', b'two'):
            link.data_received(peer.frame(TEXT, text))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert list(ws.input_buffer) == ['one', 'two']
        assert [await ws.receive(), await ws.receive()] == ['one', 'two']


async def test_a_second_receiver_gets_an_error_and_the_first_its_message(role):  # A21
    async with end(role) as (ws, peer):
        first = asyncio.ensure_future(ws.receive())
        await asyncio.sleep(0)
        with pytest.raises(SimpleWebsocketError, match='one receiver'):
            await ws.receive(timeout=0)
        await peer.send((TEXT, b'for the first'))
        assert await first == 'for the first'


async def test_pings_are_answered_while_nobody_receives(role):
    async with end(role) as (ws, peer):
        await peer.send((PING, b'1'), (TEXT, b'x'), (PING, b'2'))
        await peer.expect(PONG, b'1')
        await peer.expect(PONG, b'2')
        assert await ws.receive() == 'x'


async def test_concurrent_sends_never_interleave(role):  # A2
    async with end(role, compression=None) as (ws, peer):
        messages = [bytes([i]) * (i * 40_000) for i in range(1, 17)]
        tasks = [asyncio.ensure_future(ws.send(message)) for message in messages]
        await asyncio.sleep(0.01)
        assert not all(task.done() for task in tasks)
        await peer.send((PING, b'?'))
        got = [await peer.read() for _ in range(17)]
        await asyncio.gather(*tasks)
        assert [data for opcode, data in got if opcode == BINARY] == messages
        assert [data for opcode, data in got if opcode == PONG] == [b'?']


async def test_send_waits_for_a_slow_reader_and_16_mib_arrive_intact():  # B15
    ws, peer = await accepted(compression=None, max_queue=2)
    size, count = 1 << 20, 16
    blocks = [bytes([i]) * size for i in range(count)]

    async def echo():
        async for message in ws:
            await ws.send(message)

    echoing = asyncio.ensure_future(echo())
    sending = asyncio.ensure_future(peer.send(*[(BINARY, block) for block in blocks]))
    await until(lambda: ws._link.wire.full and not ws._link._reading)
    assert not sending.done()  # TCP pushes back
    assert len(ws.input_buffer) <= 2  # A20
    for block in blocks:
        await peer.expect(BINARY, block)
    await sending
    await peer.send(peer.close_frame(1000))
    await echoing
    assert ws.close_reason == 1000
    await peer.close()
    await ws._link.join(5)


async def test_a_send_that_runs_out_of_time_fails_the_connection(role):
    async with end(role, compression=None) as (ws, peer):
        receiving = asyncio.ensure_future(ws.receive())
        with pytest.raises(ConnectionClosed) as closed:
            await ws.send(bytes(32 << 20), timeout=0.05)
        assert closed.value.reason == 1006
        assert isinstance(closed.value.__cause__, TimeoutError)
        assert not ws.connected
        with pytest.raises(ConnectionClosed):
            await receiving
        with pytest.raises(ConnectionClosed):
            await ws.send('more')


async def test_a_send_cancelled_in_its_wait_fails_the_connection(role):
    async with end(role, compression=None) as (ws, peer):
        sending = asyncio.ensure_future(ws.send(bytes(32 << 20)))
        await until(lambda: ws._link.wire.full)
        sending.cancel()
        with pytest.raises(asyncio.CancelledError):
            await sending
        assert await closed_with(ws) == 1006


async def test_blocked_senders_are_released_when_the_peer_goes_away(role):
    async with end(role, compression=None) as (ws, peer):
        tasks = [asyncio.ensure_future(ws.send(bytes(16 << 20))) for _ in range(3)]
        await until(lambda: ws._link.wire.full)
        peer.writer.transport.abort()
        for result in await asyncio.gather(*tasks, return_exceptions=True):
            assert isinstance(result, ConnectionClosed) and result.reason == 1006


async def test_a_queue_that_is_full_stops_the_reading(role):  # A20
    async with end(role, max_queue=4) as (ws, peer):
        await peer.send(*[(TEXT, str(i).encode()) for i in range(100)])
        await until(lambda: not ws._link._reading)
        assert len(ws.input_buffer) == 4
        assert [await ws.receive() for _ in range(100)] == [str(i) for i in range(100)]
        await peer.send((TEXT, b'and on'))
        assert await ws.receive() == 'and on'


async def test_what_waits_behind_a_full_queue_survives_the_end(role):
    async with end(role, max_queue=2) as (ws, peer):
        await peer.send(*[(TEXT, str(i).encode()) for i in range(10)], peer.close_frame(1001))
        await peer.close()
        assert [await ws.receive() for _ in range(10)] == [str(i) for i in range(10)]
        assert await closed_with(ws) == 1001


async def test_other_tasks_get_a_turn_beside_a_full_queue(role):
    async with end(role, max_queue=10_000) as (ws, peer):
        await peer.send((TEXT, b'x') * 1, *[(TEXT, b'x')] * 4999)
        await until(lambda: len(ws.input_buffer) == 5000)
        turns = 0

        async def count():
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.ensure_future(count())
        for _ in range(5000):
            await ws.receive()
        counting.cancel()
        assert turns > 100


@pytest.mark.parametrize('text', ['ä' * 51, 'x' * 101])
async def test_the_limit_counts_bytes(role, text):  # A11
    async with end(role, max_message_size=100) as (ws, peer):
        await peer.send((TEXT, b'x' * 100), (TEXT, text.encode()))
        assert await ws.receive() == 'x' * 100
        assert await closed_with(ws) == 1009
        await peer.expect_close(1009)


async def test_both_roles_compress_and_either_can_be_told_not_to():  # A22
    for compression in (True, None):
        ws, peer = await accepted(compression=compression, request=DEFLATE)
        assert (b'permessage-deflate' in peer.response) is bool(compression)
        await ws.send('x' * 1000)
        opcode, data = await peer.read()
        if compression:
            assert opcode == TEXT | 0x40 and len(data) < 100
            plain = zlib.decompressobj(-15).decompress(data + b'\x00\x00\xff\xff')
            assert plain == b'x' * 1000
        else:
            assert (opcode, data) == (TEXT, b'x' * 1000)
        await peer.close()
        assert await closed_with(ws) == 1006
        await ws._link.join(5)
        ws, peer = await connected(compression=compression)
        assert (b'permessage-deflate' in peer.request) is bool(compression)
        await peer.close()
        assert await closed_with(ws) == 1006
        await ws._link.join(5)


async def test_a_violation_fails_the_connection(role):
    async with end(role) as (ws, peer):
        await peer.send((TEXT, b'fine'), (3, b'reserved'))
        assert await ws.receive() == 'fine'
        assert await closed_with(ws) == 1002
        await peer.expect_close(1002)


async def test_the_wrong_arguments_are_refused_before_anything_is_sent(role):
    async with end(role) as (ws, peer):
        for wrong in ('1', True):
            with pytest.raises(TypeError):
                await ws.receive(timeout=wrong)
            with pytest.raises(TypeError):
                await ws.send('x', timeout=wrong)
        with pytest.raises(ValueError):
            await ws.send('\ud800')
        await ws.send('ok')
        await peer.expect(TEXT, b'ok')


async def test_keepalive_pings_and_measures(role):
    async with end(role, ping_interval=0.02) as (ws, peer):
        assert ws.latency is None
        await peer.send((PONG, await peer.expect(PING)))
        await until(lambda: ws.latency is not None)
        assert 0 <= ws.latency < 5


async def test_a_silent_peer_is_disconnected_and_releases_receive(role):  # A25, B14
    async with end(role, ping_interval=0.02, ping_timeout=0.02, close_timeout=0.1) as (ws, peer):
        assert await closed_with(ws) == 1011
        await ws._link.join(5)
        await peer.expect(PING)
        await peer.expect_close(1011)


async def test_any_byte_is_a_sign_of_life(role):  # A14
    async with end(role, ping_interval=0.03, ping_timeout=0.03) as (ws, peer):
        for _ in range(12):
            await peer.send((TEXT, b'not a pong'))
            assert await ws.receive() == 'not a pong'
            await asyncio.sleep(0.01)
        assert ws.connected


async def test_a_connection_is_its_own_iterator_and_context(role):
    async with end(role, close_timeout=0.1) as (ws, peer):
        await peer.send((TEXT, b'a'), (TEXT, b'b'), peer.close_frame(1000))
        async with ws as same:
            assert same is ws
            assert [message async for message in ws] == ['a', 'b']
        await peer.expect_close(1000)


async def test_an_exception_in_the_block_closes_with_1011(role):
    async with end(role, close_timeout=0.1) as (ws, peer):
        with pytest.raises(LookupError):
            async with ws:
                raise LookupError
        await peer.expect_close(1011)


async def test_a_connection_that_nobody_holds_closes_its_socket_and_says_so(role):  # D8
    ws, peer = await (accepted if role == 'server' else connected)()
    link = ws._link
    with pytest.warns(ResourceWarning, match='unclosed <simple_websocket.Aio.* open>$'):
        del ws
        gc.collect()
    await link.join(5)
    await peer.expect_eof()
    await peer.close()


async def test_one_that_was_never_opened_says_so():
    ws = AioServer(None)
    assert not ws.connected
    assert repr(ws) == '<simple_websocket.AioServer not open>'
    with pytest.raises(SimpleWebsocketError, match='accept'):
        await ws.receive()


async def test_a_message_that_is_too_much_for_its_transport_at_once_is_waited_for(role):
    """A transport that writes in its own way, as one with TLS does."""
    async with end(role, compression=None) as (ws, peer):
        ws._link.wire.fileno = None
        large = b'x' * 16_000_000
        sending = asyncio.ensure_future(ws.send(large))
        await asyncio.sleep(0)
        assert not sending.done()
        assert await peer.expect(BINARY) == large
        await sending
