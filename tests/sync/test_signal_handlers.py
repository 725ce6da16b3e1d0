"""A signal handler that uses the connection whose step it has interrupted.

The interpreter runs it between any two bytecodes of the thread that it
interrupts; here, in the middle of a write or a read of the socket.
"""

from __future__ import annotations

import pytest
from support.frames import CLOSE, PING, PONG, TEXT
from support.peer import accepted, is_receiving

from simple_websocket import ConnectionClosed, broadcast
from simple_websocket.protocol import Protocol

pytestmark = pytest.mark.only('default-codec')


def in_the_next_write(ws, handler):
    """Run `handler` in the middle of the next write."""
    wire = ws._link.wire
    send = wire.raw_send

    def interrupted(*arguments):
        wire.raw_send = send
        handler()
        return send(*arguments)

    wire.raw_send, wire.fileno = interrupted, None


@pytest.fixture(params=['send', 'broadcast'])
def say(request):
    """Sends a text in one of the two ways."""
    if request.param == 'send':
        return lambda ws, text: ws.send(text)
    return lambda ws, text: broadcast([ws], text)


def test_what_it_sends_goes_behind_what_it_interrupted(world, classes, say):
    ws, peer = accepted(world, compression=None, **classes)
    for outer in (ws.send, lambda text: broadcast([ws], text)):
        in_the_next_write(ws, lambda: [say(ws, text) for text in ('two', 'three')])
        outer('one')
        for text in (b'one', b'two', b'three'):
            peer.expect(TEXT, text)
    ws.send('and on')
    peer.expect(TEXT, b'and on')
    ws._link.abandon()


def test_what_it_sends_goes_behind_an_answer_to_the_peer(world, classes, say):
    ws, peer = accepted(world, compression=None, **classes)
    in_the_next_write(ws, lambda: say(ws, 'behind the pong'))
    receiving = world.spawn(ws.receive, 5)
    peer.send((PING, b'?'))
    peer.expect(PONG, b'?')
    # Of threads, the one that reads may be another than the one that writes:
    # then what the handler says is a message like any other.
    peer.expect(TEXT, b'behind the pong')
    peer.send((TEXT, b'thanks'))
    assert receiving.join() == 'thanks'
    ws._link.abandon()


def test_what_it_sends_in_the_middle_of_a_read_is_sent(world, classes, say, monkeypatch):
    ws, peer = accepted(world, compression=None, **classes)

    def interrupted(method):
        real = getattr(Protocol, method)

        def run(self, data):
            monkeypatch.undo()
            say(ws, 'from the handler')
            return real(self, data)

        monkeypatch.setattr(Protocol, method, run)

    for method in ('feed', 'take_in'):
        interrupted(method)
    receiving = world.spawn(ws.receive)
    world.wait_until(lambda: is_receiving(ws))
    peer.send((PING, b'?'), (TEXT, b'hello'))
    heard = [peer.read(), peer.read()]
    assert sorted(heard) == [(TEXT, b'from the handler'), (PONG, b'?')]
    assert receiving.join() == 'hello'
    ws._link.abandon()


def test_nothing_that_it_sends_follows_a_close(world, classes, say):
    ws, peer = accepted(world, compression=None, **classes)

    def handler():
        ws._close(4000, None, wait=False)
        say(ws, 'late')

    in_the_next_write(ws, handler)
    ws.send('hello')
    peer.expect(TEXT, b'hello')
    peer.expect_close(4000)
    with pytest.raises(ConnectionClosed) as closed:
        ws.send('later')
    assert closed.value.reason == 4000
    peer.send(peer.close_frame(4000))
    peer.expect_eof()


def test_a_close_that_was_begun_already_goes_on(world, classes):
    ws, peer = accepted(world, compression=None, **classes)
    in_the_next_write(ws, lambda: ws._close(4001, None, wait=False))
    ws._close(4000, None, wait=False)
    peer.expect(CLOSE, (4000).to_bytes(2, 'big'))
    peer.send(peer.close_frame(4000))
    peer.expect_eof()
    peer.close()
    world.settles_to(lambda: ws._link.finished, True)
    assert ws.close_reason == 4000


def test_a_close_in_the_middle_of_a_step_does_not_wait_there(world, classes):
    """All else, the deadlines too, waits for the step to end."""
    ws, peer = accepted(world, compression=None, close_timeout=0.1, **classes)
    in_the_next_write(ws, lambda: ws.close(4001))
    ws.send('hello')
    peer.expect(TEXT, b'hello')
    peer.expect_close(4001)
    world.settles_to(lambda: ws._link.finished, True)  # though the peer does not answer


def test_what_it_sends_behind_the_echo_of_a_close_is_not_sent(world, classes, monkeypatch):
    """Section 5.5.1: no data frame follows a Close."""
    ws, peer = accepted(world, compression=None, **classes)
    move = Protocol._move

    def interrupted(self, state):
        monkeypatch.undo()
        ws.send('late')
        return move(self, state)

    peer.send((TEXT, b'hi'), peer.close_frame(4000))
    assert ws.receive(5) == 'hi'
    monkeypatch.setattr(Protocol, '_move', interrupted)
    with pytest.raises(ConnectionClosed) as closed:
        ws.receive(5)
    assert closed.value.reason == 4000
    peer.expect_close(4000)
    peer.close()
