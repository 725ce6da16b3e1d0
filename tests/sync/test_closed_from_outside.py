"""The application has closed a connection's descriptor, as by ``ws.sock.close()``.

The number may be in use again at once, while the hub still has it for the old one.
"""

from __future__ import annotations

import os

import pytest
from support.peer import accepted, accepted_over, answers, connected, tcp_pair
from support.world import is_open

from simple_websocket import ConnectionClosed

pytestmark = [pytest.mark.only('green'), pytest.mark.only('default-codec')]


def in_its_place(world, ws):
    """Close its socket, and accept a connection that has its number then."""
    number = ws._link.wire.fd
    theirs, ours = tcp_pair(world)
    ws.sock.close()
    world.wait_until(lambda: not is_open(number))  # gevent does it in its loop
    os.dup2(ours.fileno(), number)
    ours.close()
    return accepted_over(theirs, world.closing(world.socket.socket(fileno=number)))


def test_the_next_one_of_that_number_works(world):
    odd, _ = connected(world)
    ws, peer = in_its_place(world, odd)
    answers(ws, peer)
    with pytest.raises(ConnectionClosed):
        odd.receive(5)
    answers(ws, peer)
    ws._link.abandon()


def test_that_the_next_one_is_gone_too_does_not_harm_the_hub(world):
    odd, _ = connected(world)
    ws, _ = in_its_place(world, odd)
    ws._link.wire.let_go()
    with pytest.raises(ConnectionClosed):
        odd.receive(5)
    with pytest.raises(ConnectionClosed):
        ws.send('hello')
    another, peer = accepted(world)
    answers(another, peer)
    another._link.abandon()


def test_a_receiver_is_told_though_who_accepted_has_gone(world):
    odd, _ = world.spawn(connected, world).join()
    receiver = world.spawn(odd.receive, 5)
    world.wait_until(lambda: odd._link._receiver is not None)
    ws, peer = in_its_place(world, odd)
    answers(ws, peer)
    with pytest.raises(ConnectionClosed):
        receiver.join()
    ws._link.abandon()


def test_closing_it_when_bytes_wait_for_tcp_too(world):
    """The hub has two watchers of a number that is nobody's."""
    ws, _ = connected(world, compression=None)
    sender = world.spawn(ws.send, b'x' * 16_000_000)
    world.wait_until(lambda: ws._link._writing)
    ws.sock.close()
    ws.close()
    with pytest.raises(ConnectionClosed):
        sender.join()
    assert ws._link.finished and not ws._link._reading and not ws._link._writing
    if world.name == 'eventlet':  # whose hub knows listeners by number
        assert not [kind for kind in ws._link._hub.listeners.values() if ws._link.wire.fd in kind]


def test_before_it_has_to_wait_for_tcp(world, monkeypatch):
    """Between a write that TCP did not take whole and the hub's being told."""
    ws, _ = connected(world, compression=None)
    receiver = world.spawn(ws.receive)
    world.wait_until(lambda: ws._link._receiver is not None)
    done = []

    def closed_then(self):
        monkeypatch.undo()
        self.wire.let_go()
        done.append(True)
        self._start_writing()

    monkeypatch.setattr(type(ws._link), '_start_writing', closed_then)
    with pytest.raises(ConnectionClosed):
        ws.send(b'x' * 16_000_000)
    assert done
    with pytest.raises(ConnectionClosed):
        receiver.join()
    another, peer = accepted(world)
    answers(another, peer)
    another._link.abandon()
