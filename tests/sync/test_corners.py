"""What happens rarely: full buffers and errors in the middle of connecting, and
hosts that are not quite like the others."""

from __future__ import annotations

import array
import contextlib
import copy
import dataclasses
import errno
import gc
import pickle
import selectors
import socket
import sys
import types

import pytest
from support.frames import BINARY, TEXT
from support.peer import (
    Peer,
    accepted,
    connected,
    environ_for,
    full_listener,
    reset_at_close,
    switching,
    tcp_pair,
)
from sync.test_tls import context

from simple_websocket import (
    Client,
    ConnectionClosed,
    ConnectionError,
    Server,
    SimpleWebsocketError,
    client_handshake,
    get_profile,
    websocket_app,
)
from simple_websocket.hosts import Host, find_socket, make_husk, take_over
from simple_websocket.profiles import link
from simple_websocket.profiles.wire import Wire

RESET = object()


def noting(world):
    """The profile of a world, and what connections have waited to write for."""
    profile = get_profile(world.name)
    waits = []

    def wait(fd, write, timeout):
        waits.append((write, timeout))
        return profile.wait(fd, write, timeout)

    return dataclasses.replace(profile, wait=wait), waits


def fill(sock):
    """Write until nothing more fits; how much it was."""
    sock.setblocking(False)
    size = 0
    with contextlib.suppress(OSError):
        while True:
            size += sock.send(b'x' * 65536)
    while True:  # the rest of the room, if there is any
        try:
            size += sock.send(b'x')
        except OSError:
            return size


def read_all(sock, size):
    while size:
        size -= len(sock.recv(min(size, 65536)))


@pytest.mark.parametrize('open_timeout', [None, 5])
def test_a_request_waits_until_there_is_room_for_it(world, open_timeout):
    theirs, ours = world.socketpair()
    size = fill(ours)
    profile, waits = noting(world)
    options = {'sock': ours, 'profile': profile, 'open_timeout': open_timeout}
    task = world.spawn(lambda: Client.connect('ws://localhost', **options))
    world.wait_until(lambda: waits)
    assert waits[0][0] and (waits[0][1] is None) is (open_timeout is None)
    read_all(theirs, size)
    peer = Peer(theirs, client=False)
    peer.send(switching(peer.head()), (TEXT, b'hello'))
    ws = task.join()
    assert ws.receive(5) == 'hello'
    ws._link.abandon()
    world.settles_to(lambda: ws._link.finished, True)


def test_a_tls_handshake_waits_until_there_is_room_for_it(world):
    theirs, ours = world.socketpair()
    size = fill(ours)
    profile, waits = noting(world)
    options = {'sock': ours, 'profile': profile, 'ssl_context': context(world, False)}
    task = world.spawn(lambda: Client.connect('wss://localhost', **options))
    world.wait_until(lambda: waits)
    assert waits[0][0]
    read_all(theirs, size)
    tls = world.closing(context(world, True).wrap_socket(theirs, server_side=True))
    peer = Peer(tls, client=False)
    peer.send(switching(peer.head()), (TEXT, b'hello'))
    ws = task.join()
    assert ws.receive(5) == 'hello'
    ws._link.abandon()
    world.settles_to(lambda: ws._link.finished, True)


def test_a_reset_in_the_handshake_is_a_connection_error(world, classes):
    listener, port = world.listen()

    def serve():
        sock = listener.accept()[0]
        Peer(sock, client=False).head()
        reset_at_close(sock)
        sock.close()

    task = world.spawn(serve)
    with pytest.raises(ConnectionError, match='the handshake failed') as failed:
        Client.connect(f'ws://127.0.0.1:{port}', **classes)
    assert isinstance(failed.value.__cause__, OSError)
    task.join()


@pytest.mark.parametrize('rest', [b' since', b'', RESET])
def test_the_body_of_a_refusal_is_waited_for_a_moment(world, monkeypatch, rest):
    if not rest:
        monkeypatch.setattr(client_handshake, 'BODY_TIME', 0.05)
    listener, port = world.listen()
    profile, waits = noting(world)

    def serve():
        sock = world.closing(listener.accept()[0])
        peer = Peer(sock, client=False)
        peer.head()
        world.wait_until(lambda: waits)
        before = len(waits)
        peer.send(b'HTTP/1.1 403 No\r\nContent-Length: 9\r\n\r\nno,')
        world.wait_until(lambda: len(waits) > before)
        if rest is RESET:
            peer.reset()
        else:
            peer.send(rest)

    task = world.spawn(serve)
    with pytest.raises(ConnectionError, match='^Connection error: 403 No$') as refused:
        Client.connect(f'ws://127.0.0.1:{port}', profile=profile)
    assert refused.value.body == b'no,' + (b'' if rest is RESET else rest)
    task.join()


def resolving_to(world, *addresses, **changes):
    """The profile of a world where every name has these addresses."""
    return dataclasses.replace(
        get_profile(world.name), getaddrinfo=lambda *_: addresses, **changes
    )


def tcp(port):
    return socket.AF_INET, socket.SOCK_STREAM, 0, '', ('127.0.0.1', port)


def test_an_address_that_lets_us_in_at_once_needs_no_wait(world, tmp_path):
    """TCP on loopback may do so, a Unix socket always does."""
    listener = world.closing(world.socket.socket(socket.AF_UNIX))
    listener.bind(str(tmp_path / 'socket'))
    listener.listen()
    address = socket.AF_UNIX, socket.SOCK_STREAM, 0, '', str(tmp_path / 'socket')

    def serve():
        peer = Peer(world.closing(listener.accept()[0]), client=False)
        peer.send(switching(peer.head()), (TEXT, b'hello'))

    task = world.spawn(serve)
    ws = Client.connect('ws://localhost', profile=resolving_to(world, address))
    assert ws.receive(5) == 'hello'
    task.join()
    ws._link.abandon()
    world.settles_to(lambda: ws._link.finished, True)


def test_a_name_without_an_address_is_an_oserror(world):
    with pytest.raises(OSError, match='localhost has no address') as failed:
        Client.connect('ws://localhost', profile=resolving_to(world))
    assert failed.value.errno == errno.EHOSTUNREACH


def test_addresses_that_never_answer_share_the_time_there_is(world):
    """The deadline is one for all of them, and the second has a chance."""
    asked = []

    def wait(fd, write, timeout):
        asked.append(timeout)
        return False

    silent, port, others = full_listener()
    profile = resolving_to(world, tcp(port), tcp(port), wait=wait)
    gc.collect()
    baseline = world.fds()
    with pytest.raises(TimeoutError, match='open_timeout'):
        Client.connect('ws://localhost', profile=profile, open_timeout=3)
    for sock in (silent, *others):
        sock.close()
    assert len(asked) == 2 and 1.4 < asked[0] <= 1.5 < 2.9 < asked[1] <= 3
    assert world.fds() <= baseline


def test_of_several_addresses_each_error_is_told(world):
    silent, port, others = full_listener()
    listener, closed = world.listen()
    listener.close()

    def wait(fd, write, timeout):
        return get_profile(world.name).wait(fd, write, min(timeout, 0.05))

    profile = resolving_to(world, tcp(closed), tcp(port), tcp(closed), wait=wait)
    with pytest.raises(ConnectionRefusedError) as failed:
        Client.connect('ws://localhost', profile=profile, open_timeout=3)
    assert failed.value.errno == errno.ECONNREFUSED
    assert failed.value.strerror == (
        f'Connection refused: 127.0.0.1 port {closed}; '
        f'no answer within open_timeout: 127.0.0.1 port {port}'
    )
    for sock in (silent, *others):
        sock.close()


def test_an_interrupt_while_connecting_leaves_no_socket(world):
    def wait(fd, write, timeout):
        raise KeyboardInterrupt

    _, port = world.listen()
    profile = resolving_to(world, tcp(port), wait=wait)
    gc.collect()
    baseline = world.fds()
    with pytest.raises(KeyboardInterrupt):
        Client.connect('ws://localhost', profile=profile)
    assert world.fds() <= baseline


def test_werkzeug_is_kept_from_selecting_on_a_socket_of_any_world(world):
    theirs, ours = world.socketpair()
    wire = Wire(ours)
    make_husk(ours, lambda data: None, refuse_select=True)
    assert ours.fileno() == wire.fd
    selector = selectors.DefaultSelector()
    with pytest.raises(ConnectionAbortedError):
        selector.register(ours, selectors.EVENT_READ)
    wire.close()


@pytest.mark.parametrize('handler', [5, 'f'])
def test_an_application_of_what_cannot_be_called_is_a_type_error(handler):
    with pytest.raises(TypeError, match=f'handler must be a function .*, not {handler!r}'):
        websocket_app(handler)


def test_what_a_host_sends_in_pieces_goes_nowhere_either(world):
    theirs, ours = tcp_pair(world)
    ws = Server.accept(environ_for(ours))
    peer = Peer(theirs, client=True)
    peer.head()
    assert ours.sendmsg([b'HTTP/1.1 200', b' OK\r\n\r\n']) == 19
    peer.expect_close(1000)
    peer.send(peer.close_frame(1000))
    peer.expect_eof()
    assert ws.close_reason == 1000


@contextlib.contextmanager
def lent(sock):
    """Give a socket back to its class, which closes it, when the block is left."""
    kind, inner = type(sock), getattr(sock, '_sock', None)
    try:
        yield
    finally:
        sock.__class__ = kind
        if inner is not None and inner is not sock:  # eventlet's is itself
            sock._sock = inner


def test_a_host_that_says_nothing_of_an_input_has_read_nothing_ahead(world):
    theirs, ours = tcp_pair(world)
    host = Host('minimal', lambda environ: environ.get('minimal.socket'))
    told = []
    with lent(ours):
        assert take_over(host, {'minimal.socket': ours}, ours, told.append) == b''
        assert ours.recv(10) == b''
        ours.sendall(b'HTTP/1.1 500 Oh')
    assert told == [b'HTTP/1.1 500 Oh']
    theirs.settimeout(0)
    with pytest.raises(OSError):
        theirs.recv(1)


# What asks for it, Werkzeug, never has eventlet's sockets unless all is patched.
@pytest.mark.only('threads', 'gevent')
def test_a_selector_of_a_hosts_own_is_refused_the_socket_too(world):
    """Not only one that registers it, see `Host.refuse_select`."""
    _, ours = tcp_pair(world)
    host = Host('picky', lambda environ: ours, refuse_select=True)
    with lent(ours):
        take_over(host, {}, ours, lambda data: None)
        with pytest.raises(ConnectionAbortedError):
            selectors._fileobj_to_fd(ours)
        selector = selectors.DefaultSelector()
        with pytest.raises(ConnectionAbortedError):
            selector.register(ours, selectors.EVENT_READ)
        assert selector.get_map() is None  # closed, for nobody else would


def test_an_eventlet_server_of_another_age_is_taken_over_all_the_same(world, monkeypatch):
    """Older ones have no flag to say that the request was handled."""
    monkeypatch.setitem(sys.modules, 'eventlet.wsgi', types.ModuleType('eventlet.wsgi'))
    theirs, ours = tcp_pair(world)
    read = types.SimpleNamespace(read=lambda: b'early', close=lambda: None)
    environ = {'eventlet.input': types.SimpleNamespace(get_socket=lambda: ours, rfile=read)}
    host, sock = find_socket(environ)
    assert sock is ours
    with lent(ours):
        assert take_over(host, environ, sock, lambda data: None) == b'early'
    theirs.close()



def test_what_programs_for_1x_ask_of_event_and_thread_is_answered(world):
    ws, peer = connected(world)
    assert not ws.event.is_set() and not ws.event.wait(0)
    assert ws.thread.is_alive()
    peer.send((TEXT, b'hello'))
    world.wait_until(ws.event.is_set)
    assert ws.event.wait(0) and ws.receive(0) == 'hello'
    ws.event.clear()
    ws._link.abandon()
    ws.thread.join(5)
    world.settles_to(ws.thread.is_alive, False)
    assert ws.event.is_set()


def test_to_wait_for_an_end_that_has_come_takes_no_time(world, classes):
    theirs, ours = tcp_pair(world)
    ws = Server.accept(environ_for(ours), **classes)
    ws._link.give_up()
    world.settles_to(lambda: ws._link.finished, True)
    assert ws._link.join(0) and ws._link.join(None)
    theirs.close()


def test_an_environ_that_is_none_is_named():
    with pytest.raises(TypeError, match="environ must be the WSGI environ, not 'x'$"):
        Server.accept('x')


def test_a_request_in_place_of_its_environ_is_told_so():
    request = types.SimpleNamespace(environ={})
    with pytest.raises(TypeError, match='WSGI environ, not namespace.*; pass request.environ$'):
        Server.accept(request)


def test_a_name_that_no_resolver_knows_is_in_the_error(world, classes):
    def unknown(*_):
        raise socket.gaierror(socket.EAI_NONAME, 'Name or service not known')

    profile = dataclasses.replace(get_profile(world.name), getaddrinfo=unknown)
    with pytest.raises(socket.gaierror, match=r'not known: chat\.example$') as failed:
        Client.connect('ws://user:secret@chat.example/x', profile=profile, **classes)
    assert failed.value.errno == socket.EAI_NONAME


@pytest.mark.parametrize(
    ('options', 'error', 'words'),
    [
        ({'max_size': 3}, TypeError, r"websocket_app\(\) got an unexpected .*'max_size'"),
        ({'environ': {}}, TypeError, 'environ'),
        ({'open_timeout': 1}, TypeError, 'open_timeout'),
        ({'receive_bytes': 'x'}, TypeError, 'receive_bytes'),
        ({'ping_interval': -1}, ValueError, 'ping_interval'),
        ({'max_message_size': 1.5}, TypeError, 'max_message_size'),
        ({'compression': 'gzip'}, ValueError, 'compression'),
        ({'subprotocols': 'not a token'}, ValueError, 'subprotocols'),
        ({'origins': '*'}, ValueError, 'origins'),
        ({'headers': {'A': 5}}, TypeError, 'headers'),
        ({'profile': 'twisted'}, ValueError, 'profile'),
        ({'profile': []}, TypeError, 'profile'),
        ({'thread_class': 'x'}, TypeError, 'thread_class'),
        ({'event_class': 'x'}, TypeError, 'event_class'),
        ({'selector_class': 'x'}, TypeError, 'selector_class'),
    ],
)
def test_a_wrong_option_of_an_application_is_noticed_at_once(options, error, words):
    with pytest.raises(error, match=words):
        websocket_app(**options)
    with pytest.raises(error, match=words):
        websocket_app(lambda ws: None, **options)


def test_an_application_takes_what_a_server_takes(world, classes):
    options = {
        'receive_bytes': 1,
        'ping_interval': 60,
        'max_message_size': 3,
        'profile': world.name,
        'close_timeout': 0,
        'subprotocols': iter(['chat']),
        'origins': iter(['http://localhost']),
        'headers': iter([('X-Own', 'yes')]),
        **classes,
    }
    seen = []
    app = websocket_app(lambda ws: seen.append((ws.subprotocol, ws._options)), **options)
    for _ in range(2):  # the second connection, too
        theirs, ours = tcp_pair(world)
        request = {'origin': 'http://localhost', 'sec_websocket_protocol': 'chat'}
        task = world.spawn(app, environ_for(ours, **request), lambda *_: None)
        assert b'\r\nX-Own: yes' in Peer(theirs, client=True).head()
        task.join()
    for subprotocol, taken in seen:
        assert (subprotocol, taken.ping_interval, taken.max_message_size) == ('chat', 60, 3)
    assert len(seen) == 2


def test_the_options_of_an_application_import_no_backend(monkeypatch):
    """The process may want to monkey-patch first."""
    monkeypatch.setattr('simple_websocket.profiles.get_profile', None)
    for profile in ('threads', 'gevent', 'eventlet'):
        assert callable(websocket_app(lambda ws: None, profile=profile, thread_class=type))


def test_tls_options_of_another_kind_are_named():
    with pytest.raises(TypeError, match='ssl_context must be an ssl.SSLContext, not True'):
        Client.connect('wss://localhost', ssl_context=True)


def test_a_receiver_on_a_unix_socket_is_released_by_a_close(world):
    """The end of such a socket shows in another way than that of TCP."""
    theirs, ours = world.socketpair()
    ws = Server.accept(environ_for(ours))
    peer = Peer(theirs, client=True)
    peer.head()

    def receive():
        with pytest.raises(ConnectionClosed) as closed:
            ws.receive()
        return closed.value.reason

    receiving = world.spawn(receive)
    closing = world.spawn(ws.close, 4000)
    peer.expect_close(4000)
    assert receiving.join() == 4000
    peer.send((TEXT, b'late'), peer.close_frame(4000))
    peer.expect_eof()
    peer.close()
    closing.join()
    assert ws.close_reason == 4000


def test_what_came_before_the_connection_broke_is_received_however_much_it_is(
    world, classes, monkeypatch
):
    monkeypatch.setattr(link, 'READS', 1)
    theirs, ours = tcp_pair(world)
    ws = Server.accept(environ_for(ours), **classes)
    peer = Peer(theirs, client=True)
    peer.head()

    def broken(*_):
        raise BrokenPipeError(errno.EPIPE, 'for the test')

    ws._link.wire.raw_send, ws._link.wire.fileno = broken, None
    peer.send((TEXT, b'one'), (TEXT, b'two'))
    with pytest.raises(ConnectionClosed) as closed:
        ws.send('lost')
    assert closed.value.reason == 1006
    assert [ws.receive(0), ws.receive(0)] == ['one', 'two']
    with pytest.raises(ConnectionClosed):
        ws.receive(0)


@pytest.mark.parametrize('compression', [None, True])
@pytest.mark.parametrize('text', ['\ud800', 'x\udfff' * 500], ids=['short', 'long'])
def test_text_that_has_no_utf8_form_is_an_error_and_sends_nothing(world, text, compression):
    offer = {'sec_websocket_extensions': 'permessage-deflate'} if compression else {}
    ws, peer = accepted(world, compression=compression, request=offer)
    with pytest.raises(ValueError, match='surrogates not allowed'):
        ws.send(text)
    ws.send('größer')
    peer.expect(TEXT, 'größer'.encode())
    ws._link.abandon()


@pytest.mark.only('default-codec')
def test_a_message_that_came_while_we_closed_is_discarded(world):
    ws, peer = accepted(world)
    link = ws._link
    link.close(b'', 1000, None, wait=False)
    link._guarded(lambda: link._take_in('late'))  # as a receiver on its way back does
    assert not ws.input_buffer
    peer.expect_close(None)
    link.abandon()


@pytest.mark.parametrize('call', ['send', 'receive', 'close'])
def test_a_connection_that_was_never_made_says_so(call):
    ws = Client.__new__(Client)
    arguments = ('x',) if call == 'send' else ()
    with pytest.raises(SimpleWebsocketError, match=r'make it with accept\(\) or connect\(\)'):
        getattr(ws, call)(*arguments)


@pytest.mark.parametrize('take', [copy.copy, copy.deepcopy, pickle.dumps])
def test_there_is_one_of_a_connection(world, classes, take):
    """A copy would end it when it goes."""
    ws, peer = accepted(world, **classes)
    with pytest.raises(TypeError, match='can neither be pickled nor copied'):
        take(ws)
    gc.collect()
    ws.send('still here')
    peer.expect(TEXT, b'still here')
    ws._link.abandon()


def test_whatever_has_a_buffer_is_binary(world, classes):
    ws, peer = accepted(world, compression=None, **classes)
    for data in (array.array('B', b'abc'), memoryview(b'xabc')[1:], pickle.PickleBuffer(b'abc')):
        ws.send(data)
        peer.expect(BINARY, b'abc')
    ws.send(5)
    peer.expect(TEXT, b'5')
    ws._link.abandon()
