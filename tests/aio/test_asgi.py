"""Inside ASGI servers: a scripted one, uvicorn and hypercorn."""

from __future__ import annotations

import asyncio
import contextlib
import socket

import hypercorn.asyncio
import hypercorn.config
import pytest
import uvicorn
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from simple_websocket import (
    AioClient,
    AioServer,
    ConnectionClosed,
    ConnectionError,
    SimpleWebsocketError,
    handshake,
)
from simple_websocket.asgi import WebSocketASGI


class Script:
    """An ASGI server that gives what it is given and keeps what it gets."""

    def __init__(self, *events, subprotocols=(), headers=(), **scope):
        self.scope = {
            'type': 'websocket',
            'scheme': 'ws',
            'path': '/',
            'query_string': b'',
            'headers': list(headers),
            'subprotocols': list(subprotocols),
            **scope,
        }
        self.events = asyncio.Queue()
        self.sent = []
        self.error = None
        for event in ({'type': 'websocket.connect'}, *events):
            self.events.put_nowait(event)

    async def send(self, event):
        if self.error is not None:
            raise self.error
        self.sent.append(event)

    async def accept(self, **options):
        return await AioServer.accept(asgi=(self.scope, self.events.get, self.send), **options)


def text(data):
    return {'type': 'websocket.receive', 'text': data}


async def closed_with(ws):
    with pytest.raises(ConnectionClosed) as closed:
        await asyncio.wait_for(ws.receive(), 5)
    return closed.value.reason, closed.value.message


async def test_messages_with_absent_and_with_empty_fields():  # A25
    script = Script(
        {'type': 'websocket.receive', 'text': None, 'bytes': b'1'},
        {'type': 'websocket.receive', 'bytes': b''},
        {'type': 'websocket.receive', 'text': '', 'bytes': None},
        text('ä'),
    )
    ws = await script.accept()
    assert isinstance(ws, WebSocketASGI) and ws.connected and ws.mode == 'asgi'
    assert [await ws.receive() for _ in range(4)] == [b'1', b'', '', 'ä']
    await ws.close()


@pytest.mark.parametrize(
    ('event', 'reason', 'message'),
    [
        ({'code': 4001, 'reason': 'bye'}, 4001, 'bye'),
        ({'code': 1001}, 1001, None),
        ({'code': 1001, 'reason': ''}, 1001, None),
        ({'code': None}, 1005, None),
        ({}, 1005, None),
    ],
)
async def test_the_code_of_a_disconnect_is_kept(event, reason, message):  # A25
    ws = await Script(text('first'), {'type': 'websocket.disconnect', **event}).accept()
    assert await ws.receive() == 'first'
    for _ in range(3):
        assert await closed_with(ws) == (reason, message)
    assert (ws.connected, ws.close_reason, ws.close_message) == (False, reason, message)
    for call in (ws.send('x'), ws.close()):
        with pytest.raises(ConnectionClosed):
            await call


@pytest.mark.parametrize(
    ('data', 'event'),
    [
        ('x', {'text': 'x'}),
        (7, {'text': '7'}),
        (b'x', {'bytes': b'x'}),
        (bytearray(b'x'), {'bytes': b'x'}),
        (memoryview(b'xyz')[::2], {'bytes': b'xz'}),
    ],
)
async def test_send_takes_what_it_is_given(data, event):
    script = Script()
    ws = await script.accept()
    await ws.send(data)
    sent = script.sent[1]
    assert sent == {'type': 'websocket.send', **event}
    assert type(next(iter(event.values()))) in map(type, sent.values())
    await ws.close(4000, 'done')
    assert script.sent[2] == {'type': 'websocket.close', 'code': 4000, 'reason': 'done'}
    assert await closed_with(ws) == (4000, 'done')


async def test_subprotocols_are_chosen_by_default_and_by_a_subclass():
    script = Script(subprotocols=['a', 'b', 'c'])
    ws = await script.accept(subprotocols=['c', 'b'])
    assert ws.subprotocol == 'b' == script.sent[0]['subprotocol']
    await ws.close()

    class Last(AioServer):
        def choose_subprotocol(self, request):
            return request.subprotocols[-1]

    script = Script(subprotocols=['a', 'b', 'c'])
    ws = await Last.accept(asgi=(script.scope, script.events.get, script.send))
    assert ws.subprotocol == 'c'
    await ws.close()
    script = Script(subprotocols=['a'])
    ws = await WebSocketASGI.accept(script.scope, script.events.get, script.send, 'a')
    assert ws.subprotocol == 'a'
    await ws.close()


async def test_an_origin_that_is_not_allowed_is_refused_before_the_accept():
    headers = [(b'origin', b'https://evil.example'), (b'host', b'good.example')]
    script = Script(headers=headers)
    with pytest.raises(ConnectionError) as refused:
        await script.accept(origins='same')
    assert refused.value.status_code == 403
    assert script.sent == [{'type': 'websocket.close'}]
    script = Script(headers=headers)
    await (await script.accept(origins='https://evil.example')).close()


async def test_origins_are_parsed_once_a_connection(monkeypatch):
    parsed = []
    parse = handshake.parse_origins

    def noting(option):
        if not isinstance(option, handshake.Origins):
            parsed.append(option)
        return parse(option)

    monkeypatch.setattr(handshake, 'parse_origins', noting)
    script = Script(headers=[(b'origin', b'http://a')])
    ws = await script.accept(origins=['http://a', 'http://b'])
    assert parsed == [['http://a', 'http://b']]
    await ws.close()


@pytest.mark.parametrize('message', ['ä' * 6, b'x' * 11])
async def test_the_limit_counts_bytes(message):
    field = 'text' if isinstance(message, str) else 'bytes'
    script = Script(text('x' * 10), {'type': 'websocket.receive', field: message})
    ws = await script.accept(max_message_size=10)
    assert await ws.receive() == 'x' * 10
    assert (await closed_with(ws))[0] == 1009
    assert script.sent[-1]['code'] == 1009


async def test_timeouts_and_cancels_lose_nothing():
    script = Script()
    ws = await script.accept()
    assert await ws.receive(timeout=0) is None
    assert await ws.receive(timeout=0.01) is None
    for i in range(10):
        receiving = asyncio.ensure_future(ws.receive())
        await asyncio.sleep(0)
        script.events.put_nowait(text(str(i)))
        if i % 2:
            await asyncio.sleep(0)
        receiving.cancel()
        try:
            assert await receiving == str(i)
        except asyncio.CancelledError:
            assert await ws.receive() == str(i)
    script.events.put_nowait(text('there'))
    assert await ws.receive(timeout=0) == 'there'
    await ws.close()


async def test_a_second_receiver_gets_an_error():
    script = Script()
    ws = await script.accept()
    first = asyncio.ensure_future(ws.receive())
    await asyncio.sleep(0)
    with pytest.raises(SimpleWebsocketError, match='one receiver'):
        await ws.receive()
    script.events.put_nowait(text('x'))
    assert await first == 'x'
    await ws.close()


async def test_close_releases_a_receiver():
    ws = await Script().accept()
    receiving = asyncio.ensure_future(ws.receive())
    await asyncio.sleep(0)
    await ws.close(4000)
    with pytest.raises(ConnectionClosed) as closed:
        await receiving
    assert closed.value.reason == 4000


@pytest.mark.parametrize('error', [OSError('gone'), RuntimeError('after close')])
async def test_a_send_that_fails_is_a_closed_connection_and_what_came_is_read(error):
    script = Script(text('before'), {'type': 'websocket.disconnect', 'code': 1001})
    ws = await script.accept()
    script.error = error
    with pytest.raises(ConnectionClosed) as closed:
        await ws.send('x')
    assert closed.value.reason == 1006 and closed.value.__cause__ is error
    assert not ws.connected
    assert await ws.receive() == 'before'
    assert await closed_with(ws) == (1001, None)


async def test_a_send_that_takes_too_long_fails():
    script = Script()
    ws = await script.accept()

    async def block(event):
        await asyncio.Event().wait()

    ws._server_send = block
    with pytest.raises(ConnectionClosed) as closed:
        await ws.send('x', timeout=0.01)
    assert closed.value.reason == 1006


async def test_a_send_without_time_is_done_where_the_server_takes_it_at_once():
    script = Script()
    ws = await script.accept()
    await ws.send('x', timeout=0)
    assert script.sent[-1] == {'type': 'websocket.send', 'text': 'x'}
    assert ws.connected


@pytest.mark.parametrize('type_', ['http', 'lifespan'])
async def test_another_scope_is_a_value_error(type_):
    script = Script(type=type_)
    with pytest.raises(ValueError, match=type_):
        await script.accept()


async def test_a_client_that_is_gone_before_the_accept():
    script = Script()
    script.events.get_nowait()
    script.events.put_nowait({'type': 'websocket.disconnect', 'code': 1006})
    with pytest.raises(ConnectionError):
        await script.accept()
    script = Script()
    script.error = OSError('gone')
    with pytest.raises(ConnectionError):
        await script.accept()


async def test_a_receive_that_fails_is_a_closed_connection():
    script = Script()
    ws = await script.accept()

    async def fail():
        raise RuntimeError('no more')

    ws._server_receive = fail
    for _ in range(2):
        assert await closed_with(ws) == (1006, None)
    assert not ws.connected


async def test_with_and_for():
    script = Script(text('a'), text('b'), {'type': 'websocket.disconnect', 'code': 1000})
    async with await script.accept() as ws:
        assert [message async for message in ws] == ['a', 'b']
    script = Script()
    with pytest.raises(LookupError):
        async with await script.accept():
            raise LookupError
    assert script.sent[-1]['code'] == 1011


async def test_options_are_checked_and_those_of_the_server_have_no_effect():
    with pytest.raises(ValueError):
        await Script().accept(ping_interval=-1)
    with pytest.raises(TypeError):
        await Script().accept(unknown=1)
    ws = await Script().accept(ping_interval=1, compression=None, max_queue=1)
    with pytest.raises(ValueError):
        await ws.close(1005)
    await ws.close()


# Real servers


async def echo(scope, receive, send):
    ws = await AioServer.accept(
        asgi=(scope, receive, send), subprotocols='chat', origins='same', max_message_size=1 << 20
    )
    if scope['path'] == '/close':
        await ws.close(4000, 'on purpose')
    elif scope['path'] == '/told':
        with pytest.raises(ConnectionClosed) as closed:
            await ws.receive()
        told.set_result(closed.value.reason)
    else:
        async for message in ws:
            await ws.send(message)


async def quiet(scope, receive, send):
    if scope['type'] == 'lifespan':
        await receive()
        await send({'type': 'lifespan.startup.complete'})
        await receive()
        await send({'type': 'lifespan.shutdown.complete'})
        return
    with contextlib.suppress(ConnectionError):
        await echo(scope, receive, send)


@contextlib.asynccontextmanager
async def on_uvicorn(ws):
    sock = socket.create_server(('127.0.0.1', 0))
    server = uvicorn.Server(uvicorn.Config(quiet, log_config=None, ws=ws))
    server.capture_signals = contextlib.nullcontext
    task = asyncio.ensure_future(server.serve(sockets=[sock]))
    try:
        yield sock.getsockname()[1]
    finally:
        server.should_exit = True
        await asyncio.wait_for(task, 10)
        sock.close()


@contextlib.asynccontextmanager
async def on_hypercorn():
    with socket.create_server(('127.0.0.1', 0)) as sock:
        config = hypercorn.config.Config()
        config.bind = [f'fd://{sock.fileno()}']
        config.errorlog = config.accesslog = None
        port = sock.getsockname()[1]
        stop = asyncio.Event()
        task = asyncio.ensure_future(
            hypercorn.asyncio.serve(quiet, config, shutdown_trigger=stop.wait)
        )
        try:
            yield port
        finally:
            stop.set()
            await asyncio.wait_for(task, 10)
            sock.detach()  # hypercorn closed it


SERVERS = {
    'uvicorn-wsproto': lambda: on_uvicorn('wsproto'),
    'uvicorn-websockets': lambda: on_uvicorn('websockets-sansio'),
    'hypercorn': on_hypercorn,
}


@pytest.mark.parametrize('server', SERVERS)
async def test_a_real_server(server):
    global told
    told = asyncio.get_running_loop().create_future()
    async with SERVERS[server]() as port:
        url = f'ws://127.0.0.1:{port}'
        async with AioClient(url, ['x', 'chat']) as there:
            assert there.subprotocol == 'chat'
            for message in ('text', b'binary', '', 'ä' * 100_000):
                await there.send(message)
                assert await there.receive() == message
            with contextlib.suppress(ConnectionClosed):
                await there.send('ä' * (1 << 19) + 'x')
            with pytest.raises(ConnectionClosed) as closed:
                await there.receive()
            assert closed.value.reason == 1009
        async with AioClient(f'{url}/close') as there:
            with pytest.raises(ConnectionClosed) as closed:
                await there.receive()
            assert (closed.value.reason, closed.value.message) == (4000, 'on purpose')
        there = await AioClient.connect(f'{url}/told')
        await there.close(4444)
        # hypercorn does not pass the peer's code on.
        assert await asyncio.wait_for(told, 5) == (1006 if server == 'hypercorn' else 4444)
        with pytest.raises(InvalidStatus) as refused:
            await connect(url, origin='https://evil.example')
        assert refused.value.response.status_code == 403


async def test_the_application_may_refuse_where_it_chooses_a_subprotocol():
    class Picky(AioServer):
        def choose_subprotocol(self, request):
            raise ConnectionError(401, 'not you')

    script = Script()
    with pytest.raises(ConnectionError) as refused:
        await Picky.accept(asgi=(script.scope, script.events.get, script.send))
    assert refused.value.status_code == 401
    assert script.sent == [{'type': 'websocket.close'}]


@pytest.mark.parametrize('error', [OSError('gone'), RuntimeError('the handler is closed')])
async def test_a_client_that_leaves_before_the_accept_is_a_connection_error(error):
    script = Script()

    async def send(event):
        raise error

    script.send = send
    with pytest.raises(ConnectionError, match='the client is gone'):
        await script.accept()


def test_another_loop_than_asyncios_is_refused():
    script = Script()
    with pytest.raises(RuntimeError, match='needs asyncio'):
        script.accept().send(None)
