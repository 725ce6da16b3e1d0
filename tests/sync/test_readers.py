"""How a hub is told which connections there are to read: many in one turn, and what
one of them does to the others."""

from __future__ import annotations

import os
import resource
import subprocess
import sys

import pytest
from support.frames import TEXT
from support.peer import Peer, accepted, accepted_over, answers, environ_for, tcp_pair
from support.world import is_open

from simple_websocket import ConnectionClosed, Server
from simple_websocket.profiles.readers import OneByOne, Readers
from simple_websocket.protocol import Protocol

pytestmark = pytest.mark.only('green')

#: One epoll for all: Linux, and the compiled codec.
shared = pytest.mark.only('default-codec')


@pytest.fixture
def many():
    """How many connections make it look ahead, and descriptors for them."""
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(limits[1], 8192), limits[1]))
    yield 600
    resource.setrlimit(resource.RLIMIT_NOFILE, limits)


def echo(ws):
    for message in ws:
        ws.send(message)


def test_hundreds_that_have_something_at_the_same_time(world, many):
    both = []
    for _ in range(many):
        theirs, ours = world.socketpair()
        ws = Server.accept(environ_for(ours))
        both.append((ws, Peer(theirs, client=True)))
    for _, peer in both:
        peer.head()
    waiting = [world.spawn(echo, ws) for ws, _ in both[: many // 2]]
    world.wait_until(lambda: all(ws._link._receiver for ws, _ in both[: many // 2]))
    for turn in range(3):
        for number, (_, peer) in enumerate(both):
            peer.send((TEXT, b'%d of %d' % (number, turn)))
        for number, (ws, peer) in enumerate(both):
            if number >= many // 2:  # nobody waits yet
                assert ws.receive(5) == f'{number} of {turn}'
                ws.send(f'{number} of {turn}')
            peer.expect(TEXT, b'%d of %d' % (number, turn))
    for _, peer in both:
        peer.close()
    for task in waiting:
        task.join()
    for ws, _ in both:
        with pytest.raises(ConnectionClosed):
            ws.receive(5)


def test_who_is_ended_by_another_in_the_same_turn_is_not_read(world):
    both = [accepted(world), accepted(world)]

    def end_the_other(ws, other):
        message = ws.receive(5)
        other._link.give_up()
        return message

    (one, first), (two, second) = both
    waiting = [world.spawn(end_the_other, one, two), world.spawn(end_the_other, two, one)]
    world.wait_until(lambda: one._link._receiver and two._link._receiver)
    first.send((TEXT, b'hello'))
    second.send((TEXT, b'hello'))
    outcomes = []
    for task in waiting:
        try:
            outcomes.append(task.join())
        except ConnectionClosed as closed:
            outcomes.append(closed.reason)
    assert sorted(outcomes, key=str) == [1006, 'hello']
    for ws, _ in both:
        ws._link.give_up()


def test_its_number_is_anothers_in_the_same_turn(world):
    """Two have something; the first ends the second, and accepts one in its place."""
    both = [accepted(world), accepted(world)]
    theirs, ours = tcp_pair(world)
    made = []

    def take_the_place(ws, other):
        try:
            assert ws.receive(5) == 'hello'
        except ConnectionClosed:
            return
        number = other._link.wire.fd
        other._link.give_up()
        assert not is_open(number)
        os.dup2(ours.fileno(), number)
        sock = world.closing(world.socket.socket(fileno=number))
        made.append(accepted_over(theirs, sock))

    (one, first), (two, second) = both
    waiting = [world.spawn(take_the_place, one, two), world.spawn(take_the_place, two, one)]
    world.wait_until(lambda: one._link._receiver and two._link._receiver)
    first.send((TEXT, b'hello'))
    second.send((TEXT, b'hello'))
    for task in waiting:
        task.join()
    ((ws, peer),) = made
    answers(ws, peer)
    for connection in (ws, one, two):
        connection._link.give_up()


def test_one_whose_reading_raises_does_not_keep_it_from_the_others(world, monkeypatch, capfd):
    """As a signal handler may."""
    all_of_them = [accepted(world) for _ in range(5)]
    odd, _ = all_of_them[2]
    eof = Protocol.eof

    def raising(self):
        if self is odd._link.protocol:
            raise RuntimeError('odd')
        eof(self)

    monkeypatch.setattr(Protocol, 'eof', raising)
    waiting = [world.spawn(ws.receive, 5) for ws, _ in all_of_them]
    world.wait_until(lambda: all(ws._link._receiver for ws, _ in all_of_them))
    for ws, peer in all_of_them:
        if ws is odd:
            peer.close()
        else:
            peer.send((TEXT, b'hello'))
    for (ws, peer), task in zip(all_of_them, waiting, strict=True):
        if ws is odd:
            with pytest.raises(ConnectionClosed):
                task.join()
        else:
            assert task.join() == 'hello'
            answers(ws, peer)
            ws._link.give_up()
    assert 'RuntimeError: odd' in capfd.readouterr().err


def test_behind_the_last_one_nothing_is_left(world):
    ws, _ = accepted(world)
    readers = ws._link._readers
    assert readers is Readers.of(ws._link._hub, None)
    before = world.fds()
    ws._link.give_up()
    assert readers._ear is None
    # The connection's own and the epoll; on eventlet also what wakes the hub.
    assert before - world.fds() >= (1 if isinstance(readers, OneByOne) else 2)
    ws, peer = accepted(world)
    assert ws._link._readers is readers
    answers(ws, peer)
    ws._link.give_up()


@shared
def test_one_that_does_not_read_for_a_while_keeps_the_poll(world, monkeypatch):
    """A full queue comes and goes, and the hub need not be told each time."""
    ws, peer = accepted(world, max_queue=1)
    readers = ws._link._readers
    ear = readers._ear
    for number in range(3):
        peer.send((TEXT, b'%d' % number), (TEXT, b'-'))
        world.wait_until(lambda: not ws._link._reading)
        assert [ws.receive(5), ws.receive(5)] == [f'{number}', '-']
        assert ws._link._reading and readers._ear is ear is not None
    ws._link.give_up()
    assert readers._ear is None


def test_who_is_not_there_is_not_removed(world):
    ws, peer = accepted(world)
    other, _ = accepted(world)
    link, readers = ws._link, ws._link._readers
    readers.remove(link.wire.fd, other._link)
    readers.remove(-1, link)
    readers.remove(1_000_000, link)
    readers.drop(1_000_000, object())
    assert readers.add(link.wire.fd, link) is None  # it has stolen nothing from itself
    answers(ws, peer)
    for one in (ws, other):
        one._link.give_up()


@shared
def test_what_it_does_not_take(world):
    ws, peer = accepted(world)
    readers = ws._link._readers
    with pytest.raises(TypeError, match='no link of a hub'):
        readers.add(ws._link.wire.fd, object())
    with pytest.raises(OSError, match='Bad file descriptor'):
        readers.add(-1, ws._link)
    answers(ws, peer)
    ws._link.give_up()


@shared
def test_a_socket_that_lives_on_elsewhere_does_not_keep_the_hub_busy(world, monkeypatch):
    """As in a child that was forked: epoll goes on to tell of it, and by its number,
    which is nobody's, it can't be taken out."""
    watched = []
    watch = Readers.watch

    def watching(self, fd):
        watched.append(fd)
        watch(self, fd)

    monkeypatch.setattr(Readers, 'watch', watching)
    look = world.original('select', 'select')
    ws, peer = accepted(world)
    other, others_peer = accepted(world)
    elsewhere = os.dup(ws._link.wire.fd)
    try:
        receiver = world.spawn(ws.receive, 5)
        world.wait_until(lambda: ws._link._receiver is not None)
        ws._link.wire.let_go()
        peer.send((TEXT, b'nobody reads this'))
        with pytest.raises(ConnectionClosed):
            receiver.join()
        world.wait_until(lambda: len(watched) == 2)  # it has begun with another epoll
        answers(other, others_peer)
        world.wait_until(lambda: not look([watched[-1]], [], [], 0)[0])
        assert len(watched) == 2
    finally:
        os.close(elsewhere)
    other._link.give_up()


@shared
def test_without_a_descriptor_to_begin_with_it_tries_again(world, monkeypatch):
    """The same, and there is none for another epoll."""
    ws, peer = accepted(world)
    other, others_peer = accepted(world)
    elsewhere = os.dup(ws._link.wire.fd)
    watched = []
    watch = Readers.watch
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        ws._link.wire.let_go()
        peer.send((TEXT, b'nobody reads this'))
        monkeypatch.setattr(
            Readers, 'watch', lambda self, fd: (watched.append(fd), watch(self, fd))
        )
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
        with pytest.raises(ConnectionClosed):
            ws.receive(5)
        answers(other, others_peer)
        assert not watched
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        world.wait_until(lambda: watched)
        answers(other, others_peer)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
        os.close(elsewhere)
    other._link.give_up()


def test_without_one_of_the_compiled_files_there_is_a_watcher_for_each(world):
    """They are optional, each."""
    script = f"""
import sys
sys.modules['simple_websocket.profiles._express_many'] = None
from simple_websocket import get_profile
get_profile({world.name!r})
from simple_websocket.profiles import express, readers
assert not express.compiled and readers.SharedPoll is readers.OneByOne"""
    done = subprocess.run(
        [sys.executable, '-W', 'ignore', '-c', script], capture_output=True, text=True, timeout=60
    )
    assert done.returncode == 0, done.stderr
