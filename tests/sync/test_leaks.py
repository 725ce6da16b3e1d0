"""Thousands of connections come and go, in every way in which they end, and
nothing stays behind: no descriptor, thread, greenlet, watcher or state."""

from __future__ import annotations

import contextlib
import gc
import sys
import warnings
import weakref

import pytest
from support.frames import TEXT
from support.peer import Peer, accepted, environ_for, switching

import simple_websocket
from simple_websocket import Client, ConnectionClosed, Server, get_profile
from simple_websocket.profiles import link
from simple_websocket.profiles.watchman import Watchman
from simple_websocket.protocol import Protocol

pytestmark = pytest.mark.only('default-codec')

#: Connections that are open at the same time.
CROWD = 50


def held(world):
    """What there is now of everything that could leak."""
    gc.collect()
    objects = gc.get_objects()
    return {
        'descriptors': world.fds(),
        'threads': world.os_threads(),
        'greenlets': greenlets(objects),
        'in the hub': in_the_hub(world),
        'links': sum(not one.finished for one in list(link._live)),
        'protocols': sum(type(one) is Protocol for one in objects),
    }


def greenlets(objects):
    if 'greenlet' not in sys.modules:
        return 0
    import greenlet

    alive = sum(isinstance(one, greenlet.greenlet) and not one.dead for one in objects)
    if 'gevent' in sys.modules:
        import gevent

        # Its pool comes and goes: each thread has a hub and a main greenlet.
        alive -= 2 * gevent.get_hub().threadpool.size
    return alive


def in_the_hub(world):
    if world.name == 'gevent':
        import gevent

        return gevent.get_hub().loop.activecnt
    if world.name == 'eventlet':
        import eventlet.hubs

        hub = eventlet.hubs.get_hub()
        return len(hub.get_readers()) + len(hub.get_writers())
    return 0


def baseline(world):
    """What is there once the connections before have gone, and the watchman."""
    world.settles_to(lambda: held(world)['protocols'], 0)
    world.settles_to(lambda: Watchman._current, None)
    return held(world)


class Handler:
    """What an application does with a connection until it is ended."""

    def __init__(self, world, ws):
        self.ws = ws
        self.waits = world.Event()
        self.task = world.spawn(self.handle)

    def handle(self):
        with self.ws as ws:
            message = ws.receive()
            ws.send(message)
            self.waits.set()
            with contextlib.suppress(ConnectionClosed):
                ws.receive()


# Ways to end a connection whose handler waits in receive().


def killed(world, handler, peer):
    """The handler is killed; where it can't be, somebody else closes."""
    if world.green:
        world.kill(handler.task)
        assert handler.task.killed
    else:
        handler.ws._close(1001, None, wait=False)
    peer.expect_close(1001)
    peer.close()


def vanished(world, handler, peer):
    peer.close()


def closed(world, handler, peer):
    peer.send(peer.close_frame(4000))
    peer.expect_close(4000)
    peer.close()


def violated(world, handler, peer):
    peer.send((3, b'reserved'))
    peer.expect_close(1002)
    peer.close()


WAYS = (killed, vanished, closed, violated)


def open_server(world):
    ours, theirs = world.socket.socketpair()
    ws = Server.accept(environ_for(ours), close_timeout=2, ping_interval=30)
    peer = Peer(theirs, client=True)
    peer.head()
    return ws, peer


def open_client(world):
    ours, theirs = world.socket.socketpair()
    peer = Peer(theirs, client=False)
    answer = world.spawn(lambda: peer.send(switching(peer.head())))
    ws = Client.connect('ws://localhost/', sock=ours, close_timeout=2, ping_interval=30)
    answer.join()
    return ws, peer


def crowd(world, opener, number):
    """Open connections, talk on each, and end them; each in its way."""
    handlers = []
    for _ in range(number):
        ws, peer = opener(world)
        handlers.append((Handler(world, ws), peer))
        peer.send((TEXT, b'hello'))
    for handler, peer in handlers:
        peer.expect(TEXT, b'hello')
        assert handler.waits.wait(5)
    for index, (handler, peer) in enumerate(handlers):
        WAYS[index % len(WAYS)](world, handler, peer)
    for handler, _ in handlers:
        handler.task.join()
    world._tasks.clear()  # a world keeps what it spawned until the test is over


def crowds(world, opener, total):
    crowd(world, opener, CROWD)  # what is made once is made now
    before = baseline(world)
    for _ in range(total // CROWD):
        crowd(world, opener, CROWD)
    world.comes_down_to(lambda: held(world), before)


@pytest.fixture
def without_the_collector():
    gc.collect()
    gc.disable()
    yield
    gc.enable()


class Token:
    """What somebody has who calls us, and is to go when the call is over."""


def is_let_go(world, call):
    """Assert that what `call` made in its frame, and returns, goes with it."""
    made = weakref.ref(call())
    world.wait_until(lambda: made() is None)


def left_alone(world, ws):
    """The link of a connection that its host has let go of, as behind its request."""
    world._sockets.clear()
    ws.environ.clear()
    return ws._link


def test_a_wait_that_is_over_keeps_nobody(world, without_the_collector):
    one, _ = world.socketpair()
    wait = get_profile(world.name).wait

    def call():
        token = Token()
        assert wait(one.fileno(), False, 0.001) is False
        return token

    is_let_go(world, call)


def test_a_connect_that_fails_keeps_nobody(world, without_the_collector):
    listener, port = world.listen()
    listener.close()

    def call():
        token = Token()
        with contextlib.suppress(OSError):
            Client.connect(f'ws://127.0.0.1:{port}')
        return token

    is_let_go(world, call)


def test_a_send_that_is_late_keeps_no_connection(world, classes, without_the_collector):
    def call():
        ws, peer = accepted(world, compression=None, **classes)
        with contextlib.suppress(ConnectionClosed):
            ws.send(bytes(16_000_000), timeout=0.05)
        peer.close()
        return left_alone(world, ws)

    is_let_go(world, call)


def test_what_tcp_broke_with_keeps_no_connection(world, classes, without_the_collector):
    """Though it broke where an exception of the application was handled."""

    def call():
        ws, peer = accepted(world, **classes)
        peer.reset()
        try:
            raise ValueError
        except ValueError:
            with contextlib.suppress(ConnectionClosed):
                while True:
                    ws.send('x')
        return left_alone(world, ws)

    is_let_go(world, call)


def test_a_connection_that_was_closed_needs_no_collector(world, classes, without_the_collector):
    def call():
        ws, peer = accepted(world, **classes)
        peer.send(peer.close_frame(1000))
        with contextlib.suppress(ConnectionClosed):
            ws.receive(5)
        peer.close()
        return left_alone(world, ws)

    is_let_go(world, call)


@pytest.mark.only('green')
def test_who_made_the_first_connection_is_let_go_while_there_are_others(world):
    gone = []

    def make():
        token = Token()
        gone.append(weakref.ref(token))
        ws, peer = accepted(world)
        sys.modules['greenlet'].getcurrent().token = token
        return ws, peer

    first = world.spawn(make).join()
    second = accepted(world)
    first[0]._link.give_up()
    world._tasks.clear()
    del first

    def let_go():
        gc.collect()
        return gone[0]() is None

    world.wait_until(let_go)
    second[0]._link.give_up()


def test_five_thousand_connections_leave_nothing_behind(world):  # D6
    crowds(world, open_server, 5000)


def test_many_clients_leave_nothing_behind(world):  # D6
    crowds(world, open_client, 500)


def test_connections_that_nobody_closed_leave_nothing_behind(world):  # D6, D8
    def forget(number):
        with warnings.catch_warnings():
            warnings.simplefilter('ignore', ResourceWarning)
            for _ in range(number):
                ws, peer = open_server(world)
                del ws
                gc.collect(0)
                with contextlib.suppress(ConnectionError):
                    assert peer.sock.recv(100) == b''
                peer.close()

    # By itself it may come in between, and what it finds in use is not young any more.
    gc.disable()
    try:
        forget(10)
        before = baseline(world)
        forget(300)
    finally:
        gc.enable()
    world.comes_down_to(lambda: held(world), before)


def test_handshakes_that_fail_leave_nothing_behind(world):  # C6, D6
    def fail(number):
        for index in range(number):
            ours, theirs = world.socket.socketpair()
            peer = Peer(theirs, client=False)
            bad = b'HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n' if index % 2 else b''

            def answer(peer=peer, bad=bad):
                peer.head()
                peer.send(bad)
                peer.close()

            task = world.spawn(answer)
            with pytest.raises(simple_websocket.ConnectionError):
                Client.connect('ws://localhost/', sock=ours)
            task.join()
        world._tasks.clear()

    fail(10)
    before = baseline(world)
    fail(300)
    world.comes_down_to(lambda: held(world), before)
