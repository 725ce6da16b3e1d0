"""The opening handshake, accepted, refused, interrupted, and without a trace."""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import errno
import gc
import os
import socket
import weakref

import pytest
from support.frames import TEXT
from support.peer import KEY, Peer, accepted, environ_for, full_listener, switching, tcp_pair

from simple_websocket import (
    Client,
    ConnectionError,
    Server,
    get_profile,
    handshake,
    websocket_app,
)

pytestmark = pytest.mark.only('default-codec')


@pytest.mark.parametrize(
    ('changes', 'status'),
    [
        ({'REQUEST_METHOD': 'POST'}, 405),
        ({'HTTP_UPGRADE': None}, 426),
        ({'HTTP_CONNECTION': 'keep-alive'}, 426),
        ({'HTTP_SEC_WEBSOCKET_VERSION': '8'}, 426),
        ({'HTTP_SEC_WEBSOCKET_VERSION': None}, 400),
        ({'HTTP_SEC_WEBSOCKET_KEY': None}, 400),
        ({'HTTP_SEC_WEBSOCKET_KEY': 'c2hvcnQ='}, 400),
        ({'HTTP_SEC_WEBSOCKET_KEY': f'{KEY},{KEY}'}, 400),
        ({'SERVER_PROTOCOL': 'HTTP/1.0'}, 400),
    ],
)
def test_what_is_no_upgrade_is_refused_on_the_wire_and_in_the_handler(  # A15
    world, classes, changes, status
):
    theirs, ours = tcp_pair(world)
    environ = {**environ_for(ours), **changes}
    environ = {name: value for name, value in environ.items() if value is not None}
    with pytest.raises(ConnectionError) as refused:
        Server.accept(environ, **classes)
    assert refused.value.status_code == status
    peer = Peer(theirs, client=True)
    head = peer.head().decode()
    assert head.startswith(f'HTTP/1.1 {status} ')
    assert ('Sec-WebSocket-Version: 13' in head) is (status in (400, 426))
    body = peer._exactly(int(head.split('Content-Length: ')[1].split('\r\n')[0]))
    assert body.strip()
    peer.expect_eof()


def test_an_origin_that_is_not_allowed_is_refused(world, classes):
    for origins, origin, fine in [
        ('same', 'http://localhost', True),
        ('same', 'http://evil.example', False),
        (['https://app.example'], 'https://app.example', True),
        (['https://app.example'], 'https://app.example.evil.example', False),
    ]:
        theirs, ours = tcp_pair(world)
        environ = environ_for(ours, origin=origin)
        if fine:
            Server.accept(environ, origins=origins, **classes)._link.abandon()
        else:
            with pytest.raises(ConnectionError) as refused:
                Server.accept(environ, origins=origins, **classes)
            assert refused.value.status_code == 403
            assert Peer(theirs, client=True).head().startswith(b'HTTP/1.1 403 ')


def test_origins_and_headers_are_parsed_once_a_connection(world, classes, monkeypatch):
    parsed = []
    for name in ('parse_origins', 'normalize_headers'):
        parse = getattr(handshake, name)

        def noting(option, parse=parse):
            if not isinstance(option, (handshake.Origins, handshake.CheckedHeaders)):
                parsed.append(option)
            return parse(option)

        monkeypatch.setattr(handshake, name, noting)
    _, ours = tcp_pair(world)
    options = {'origins': ['http://localhost'], 'headers': {'X-Own': 'yes'}, **classes}
    Server.accept(environ_for(ours, origin='http://localhost'), **options)._link.abandon()
    assert parsed == [['http://localhost'], {'X-Own': 'yes'}]


def test_the_subprotocol_is_the_clients_first_that_we_support(world, classes):
    request = {'sec_websocket_protocol': 'one, two,three'}
    ws, peer = accepted(world, request=request, subprotocols=['three', 'two'], **classes)
    assert ws.subprotocol == 'two' and b'Sec-WebSocket-Protocol: two' in peer.response
    ws._link.abandon()
    ws, peer = accepted(world, request=request, subprotocols='four', **classes)
    assert ws.subprotocol is None and b'Sec-WebSocket-Protocol' not in peer.response
    ws._link.abandon()


def test_the_choice_of_a_subprotocol_can_be_overridden(world, classes, monkeypatch):
    class Mine(Server):
        def choose_subprotocol(self, request):
            return request.subprotocols[-1]

    theirs, ours = tcp_pair(world)
    ws = Mine(environ_for(ours, sec_websocket_protocol='a, b'), **classes)
    assert ws.subprotocol == 'b'
    ws._link.abandon()
    monkeypatch.setattr(Server, 'choose_subprotocol', lambda self, request: 'a')
    theirs, ours = tcp_pair(world)
    ws = Server.accept(environ_for(ours, sec_websocket_protocol='a, b'), **classes)
    assert ws.subprotocol == 'a'
    ws._link.abandon()


@pytest.mark.parametrize('split', [1, 40, 10_000])
@pytest.mark.parametrize(
    'response',
    [
        b'',
        b'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n',
        b'HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n',
        b'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n'
        b'Sec-WebSocket-Accept: d3Jvbmc=\r\n\r\n',
        b'SSH-2.0-OpenSSH_9.2\r\n',
    ],
)
def test_a_server_that_does_not_play_along_is_a_connection_error(  # A16
    world, classes, response, split
):
    gc.collect()
    baseline = world.fds()
    listener, port = world.listen()

    def serve():
        peer = Peer(listener.accept()[0], client=False)
        peer.head()
        for at in range(0, len(response), split):
            peer.send(response[at : at + split])
        peer.close()

    task = world.spawn(serve)
    with pytest.raises(ConnectionError):
        Client.connect(f'ws://127.0.0.1:{port}', **classes)
    task.join()
    listener.close()
    world._sockets.clear()
    del task
    gc.collect()
    world.settles_to(lambda: world.fds() <= baseline, True)


@pytest.mark.parametrize('status', [302, 401, 403, 404, 503])
def test_a_refusal_has_its_status(world, classes, status):
    listener, port = world.listen()

    def serve():
        peer = Peer(world.closing(listener.accept()[0]), client=False)
        peer.head()
        peer.send(b'HTTP/1.1 %d No\r\nLocation: http://elsewhere/\r\n\r\n' % status)

    task = world.spawn(serve)
    with pytest.raises(ConnectionError) as refused:
        Client.connect(f'ws://127.0.0.1:{port}', **classes)
    assert refused.value.status_code == status
    task.join()


def test_a_server_that_says_nothing_is_left_after_open_timeout(world, classes):
    listener, port = world.listen()
    with world.ticker() as ticker, pytest.raises(TimeoutError):
        Client.connect(f'ws://127.0.0.1:{port}', open_timeout=0.3, **classes)
    assert ticker.ticks > 10


def test_a_refused_connection_stays_an_oserror(world, classes):
    listener, port = world.listen()
    listener.close()
    with pytest.raises(ConnectionRefusedError):
        Client.connect(f'ws://127.0.0.1:{port}', **classes)


@pytest.mark.parametrize(
    ('path', 'target'), [('', '/'), ('/', '/'), ('/a/b?c=d', '/a/b?c=d'), ('?q', '/?q')]
)
def test_the_request_says_where_to(world, classes, path, target):  # A17
    listener, port = world.listen()
    request = []

    def serve():
        peer = Peer(world.closing(listener.accept()[0]), client=False)
        request.append(peer.head())
        peer.send(switching(request[0]))

    task = world.spawn(serve)
    headers = collections.UserDict({'X-Custom': 'kept'})  # A19
    ws = Client.connect(f'ws://127.0.0.1:{port}{path}', headers=headers, **classes)
    task.join()
    lines = request[0].decode().split('\r\n')
    assert lines[0] == f'GET {target} HTTP/1.1'
    assert f'Host: 127.0.0.1:{port}' in lines
    assert 'X-Custom: kept' in lines
    ws._link.abandon()


def test_every_address_is_tried_and_ipv6_hosts_are_bracketed(world, classes):
    listener = world.closing(world.socket.socket(socket.AF_INET6))
    listener.bind(('::1', 0))
    listener.listen(1)
    port = listener.getsockname()[1]
    requests = []

    def serve():
        for _ in range(2):
            peer = Peer(world.closing(listener.accept()[0]), client=False)
            requests.append(peer.head().decode())
            peer.send(switching(requests[-1].encode()))

    def two_addresses(host, port, *_):
        return [
            (socket.AF_INET, socket.SOCK_STREAM, 6, '', ('127.0.0.1', port)),
            (socket.AF_INET6, socket.SOCK_STREAM, 6, '', ('::1', port, 0, 0)),
        ]

    task = world.spawn(serve)
    profile = dataclasses.replace(get_profile(world.name), getaddrinfo=two_addresses)
    for host, how in (('[::1]', {}), ('both.example', {'profile': profile})):
        ws = Client.connect(f'ws://{host}:{port}', **how, **classes)
        ws._link.abandon()
    task.join()
    assert f'Host: [::1]:{port}' in requests[0]
    assert f'Host: both.example:{port}' in requests[1]


def test_a_connected_socket_can_be_given(world, classes):
    theirs, ours = tcp_pair(world)

    def serve():
        peer = Peer(theirs, client=False)
        peer.send(switching(peer.head()))

    task = world.spawn(serve)
    ws = Client.connect('ws://somewhere.example/x', sock=ours, **classes)
    task.join()
    assert ws.connected
    ws._link.abandon()


@pytest.mark.parametrize(
    ('arguments', 'error', 'name'),
    [
        ({'ping_interval': 'often'}, TypeError, 'ping_interval'),
        ({'ping_interval': -1}, ValueError, 'ping_interval'),
        ({'max_message_size': 1.5}, TypeError, 'max_message_size'),
        ({'max_queue': 0}, ValueError, 'max_queue'),
        ({'receive_bytes': 'x'}, TypeError, 'receive_bytes'),
        ({'close_timeout': None}, TypeError, 'close_timeout'),
        ({'compression': 'gzip'}, ValueError, 'compression'),
        ({'subprotocols': 'not a token'}, ValueError, 'subprotocols'),
        ({'subprotocols': 5}, TypeError, 'subprotocols'),
        ({'thread_class': 'threading.Thread'}, TypeError, 'thread_class'),
        ({'profile': 'twisted'}, ValueError, 'profile'),
        ({'profile': 5}, TypeError, 'profile'),
        ({'logger': 'root'}, TypeError, 'logger'),
        ({'nonsense': 1}, TypeError, 'nonsense'),
    ],
)
def test_a_wrong_argument_is_named_and_costs_nothing(world, arguments, error, name):  # 12
    theirs, ours = tcp_pair(world)
    with pytest.raises(error, match=name):
        Server.accept(environ_for(ours), **arguments)
    with pytest.raises(error, match=name):
        Client.connect('ws://127.0.0.1:1', **arguments)
    # The request is still the application's to answer.
    theirs.settimeout(5)
    ours.sendall(b'HTTP/1.1 500 Our own mistake\r\n\r\n')
    assert theirs.recv(100).startswith(b'HTTP/1.1 500')


@pytest.mark.parametrize('timeout', ['1', True, float('nan'), []])
def test_a_wrong_timeout_is_named(end, timeout):
    ws, peer = end()
    with pytest.raises((TypeError, ValueError), match='timeout'):
        ws.receive(timeout)
    with pytest.raises((TypeError, ValueError), match='timeout'):
        ws.send('x', timeout=timeout)
    assert ws.connected


@pytest.mark.parametrize(
    'url', ['ws://h/a b', 'ws://h/\r\nX: y', 'ws://h/#fragment', 'ftp://h', 'ws://', 'ws://h:x']
)
def test_a_wrong_url_is_a_value_error(url):
    with pytest.raises(ValueError, match='url'):
        Client.connect(url)


@pytest.mark.parametrize(
    ('name', 'error'),
    [(5, TypeError), ('', ValueError), ('a..b', ValueError), ('a\0', ValueError)],
)
def test_a_server_hostname_is_checked_before_anything_is_opened(name, error):
    with pytest.raises(error, match='server_hostname'):
        Client.connect('wss://does-not-exist.invalid', server_hostname=name)


def test_a_url_without_ws_in_front_is_told_so():
    words = "url must begin with ws:// or wss://, which is missing: 'localhost:8000/x'"
    with pytest.raises(ValueError, match=words):
        Client.connect('localhost:8000/x')


def test_a_refusal_has_its_headers_and_the_beginning_of_its_body(world, classes):
    listener, port = world.listen()

    def serve():
        peer = Peer(world.closing(listener.accept()[0]), client=False)
        peer.head()
        peer.send(b'HTTP/1.1 403 No\r\nRetry-After: 9\r\nContent-Length: 5\r\n\r\nsince')

    task = world.spawn(serve)
    with pytest.raises(ConnectionError, match='^Connection error: 403 No$') as refused:
        Client.connect(f'ws://127.0.0.1:{port}', **classes)
    assert ('Retry-After', '9') in [(name.title(), value) for name, value in refused.value.headers]
    assert refused.value.body == b'since'
    task.join()


def test_a_client_has_the_headers_of_the_servers_response(world):
    ours, theirs = world.socketpair()
    answer = b'\r\nSet-Cookie: node=7\r\n\r\n'

    def serve():
        peer = Peer(theirs, client=False)
        peer.send(switching(peer.head()).removesuffix(b'\r\n\r\n') + answer)

    task = world.spawn(serve)
    ws = Client.connect('ws://localhost', sock=ours)
    task.join()
    names = [name.lower() for name, _ in ws.response_headers]
    assert ws.response_headers[names.index('set-cookie')][1] == 'node=7'
    ws._link.abandon()


def test_an_environ_without_a_socket_names_the_servers_that_have_one():
    environ = environ_for(None)
    del environ['werkzeug.socket']
    with pytest.raises(RuntimeError, match='(?i)werkzeug.*gunicorn.*gevent.*eventlet') as failed:
        Server.accept(environ)
    assert 'gunicorn (gthread or gevent worker)' in str(failed.value)
    assert 'on an ASGI server use AioServer.' in str(failed.value)
    assert 'A test client has no socket either' in str(failed.value)


def test_an_application_of_a_handler(world, classes):
    @websocket_app(**classes)
    def shout(ws):
        ws.send(ws.receive().upper())
        ws.receive()

    theirs, ours = tcp_pair(world)
    task = world.spawn(shout, environ_for(ours), lambda *_: None)
    peer = Peer(theirs, client=True)
    peer.head()
    peer.send((1, b'hello'))
    peer.expect(1, b'HELLO')
    peer.send(peer.close_frame(1000))
    peer.expect_close(1000)
    assert task.join() == []

    theirs, ours = tcp_pair(world)
    environ = {**environ_for(ours), 'REQUEST_METHOD': 'POST'}
    assert shout(environ, lambda *_: None) == []
    assert Peer(theirs, client=True).head().startswith(b'HTTP/1.1 405')


def test_what_the_host_does_afterwards_goes_nowhere(world, classes):
    theirs, ours = tcp_pair(world)
    ws = Server.accept(environ_for(ours), **classes)
    peer = Peer(theirs, client=True)
    peer.head()
    task = world.spawn(ws.close)
    peer.expect_close(1000)
    peer.send(peer.close_frame(1000))
    task.join()
    ours.settimeout(3)
    ours.sendall(b'HTTP/1.1 200 OK\r\n\r\n')
    assert ours.send(b'more') == 4
    assert ours.recv(100) == b''
    assert ours.recv_into(bytearray(10)) == 0
    ours.shutdown(socket.SHUT_RDWR)
    ours.close()
    peer.expect_eof()


@pytest.mark.parametrize(
    ('wrote', 'code'), [(b'HTTP/1.1 200 OK\r\n\r\n', 1000), (b'HTTP/1.1 500 X\r\n\r\n', 1011)]
)
def test_a_host_that_answers_over_an_open_connection_closes_it(world, classes, wrote, code):
    theirs, ours = tcp_pair(world)
    ws = Server.accept(environ_for(ours), **classes)
    peer = Peer(theirs, client=True)
    peer.head()
    ours.sendall(wrote)
    ours.close()
    peer.expect_close(code)
    peer.send(peer.close_frame(code))
    peer.expect_eof()
    assert not ws.connected and ws.close_reason == code


@pytest.mark.only('eventlet')
def test_a_listener_that_somebody_left_behind_is_not_in_the_way(world):
    """A descriptor that was closed behind the hub's back, and whose number is in use
    again: eventlet is told, else it takes the new one for a second reader."""
    import eventlet.hubs

    listener, port = world.listen()
    stale, _ = world.socketpair()
    told = []
    hub = eventlet.hubs.get_hub()
    fd = os.dup(stale.fileno())
    hub.add(hub.READ, fd, lambda fd: None, told.append, None)
    os.close(fd)
    answering = world.spawn(lambda: listener.accept()[0])
    with pytest.raises(TimeoutError, match='open_timeout'):
        Client.connect(f'ws://127.0.0.1:{port}', open_timeout=0.05)
    assert told
    answering.join().close()


def test_a_name_that_is_not_found_is_named(world, classes):
    profile = dataclasses.replace(get_profile(world.name), getaddrinfo=not_found)
    with pytest.raises(socket.gaierror, match='Name or service not known: no.such.host'):
        Client.connect('ws://no.such.host/', profile=profile)


def not_found(*_):
    raise socket.gaierror(socket.EAI_NONAME, 'Name or service not known')


def test_an_address_that_is_silent_leaves_time_for_the_next(world):
    """Half of it, where there are two."""
    silent, _, others = full_listener()
    listener, port = world.listen()

    def serve():
        peer = Peer(world.closing(listener.accept()[0]), client=False)
        peer.send(switching(peer.head()), (TEXT, b'hello'))

    def addresses(*_):
        for one in (silent.getsockname(), ('127.0.0.1', port)):
            yield socket.AF_INET, socket.SOCK_STREAM, 0, '', one

    task = world.spawn(serve)
    profile = dataclasses.replace(get_profile(world.name), getaddrinfo=addresses)
    ws = Client.connect('ws://localhost', profile=profile, open_timeout=0.4)
    assert ws.receive(5) == 'hello'
    task.join()
    for sock in (silent, *others):
        sock.close()
    ws._link.abandon()


def test_a_connection_shows_where_it_is_and_no_secret(world, classes):
    ours, theirs = world.socketpair()
    ws = Server.accept({**environ_for(ours), 'PATH_INFO': '/a\n', 'QUERY_STRING': 's'}, **classes)
    assert repr(ws) == "<simple_websocket.Server '/a\\n' open>"
    ws._link.give_up()
    assert repr(ws) == "<simple_websocket.Server '/a\\n' closed: 1006>"
    theirs.close()
    ours, theirs = world.socketpair()
    peer = Peer(theirs, client=False)
    task = world.spawn(lambda: peer.send(switching(peer.head())))
    ws = Client.connect('ws://user:secret@localhost/a?token=secret', sock=ours, **classes)
    task.join()
    assert repr(ws) == '<simple_websocket.Client ws://localhost/a open>'
    with pytest.warns(ResourceWarning, match='^unclosed <simple_websocket.Client .* open>$'):
        del ws
        gc.collect()
    peer.close()


def test_the_log_names_the_server_and_no_secret(world, classes, caplog):
    listener, port = world.listen()

    def serve():
        peer = Peer(world.closing(listener.accept()[0]), client=False)
        peer.send(switching(peer.head()))

    task = world.spawn(serve)
    caplog.set_level('DEBUG')
    ws = Client.connect(f'ws://user:secret@127.0.0.1:{port}/a?token=secret', **classes)
    task.join()
    (said,) = [record.getMessage() for record in caplog.records if 'connected' in record.message]
    assert f'ws://127.0.0.1:{port}/a' in said and 'secret' not in said
    ws._link.abandon()


def test_an_address_of_a_family_that_the_system_has_not_is_passed_over(world):
    listener, port = world.listen()

    def serve():
        peer = Peer(world.closing(listener.accept()[0]), client=False)
        peer.send(switching(peer.head()), (TEXT, b'hello'))

    def connect(*families):
        def addresses(*_):
            for family in families:
                yield family, socket.SOCK_STREAM, 0, '', ('127.0.0.1', port)

        profile = dataclasses.replace(get_profile(world.name), getaddrinfo=addresses)
        return Client.connect('ws://localhost', profile=profile, open_timeout=5)

    unknown = 12345
    task = world.spawn(serve)
    ws = connect(unknown, socket.AF_INET)
    assert ws.receive(5) == 'hello'
    task.join()
    ws._link.abandon()
    with pytest.raises(OSError) as failed:
        connect(unknown)
    assert failed.value.errno == errno.EAFNOSUPPORT


@pytest.mark.parametrize('answer', [ZeroDivisionError, 'chat', b'chat'])
def test_what_the_application_raises_in_the_handshake_is_for_the_host(world, classes, answer):
    """It is the host's to say so, which has the socket still."""

    class Picky(Server):
        def choose_subprotocol(self, request):
            if answer is ZeroDivisionError:
                raise answer('a bug')
            return answer

    theirs, ours = tcp_pair(world)
    environ = environ_for(ours)
    with pytest.raises((ZeroDivisionError, ValueError, TypeError)):
        Picky.accept(environ, **classes)
    ours.sendall(b'HTTP/1.1 500 Internal Server Error\r\n\r\n')
    assert theirs.recv(4096).startswith(b'HTTP/1.1 500')
    # Nothing has been taken, so a handler that catches it may accept all the same.
    ws = Server.accept(environ, **classes)
    assert theirs.recv(4096).startswith(b'HTTP/1.1 101')
    ws._link.abandon()
    theirs.close()


@pytest.mark.parametrize(
    ('wrong', 'words'),
    [
        ({'sock': 5}, 'sock must be a connected socket, not 5'),
        ({'server_hostname': 5}, 'server_hostname must be a str, not 5'),
    ],
)
def test_a_wrong_argument_of_connect_is_named(classes, wrong, words):
    with pytest.raises(TypeError, match=words):
        Client.connect('ws://127.0.0.1:1/', **wrong, **classes)


@pytest.mark.parametrize(
    ('status', 'answer'), [(403, b'403 Forbidden'), (None, b'500 '), (101, b'500 ')]
)
def test_the_application_may_refuse_where_it_chooses_a_subprotocol(world, classes, status, answer):
    class Picky(Server):
        def choose_subprotocol(self, request):
            raise ConnectionError(status, 'not you')

    theirs, ours = tcp_pair(world)
    with pytest.raises(ConnectionError) as refused:
        Picky.accept(environ_for(ours), **classes)
    assert refused.value.status_code == int(answer[:3])
    response = b''
    while data := theirs.recv(4096):
        response += data
    assert response.startswith(b'HTTP/1.1 ' + answer) and b'not you' not in response
    theirs.close()


def test_a_refusal_leaves_nothing_for_the_garbage_collector(world, classes):
    """Strangers say how many there are."""

    def refuse():
        theirs, ours = tcp_pair(world)
        environ = environ_for(ours)
        del environ['HTTP_UPGRADE']
        seen = []

        class Seen(Server):
            def __init__(self, *args, **options):
                seen.append(weakref.ref(self))
                super().__init__(*args, **options)

        with contextlib.suppress(ConnectionError):
            Seen.accept(environ, **classes)
        theirs.close()
        environ.clear()
        return seen[0]

    gc.disable()
    try:
        gone = refuse()
        world.settles_to(gone, None)
    finally:
        gc.enable()


def test_the_server_is_told_what_went_out_for_its_log(world, classes):
    told = []
    app = websocket_app(lambda ws: None, **classes)
    for changes in ({}, {'HTTP_UPGRADE': 'h2c'}, {'REQUEST_METHOD': 'POST'}):
        _, ours = tcp_pair(world)
        environ = environ_for(ours)
        environ.update(changes)
        assert app(environ, lambda status, headers: told.append((status, headers))) == []
    assert told == [
        ('101 Switching Protocols', []),
        ('426 Upgrade Required', []),
        ('405 Method Not Allowed', []),
    ]


@pytest.mark.parametrize(
    ('changes', 'words'),
    [
        ({'wsgi.websocket': object()}, 'gevent-websocket'),
        ({'gunicorn.socket': object(), 'SERVER_PROTOCOL': 'HTTP/2.0'}, 'HTTP/2 has no socket'),
    ],
)
def test_a_socket_that_is_not_the_requests_alone_is_left_alone(changes, words):
    environ = environ_for(None)
    del environ['werkzeug.socket']
    with pytest.raises(RuntimeError, match=words):
        Server.accept(environ | changes)
