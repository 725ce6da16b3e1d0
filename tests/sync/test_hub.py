"""A hub, what it calls itself, and the threads that are not its own."""

from __future__ import annotations

import pytest
from support.peer import BINARY, TEXT, accepted
from support.points import call_soon

from simple_websocket import ConnectionClosed, broadcast
from simple_websocket.profiles.link import TURN

pytestmark = [pytest.mark.only('green'), pytest.mark.only('default-codec')]
LARGE = b'x' * 16_000_000  # more than TCP takes of a peer that does not read


def in_the_hub(world, function):
    """Call a function in the hub itself, which cannot wait; returns its result."""
    outcome = []

    def run():
        try:
            outcome.append(('result', function()))
        except BaseException as error:
            outcome.append(('error', error))

    call_soon(world, run)
    ((kind, value),) = world.wait_until(lambda: outcome)
    if kind == 'error':
        raise value
    return value


# What a callback of the hub may do with a connection


def test_it_receives_what_is_there_and_does_not_wait(world):
    ws, peer = accepted(world, max_queue=2 * TURN)
    peer.send(*[(TEXT, b'%d' % number) for number in range(TURN + 5)])
    world.wait_until(lambda: len(ws.input_buffer) == TURN + 5)
    got = in_the_hub(world, lambda: [ws.receive() for _ in range(TURN + 6)])
    assert got == [str(number) for number in range(TURN + 5)] + [None]
    ws._link.abandon()


def test_it_sends_what_tcp_takes_and_leaves_the_rest_to_the_hub(world):
    ws, peer = accepted(world, compression=None)
    with world.ticker() as ticker:
        in_the_hub(world, lambda: ws.send(LARGE))
        assert ws._link._unsent
        reading = world.spawn(peer.expect, BINARY, LARGE)
        reading.join()
    assert ticker.ticks
    ws._link.abandon()


def test_it_begins_a_close_that_ends_by_itself(world):
    ws, peer = accepted(world)
    in_the_hub(world, lambda: ws.close(4000))
    peer.expect_close(4000)
    peer.send(peer.close_frame(4000))
    peer.expect_eof()
    peer.close()
    world.settles_to(lambda: ws._link.finished, True)


# What other OS threads may do with it, see also test_profiles.py


def test_another_os_thread_receives(world, classes):
    ws, peer = accepted(world, **classes)
    task = world.real_thread(lambda: [ws.receive(), ws.receive(5), ws.receive(0.01)])
    peer.send((TEXT, b'one'))
    world.sleep(0.02)
    peer.send((TEXT, b'two'))
    assert task.join() == ['one', 'two', None]
    ws._link.abandon()


def test_another_os_thread_wakes_waits_and_gives_up(world):
    bystander, _ = accepted(world)
    ws, peer = accepted(world)
    receiving = world.spawn(lambda: pytest.raises(ConnectionClosed, ws.receive).value.reason)
    world.sleep(0.01)
    world.real_thread(ws.event.set).join()
    world.real_thread(ws.thread.join, 0.01).join()
    assert ws.connected and not receiving.done
    world.real_thread(ws._link.give_up).join()
    world.real_thread(ws.thread.join, 5).join()
    assert receiving.join() == 1006 and not ws.thread.is_alive()
    peer.expect_eof()
    bystander._link.abandon()


def test_a_broadcast_of_another_os_thread_waits_there(world):
    ws, peer = accepted(world, compression=None)
    broadcast([ws], LARGE)
    task = world.real_thread(lambda: broadcast([ws], 'behind', slow='wait', timeout=20))
    with world.ticker() as ticker:
        peer.expect(BINARY, LARGE)
        peer.expect(TEXT, b'behind')
    assert task.join().sent == [ws] and ticker.ticks
    ws._link.abandon()


def test_waiting_for_the_end_takes_no_longer_than_it_may(world):
    ws, peer = accepted(world)
    with world.ticker() as ticker:
        ws.thread.join(0.05)
    assert ws.thread.is_alive() and ticker.ticks
    ws._link.abandon()


@pytest.mark.only('gevent')
def test_a_reader_that_is_killed_fails_the_connection(world):
    """Nobody would notice anything any more."""
    import gevent

    class Thread(gevent.Greenlet):
        def __init__(self, target):
            super().__init__(target)

    ws, peer = accepted(world, thread_class=Thread)
    receiving = world.spawn(lambda: pytest.raises(ConnectionClosed, ws.receive).value.reason)
    world.sleep(0.01)
    ws.thread.kill()
    assert receiving.join() == 1006
    peer.expect_eof()
