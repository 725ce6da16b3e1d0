"""Faults in the opening handshake: docs/faults.rst, table C."""

from __future__ import annotations

import contextlib
import gc
import socket

import pytest
from support.frames import TEXT
from support.peer import KEY, Peer, accepted, environ_for, switching, tcp_pair

from simple_websocket import Client, ConnectionClosed, ConnectionError, Server

pytestmark = pytest.mark.only('default-codec')


@contextlib.contextmanager
def leaving_no_descriptor(world):
    gc.collect()
    before = world.fds()
    yield
    world._sockets.clear()
    world._tasks[:] = [task for task in world._tasks if not task.done]
    gc.collect()
    world.settles_to(lambda: world.fds() <= before, True)


@contextlib.contextmanager
def served_by(world, script):
    """A server that does what `script(peer)` says with each connection; yields
    its URL."""
    listener, port = world.listen()
    ends = []

    def serve():
        while True:
            sock = listener.accept()[0]
            if ends:
                sock.close()
                return
            peer = Peer(sock, client=False)
            with contextlib.suppress(EOFError, ConnectionError, OSError):
                script(peer)
            sock.close()

    task = world.spawn(serve)
    try:
        yield f'ws://127.0.0.1:{port}'
    finally:
        ends.append(True)
        world.connect(port).close()
        task.join()
        listener.close()


# C1


VALID = {
    'another case': {'HTTP_UPGRADE': 'WebSocket', 'HTTP_CONNECTION': 'UPGRADE'},
    'a list': {'HTTP_CONNECTION': 'keep-alive, Upgrade'},
    'a list in another order': {'HTTP_CONNECTION': 'upgrade,keep-alive ,  x'},
    'repeated': {'HTTP_CONNECTION': 'keep-alive,Upgrade,Upgrade'},
    'spaces': {'HTTP_UPGRADE': '  websocket '},
}


@pytest.mark.parametrize('changes', VALID.values(), ids=VALID)
def test_a_valid_upgrade_in_any_form_is_accepted(world, classes, changes):
    theirs, ours = tcp_pair(world)
    ws = Server.accept({**environ_for(ours), **changes}, **classes)
    peer = Peer(theirs, client=True)
    assert peer.head().startswith(b'HTTP/1.1 101 ')
    peer.send((TEXT, b'hello'))
    assert ws.receive(5) == 'hello'
    peer.close()
    ws._link.abandon()


# C2


BAD_OFFERS = [
    'permessage-deflate; unknown',
    'permessage-deflate; server_no_context_takeover; server_no_context_takeover',
    'permessage-deflate; server_max_window_bits=7',
    'permessage-deflate; server_max_window_bits=16',
    'permessage-deflate; client_max_window_bits=ten',
    'permessage-bzip2',
]


@pytest.mark.parametrize('bad', BAD_OFFERS)
def test_a_bad_deflate_offer_is_declined_and_the_next_one_taken(world, classes, bad):
    ws, peer = accepted(world, request={'sec_websocket_extensions': bad}, **classes)
    assert b'Sec-WebSocket-Extensions' not in peer.response
    ws.send('x' * 1000)
    peer.expect(TEXT, b'x' * 1000)
    peer.close()
    ws._link.abandon()
    both = f'{bad}, permessage-deflate; server_max_window_bits=11'
    ws, peer = accepted(world, request={'sec_websocket_extensions': both}, **classes)
    answer = b'Sec-WebSocket-Extensions: permessage-deflate; server_max_window_bits=11'
    assert answer in peer.response.split(b'\r\n')
    ws.send('x' * 1000)
    opcode, payload = peer.read()
    assert opcode == TEXT | 0x40 and len(payload) < 100
    peer.close()
    ws._link.abandon()


# C3


@pytest.mark.parametrize('poison', ['\r\nX: y', '\n', '\r', '\0', '\u20ac', '\ud800'])
def test_what_can_not_be_in_a_header_is_refused_before_a_byte_is_sent(world, classes, poison):
    theirs, ours = tcp_pair(world)
    url = 'ws://a.example/'
    for wrong in (
        {'url': f'ws://a{poison}/' if poison.isascii() else 'ws://\ud800/'},
        {'url': f'{url}{poison}'},
        {'url': f'{url}?{poison}'},
        {'url': url, 'subprotocols': f'a{poison}'},
        {'url': url, 'headers': {f'X{poison}': 'y'}},
        {'url': url, 'headers': {'X': f'y{poison}z'}},
        {'url': url, 'headers': {'Origin': f'http://a{poison}'}},
        {'url': url, 'headers': {'Host': f'a{poison}'}},
    ):
        with pytest.raises(ValueError):
            Client.connect(**wrong, sock=ours, **classes)
    for wrong in ({'subprotocols': [f'a{poison}']}, {'headers': [('X', f'y{poison}z')]}):
        with pytest.raises(ValueError):
            Server.accept(environ_for(ours), **wrong, **classes)
    theirs.settimeout(0.02)
    with pytest.raises((TimeoutError, socket.timeout)):
        theirs.recv(1)


# C4


def lie(old, new):
    """A 101 with something else in it."""
    return lambda peer: peer.send(switching(peer.head()).replace(old, new))


def add(*headers):
    return lambda peer: peer.send(switching(peer.head(), *headers))


def twice(peer):
    response = switching(peer.head())
    (accept,) = [line for line in response.split(b'\r\n') if b'Accept' in line]
    peer.send(response[:-2] + accept + b'\r\n\r\n')


LIES = {
    'no token': lie(b'Sec-WebSocket-Accept', b'X-Other'),
    'a wrong token': lie(b'Accept: ', b'Accept: x'),
    'the token twice': twice,
    'an unasked subprotocol': add(b'Sec-WebSocket-Protocol: chat'),
    'an unasked extension': add(b'Sec-WebSocket-Extensions: permessage-bzip2'),
    'no upgrade': lie(b'Upgrade: websocket', b'X: y'),
    'no connection': lie(b'Connection: Upgrade', b'X: y'),
    'an endless head': lambda peer: peer.send(b'HTTP/1.1 101 X\r\nX: ' + b'y' * 10_000_000),
    'endless headers': lambda peer: peer.send(b'HTTP/1.1 101 X\r\n' + b'X: y\r\n' * 1_000_000),
    'endless 103': lambda peer: peer.send(b'HTTP/1.1 103 Early Hints\r\n\r\n' * 100_000),
}


@pytest.mark.parametrize('script', LIES.values(), ids=LIES)
def test_a_server_that_lies_is_a_connection_error_and_leaves_nothing(world, classes, script):
    with leaving_no_descriptor(world), served_by(world, script) as url:
        with pytest.raises(ConnectionError) as refused:
            Client.connect(url, **classes)
        assert refused.value.status_code is None


def test_informational_responses_are_skipped(world, classes):
    def script(peer):
        head = peer.head()
        peer.send(b'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n')
        peer.send(switching(head), peer.frame(TEXT, b'hello'))
        with contextlib.suppress(EOFError):
            peer.read()

    with served_by(world, script) as url:
        ws = Client.connect(url, **classes)
        assert ws.receive(5) == 'hello'
        ws._link.abandon()


def test_a_redirect_is_not_followed(world, classes):
    asked = []

    def script(peer):
        asked.append(peer.head())
        peer.send(b'HTTP/1.1 302 Found\r\nLocation: /elsewhere\r\nContent-Length: 0\r\n\r\n')

    with leaving_no_descriptor(world), served_by(world, script) as url:
        with pytest.raises(ConnectionError, match='elsewhere') as refused:
            Client.connect(url, **classes)
        assert refused.value.status_code == 302
    assert len(asked) == 1


def test_a_slow_response_has_open_timeout_for_all_of_it(world, classes):
    def script(peer):
        response = switching(peer.head())
        for at in range(len(response)):
            peer.send(response[at : at + 1])
            world.sleep(0.05)  # six seconds in all, each wait a short one

    with leaving_no_descriptor(world), served_by(world, script) as url, world.ticker() as ticker:
        with pytest.raises(TimeoutError):
            Client.connect(url, open_timeout=0.4, **classes)
        assert ticker.ticks > 10


# C5


ORIGINS = {
    'same': [
        ('http://localhost', True),
        ('http://localhost:80', True),
        ('http://localhost:81', False),
        ('https://localhost', False),
        ('http://localhost.evil.example', False),
        ('http://evil.example', False),
        ('null', False),
        (None, True),  # a program: browsers always send one
    ],
    'https://app.example': [
        ('https://app.example', True),
        ('https://APP.example', True),
        ('http://app.example', False),
        ('https://app.example.evil.example', False),
        ('https://evilapp.example', False),
        ('https://app.example@evil.example', False),
        ('https://evil.example/https://app.example', False),
        ('null', False),
        (None, False),
    ],
}


@pytest.mark.parametrize('allowed', ORIGINS)
def test_an_origin_is_allowed_or_gets_a_403(world, classes, allowed):
    origins = allowed if allowed == 'same' else [allowed]
    for origin, fine in ORIGINS[allowed]:
        theirs, ours = tcp_pair(world)
        environ = environ_for(ours, **({} if origin is None else {'origin': origin}))
        peer = Peer(theirs, client=True)
        if fine:
            ws = Server.accept(environ, origins=origins, **classes)
            assert peer.head().startswith(b'HTTP/1.1 101 ')
            ws._link.abandon()
        else:
            with pytest.raises(ConnectionError) as refused:
                Server.accept(environ, origins=origins, **classes)
            assert refused.value.status_code == 403
            assert peer.head().startswith(b'HTTP/1.1 403 ')
        peer.close()


# C6


WAYS = {'EOF': Peer.close, 'RST': Peer.reset}


@pytest.mark.parametrize('hang_up', WAYS.values(), ids=WAYS)
def test_a_server_that_is_gone_at_any_byte_of_its_response(world, classes, hang_up):
    at = 0

    def script(peer):
        peer.send(switching(peer.head())[:at])
        hang_up(peer)

    size = len(switching(f'GET\r\nSec-WebSocket-Key: {KEY}'.encode()))
    with leaving_no_descriptor(world), served_by(world, script) as url:
        for count in range(size):
            at = count
            with pytest.raises(ConnectionError) as refused:
                Client.connect(url, **classes)
            assert refused.value.status_code is None
        # With its last byte the connection is open, and then it ends; but an
        # RST may overtake it.
        at = size
        try:
            ws = Client.connect(url, **classes)
        except ConnectionError:
            assert hang_up is Peer.reset
        else:
            with pytest.raises(ConnectionClosed) as closed:
                ws.receive(5)
            assert closed.value.reason == 1006
            ws = closed = None


@pytest.mark.parametrize('hang_up', WAYS.values(), ids=WAYS)
def test_a_server_that_is_gone_at_any_byte_of_the_request(world, classes, hang_up):
    """The client writes on, into a connection that has ended."""
    wanted = 0

    def script(peer):
        peer._exactly(wanted)
        hang_up(peer)

    with leaving_no_descriptor(world), served_by(world, script) as url:
        for count in range(1, 150, 3):
            wanted = count
            with pytest.raises(ConnectionError) as refused:
                Client.connect(url, **classes)
            assert refused.value.status_code is None


@pytest.mark.parametrize('hang_up', WAYS.values(), ids=WAYS)
def test_a_client_that_is_gone_at_any_byte_of_our_response(world, classes, hang_up):
    """The request came through a host; the answer finds nobody."""
    ws, peer = accepted(world, **classes)
    size = len(peer.response) + 4
    peer.close()
    ws._link.abandon()
    world.settles_to(lambda: ws._link.finished, True)
    with leaving_no_descriptor(world):
        for read in range(-1, size + 1):
            theirs, ours = tcp_pair(world)
            peer = Peer(theirs, client=True)
            if read < 0:
                hang_up(peer)  # before the handler has called accept
            ws = Server.accept(environ_for(ours), **classes)
            if read >= 0:
                if read:
                    peer._exactly(read)
                hang_up(peer)
            with pytest.raises(ConnectionClosed) as closed:
                ws.receive(5)
            assert (closed.value.reason, ws.connected) == (1006, False)
            ws = closed = ours = theirs = peer = None
            world._sockets.clear()


@pytest.mark.parametrize('hang_up', WAYS.values(), ids=WAYS)
def test_a_client_that_is_gone_before_a_refusal(world, classes, hang_up):
    with leaving_no_descriptor(world):
        for _ in range(20):
            theirs, ours = tcp_pair(world)
            hang_up(Peer(theirs, client=True))
            with pytest.raises(ConnectionError) as refused:
                Server.accept({**environ_for(ours), 'REQUEST_METHOD': 'POST'}, **classes)
            assert refused.value.status_code == 405
            refused = ours = theirs = None
            world._sockets.clear()
