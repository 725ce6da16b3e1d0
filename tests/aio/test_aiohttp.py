"""Inside aiohttp: the transport changes hands, and nobody notices after."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import ssl
from types import SimpleNamespace

import aiohttp
import pytest
import trustme
from aio.peer import HEADERS, Peer, fds, until
from aiohttp import web
from support.frames import BINARY, CLOSE, PING, PONG, TEXT, frame
from websockets.asyncio.client import connect

from simple_websocket import AioClient, AioServer, ConnectionClosed, ConnectionError


@contextlib.asynccontextmanager
async def application(handler, context=None, middlewares=(), **options):
    app = web.Application(middlewares=middlewares)
    app.router.add_route('*', '/', handler)
    runner = web.AppRunner(app, **options)
    await runner.setup()
    site = web.TCPSite(runner, '127.0.0.1', 0, ssl_context=context)
    await site.start()
    try:
        yield SimpleNamespace(port=runner.addresses[0][1], runner=runner)
    finally:
        await asyncio.wait_for(runner.cleanup(), 5)


async def raw(port, data=b'', method='GET', version='1.1', **headers):
    """Send a request and what follows it in the same packet."""
    fields = {**HEADERS, **{name.replace('_', '-'): value for name, value in headers.items()}}
    lines = [f'{method} / HTTP/{version}', *(f'{k}: {v}' for k, v in fields.items() if v)]
    reader, writer = await asyncio.open_connection('127.0.0.1', port)
    peer = Peer(reader, writer, client=True)
    writer.write('\r\n'.join([*lines, '', '']).encode() + data)
    return peer


async def echo(request):
    ws = await AioServer.accept(aiohttp=request)
    async for message in ws:
        await ws.send(message)
    return web.Response()


@pytest.fixture
def tls():
    authority = trustme.CA()
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert('localhost').configure_cert(server)
    client = ssl.create_default_context()
    authority.configure_trust(client)
    return server, client


async def test_another_library_echoes():
    async with application(echo) as app:
        async with connect(f'ws://127.0.0.1:{app.port}/', max_size=None) as there:
            for message in ('text', b'binary', 'ä' * 200_000):
                await there.send(message)
                assert await there.recv() == message
        assert there.close_code == 1000


async def test_16_mib_to_a_slow_reader_arrive_intact():
    async with application(echo) as app:
        async with AioClient(f'ws://127.0.0.1:{app.port}/', compression=None) as there:
            message = b'0123456789abcdef' * (1 << 20)
            sending = asyncio.ensure_future(there.send(message))
            await asyncio.sleep(0.05)
            assert await there.receive() == message
            await sending


async def test_over_tls(tls):
    server, client = tls
    async with application(echo, server) as app:
        url = f'wss://localhost:{app.port}/'
        async with aiohttp.ClientSession() as session:
            async with session.ws_connect(url, ssl=client, max_msg_size=0) as there:
                await there.send_str('text')
                assert await there.receive_str() == 'text'
                await there.send_bytes(bytes(3_000_000))
                assert await there.receive_bytes() == bytes(3_000_000)
            assert there.close_code == 1000
        async with AioClient(url, ssl_context=client) as there:
            await there.send('x' * 12_000)
            assert await there.receive() == 'x' * 12_000


async def test_who_is_still_sending_over_tls_is_told_why_it_was_closed(tls):
    """TLS ends both ways at once by itself, and then resets a peer that has not heard."""
    server, client = tls

    async def handler(request):
        ws = await AioServer.accept(aiohttp=request, max_message_size=1000)
        with pytest.raises(ConnectionClosed) as closed:
            await ws.receive()
        assert closed.value.reason == 1009
        return web.Response()

    def talk(port):
        sock = socket.create_connection(('127.0.0.1', port), timeout=10)
        with client.wrap_socket(sock, server_hostname='localhost') as there:
            lines = ['GET / HTTP/1.1', *(f'{k}: {v}' for k, v in HEADERS.items())]
            there.sendall('\r\n'.join([*lines, '', '']).encode())
            with there.makefile('rb') as file:
                while file.readline() != b'\r\n':
                    pass
                message = frame(BINARY, bytes(16 << 20), masked=True)
                there.sendall(message[:2000])
                assert file.read(4)[2:] == (1009).to_bytes(2, 'big')
            there.sendall(message[2000:])  # more than TCP takes by itself

    async with application(handler, server) as app:
        await asyncio.to_thread(talk, app.port)
        await until(lambda: not app.runner.server.connections)


async def test_frames_in_the_packet_of_the_request_are_not_lost():
    async def slow(request):
        await asyncio.sleep(0.01)
        return await echo(request)

    async with application(slow) as app:
        data = frame(TEXT, b'first', masked=True) + frame(PING, b'?', masked=True)
        peer = await raw(app.port, data)
        await peer.head()
        got = [await peer.read(), await peer.read()]
        assert sorted(got) == [(TEXT, b'first'), (PONG, b'?')]
        await peer.send((TEXT, b'second'), peer.close_frame(1000))
        await peer.expect(TEXT, b'second')
        await peer.expect_close(1000)
        await peer.expect_eof()
        await peer.close()


@pytest.mark.parametrize('returned', [web.Response, lambda: None, lambda: 'text'])
async def test_whatever_the_handler_returns_goes_nowhere(returned, caplog):  # A24
    async def handler(request):
        ws = await AioServer.accept(aiohttp=request)
        with contextlib.suppress(ConnectionClosed):
            await ws.receive()
        return returned()

    caplog.set_level(logging.DEBUG)
    async with application(handler, tcp_keepalive=True) as app:
        peer = await raw(app.port)
        assert (await peer.head()).startswith(b'HTTP/1.1 101 ')
        await peer.send(peer.close_frame(1000))
        await peer.expect_close(1000)
        await peer.expect_eof()
        await peer.close()
    access = [r.getMessage() for r in caplog.records if r.name == 'aiohttp.access']
    assert len(access) == 1 and '"GET / HTTP/1.1" 101 ' in access[0]


@pytest.mark.parametrize('returned', [web.Response, lambda: None])
async def test_a_connection_left_open_is_closed_when_the_handler_returns(returned):
    async def handler(request):
        ws = await AioServer.accept(aiohttp=request)
        await ws.send('bye')
        return returned()

    async with application(handler) as app:
        peer = await raw(app.port)
        await peer.head()
        await peer.expect(TEXT, b'bye')
        await peer.expect_close(1000)
        with pytest.raises(asyncio.TimeoutError):  # our answer is waited for
            await asyncio.wait_for(peer.reader.read(1), 0.03)
        await peer.send(peer.close_frame(1000))
        await peer.expect_eof()
        await peer.close()


async def test_a_handler_that_raises_closes_with_1011(caplog):  # D2
    async def handler(request):
        await AioServer.accept(aiohttp=request)
        raise LookupError('a bug')

    async with application(handler) as app:
        peer = await raw(app.port)
        await peer.head()
        await peer.expect_close(1011)
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(peer.reader.read(1), 0.03)
        await peer.send(peer.close_frame(1011))
        await peer.expect_eof()
        await peer.close()
    (record,) = [r for r in caplog.records if r.levelno >= logging.WARNING]
    assert isinstance(record.exc_info[1], LookupError)  # that one is for the log
    caplog.clear()


async def test_connection_closed_is_no_error_of_the_handler():
    async def handler(request):
        ws = await AioServer.accept(aiohttp=request)
        while True:
            await ws.receive()

    async with application(handler) as app:
        peer = await raw(app.port)
        await peer.head()
        await peer.close()


@pytest.mark.parametrize(
    ('request_', 'status'),
    [
        ({'Upgrade': None, 'Connection': None}, 426),  # A15
        ({'method': 'POST', 'Content_Length': '0'}, 405),
        ({'version': '1.0'}, 400),
        ({'Sec_WebSocket_Key': 'x'}, 400),
        ({'Sec_WebSocket_Version': '12'}, 426),
        ({'Origin': 'http://evil.example'}, 403),
    ],
)
async def test_a_request_that_is_no_upgrade_is_answered_once(request_, status):
    errors = []

    async def handler(request):
        try:
            await AioServer.accept(aiohttp=request, origins='same')
        except ConnectionError as error:
            errors.append(error.status_code)
            raise

    async with application(handler) as app:
        peer = await raw(app.port, **request_)
        response = await peer.reader.read()  # until TCP ends
        assert response.startswith(f'HTTP/1.1 {status} '.encode())
        assert response.count(b'HTTP/1.1 ') == 1
        assert (b'Sec-WebSocket-Version: 13' in response) is (status in (400, 426))
        await peer.close()
    assert errors == [status]


async def test_mistakes_of_the_caller_leave_the_request_to_aiohttp(caplog):
    async def handler(request):
        with pytest.raises(ValueError):
            await AioServer.accept(aiohttp=request, origins='*')
        return web.Response(text='still HTTP')

    async with application(handler) as app:
        peer = await raw(app.port, Connection='close, Upgrade')
        assert (await peer.reader.read()).endswith(b'still HTTP')
        await peer.close()


async def test_a_request_can_be_accepted_once():
    async def handler(request):
        async with await AioServer.accept(aiohttp=request) as ws:
            with pytest.raises(RuntimeError, match='already'):
                await AioServer.accept(aiohttp=request)
            await ws.send('fine')

    async with application(handler) as app:
        async with connect(f'ws://127.0.0.1:{app.port}/') as there:
            assert await there.recv() == 'fine'


async def test_attributes_and_the_constructor():
    async def handler(request):
        async with AioServer(request, ['v2', 'v1']) as ws:
            assert ws.mode == 'aiohttp' and ws.request is request
            assert ws.sock.getpeername()[0] == request.remote == '127.0.0.1'
            await ws.send(ws.subprotocol)

    async with application(handler) as app:
        async with AioClient(f'ws://127.0.0.1:{app.port}/', ['v1', 'v2']) as there:
            assert await there.receive() == there.subprotocol == 'v1'


async def test_choose_subprotocol_can_be_overridden():
    class Last(AioServer):
        def choose_subprotocol(self, request):
            return request.subprotocols[-1]

    async def handler(request):
        await (await Last.accept(aiohttp=request)).close()

    async with application(handler) as app:
        async with AioClient(f'ws://127.0.0.1:{app.port}/', ['v1', 'v2']) as there:
            assert there.subprotocol == 'v2'


async def test_the_application_shuts_down_with_open_connections():
    closed = []

    async def handler(request):
        ws = await AioServer.accept(aiohttp=request)
        try:
            await ws.receive()
        except ConnectionClosed as error:
            closed.append(error.reason)

    async with application(handler) as app:
        there = await AioClient.connect(f'ws://127.0.0.1:{app.port}/')
        reading = asyncio.ensure_future(there.receive())
        await asyncio.wait_for(app.runner.cleanup(), 5)
        with pytest.raises(ConnectionClosed):
            await reading
        assert there.close_reason == 1001
    assert closed == [1001]


async def test_the_answer_to_head_has_no_body():
    """aiohttp gives HEAD to the route of GET."""

    async def handler(request):
        with pytest.raises(ConnectionError):
            await AioServer.accept(aiohttp=request)
        return web.Response()

    async with application(handler) as app:
        peer = await raw(app.port, method='HEAD')
        response = await peer.reader.read()
        assert response.startswith(b'HTTP/1.1 405 ') and response.endswith(b'\r\n\r\n')
        await peer.close()


async def test_the_end_of_the_application_waits_for_a_handler_whose_client_is_gone():
    tidying, tidy = asyncio.Event(), asyncio.Event()
    done = []

    async def handler(request):
        ws = await AioServer.accept(aiohttp=request)
        async for _ in ws:
            pass
        tidying.set()
        await tidy.wait()
        done.append(True)

    async with application(handler) as app:
        there = await AioClient.connect(f'ws://127.0.0.1:{app.port}/')
        await there.close()
        await tidying.wait()
        ending = asyncio.ensure_future(app.runner.cleanup())
        for _ in range(20):
            await asyncio.sleep(0)
        assert not ending.done()
        tidy.set()
        await asyncio.wait_for(ending, 5)
        assert done == [True]


async def test_the_application_shuts_down_in_time_with_a_silent_peer():
    async def handler(request):
        ws = await AioServer.accept(aiohttp=request, close_timeout=0.05)
        async for _ in ws:
            pass

    async with application(handler) as app:
        peer = await raw(app.port)
        await peer.head()
        await asyncio.wait_for(app.runner.cleanup(), 5)
        await peer.expect_close(1001)
        await peer.expect_eof()
        await peer.close()


async def test_the_keepalive_timer_of_the_http_server_does_not_strike():
    async with application(echo, keepalive_timeout=0.02) as app:
        peer = await raw(app.port)
        await peer.head()
        await asyncio.sleep(0.06)
        await peer.send((TEXT, b'x'), peer.close_frame(1000))
        await peer.expect(TEXT, b'x')
        await peer.expect_close(1000)
        await peer.close()


async def test_a_silent_peer_is_disconnected():  # A25
    ended = []

    async def handler(request):
        ws = await AioServer.accept(aiohttp=request, ping_interval=0.02, close_timeout=0.05)
        async for _ in ws:
            pass
        ended.append(ws.close_reason)

    async with application(handler) as app:
        peer = await raw(app.port)
        await peer.head()
        await peer.expect(PING)
        opcode, payload = await peer.read()
        while opcode == PING:
            opcode, payload = await peer.read()
        assert (opcode, payload[:2]) == (CLOSE, b'\x03\xf3')
        await peer.expect_eof()
        await peer.close()
    assert ended == [1011]


async def test_middlewares_and_the_peer_going_away_in_a_send():
    @web.middleware
    async def middleware(request, handler):
        response = await handler(request)
        response.headers['X-Seen'] = 'yes'
        return response

    async def handler(request):
        ws = await AioServer.accept(aiohttp=request, compression=None)
        with pytest.raises(ConnectionClosed):
            await ws.send(bytes(32 << 20))
        return web.Response()

    async with application(handler, middlewares=[middleware]) as app:
        peer = await raw(app.port)
        await peer.head()
        peer.writer.transport.abort()


async def test_two_hundred_connections_leave_nothing(tls):
    server, client = tls
    async with application(echo) as plain, application(echo, server) as secure:

        async def cycle(i):
            url = f'wss://localhost:{secure.port}/' if i % 4 == 0 else f'ws://localhost:{plain.port}/'
            context = client if i % 4 == 0 else None
            ws = await AioClient.connect(url, ssl_context=context)
            await ws.send('x')
            assert await ws.receive() == 'x'
            if i % 2:
                ws._link.give_up()
            else:
                await ws.close()
            await ws._link.join(5)

        await cycle(0)
        await cycle(1)
        servers = plain.runner.server, secure.runner.server
        await until(lambda: not any(s.connections for s in servers))
        before, tasks = fds(), len(asyncio.all_tasks())
        for i in range(200):
            await cycle(i)
        await until(lambda: fds() <= before and len(asyncio.all_tasks()) <= tasks)
        await until(lambda: not any(s.connections for s in servers))


async def test_a_request_whose_client_has_gone():
    seen = asyncio.get_running_loop().create_future()
    go_on = asyncio.Event()

    requests = []

    async def handler(request):
        requests.append(request)
        await go_on.wait()
        try:
            await AioServer.accept(aiohttp=request)
        except ConnectionError as error:
            seen.set_result(error.status_code)

    async with application(handler) as app:
        peer = await raw(app.port)
        await until(lambda: requests)
        peer.reset()
        await until(lambda: requests[0].transport is None)
        go_on.set()
        assert await seen is None


@pytest.mark.parametrize('closer', ['handler', 'client'])
async def test_a_handler_that_has_closed_is_not_cancelled(closer):
    """``handler_cancellation`` is for clients that were lost."""
    ends = []

    async def handler(request):
        async with await AioServer.accept(aiohttp=request) as ws:
            if closer == 'handler':
                await ws.close(4000)
            else:
                async for _ in ws:
                    pass
        await asyncio.sleep(0.01)
        ends.append(ws.close_reason)
        return web.Response()

    async with application(handler, handler_cancellation=True) as app:
        async with AioClient(f'ws://127.0.0.1:{app.port}/') as there:
            if closer == 'client':
                await there.close(4000)
            else:
                with pytest.raises(ConnectionClosed):
                    await there.receive()
        await until(lambda: ends == [4000])


async def test_a_logger_that_is_none_of_logging_is_logged_to():
    """gunicorn's aiohttp worker passes its own."""
    said = []
    logger = SimpleNamespace(
        debug=lambda *args, **_: None,
        exception=lambda *args, **_: said.append(args[0]),
    )

    async def handler(request):
        ws = await AioServer.accept(aiohttp=request)
        request.protocol.logger._logger = logger
        await ws.send('hello')
        raise ZeroDivisionError

    async with application(handler) as app:
        async with AioClient(f'ws://127.0.0.1:{app.port}/') as there:
            assert await there.receive() == 'hello'
            with pytest.raises(ConnectionClosed) as closed:
                await there.receive()
        assert closed.value.reason == 1011
    assert len(said) == 1
