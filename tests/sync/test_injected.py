"""What the reader of injected classes does with what it finds, step by step."""

from __future__ import annotations

import pytest
from support.frames import TEXT
from support.peer import Peer, accepted, environ_for, tcp_pair
from sync.conftest import injected_classes

from simple_websocket import ConnectionClosed, Server
from simple_websocket.profiles import injected

pytestmark = pytest.mark.only('default-codec')


def test_a_wait_that_ends_for_nothing_goes_on(world, monkeypatch):
    ws, peer = accepted(world, **injected_classes(world))
    looks, take = [], injected.take

    def nothing_at_first(*args):
        looks.append(args)
        return take(*args) if len(looks) > 1 else None

    monkeypatch.setattr(injected, 'take', nothing_at_first)
    receiving = world.spawn(ws.receive)
    world.wait_until(lambda: ws._link._parked)
    peer.send((TEXT, b'hello'))
    assert receiving.join() == 'hello'
    assert len(looks) > 1
    ws._link.abandon()


def test_a_read_that_no_memory_was_left_for_fails_the_connection(world, monkeypatch):
    raised = []

    def exhausted(*args):
        raise MemoryError

    classes = injected_classes(world)

    def thread(target):
        def run():
            with pytest.raises(MemoryError) as error:
                target()
            raised.append(error.value)

        return classes['thread_class'](target=run)

    ws, peer = accepted(world, **{**classes, 'thread_class': thread})
    monkeypatch.setattr(injected, 'take', exhausted)
    receiving = world.spawn(lambda: pytest.raises(ConnectionClosed, ws.receive).value.reason)
    world.wait_until(lambda: ws._link._parked)
    peer.send((TEXT, b'hello'))
    assert receiving.join() == 1006
    world.wait_until(lambda: raised)  # and whoever runs the thread is told
    peer.expect_eof()


class Late:
    """A lock that somebody comes upon late: a function is called before it is taken."""

    def __init__(self, lock):
        self.lock = lock
        self.before = []

    def __enter__(self):
        if self.before:
            self.before.pop()()
        return self.lock.__enter__()

    def __exit__(self, *error):
        return self.lock.__exit__(*error)


def test_a_message_that_is_handed_over_to_who_has_just_woken_is_taken(world):
    classes = injected_classes(world)
    link = None

    def arrive():
        peer.send((TEXT, b'hello'))
        world.wait_until(lambda: link._handed is not None)

    class Event(classes['event_class']):
        def wait(self, timeout=None):
            if isinstance(getattr(link, '_lock', None), Late) and not link._lock.before:
                link._lock.before.append(arrive)
                return False  # for nothing
            return super().wait(timeout)

    ws, peer = accepted(world, **{**classes, 'event_class': Event})
    link = ws._link
    link._lock = Late(link._lock)
    assert ws.receive(5) == 'hello'
    assert link._handed is None
    link.abandon()


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
