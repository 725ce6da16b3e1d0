"""What the reader of injected classes does with what it finds, step by step."""

from __future__ import annotations

import socket

import pytest
from support.frames import TEXT
from support.peer import Peer, accepted, environ_for, tcp_pair
from sync.conftest import injected_classes

from simple_websocket import ConnectionClosed, Server

pytestmark = pytest.mark.only('default-codec')


def test_a_look_that_finds_nothing_goes_on(world):
    ws, peer = accepted(world, **injected_classes(world))
    wire, fileno, empty = ws._link.wire, ws._link.wire.fileno, socket.socketpair()
    looks = []

    def nothing_at_first():
        looks.append(1)
        return fileno() if len(looks) > 1 else empty[0].fileno()

    receiving = world.spawn(ws.receive)
    world.wait_until(lambda: ws._link._parked)
    wire.fileno = nothing_at_first
    peer.send((TEXT, b'hello'))
    assert receiving.join() == 'hello'
    assert len(looks) > 1
    wire.fileno = fileno
    ws._link.abandon()
    for sock in empty:
        sock.close()


def test_a_wait_that_ends_for_nothing_goes_on(world):
    classes = injected_classes(world)
    waits = []

    class Event(classes['event_class']):
        def wait(self, timeout=None):
            waits.append(timeout)
            return False if len(waits) == 1 else super().wait(timeout)

    ws, peer = accepted(world, **{**classes, 'event_class': Event})
    receiving = world.spawn(ws.receive)
    world.wait_until(lambda: len(waits) > 1)
    peer.send((TEXT, b'hello'))
    assert receiving.join() == 'hello'
    peer.send((TEXT, b'again'))
    assert ws.receive() == 'again'
    ws._link.abandon()


def test_a_read_that_no_memory_was_left_for_fails_the_connection(world):
    raised = []

    def exhausted():
        raise MemoryError

    classes = injected_classes(world)

    def thread(target):
        def run():
            with pytest.raises(MemoryError) as error:
                target()
            raised.append(error.value)

        return classes['thread_class'](target=run)

    ws, peer = accepted(world, **{**classes, 'thread_class': thread})
    receiving = world.spawn(lambda: pytest.raises(ConnectionClosed, ws.receive).value.reason)
    world.wait_until(lambda: ws._link._parked)
    ws._link.wire.fileno = exhausted
    peer.send((TEXT, b'hello'))
    assert receiving.join() == 1006
    world.wait_until(lambda: raised)  # and whoever runs the thread is told
    peer.expect_eof()


def test_a_reader_that_began_before_its_start_was_interrupted_ends(world):
    """Whoever closes what a selector watches wakes nobody."""
    classes = injected_classes(world)
    selecting, ended = [], []

    class Selector(classes['selector_class']):
        def select(self, timeout=None):
            selecting.append(self)
            return super().select(timeout)

    class Thread:
        def __init__(self, target):
            self.target = target

        def run(self):
            try:
                self.target()
            finally:
                ended.append(self)

        def start(self):
            world.spawn(self.run)
            world.wait_until(lambda: selecting)
            raise KeyboardInterrupt

    ours, theirs = tcp_pair(world)
    with pytest.raises(KeyboardInterrupt):
        Server.accept(
            environ_for(ours),
            **{**classes, 'thread_class': Thread, 'selector_class': Selector},
        )
    world.wait_until(lambda: ended)
    peer = Peer(theirs, client=True)
    peer.head()
    peer.expect_eof()


def test_a_receiver_that_is_interrupted_leaves_what_was_handed_to_it(world):  # invariant 3
    classes = injected_classes(world)
    interrupts = [KeyboardInterrupt]

    class Event(classes['event_class']):
        def wait(self, timeout=None):
            if interrupts:
                peer.send((TEXT, b'one'))
                world.wait_until(lambda: link._handed is not None)
                raise interrupts.pop()
            return super().wait(timeout)

    ws, peer = accepted(world, **{**classes, 'event_class': Event})
    link = ws._link
    with pytest.raises(KeyboardInterrupt):
        ws.receive()
    peer.send((TEXT, b'two'))
    assert [ws.receive(5), ws.receive(5)] == ['one', 'two']
    link.abandon()
