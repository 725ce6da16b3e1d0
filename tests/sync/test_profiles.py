"""Which profile a connection runs on, and that no hub freezes meanwhile."""

from __future__ import annotations

import dataclasses
import sys
import threading
import warnings

import pytest
from support.frames import CLOSE, TEXT
from support.peer import Peer, accepted, both_ends, connected, environ_for, switching, tcp_pair

from simple_websocket import Client, ConnectionClosed, Profile, Server, get_profile

pytestmark = pytest.mark.only('default-codec')

LINKS = {'threads': 'ThreadLink', 'gevent': 'GeventLink', 'eventlet': 'EventletLink'}


def link_of(ws):
    return type(ws._link).__name__


def test_a_server_runs_in_the_world_of_its_socket(world):
    ws, peer = accepted(world)
    assert link_of(ws) == LINKS[world.name]
    ws._link.abandon()


def test_a_client_runs_in_the_hub_that_it_is_called_in(world):
    ws, peer = connected(world)
    assert link_of(ws) == LINKS[world.name]
    ws._link.abandon()


def test_a_socketpair_of_this_world_will_do(world):
    theirs, ours = world.socketpair()  # which eventlet, patched, wraps twice
    ws = Server.accept(environ_for(ours))
    assert link_of(ws) == LINKS[world.name]
    peer = Peer(theirs, client=True)
    peer.head()
    peer.send((TEXT, b'hello'))
    assert ws.receive(5) == 'hello'
    ws._link.abandon()
    world.settles_to(lambda: ws._link.finished, True)


@pytest.mark.parametrize('by_name', [True, False])
def test_a_profile_can_be_named_or_given(world, by_name):
    profile = world.name if by_name else get_profile(world.name)
    for ws, _ in (accepted(world, profile=profile), connected(world, profile=profile)):
        assert link_of(ws) == LINKS[world.name]
        ws._link.abandon()


def test_a_profile_is_a_frozen_value(world):
    profile = get_profile(world.name)
    assert profile == get_profile(world.name) and profile.name == world.name
    with pytest.raises(dataclasses.FrozenInstanceError):
        profile.name = 'other'


def test_a_profile_of_ones_own_runs_a_reader_on_its_thread_class(world, classes):
    if not classes:
        return
    profile = dataclasses.replace(get_profile(world.name), name='mine', link=None, **classes)
    assert isinstance(profile, Profile)
    ws, peer = accepted(world, profile=profile)
    assert isinstance(ws.thread, classes['thread_class'])
    peer.send((TEXT, b'hello'))
    assert ws.receive(5) == 'hello'
    ws._link.abandon()


def test_injected_classes_are_honoured_literally(world):
    from tests.sync.conftest import injected_classes

    classes = injected_classes(world)
    seen = set()

    def spying(name, base):
        return type(name, (base,), {'__init__': recording(name, base)})

    def recording(name, base):
        def __init__(self, *args, **kwargs):
            seen.add(name)
            base.__init__(self, *args, **kwargs)

        return __init__

    spies = {name: spying(name, kind) for name, kind in classes.items()}
    ws, peer = accepted(world, **spies)
    peer.send((TEXT, b'hello'))
    assert ws.receive(5) == 'hello'
    assert seen == set(spies)
    assert type(ws.thread) is spies['thread_class']
    assert type(ws.event) is spies['event_class']
    ws._link.abandon()


def test_what_comes_between_a_look_and_the_wait_is_not_missed(world):  # invariant 3
    from tests.sync.conftest import injected_classes

    classes = injected_classes(world)

    class Event(classes['event_class']):
        """Cleared just before its connection is looked at again."""

        def clear(self):
            super().clear()
            if messages:
                peer.send((TEXT, messages.pop()))

    messages = []
    ws, peer = accepted(world, **{**classes, 'event_class': Event})
    messages.append(b'just now')
    assert ws.receive(5) == 'just now'
    ws._link.abandon()


def test_what_was_handed_to_a_receiver_that_is_interrupted_comes_first(world):
    from tests.sync.conftest import injected_classes

    classes = injected_classes(world)

    class Interruption(BaseException):
        pass

    class Event(classes['event_class']):
        """Is waited on, and set for a message; then its waiter is interrupted."""

        def wait(self, timeout=None):
            peer.send((TEXT, b'one'))
            assert super().wait(5)
            raise Interruption

    ws, peer = accepted(world, **{**classes, 'event_class': Event})
    with pytest.raises(Interruption):
        ws.receive()
    assert list(ws.input_buffer) == ['one']
    peer.send((TEXT, b'two'))
    world.wait_until(lambda: len(ws.input_buffer) == 2)
    assert [ws.receive(5), ws.receive(5)] == ['one', 'two']
    assert ws.connected
    ws._link.abandon()


@pytest.mark.parametrize('given', ['thread_class', 'event_class', 'selector_class'])
def test_what_is_not_injected_comes_from_the_family_of_what_was(world, given):
    from tests.sync.conftest import injected_classes

    classes = injected_classes(world)
    ws, peer = accepted(world, **{given: classes[given]})
    assert link_of(ws) == 'InjectedLink'
    peer.send((TEXT, b'hello'))
    with world.ticker() as ticker:
        assert ws.receive(5) == 'hello'
        assert ws.receive(0.2) is None
    assert ticker.ticks > 5
    ws._link.abandon()


def test_no_thread_of_its_own_beyond_the_one_shared(world):
    first, other = accepted(world)
    threads = world.os_threads()
    made = [accepted(world) for _ in range(20)]
    assert world.os_threads() <= threads
    for ws, _ in [(first, other), *made]:
        ws._link.abandon()


def test_nothing_freezes_while_a_connection_waits(world, classes):  # A18
    def slow_server(listener, ticker):
        peer = Peer(world.closing(listener.accept()[0]), client=False)
        request = peer.head()
        let_tick(world, ticker)
        peer.send(switching(request))
        let_tick(world, ticker)
        peer.send((TEXT, b'late'))
        peer.expect(CLOSE)
        let_tick(world, ticker)
        peer.send(peer.close_frame(1000))

    listener, port = world.listen()
    with world.ticker() as ticker:
        task = world.spawn(slow_server, listener, ticker)
        ws = Client.connect(f'ws://127.0.0.1:{port}', **classes)
        assert ws.receive(5) == 'late'
        ws.close()
    task.join()


def let_tick(world, ticker, ticks=20):
    """Wait until others have run, which they do not where the hub is frozen."""
    enough = ticker.ticks + ticks
    world.wait_until(lambda: ticker.ticks >= enough)


@pytest.mark.only('green')
def test_a_sender_that_waits_freezes_nobody(world, classes):
    ws, peer = accepted(world, compression=None, **classes)
    with world.ticker() as ticker:
        task = world.spawn(ws.send, b'x' * 20_000_000)
        let_tick(world, ticker)
        assert not task.done
        assert len(peer.expect(2)) == 20_000_000
    task.join()
    ws._link.abandon()


def test_any_os_thread_may_send_and_close(world, classes):  # invariant 4, D4
    ws, peer = accepted(world, **classes)
    receiver = world.spawn(lambda: pytest.raises(ConnectionClosed, ws.receive))
    with world.ticker() as ticker:
        for number in range(5):
            world.real_thread(ws.send, f'from thread {number}').join()
            peer.expect(TEXT, f'from thread {number}'.encode())
        big = world.real_thread(ws.send, b'y' * 5_000_000)
        assert len(peer.expect(2)) == 5_000_000
        big.join()
        closer = world.real_thread(ws.close, 4000)
        peer.expect_close(4000)
        peer.send(peer.close_frame(4000))
        closer.join()
    assert ticker.ticks
    receiver.join()
    assert ws.close_reason == 4000


def test_an_os_thread_gets_the_error_that_is_its_due(world, classes):
    ws, peer = accepted(world, **classes)
    peer.send(peer.close_frame(1000))
    with pytest.raises(ConnectionClosed):
        ws.receive(5)
    task = world.real_thread(ws.send, 'too late')
    with pytest.raises(ConnectionClosed):
        task.join()


@pytest.mark.only('eventlet')
def test_a_descriptor_number_is_free_for_the_next_connection(world):  # A23
    for _ in range(50):
        ws, peer = accepted(world)
        task = world.spawn(ws.receive)
        world.sleep(0)
        ws.close_soon = peer.send(peer.close_frame(1000))
        with pytest.raises(ConnectionClosed):
            task.join()
        peer.expect_close(1000)
        peer.close()
        world.settles_to(lambda ws=ws: ws._link.finished, True)
        fd = ws._link.wire.fd
        one, two = world.socketpair()
        two.sendall(b'mine')
        assert one.recv(10) == b'mine', fd


@pytest.mark.only('gevent unpatched', 'eventlet unpatched')
def test_a_plain_socket_in_a_hub_is_warned_about(world):
    import socket

    theirs, ours = socket.socketpair()
    with pytest.warns(RuntimeWarning, match='freezes'):
        ws = Server.accept(environ_for(ours))
    ws._link.abandon()
    theirs.close()


@pytest.mark.only('threads')
def test_no_warning_without_a_hub(world):
    theirs, ours = tcp_pair(world)
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        ws = Server.accept(environ_for(ours))
    ws._link.abandon()
    assert not {'gevent', 'eventlet'} & set(sys.modules)


@pytest.mark.only('green')
def test_a_plain_socket_can_be_used_in_a_hub_by_naming_the_profile(world):
    one, two = (world.original('socket', 'socketpair') or (lambda: None))()
    ws = Server.accept(environ_for(one), profile=world.name)
    with world.ticker() as ticker:
        assert ws.receive(0.1) is None
    assert ticker.ticks > 5
    ws._link.abandon()
    two.close()


@pytest.mark.only('green')
def test_a_client_on_a_plain_socket_runs_in_the_hub_it_is_made_in(world):
    one, two = world.original('socket', 'socketpair')()
    peer = Peer(world.socket.socket(fileno=two.detach()), client=False)
    task = world.spawn(lambda: peer.send(switching(peer.head())))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        ws = Client.connect('ws://localhost', sock=one)
    task.join()
    with world.ticker() as ticker:
        assert ws.receive(0.1) is None
    assert ticker.ticks > 5 and link_of(ws) == LINKS[world.name]
    ws._link.abandon()
    peer.close()


@pytest.mark.only('threads')
def test_a_library_that_is_not_installed_is_named(world):
    with pytest.raises(ValueError, match='profile must be one of threads, gevent, eventlet'):
        get_profile('trio')


def test_a_signal_handlers_send_does_not_deadlock(world, classes):  # D3
    import signal

    ws, peer = accepted(world, **classes)
    sent = []

    def handler(number, frame):
        ws.send('from the handler')
        sent.append(number)

    if threading.current_thread() is not threading.main_thread():
        return
    before = signal.signal(signal.SIGUSR2, handler)
    try:
        for _ in range(50):
            signal.raise_signal(signal.SIGUSR2)
            ws.send('between')
    finally:
        signal.signal(signal.SIGUSR2, before)
    for _ in range(50):
        peer.expect(TEXT, b'from the handler')
        peer.expect(TEXT, b'between')
    assert len(sent) == 50
    ws._link.abandon()


def test_both_ends_in_one_hub(world, classes):
    with both_ends(world, classes, classes) as (server, client):
        client.send('ping')
        assert server.receive(5) == 'ping'
