"""What happens rarely: errors in the middle of the handshake, in odd orders, and
what aiohttp does only in some configurations."""

from __future__ import annotations

import asyncio
import errno
import gc
import socket
import ssl
from types import MappingProxyType, SimpleNamespace

import pytest
from aio.peer import HEADERS, Peer, end, listening, tcp_pair, until
from aio.test_aiohttp import application, raw
from aio.test_asgi import Script, text
from aiohttp import web
from support.frames import BINARY, TEXT
from support.peer import switching
from websockets.asyncio.client import connect

from simple_websocket import AioClient, AioServer, ConnectionClosed, ConnectionError
from simple_websocket.aiodial import Opening
from simple_websocket.client_handshake import ClientHandshake, parse_url
from simple_websocket.profiles.aio import AioLink
from simple_websocket.takeover import Husk


class TestServer:
    @pytest.mark.parametrize(
        ('request_', 'words'),
        [
            (1, '1$'),
            ('x', "'x'$"),
            ({'type': 'websocket', 'headers': 'secret'}, 'a dict$'),
            (SimpleNamespace(headers={}), r'namespace\(headers={}\)$'),
        ],
    )
    async def test_what_is_no_request_is_named(self, request_, words):
        words = f"^aiohttp must be aiohttp's Request, not {words}"
        with pytest.raises(TypeError, match=words):
            await AioServer.accept(aiohttp=request_)
        with pytest.raises(TypeError, match=words):
            async with AioServer(request_):
                pass

    async def test_a_websocket_of_starlettes_is_to_be_taken_apart(self):
        websocket = SimpleNamespace(scope={'type': 'websocket'}, receive=None, send=None)
        words = 'pass the scope, receive and send of it$'
        with pytest.raises(TypeError, match=words):
            await AioServer.accept(asgi=websocket)

    async def test_a_request_may_be_wrapped(self):
        class Wrapper:
            def __init__(self, request):
                self.request = request

            def __getattr__(self, name):
                return getattr(self.request, name)

        async def handler(request):
            ws = await AioServer.accept(aiohttp=Wrapper(request))
            await ws.send('hello')
            await ws.close()

        async with (
            application(handler) as server,
            connect(f'ws://127.0.0.1:{server.port}') as peer,
        ):
            assert await peer.recv() == 'hello'

    async def test_a_malformed_list_of_extensions_is_a_400(self):
        theirs, ours = await tcp_pair()
        peer = Peer(*await asyncio.open_connection(sock=theirs), client=True)
        headers = {**HEADERS, 'Sec-WebSocket-Extensions': '=x'}
        with pytest.raises(ConnectionError) as refused:
            await AioServer.accept(sock=ours, headers=headers)
        assert refused.value.status_code == 400
        head = await peer.head()
        assert head.startswith(b'HTTP/1.1 400 ')
        await peer.reader.read()
        await peer.close()


class TestClient:
    async def test_a_reset_in_the_handshake_is_a_connection_error(self):
        async def serve(peer):
            await peer.head()
            peer.reset()

        async with listening(serve) as port:
            with pytest.raises(ConnectionError, match='the handshake failed') as failed:
                await AioClient.connect(f'ws://127.0.0.1:{port}')
        assert isinstance(failed.value.__cause__, OSError)

    async def test_a_bad_answer_to_the_compression_is_a_connection_error(self):
        async def serve(peer):
            request = await peer.head()
            await peer.send(switching(request, b'Sec-WebSocket-Extensions: permessage-deflate; x'))
            await peer.expect_eof()

        async with listening(serve) as port:
            with pytest.raises(ConnectionError, match='unknown parameter x'):
                await AioClient.connect(f'ws://127.0.0.1:{port}')

    async def test_a_socket_that_is_none_is_an_error_and_no_more(self):
        sock = socket.socket()
        sock.close()
        with pytest.raises(OSError):
            await AioServer.accept(sock=sock, headers=HEADERS)
        gc.collect()
        await asyncio.sleep(0)

    async def test_tcp_that_gives_up_first_says_so(self, monkeypatch):
        async def give_up(*arguments, **options):
            raise TimeoutError(errno.ETIMEDOUT, 'Connection timed out')

        monkeypatch.setattr(asyncio.get_running_loop(), 'sock_connect', give_up)
        with pytest.raises(OSError) as failed:
            await AioClient.connect('ws://127.0.0.1:1')
        assert failed.value.errno == errno.ETIMEDOUT

    async def test_a_socket_is_closed_when_tls_fails_on_it(self):
        async def serve(peer):
            await peer.reader.read(1)
            await peer.send(b'no TLS here\r\n')
            await peer.reader.read()

        async with listening(serve) as port:
            sock = socket.create_connection(('127.0.0.1', port))
            with pytest.raises(ssl.SSLError):
                await AioClient.connect('wss://localhost', sock=sock)
            assert sock.fileno() == -1

    async def test_what_comes_behind_a_bad_answer_changes_nothing(self):
        made = []
        opening = Opening(
            ClientHandshake(parse_url('ws://a')), made.append, asyncio.get_running_loop(), None
        )
        for _ in range(2):
            opening.data_received(b'SSH-2.0\r\n\r\n')
        opening.connection_lost(None)
        with pytest.raises(ConnectionError, match='does not speak HTTP'):
            await opening.result
        assert made == []


class TestASGI:
    async def test_the_target_has_the_query(self):
        targets = []

        class Mine(AioServer):
            def choose_subprotocol(self, request):
                targets.append(request.target)

        for scope in ({'path': '/a', 'query_string': b'b=c'}, {'raw_path': b'/%C3%B6'}):
            script = Script(**scope)
            ws = await Mine.accept(asgi=(script.scope, script.events.get, script.send))
            await ws.close()
        assert targets == ['/a?b=c', '/%C3%B6']

    async def test_a_server_that_begins_with_another_event_is_a_value_error(self):
        script = Script()
        script.events.get_nowait()
        script.events.put_nowait(text('x'))
        words = "'websocket.receive' where websocket.connect was due; was it accepted already?"
        with pytest.raises(ValueError, match=words):
            await script.accept()
        assert script.sent == []

    @pytest.mark.parametrize(
        ('asgi', 'words'),
        [
            (1, 'not 1$'),
            (object(), 'not <object'),
            ({'type': 'websocket', 'headers': 'secret'}, 'not a dict$'),
            (('scope', 'receive'), 'not a tuple$'),
        ],
    )
    async def test_what_is_no_asgi_triple_is_named(self, asgi, words):
        with pytest.raises(TypeError, match=rf'^asgi must be \(scope, receive, send\), {words}'):
            await AioServer.accept(asgi=asgi)

    async def test_what_is_wrong_in_an_asgi_triple_is_named(self):
        script = Script()
        scope, receive, send = script.scope, script.events.get, script.send
        for wrong, error, words in [
            (('ws', receive, send), TypeError, "asgi: the scope must be the server's, not a str"),
            (({'a': 'b'}, receive, send), TypeError, 'asgi: the scope must be .*, not a dict'),
            (({'type': 'http'}, receive, send), ValueError, "asgi: the scope is for 'http'"),
            ((scope, 1, send), TypeError, "asgi: receive must be the server's, not 1"),
            ((scope, receive, 2), TypeError, "asgi: send must be the server's, not 2"),
        ]:
            with pytest.raises(error, match=words):
                await AioServer.accept(asgi=wrong)
        assert script.sent == []
        # A list will do, and a mapping of any make.
        ws = await AioServer.accept(asgi=[MappingProxyType(scope), receive, send])
        await ws.close()

    async def test_what_the_server_keeps_to_itself_is_not_there(self):
        ws = await Script().accept()
        assert ws.latency is None
        assert not hasattr(ws, 'sock') and not hasattr(ws, 'input_buffer')
        await ws.close()

    async def test_a_subprotocol_that_was_not_offered_is_a_value_error(self):
        class Wrong(AioServer):
            def choose_subprotocol(self, request):
                return 'other'

        script = Script(subprotocols=['one'])
        with pytest.raises(ValueError, match="'other' is not one that the client offered"):
            await Wrong.accept(asgi=(script.scope, script.events.get, script.send))
        assert script.sent == []

    async def test_an_event_that_nobody_knows_is_passed_over(self):
        ws = await Script({'type': 'websocket.new'}, text('x')).accept()
        assert await ws.receive() == 'x'
        await ws.close()

    async def test_a_close_that_comes_too_late_is_no_error(self):
        script = Script()
        ws = await script.accept()
        script.error = OSError('gone')
        await ws.close(4000, 'done')
        assert (ws.connected, ws.close_reason, ws.close_message) == (False, 4000, 'done')

    async def test_a_send_that_fails_behind_a_close_has_its_code(self):
        script, release = Script(), asyncio.Event()
        ws = await script.accept()
        send = script.send

        async def slow(event):
            if event['type'] == 'websocket.send':
                await release.wait()
                raise OSError('closed in the meantime')
            await send(event)

        ws._server_send = slow
        sending = asyncio.ensure_future(ws.send('x'))
        await asyncio.sleep(0)
        await ws.close(4000, 'done')
        release.set()
        with pytest.raises(ConnectionClosed) as closed:
            await sending
        assert (closed.value.reason, closed.value.message) == (4000, 'done')

    async def test_it_says_what_state_it_is_in(self):
        ws = await Script().accept()
        assert repr(ws) == '<simple_websocket.WebSocketASGI open>'
        await ws.close(4000)
        assert repr(ws) == '<simple_websocket.WebSocketASGI closed: 4000>'


class TestAiohttp:
    async def test_without_an_access_log(self):
        async def handler(request):
            ws = await AioServer.accept(aiohttp=request)
            await ws.send(await ws.receive())
            await ws.close()
            return web.Response()

        async with application(handler, access_log=None) as app:
            async with connect(f'ws://127.0.0.1:{app.port}/') as there:
                await there.send('x')
                assert await there.recv() == 'x'

    async def test_what_a_handler_may_ask_of_its_transport_is_answered(self):
        seen = {}

        async def handler(request):
            peer = request.transport.get_extra_info('peername')
            async with await AioServer.accept(aiohttp=request) as ws:
                transport = request.transport
                assert isinstance(transport, Husk)
                seen['same peer'] = transport.get_extra_info('peername') == peer
                seen['default'] = transport.get_extra_info('nothing', 7)
                seen['to be written'] = transport.get_write_buffer_size()
                seen['closing'] = transport.is_closing()
                await ws.send('done')
            return web.Response()

        async with application(handler) as app:
            async with connect(f'ws://127.0.0.1:{app.port}/') as there:
                assert await there.recv() == 'done'
        assert seen == {'same peer': True, 'default': 7, 'to be written': 0, 'closing': False}

    async def test_a_connection_is_found_among_those_of_the_server(self):
        """By name: whatever else aiohttp asks of them, the handler answers."""
        seen = {}

        async def handler(request):
            async with await AioServer.accept(aiohttp=request) as ws:
                (connection,) = app.runner.server.connections
                seen['keepalive'] = connection.keepalive_timeout
                await ws.send('done')
            return web.Response()

        async with application(handler, keepalive_timeout=17) as app:
            async with connect(f'ws://127.0.0.1:{app.port}/') as there:
                assert await there.recv() == 'done'
        assert seen == {'keepalive': 17}

    async def test_a_pipelined_response_that_filled_the_socket_comes_first(self):
        """aiohttp has paused the transport then; the link has to know it."""
        size = 30_000_000
        paused = asyncio.Event()

        async def handler(request):
            transport = request.transport
            transport.write(b'.' * size)  # more of it than the socket takes
            assert request.protocol._paused
            ws = await AioServer.accept(aiohttp=request)
            paused.set()
            await ws.send('behind')
            await ws.close()
            return web.Response()

        async with application(handler) as app:
            peer = await raw(app.port)
            await asyncio.wait_for(paused.wait(), 5)
            assert await peer.reader.readexactly(size) == b'.' * size
            assert (await peer.head()).startswith(b'HTTP/1.1 101 ')
            await peer.expect(TEXT, b'behind')
            await peer.expect_close(1000)
            await peer.send(peer.close_frame(1000))
            await peer.expect_eof()
            await peer.close()

    async def test_a_handler_that_no_server_lists_is_taken_over_as_well(self):
        """As in a server of another make that runs aiohttp's handler."""
        seen = []

        async def handler(request):
            manager, request.protocol._manager = request.protocol._manager, None
            ws = await AioServer.accept(aiohttp=request)
            request.protocol._manager = manager
            async for message in ws:
                seen.append(message)
            return web.Response()

        async with application(handler) as app:
            async with connect(f'ws://127.0.0.1:{app.port}/') as there:
                await there.send('x')
            await until(lambda: seen == ['x'])
            await until(lambda: not app.runner.server.connections)


class TestCancelled:
    """A task that is cancelled says goodbye, and waits for nobody."""

    async def test_in_a_block_it_does_not_wait_for_the_peers_answer(self, role):
        async with end(role, close_timeout=10) as (ws, peer):
            entered = asyncio.Event()

            async def handler():
                async with ws:
                    entered.set()
                    await asyncio.Event().wait()

            task = asyncio.ensure_future(handler())
            await entered.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(task, 5)
            assert not ws.connected and ws.close_reason == 1001
            await peer.expect_close(1001)

    async def test_in_a_block_whose_connection_is_closed_it_has_nothing_to_say(self, role):
        async with end(role, close_timeout=10) as (ws, peer):
            closed = asyncio.Event()

            async def handler():
                async with ws:
                    with pytest.raises(ConnectionClosed):
                        await ws.receive()
                    closed.set()
                    await asyncio.Event().wait()

            task = asyncio.ensure_future(handler())
            await peer.send(peer.close_frame(4000))
            await closed.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(task, 5)
            assert ws.close_reason == 4000
            await peer.expect_close(4000)

    async def test_behind_the_last_byte_of_a_message_it_does_no_harm(self, role, monkeypatch):
        async with end(role, compression=None) as (ws, peer):
            resume = AioLink.resume_writing
            sending = asyncio.ensure_future(ws.send(b'x' * 16_000_000))

            def resume_and_cancel(link):
                resume(link)
                sending.cancel()

            with monkeypatch.context() as patch:
                patch.setattr(AioLink, 'resume_writing', resume_and_cancel)
                await peer.expect(BINARY, b'x' * 16_000_000)
                with pytest.raises(asyncio.CancelledError):
                    await sending
            await ws.send('and on')
            await peer.expect(TEXT, b'and on')


class TestTransport:
    """Transports of other makes may deliver what asyncio's own would drop."""

    async def test_bytes_behind_the_end_are_dropped(self, role):
        async with end(role) as (ws, peer):
            ws._link.give_up()
            ws._link.data_received(peer.frame(TEXT, b'late'))
            with pytest.raises(ConnectionClosed) as closed:
                await ws.receive()
            assert closed.value.reason == 1006
            assert not ws.input_buffer

    async def test_bytes_that_come_while_it_closes_are_received(self, role):
        async with end(role, max_queue=2) as (ws, peer):
            ws._link.wire.transport.abort()
            ws._link.data_received(b''.join(peer.frame(TEXT, b'%d' % n) for n in range(5)))
            assert [await ws.receive() for _ in range(5)] == list('01234')
            with pytest.raises(ConnectionClosed) as closed:
                await ws.receive()
            assert closed.value.reason == 1006
