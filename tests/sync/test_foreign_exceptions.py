"""Exceptions that are not about the connection, though they look so.

A signal handler and a timeout of a green library may raise an OSError like any
other, TimeoutError most of all.  It comes out as it is, and says nothing of the peer.
"""

from __future__ import annotations

import errno
import os
import signal
import threading
from functools import partial

import pytest
from support.frames import TEXT
from support.peer import accepted, is_receiving

from simple_websocket import Client, ConnectionClosed, ConnectionError

pytestmark = pytest.mark.only('default-codec')
LARGE = b'x' * 16_000_000  # more than TCP takes of a peer that does not read


class Alarm(TimeoutError):
    """What a handler of SIGALRM raises."""


@pytest.fixture
def alarm():
    """Raises Alarm in this thread as soon as a condition holds, or does what else a
    signal handler can do."""

    def raise_(*_):
        raise Alarm('enough')

    before = signal.signal(signal.SIGALRM, raise_)
    threads = []

    def once(world, condition, handler=raise_):
        signal.signal(signal.SIGALRM, handler)

        def wait():
            world.wait_until(condition)
            signal.pthread_kill(main, signal.SIGALRM)

        main = threading.main_thread().ident
        threads.append(threading.Thread(target=wait))
        threads[-1].start()

    yield once
    signal.signal(signal.SIGALRM, before)
    for thread in threads:
        thread.join(5)


@pytest.mark.only('threads')
@pytest.mark.parametrize('timeout', [None, 30])
def test_an_alarm_in_receive_loses_nothing(world, alarm, timeout):  # invariant 3
    ws, peer = accepted(world)
    alarm(world, lambda: ws._link._blocked)
    with pytest.raises(Alarm):
        ws.receive(timeout)
    assert ws.connected
    peer.send((TEXT, b'hello'))
    assert ws.receive(5) == 'hello'
    ws._link.abandon()


@pytest.mark.only('threads')
def test_an_alarm_in_send_comes_out_and_fails_the_connection(world, alarm):  # invariant 2
    ws, _ = accepted(world)
    alarm(world, lambda: ws._link._waiting)
    with pytest.raises(Alarm):
        ws.send(LARGE)
    with pytest.raises(ConnectionClosed) as closed:
        ws.receive(5)
    assert closed.value.reason == 1006


@pytest.mark.only('green')
def test_a_timeout_of_the_callers_comes_out_of_send(world, classes):
    ws, _ = accepted(world, **classes)
    mine = Alarm('mine')
    with pytest.raises(Alarm) as raised, world.Timeout(0.05, mine):
        ws.send(LARGE)
    assert raised.value is mine
    assert not ws.connected


@pytest.mark.only('green')
@pytest.mark.parametrize('open_timeout', [None, 30])
def test_a_timeout_of_the_callers_comes_out_of_connect(world, classes, open_timeout):
    _, port = world.listen()  # lets in, and says nothing
    mine = Alarm('mine')
    with pytest.raises(Alarm) as raised, world.Timeout(0.05, mine):
        Client.connect(f'ws://127.0.0.1:{port}', open_timeout=open_timeout, **classes)
    assert raised.value is mine


def test_a_timeout_of_its_own_is_the_end_of_the_connection(world, classes):
    ws, _ = accepted(world, **classes)
    with pytest.raises(ConnectionClosed) as closed:
        ws.send(LARGE, timeout=0.05)
    assert closed.value.reason == 1006
    assert isinstance(closed.value.__cause__, TimeoutError)


@pytest.mark.parametrize('long', [30 * 86400.0, 1e10, float('inf')])
def test_a_wait_may_be_longer_than_the_kernel_can_count(world, classes, long):
    """poll() counts milliseconds in 31 bits: 24.8 days."""
    ws, peer = accepted(world, ping_interval=long, **classes)
    receiving = world.spawn(ws.receive, long)
    sending = world.spawn(ws.send, LARGE, long)
    world.wait_until(lambda: is_receiving(ws))
    assert not receiving.done and not sending.done
    peer.send((TEXT, b'hello'))
    peer.read()
    assert receiving.join() == 'hello'
    sending.join()
    listener, port = world.listen()
    answering = world.spawn(lambda: listener.accept()[0].close())
    with pytest.raises(ConnectionError):
        Client.connect(f'ws://127.0.0.1:{port}', open_timeout=long, **classes)
    answering.join()
    assert ws.connected
    ws._link.abandon()


@pytest.mark.only('eventlet')
@pytest.mark.parametrize('long', [30 * 86400.0, 1e10, float('inf')])
def test_a_hub_that_has_nothing_else_to_wait_for_bears_it(world, classes, long, monkeypatch):
    """The time comes to its poll as it is."""
    import eventlet.hubs

    ws, peer = accepted(world, **classes)
    hub = eventlet.hubs.get_hub()
    wait = hub.wait
    # Of those that were called off, the hub comes back when their time has come.
    hub.timers[:] = [entry for entry in hub.timers if not entry[1].called]

    def sleep(seconds):
        if seconds > 3600:
            peer.sock.send(peer.frame(TEXT, b'hello'))
        wait(seconds)

    monkeypatch.setattr(hub, 'wait', sleep)
    assert ws.receive(long) == 'hello'
    ws._link.abandon()


@pytest.mark.only('threads')
@pytest.mark.parametrize('timeout', [None, 30])
def test_a_signal_handler_closes_what_it_has_interrupted(world, timeout, alarm):
    """Who would read the peer's answer goes on when the handler is over."""
    ws, peer = accepted(world, close_timeout=3600)
    alarm(world, lambda: ws._link._blocked, lambda *_: ws.close(1001, 'bye'))
    with pytest.raises(ConnectionClosed) as closed:
        ws.receive(timeout)
    assert (closed.value.reason, closed.value.message) == (1001, 'bye')
    assert peer.expect_close(1001) == 'bye'
    peer.send(peer.close_frame(1001))
    peer.expect_eof()
    peer.close()
    world.settles_to(lambda: ws._link.finished, True)


def test_the_kernel_is_asked_again_behind_its_longest_wait(monkeypatch):
    from simple_websocket.profiles import threads

    asked = []

    class Poll:
        def register(self, *_):
            pass

        def poll(self, milliseconds):
            asked.append(milliseconds)
            return len(asked) == 3

    monkeypatch.setattr(threads, 'original', lambda *_: Poll)
    assert threads.wait_for(0, False, 2.5 * threads.LONGEST_WAIT)
    day = threads.LONGEST_WAIT * 1000
    assert asked == [day, day, day / 2]


@pytest.mark.only('threads')
@pytest.mark.parametrize('timeout', [None, 30])
@pytest.mark.parametrize('number', [errno.ECHILD, errno.EAGAIN])
@pytest.mark.parametrize('kind', ['method', 'object', 'partial'])
def test_what_a_system_call_of_a_signal_handler_says_is_not_about_the_connection(
    world, alarm, timeout, number, kind
):
    error = OSError(number, os.strerror(number))

    class Reaper:
        def __call__(self, *_):
            raise error

        def handle(self, *_):
            raise error

    handlers = {'method': Reaper().handle, 'object': Reaper(), 'partial': partial(Reaper(), 1)}
    ws, peer = accepted(world)
    alarm(world, lambda: ws._link._blocked, handlers[kind])
    with pytest.raises(type(error)) as raised:
        ws.receive(timeout)
    assert raised.value is error and ws.connected
    peer.send((TEXT, b'hello'))
    assert ws.receive(5) == 'hello'
    ws._link.abandon()
