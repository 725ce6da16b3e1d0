"""What programs that were written for the asyncio classes of 1.x do."""

from __future__ import annotations

import asyncio
import email
import gc
import socket
import weakref

import pytest
from aio.peer import HEADERS, end, tcp_pair, until
from support.frames import PING, PONG, TEXT

from simple_websocket import AioClient, AioServer, ConnectionClosed, ConnectionError


async def test_who_waits_is_given_what_the_application_puts_into_the_buffer(role):
    async with end(role) as (ws, peer):
        for call in (ws.receive(), ws.receive(timeout=5), anext(aiter(ws))):
            receiver = asyncio.ensure_future(call)
            await asyncio.sleep(0)
            ws.event.set()
            await asyncio.sleep(0)
            assert not receiver.done() and not ws.event.is_set()
            ws.input_buffer.append('from within')
            ws.event.set()
            assert await receiver == 'from within'
        waiter = asyncio.ensure_future(ws.event.wait())
        await asyncio.sleep(0)
        await peer.send((TEXT, b'from without'))
        assert await waiter is True and ws.event.is_set()
        ws.event.clear()
        assert await ws.receive() == 'from without'


async def test_who_takes_from_the_buffer_only_gets_everything(role):
    async with end(role, max_queue=4) as (ws, peer):
        await peer.send(*[(TEXT, b'%d' % number) for number in range(50)], (PING, b'behind'))
        taken = []
        while len(taken) < 50:
            await until(lambda: ws.input_buffer)
            taken.append(ws.input_buffer.pop(0))
        assert taken == [str(number) for number in range(50)]
        await peer.expect(PONG, b'behind')


@pytest.mark.only('default-codec')
async def test_the_headers_of_http_client_are_taken():
    theirs, ours = socket.socketpair()
    text = ''.join(f'{name}: {value}\r\n' for name, value in HEADERS.items())
    ws = await AioServer.accept(sock=ours, headers=email.message_from_string(text + '\r\n'))
    assert ws.connected
    ws._link.give_up()
    theirs.close()


@pytest.mark.only('default-codec')
async def test_a_subclass_may_have_a_constructor_of_its_own():
    class Server(AioServer):
        def __init__(self, request, **options):
            super().__init__(request, **options)

    class Client(AioClient):
        def __init__(
            self, url, subprotocols=None, headers=None, receive_bytes=4096,
            ping_interval=None, max_message_size=None, ssl_context=None,
        ):  # fmt: skip
            super().__init__(url, subprotocols, headers, receive_bytes, ping_interval)

    async def serve(reader, writer):
        head = (await reader.readuntil(b'\r\n\r\n')).decode().split('\r\n')[1:-2]
        headers = dict(line.split(': ', 1) for line in head)
        sock = writer.get_extra_info('socket').dup()
        ws = await Server.accept(sock=sock, headers=headers, max_message_size=9)
        assert type(ws) is Server and ws._options.max_message_size == 9
        await ws.send('hello')
        await ws.close()
        writer.transport.abort()

    server = await asyncio.start_server(serve, '127.0.0.1', 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        ws = await Client.connect(f'ws://127.0.0.1:{port}')
        assert type(ws) is Client and [message async for message in ws] == ['hello']


@pytest.mark.only('default-codec')
async def test_the_application_may_refuse_where_it_chooses_a_subprotocol():
    class Picky(AioServer):
        def choose_subprotocol(self, request):
            made.append(weakref.ref(self))
            raise ConnectionError(403, 'not you')

    made = []
    theirs, ours = await tcp_pair()
    gc.disable()
    try:
        with pytest.raises(ConnectionError) as refused:
            await Picky.accept(sock=ours, headers=HEADERS)
        assert refused.value.status_code == 403
        del refused
        reader, writer = await asyncio.open_connection(sock=theirs)
        assert (await reader.read(-1)).startswith(b'HTTP/1.1 403 ')
        writer.close()
        await until(lambda: made[0]() is None)  # and not for the collector
    finally:
        gc.enable()


@pytest.mark.only('default-codec')
async def test_the_event_is_set_when_the_peer_closes_while_a_message_is_answered(role):
    async with end(role) as (ws, peer):
        await peer.send((TEXT, b'a question'))
        assert await ws.receive() == 'a question'
        await peer.send(peer.close_frame(1000))
        assert await asyncio.wait_for(ws.event.wait(), 4) and ws.event.is_set()
        with pytest.raises(ConnectionClosed):
            await ws.receive()
