"""The client: how it connects, and how that can fail."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import gc
import socket
import ssl
from types import MappingProxyType

import pytest
import trustme
import websockets
from aio.peer import Peer, connected, fds, listening, tcp_pair, until
from support.frames import PONG, TEXT
from support.peer import full_listener, switching
from websockets.asyncio.server import serve

from simple_websocket import (
    AioClient,
    ConnectionClosed,
    ConnectionError,
    aiodial,
    client_handshake,
)

RESET = object()


@pytest.fixture(scope='module')
def authority():
    return trustme.CA()


@pytest.fixture
def server_context(authority):
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert('localhost', '127.0.0.1').configure_cert(context)
    return context


@pytest.fixture
def client_context(authority):
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return context


async def echo(connection):
    with contextlib.suppress(websockets.ConnectionClosed):
        async for message in connection:
            await connection.send(message)


@contextlib.asynccontextmanager
async def echo_server(host='127.0.0.1', **options):
    async with serve(echo, host, 0, max_size=None, **options) as server:
        yield server.sockets[0].getsockname()[1]


async def test_it_talks_to_another_implementation():
    async with echo_server(subprotocols=['chat']) as port:
        async with AioClient(f'ws://127.0.0.1:{port}', ['x', 'chat']) as ws:
            assert ws.subprotocol == 'chat'
            for message in ('text', b'binary', 'z' * 300_000, '', b''):
                await ws.send(message)
                assert await ws.receive() == message
        assert ws.close_reason == 1000


async def test_over_tls(server_context, client_context):
    async with echo_server(ssl=server_context) as port:
        ws = await AioClient.connect(f'wss://localhost:{port}', ssl_context=client_context)
        for size in (12_000, 5_000_000):  # A3
            sending = asyncio.ensure_future(ws.send(bytes(size)))
            assert await ws.receive() == bytes(size)
            await sending
        await ws.close(4000)
        assert (ws.close_reason, ws._link.wire.lost) == (4000, True)


def has_flow_control(ws):
    """asyncio's TLS has some of its own from Python 3.11 on."""
    return hasattr(ws._link.wire._tls_protocol, '_control_ssl_reading')


async def flood(peer):
    """Much that fills no queue, and which is read in small pieces; then messages."""
    peer.writer.write(switching(await peer.head()))
    peer.writer.write(peer.frame(PONG) * 500_000)
    with contextlib.suppress(ConnectionError, OSError):
        for _ in range(40):
            await peer.send((TEXT, b'x'))
        while True:
            await peer.send(*[(TEXT, b'y' * 1000)] * 100)


async def test_a_flood_over_tls_stays_in_tcp(server_context, client_context):  # invariant 6
    async with listening(flood, ssl=server_context) as port:
        url = f'wss://localhost:{port}'
        ws = await AioClient.connect(url, ssl_context=client_context, max_queue=4)
        protocol = ws._link.protocol
        await until(lambda: protocol.paused)
        for _ in range(300):
            await asyncio.sleep(0.001)
        assert sum(len(chunk.payload) for chunk in protocol._chunks) < 2_000_000
        assert [await ws.receive(timeout=5) for _ in range(41)] == ['x'] * 40 + ['y' * 1000]
        ws._link.give_up()


@pytest.mark.only('asyncio-loop')
async def test_the_pauses_of_asyncios_tls_and_ours_are_kept_apart(
    server_context, client_context
):
    """They are one switch."""

    async def serve(peer):
        peer.writer.write(switching(await peer.head()))
        await peer.send(*[(TEXT, b'x')] * 20)
        await asyncio.wait_for(over.wait(), 10)

    over = asyncio.Event()
    async with listening(serve, ssl=server_context) as port:
        url = f'wss://localhost:{port}'
        ws = await AioClient.connect(url, ssl_context=client_context, max_queue=4)
        link = ws._link
        tls, below = link.wire._tls_protocol, link.wire._below
        await until(lambda: link.protocol.paused)
        assert not below.is_reading()
        if has_flow_control(ws):
            # It has handed over what it had deciphered, and reads on.
            tls._ssl_reading_paused = True
            link._measure(1)
            tls._control_ssl_reading()
            assert below.is_reading()
            await asyncio.sleep(0)
            assert not below.is_reading()
            # It has too much, when we want more: it will see to that itself.
            tls._ssl_reading_paused = True
        assert [await ws.receive(timeout=5) for _ in range(20)] == ['x'] * 20
        assert not link.protocol.paused
        if has_flow_control(ws):
            assert not below.is_reading()
            tls._control_ssl_reading()
        assert below.is_reading()
        link.give_up()
        over.set()


@pytest.mark.only('asyncio-loop')  # uvloop's TLS drops what it has held back at the end
async def test_what_waits_over_tls_survives_the_end_of_tcp(server_context, client_context):
    """It is more than asyncio hands on at once, of what it has deciphered."""
    go_on, done = asyncio.Event(), asyncio.Event()

    async def server(peer):
        await peer.send(switching(await peer.head()))
        await peer.send(*[(TEXT, b'%04d' % number + bytes(1000)) for number in range(40)])
        await go_on.wait()
        await peer.send(*[(TEXT, b'%04d' % number + bytes(1000)) for number in range(40, 190)])
        await peer.send(peer.close_frame(4000))
        peer.writer.close()  # and does not wait for the other end of TLS
        done.set()

    async with listening(server, ssl=server_context) as port:
        url = f'wss://localhost:{port}'
        ws = await AioClient.connect(url, ssl_context=client_context)
        await until(lambda: ws._link.protocol.paused)
        go_on.set()
        await done.wait()
        for _ in range(100):  # for what can come to have come
            await asyncio.sleep(0)
        got = []
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                got.append((await ws.receive(timeout=5))[:4])
    assert got == [f'{number:04}' for number in range(190)]
    assert closed.value.reason == 4000


@pytest.mark.parametrize('secure', [False, True])
async def test_whenever_it_is_cancelled_nothing_is_left(
    server_context, client_context, secure, caplog
):
    """Turn by turn of the loop; a server that is silent ends no wait."""

    async def silent(peer):
        await peer.reader.read()

    async with listening(silent, **({'ssl': server_context} if secure else {})) as port:
        url = f'ws{"s" * secure}://localhost:{port}'
        options = {'ssl_context': client_context} if secure else {}
        before = fds()
        for turns in range(40):
            task = asyncio.ensure_future(AioClient.connect(url, open_timeout=60, **options))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asyncio.wait_for(task, 5)
            del task
        gc.collect()
        await until(lambda: fds() <= before)
    assert not [r for r in caplog.records if 'never retrieved' in r.getMessage()]


async def test_tls_that_a_peer_ends_is_1006(server_context, client_context):
    async def server(peer):
        await peer.send(switching(await peer.head()))
        await peer.send((TEXT, b'x'))

    async with listening(server, ssl=server_context) as port:
        ws = await AioClient.connect(f'wss://localhost:{port}', ssl_context=client_context)
        assert await ws.receive() == 'x'
        with pytest.raises(ConnectionClosed) as closed:
            await ws.receive()
        assert closed.value.reason == 1006
        await ws._link.join(5)


async def test_tls_with_a_silent_peer_ends_in_time(server_context, client_context):  # A6
    done = asyncio.Event()

    async def server(peer):
        await peer.send(switching(await peer.head()))
        await done.wait()

    async with listening(server, ssl=server_context) as port:
        ws = await AioClient.connect(
            f'wss://localhost:{port}', ssl_context=client_context, close_timeout=0.05
        )
        await asyncio.wait_for(ws.close(), 5)
        assert ws._link.wire.lost
        done.set()


async def test_a_certificate_that_is_not_trusted_is_an_oserror(server_context):
    async with echo_server(ssl=server_context) as port:
        with pytest.raises(ssl.SSLCertVerificationError):
            await AioClient.connect(f'wss://localhost:{port}')
        with pytest.raises(OSError):
            await AioClient.connect(f'wss://localhost:{port}')


async def test_server_hostname_is_what_is_verified(server_context, client_context):
    async with echo_server(ssl=server_context) as port:
        url = f'wss://127.0.0.1:{port}'
        with pytest.raises(ssl.SSLCertVerificationError):
            await AioClient.connect(url, ssl_context=client_context, server_hostname='example.com')
        ws = await AioClient.connect(url, ssl_context=client_context, server_hostname='localhost')
        await ws.close()


async def test_tls_over_a_socket_of_the_callers(server_context, client_context):
    async with echo_server(ssl=server_context) as port:
        sock = socket.create_connection(('127.0.0.1', port))
        ws = await AioClient.connect('wss://localhost', sock=sock, ssl_context=client_context)
        await ws.send('x')
        assert await ws.receive() == 'x'
        await ws.close()
        assert sock.fileno() == -1


async def test_a_socket_with_tls_is_refused():
    one, two = socket.socketpair()
    context = ssl.create_default_context()
    with two, context.wrap_socket(one, server_hostname='x', do_handshake_on_connect=False) as tls:
        with pytest.raises(TypeError, match='SSLSocket'):
            await AioClient.connect('wss://x', sock=tls)


async def test_headers_of_any_mapping_and_the_right_request():  # A17, A19
    ws, peer = await connected(headers=MappingProxyType({'X-One': '1'}))
    lines = peer.request.decode().split('\r\n')
    assert lines[0] == 'GET / HTTP/1.1'
    assert 'X-One: 1' in lines
    assert f'Host: 127.0.0.1:{ws.sock.getpeername()[1]}' in lines
    await peer.close()
    await ws._link.join(5)


@pytest.mark.only('asyncio-loop')
async def test_a_name_that_no_resolver_knows_is_in_the_error(monkeypatch):
    async def unknown(*_, **__):
        raise socket.gaierror(socket.EAI_NONAME, 'Name or service not known')

    monkeypatch.setattr(asyncio.get_running_loop(), 'getaddrinfo', unknown)
    with pytest.raises(socket.gaierror, match=r'not known: chat\.example$') as failed:
        await AioClient.connect('ws://user:secret@chat.example/x')
    assert failed.value.errno == socket.EAI_NONAME


@pytest.mark.only('asyncio-loop')  # of which one can replace the getaddrinfo
async def test_every_address_is_tried(monkeypatch):  # A17
    async with echo_server() as port:
        loop = asyncio.get_running_loop()

        async def two_addresses(host, port, **hints):
            return [
                (socket.AF_INET, socket.SOCK_STREAM, 6, '', (address, port))
                for address in ('127.255.255.254', '127.0.0.1')
            ]

        monkeypatch.setattr(loop, 'getaddrinfo', two_addresses)
        async with AioClient(f'ws://two.example:{port}') as ws:
            await ws.send('x')
            assert await ws.receive() == 'x'


@pytest.mark.only('asyncio-loop')
async def test_a_silent_address_and_an_unknown_family_leave_time_for_the_next(monkeypatch):
    silent, _, others = full_listener()
    async with echo_server() as port:

        async def addresses(*_, **__):
            for_all = socket.SOCK_STREAM, 6, ''
            return [
                (12345, *for_all, ('127.0.0.1', port)),
                (socket.AF_INET, *for_all, silent.getsockname()),
                (socket.AF_INET, *for_all, ('127.0.0.1', port)),
            ]

        monkeypatch.setattr(asyncio.get_running_loop(), 'getaddrinfo', addresses)
        async with AioClient(f'ws://two.example:{port}', open_timeout=0.6) as ws:
            await ws.send('x')
            assert await ws.receive() == 'x'
    for sock in (silent, *others):
        sock.close()


async def test_nobody_listens():
    with socket.socket() as sock:
        sock.bind(('127.0.0.1', 0))
        with pytest.raises(ConnectionRefusedError):
            await AioClient.connect(f'ws://127.0.0.1:{sock.getsockname()[1]}')


async def test_a_name_that_does_not_resolve():
    with pytest.raises(OSError):
        await AioClient.connect('ws://does-not-exist.invalid')


@pytest.mark.parametrize('status', [200, 302, 401, 503])
async def test_a_refusal_has_its_status(status):
    async def refuse(peer):
        await peer.head()
        await peer.send(f'HTTP/1.1 {status} No\r\nContent-Length: 0\r\n\r\n'.encode())

    async with listening(refuse) as port:
        with pytest.raises(ConnectionError) as refused:
            await AioClient.connect(f'ws://127.0.0.1:{port}')
    assert refused.value.status_code == status


@pytest.mark.parametrize('rest', [b' since', b'', RESET])
async def test_the_body_of_a_refusal_is_waited_for_a_moment(monkeypatch, rest):
    if not rest:
        monkeypatch.setattr(client_handshake, 'BODY_TIME', 0.05)
    waits = asyncio.Event()
    wait_for_body = aiodial.Opening._wait_for_body
    monkeypatch.setattr(
        aiodial.Opening,
        '_wait_for_body',
        lambda opening: (wait_for_body(opening), waits.set()),
    )

    async def refuse(peer):
        await peer.head()
        await peer.send(b'HTTP/1.1 403 No\r\nContent-Length: 9\r\n\r\nno,')
        await waits.wait()
        if rest is RESET:
            peer.reset()
        else:
            await peer.send(rest)
            await peer.reader.read()

    async with listening(refuse) as port:
        with pytest.raises(ConnectionError, match='^Connection error: 403 No$') as refused:
            await AioClient.connect(f'ws://127.0.0.1:{port}')
    assert refused.value.body == b'no,' + (b'' if rest is RESET else rest)


async def test_a_client_has_the_headers_of_the_servers_response():
    async def answer(peer):
        head = switching(await peer.head()).removesuffix(b'\r\n\r\n')
        await peer.send(head + b'\r\nSet-Cookie: node=7\r\n\r\n')
        await peer.reader.read()

    async with listening(answer) as port:
        ws = await AioClient.connect(f'ws://127.0.0.1:{port}')
        ws._link.give_up()
    names = [name.lower() for name, _ in ws.response_headers]
    assert ws.response_headers[names.index('set-cookie')][1] == 'node=7'


@pytest.mark.parametrize(
    ('name', 'error'),
    [(5, TypeError), (b'localhost', TypeError), ('', ValueError), ('.a', ValueError),
     ('a..b', ValueError), ('a' * 64, ValueError), ('a\0b', ValueError)],
)  # fmt: skip
async def test_a_server_hostname_is_checked_before_anything_is_opened(name, error):
    with pytest.raises(error, match='server_hostname'):
        AioClient('wss://does-not-exist.invalid', server_hostname=name)


class Resolver:
    """The running loop, where each name has these addresses."""

    def __init__(self, *ports):
        self._loop = asyncio.get_running_loop()
        self._ports = ports

    async def getaddrinfo(self, *_, **__):
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 0, '', ('127.0.0.1', port))
            for port in self._ports
        ]

    def __getattr__(self, name):
        return getattr(self._loop, name)


async def test_of_several_addresses_each_error_is_told():
    silent, port, others = full_listener()
    with socket.create_server(('127.0.0.1', 0)) as listener:
        closed = listener.getsockname()[1]

    loop = Resolver(closed, port, closed)
    dial = AioClient('ws://localhost', open_timeout=0.3)._dial
    with pytest.raises(ConnectionRefusedError) as failed:
        await dial._connect(loop, loop.time() + 0.3)
    assert failed.value.errno == errno.ECONNREFUSED
    assert failed.value.strerror == (
        f'Connection refused: 127.0.0.1 port {closed}; '
        f'no answer within open_timeout: 127.0.0.1 port {port}'
    )
    for sock in (silent, *others):
        sock.close()


async def test_what_was_refused_may_be_tried_again():
    with socket.create_server(('127.0.0.1', 0)) as listener:
        closed = listener.getsockname()[1]
    client = AioClient(f'ws://127.0.0.1:{closed}')
    for _ in range(2):
        with pytest.raises(ConnectionRefusedError):
            async with client:
                pass


@pytest.mark.parametrize('response', [b'', b'HTTP/1.1 101', b'SSH-2.0-x\r\n\r\n'])
async def test_the_end_or_rubbish_in_the_handshake(response):  # A16
    async def hang_up(peer):
        await peer.head()
        await peer.send(response)

    async with listening(hang_up) as port:
        with pytest.raises(ConnectionError) as refused:
            await AioClient.connect(f'ws://127.0.0.1:{port}')
    assert refused.value.status_code is None


async def test_an_extension_that_was_not_asked_for():
    async def insist(peer):
        extension = b'Sec-WebSocket-Extensions: permessage-deflate'
        await peer.send(switching(await peer.head(), extension))
        await peer.reader.read()

    async with listening(insist) as port:
        with pytest.raises(ConnectionError):
            await AioClient.connect(f'ws://127.0.0.1:{port}', compression=None)


async def test_a_server_that_says_nothing_runs_into_open_timeout():  # A16
    async def attempt():
        done = asyncio.Event()

        async def silence(peer):
            await done.wait()

        async with listening(silence) as port:
            with pytest.raises(TimeoutError):
                await AioClient.connect(f'ws://127.0.0.1:{port}', open_timeout=0.05)
            done.set()

    await leaves_nothing(attempt)


async def test_a_connect_that_is_cancelled_leaves_nothing():
    async def attempt():
        heard = asyncio.Event()

        async def silence(peer):
            await peer.head()
            heard.set()
            await peer.reader.read()

        async with listening(silence) as port:
            connecting = asyncio.ensure_future(AioClient.connect(f'ws://127.0.0.1:{port}'))
            await heard.wait()
            connecting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await connecting

    await leaves_nothing(attempt)


async def leaves_nothing(attempt):
    await attempt()  # what a loop opens once is no leak
    before = fds()
    for _ in range(5):
        await attempt()
    await until(lambda: fds() <= before)


async def test_a_response_and_frames_byte_by_byte():
    async def dribble(peer):
        response = switching(await peer.head()) + peer.frame(TEXT, b'hello')
        for i in range(len(response)):
            await peer.send(response[i : i + 1])
            await asyncio.sleep(0)
        await peer.reader.read()

    async with listening(dribble) as port:
        ws = await AioClient.connect(f'ws://127.0.0.1:{port}', close_timeout=0.05)
        assert await ws.receive() == 'hello'
        await ws.close()


@pytest.mark.parametrize(
    ('arguments', 'error'),
    [
        ({'url': 'ftp://x'}, ValueError),
        ({'url': 'ws://x/#fragment'}, ValueError),
        ({'url': 'ws://x', 'headers': {'A': 'b\r\nc: d'}}, ValueError),
        ({'url': 'ws://x', 'subprotocols': ['a b']}, ValueError),
        ({'url': 'ws://x', 'ssl_context': True}, TypeError),
        ({'url': 'ws://x', 'sock': 3}, TypeError),
        ({'url': 'ws://x', 'ping_interval': -1}, ValueError),
        ({'url': 'ws://x', 'unknown': 1}, TypeError),
    ],
)
async def test_wrong_arguments(arguments, error):
    with pytest.raises(error):
        await AioClient.connect(**arguments)


async def test_positional_arguments_of_1x_are_accepted():
    async with echo_server() as port:
        ws = await AioClient.connect(
            f'ws://127.0.0.1:{port}', None, None, 4096, None, None, None, object, object
        )
        await ws.close()


async def test_a_peer_that_another_library_makes_closes_well():
    ended = asyncio.get_running_loop().create_future()

    async def handler(connection):
        await connection.send('x')
        try:
            await connection.recv()
        except websockets.ConnectionClosed as error:
            ended.set_result((error.rcvd.code, error.rcvd.reason, error.sent.code))

    async with serve(handler, '127.0.0.1', 0) as server:
        port = server.sockets[0].getsockname()[1]
        ws = await AioClient.connect(f'ws://127.0.0.1:{port}')
        assert await ws.receive() == 'x'
        await ws.close(4999, 'enough')
        assert await ended == (4999, 'enough', 4999)


async def test_a_socket_of_the_callers_is_used():
    ours, theirs = await tcp_pair()
    reader, writer = await asyncio.open_connection(sock=theirs)
    peer = Peer(reader, writer, client=False)
    connecting = asyncio.ensure_future(AioClient.connect('ws://nowhere.example/p?q', sock=ours))
    request = await peer.head()
    assert request.startswith(b'GET /p?q HTTP/1.1\r\nHost: nowhere.example\r\n')
    await peer.send(switching(request), (TEXT, b'hi'))
    ws = await connecting
    assert await ws.receive() == 'hi'
    await peer.close()
    await ws._link.join(5)
