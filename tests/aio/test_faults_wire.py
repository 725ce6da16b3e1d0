"""Faults that come over the wire, on asyncio: docs/faults.rst, tables B and C."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import os
import resource
import socket
import tracemalloc

import pytest
from aio.peer import HEADERS, Peer, accepted, end, fds, listening, tcp_pair, until
from support.faults import (
    CLOSES,
    COMPRESSED,
    CORRUPT,
    INVALID_UTF8,
    OFFER,
    TALE,
    TEXT_OF_ALL_LENGTHS,
    VIOLATIONS,
    ZIPPED,
    bomb,
)
from support.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Frame, fragments, wire
from support.peer import KEY, switching

from simple_websocket import AioClient, AioServer, ConnectionClosed, ConnectionError, codec

MIB = 1 << 20
FAST = codec.NAME == 'compiled'  # a frame costs the other some forty times as much


async def ended(ws):
    with pytest.raises(ConnectionClosed) as closed:
        while await ws.receive(15) is not None:
            pass
    return closed.value.reason


async def put(peer, *frames):
    await peer.send(wire(frames, peer.client))


async def check_failure(ws, peer, frames, code):
    await put(peer, *frames, Frame(TEXT, b'not read'), Frame(PING, b'not answered'))
    assert await ended(ws) == code
    assert (ws.close_reason, ws.connected) == (code, False)
    with pytest.raises(ConnectionClosed):
        await ws.send('too late')
    await peer.expect_close(code)
    await peer.expect_eof()


async def zipped(role, **options):
    """A connection that has negotiated compression, and its peer."""
    if role == 'server':
        return await accepted(request={'Sec-WebSocket-Extensions': OFFER}, **options)
    theirs, ours = await tcp_pair()
    peer = Peer(*await asyncio.open_connection(sock=theirs), client=False)
    connecting = asyncio.ensure_future(AioClient.connect('ws://a.example', sock=ours, **options))
    agreed = b'permessage-deflate; server_max_window_bits=12'
    await peer.send(switching(await peer.head(), b'Sec-WebSocket-Extensions: ' + agreed))
    return await connecting, peer


async def let_go(ws, peer):
    await peer.close()
    ws._link.give_up()
    await ws._link.join(5)


# B1


@pytest.mark.parametrize('frames', VIOLATIONS.values(), ids=VIOLATIONS)
async def test_a_violation_fails_the_connection(role, frames):
    async with end(role) as (ws, peer):
        await check_failure(ws, peer, frames, 1002)


# B2


@pytest.mark.parametrize('before', [0, 1], ids=['the first frame', 'a later fragment'])
async def test_a_header_over_the_limit_fails_before_the_payload(role, before):
    async with end(role, max_message_size=1000) as (ws, peer):
        start = [Frame(BINARY, bytes(500), False)] * before
        size = 1001 - 500 * before
        await put(peer, *start, Frame(CONTINUATION if before else BINARY, length=size))
        await peer.expect_close(1009)
        await peer.expect_eof()
        assert await ended(ws) == 1009


# B3, B8


@pytest.mark.parametrize(('frames', 'messages'), COMPRESSED.values(), ids=COMPRESSED)
async def test_a_compressed_message_in_any_form_is_read(role, frames, messages):
    ws, peer = await zipped(role)
    await put(peer, *frames, *frames)
    assert [await ws.receive() for _ in messages * 2] == messages * 2
    for frame in frames * 2:
        if frame.opcode == PING:
            await peer.expect(PONG, frame.payload)
    await let_go(ws, peer)


@pytest.mark.parametrize('frames', CORRUPT.values(), ids=CORRUPT)
async def test_corrupt_compressed_data_fails_the_connection(role, frames):
    ws, peer = await zipped(role)
    await check_failure(ws, peer, frames, 1007)
    await let_go(ws, peer)


# B4


async def test_a_ping_flood_from_a_peer_that_never_reads_takes_no_memory(role):
    async with end(role) as (ws, peer):
        peer.writer.transport.pause_reading()
        for sock, option in (
            (peer.writer.get_extra_info('socket'), socket.SO_RCVBUF),
            (ws.sock, socket.SO_SNDBUF),
        ):
            sock.setsockopt(socket.SOL_SOCKET, option, 4096)
        flood = peer.frame(PING, bytes(125)) * 1000
        receiving = asyncio.ensure_future(ws.receive())
        tracemalloc.start()
        for _ in range(60 if FAST else 10):
            await peer.send(flood)
        await peer.send((PING, b'the last'), (TEXT, b'heard all the same'))
        assert await receiving == 'heard all the same'
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 2 * MIB
        peer.writer.transport.resume_reading()
        pongs = 0
        while (got := await peer.read()) == (PONG, bytes(125)):
            pongs += 1
        assert got == (PONG, b'the last')
        assert pongs < 5000


# B5


async def test_many_empty_messages_leave_others_served():
    ws, peer = await accepted()
    other, friend = await accepted()
    count = 200_000 if FAST else 20_000
    flood = peer.frame(TEXT) * (count // 100)

    async def receive():
        for _ in range(count):
            assert await ws.receive() == ''

    async def send():
        for _ in range(100):
            await peer.send(flood)

    tasks = [asyncio.ensure_future(receive()), asyncio.ensure_future(send())]
    rounds = 0
    while not tasks[0].done():
        await friend.send((TEXT, b'x'))
        await other.send(await asyncio.wait_for(other.receive(), 3))
        await asyncio.wait_for(friend.expect(TEXT, b'x'), 3)
        rounds += 1
    await asyncio.gather(*tasks)
    assert rounds > 20
    for one in ((ws, peer), (other, friend)):
        await let_go(*one)


async def test_a_fin_that_never_comes_ends_at_the_limits(role):
    for fragment, options in [
        (Frame(CONTINUATION, b'', False), {} if FAST else {'max_fragments': 10_000}),
        (Frame(CONTINUATION, bytes(1000), False), {'max_message_size': MIB}),
    ]:
        async with end(role, **options) as (ws, peer):
            many = wire([fragment], peer.client) * 100

            async def flood(peer=peer, many=many):
                await put(peer, Frame(BINARY, b'x', False))
                while True:
                    await peer.send(many)

            tracemalloc.start()
            flooding = asyncio.ensure_future(flood())
            assert await ended(ws) == 1009
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            assert peak < 8 * MIB
            flooding.cancel()
            await asyncio.gather(flooding, return_exceptions=True)
            await peer.expect_close(1009)


# B6


async def test_one_byte_a_segment_gives_the_same(role):
    ws, peer = await zipped(role)
    frames = [
        *fragments(TEXT, *(b'%c' % byte for byte in TEXT_OF_ALL_LENGTHS.encode())),
        Frame(PING, b'ping'),
        *fragments(BINARY, ZIPPED[:20], ZIPPED[20:], compressed=True),
        Frame(CLOSE, b'\x0f\xa0bye'),
    ]
    data = wire(frames, peer.client)
    for at in range(len(data)):
        await peer.send(data[at : at + 1])
        await asyncio.sleep(0)
    assert [await ws.receive() for _ in range(2)] == [TEXT_OF_ALL_LENGTHS, TALE]
    assert (await ended(ws), ws.close_message) == (4000, 'bye')
    await peer.expect(PONG, b'ping')
    await peer.expect_close(4000)
    await let_go(ws, peer)


# B7


@pytest.mark.parametrize('before', [0, 1], ids=['at once', 'over context takeover'])
@pytest.mark.parametrize('pieces', [1, 40], ids=['single', 'fragmented'])
async def test_a_deflate_bomb_is_stopped_in_bounded_memory(role, pieces, before):
    ws, peer = await zipped(role, max_message_size=MIB)
    frames = [Frame(BINARY, ZIPPED, rsv=4)] * before + bomb(100 * MIB, pieces)
    data = wire(frames, peer.client)
    tracemalloc.start()
    await peer.send(data)
    assert [await ws.receive() for _ in range(before)] == [TALE] * before
    assert await ended(ws) == 1009
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 3 * MIB + 4 * len(data)
    await peer.expect_close(1009)
    await let_go(ws, peer)


# B9, B10


@pytest.mark.parametrize('frames', INVALID_UTF8.values(), ids=INVALID_UTF8)
async def test_invalid_utf8_fails_as_soon_as_it_is_there(role, frames):
    async with end(role) as (ws, peer):
        await put(peer, *frames)  # and no more
        await peer.expect_close(1007)
        await peer.expect_eof()
        assert await ended(ws) == 1007


@pytest.mark.parametrize(('payload', 'code', 'answer'), CLOSES.values(), ids=CLOSES)
async def test_a_close_is_echoed_or_is_a_violation(role, payload, code, answer):
    async with end(role) as (ws, peer):
        await put(peer, Frame(CLOSE, payload))
        assert await ended(ws) == code
        if isinstance(answer, bytes):
            await peer.expect(CLOSE, answer)
        else:
            await peer.expect_close(answer)


# B12


async def test_what_follows_a_close_is_discarded(role):
    async with end(role) as (ws, peer):
        late = [Frame(TEXT, b'late'), Frame(PING, b'late'), Frame(CLOSE, b'\x0f\xa1'), Frame(3)]
        await put(peer, Frame(TEXT, b'in time'), Frame(CLOSE, b'\x0f\xa0'), *late)
        assert await ws.receive() == 'in time'
        assert await ended(ws) == 4000
        await peer.expect_close(4000)
        if peer.client:
            await peer.expect_eof()


# B13


WAYS = {'FIN': lambda peer: peer.writer.close(), 'RST': Peer.reset}
WAYS_TO_END = {**WAYS, 'half a close': lambda peer: peer.writer.write_eof()}


@pytest.mark.parametrize('way', WAYS_TO_END.values(), ids=WAYS_TO_END)
@pytest.mark.parametrize('at', [0, 1, 4, 50], ids=['between', 'header', 'mask', 'payload'])
async def test_the_end_of_tcp_anywhere_is_1006(role, at, way):
    async with end(role) as (ws, peer):
        await peer.send((TEXT, b'whole'), peer.frame(BINARY, bytes(100))[:at])
        assert await ws.receive() == 'whole'
        way(peer)
        assert await ended(ws) == 1006
        assert (ws.close_reason, ws.close_message) == (1006, None)


# B15


async def test_a_send_that_runs_out_of_time_fails_that_connection_alone(role):
    async with end(role, compression=None) as (slow, _), end(role) as (good, peer):
        sending = asyncio.ensure_future(slow.send(bytes(32 * MIB), timeout=0.2))
        await until(lambda: slow._link.wire.full)
        await good.send('meanwhile')
        await peer.expect(TEXT, b'meanwhile')
        with pytest.raises(ConnectionClosed) as closed:
            await sending
        assert closed.value.reason == 1006 and not slow.connected
        await good.send('still here')
        await peer.expect(TEXT, b'still here')


# C3


@pytest.mark.parametrize('poison', ['\r\nX: y', '\0', '\u20ac'])
async def test_what_can_not_be_in_a_header_is_refused_before_a_byte_is_sent(poison):
    one, two = socket.socketpair()
    with one, two:
        two.setblocking(False)
        url = 'ws://a.example/'
        for wrong in (
            {'url': f'{url}{poison}'},
            {'url': url, 'subprotocols': f'a{poison}'},
            {'url': url, 'headers': {'X': f'y{poison}z'}},
            {'url': url, 'headers': {'Origin': f'http://a{poison}'}},
        ):
            with pytest.raises(ValueError):
                await AioClient.connect(**wrong, sock=one)
        for wrong in ({'subprotocols': [f'a{poison}']},):
            with pytest.raises(ValueError):
                await AioServer.accept(sock=one, headers=HEADERS, **wrong)
        with pytest.raises(BlockingIOError):
            two.recv(1)


# C4


LIES = {
    'a wrong token': lambda response: response.replace(b'Accept: ', b'Accept: x'),
    'no token': lambda response: response.replace(b'Sec-WebSocket-Accept', b'X-Other'),
    'an unasked subprotocol': lambda response: (
        response[:-2] + b'Sec-WebSocket-Protocol: chat\r\n\r\n'
    ),
    'an endless head': lambda _: b'HTTP/1.1 101 X\r\nX: ' + b'y' * 1_000_000,
    'endless 103': lambda _: b'HTTP/1.1 103 Early Hints\r\n\r\n' * 10_000,
}


@pytest.mark.parametrize('lie', LIES.values(), ids=LIES)
async def test_a_server_that_lies_is_a_connection_error(lie):
    async def serve(peer):
        try:
            await peer.send(lie(switching(await peer.head())))
        except OSError:
            pass  # the client has heard enough

    async with listening(serve) as port:
        with pytest.raises(ConnectionError) as refused:
            await AioClient.connect(f'ws://127.0.0.1:{port}')
        assert refused.value.status_code is None


# C6


@pytest.mark.parametrize('hang_up', WAYS.values(), ids=WAYS)
async def test_a_server_that_is_gone_at_any_byte_of_its_response(hang_up):
    at = 0

    async def serve(peer):
        await peer.send(switching(await peer.head())[:at])
        hang_up(peer)

    size = len(switching(f'GET\r\nSec-WebSocket-Key: {KEY}'.encode()))
    gc.collect()
    async with listening(serve) as port:
        before = fds()
        for count in range(size):
            at = count
            with pytest.raises(ConnectionError) as refused:
                await AioClient.connect(f'ws://127.0.0.1:{port}')
            assert refused.value.status_code is None
        await until(lambda: fds() <= before)


@pytest.mark.parametrize('hang_up', WAYS.values(), ids=WAYS)
async def test_a_client_that_is_gone_at_any_byte_of_our_response(hang_up):
    ws, peer = await accepted()
    size = len(peer.response) + 4
    await let_go(ws, peer)
    gc.collect()
    before = fds()
    for read in range(size + 1):
        theirs, ours = await tcp_pair()
        reader, writer = await asyncio.open_connection(sock=theirs)
        ws = await AioServer.accept(sock=ours, headers=HEADERS)
        await reader.readexactly(read)
        hang_up(Peer(reader, writer, client=True))
        assert await ended(ws) == 1006
        await ws._link.join(5)
    await until(lambda: fds() <= before)


# D6


async def test_five_thousand_connections_that_are_killed_leave_nothing():
    async def cycle(number):
        # TCP has not ports enough for all of them.
        theirs, ours = socket.socketpair() if number % 8 else await tcp_pair()
        ws = await AioServer.accept(sock=ours, headers=HEADERS)
        if number % 3 == 0:
            theirs.close()
            assert await ended(ws) == 1006
        elif number % 3 == 1:
            theirs.send(b'\x82\xfe\x10')
            receiving = asyncio.ensure_future(ws.receive())
            await asyncio.sleep(0)
            receiving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await receiving
            theirs.close()
            assert await ended(ws) == 1006
        else:
            ws._link.give_up()
            theirs.close()
        await ws._link.join(5)

    for number in range(300):
        await cycle(number)
    gc.collect()
    before, tasks, memory = fds(), len(asyncio.all_tasks()), resident()
    for number in range(5000):
        await cycle(number)
    gc.collect()
    await until(lambda: fds() <= before and len(asyncio.all_tasks()) <= tasks)
    assert resident() - memory < 6 * MIB


def resident():
    with open('/proc/self/statm') as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


async def test_a_thousand_idle_connections_cost_little_each(record_property):
    count = 1000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8192)), hard))
    pairs = [await tcp_pair() for _ in range(count)]
    try:
        memory = resident()
        tracemalloc.start()
        connections = [await AioServer.accept(sock=ours, headers=HEADERS) for _, ours in pairs]
        each = tracemalloc.get_traced_memory()[0] / count
        tracemalloc.stop()
        # Of this, what an earlier test has given back is no part.
        record_property('resident bytes an idle connection', (resident() - memory) // count)
        record_property('allocated bytes an idle connection', round(each))
        print(f'{each / 1024:.1f} KiB for an idle connection')
        assert 1024 < each < 24 * 1024
        for theirs, _ in pairs:
            theirs.close()
        for ws in connections:
            assert await ended(ws) == 1006
            await ws._link.join(5)
    finally:
        for one in pairs:
            for sock in one:
                sock.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_out_of_descriptors_is_an_oserror():
    async def serve(peer):
        with contextlib.suppress(EOFError, OSError):
            await peer.send(switching(await peer.head()))

    async with listening(serve) as port:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, soft), hard))
        taken = []
        try:
            with contextlib.suppress(OSError):
                while True:
                    taken.append(os.dup(0))
            with pytest.raises(OSError) as failed:
                await AioClient.connect(f'ws://127.0.0.1:{port}')
            assert failed.value.errno == errno.EMFILE
        finally:
            for fd in taken:
                os.close(fd)
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        before = fds()
        ws = await AioClient.connect(f'ws://127.0.0.1:{port}')
        ws._link.give_up()
        await ws._link.join(5)
        await until(lambda: fds() <= before)
