"""OS threads that are not the hub's: what they wait on is real."""

from __future__ import annotations

import pytest
from support.frames import TEXT
from support.peer import accepted

from simple_websocket import ConnectionClosed, broadcast


@pytest.mark.only('green')
def test_an_os_thread_that_waits_for_the_peer_makes_no_hub_of_its_own(end, world):
    # In a patched process the locks of `threading` itself are green ones, and
    # the first contended one would make a hub, and two descriptors with it.
    ws, peer = end(compression=None)
    fds = world.fds()
    closers = [world.real_thread(ws.send, b'x' * 16_000_000) for _ in range(3)]
    world.sleep(0.02)
    assert not any(task.done for task in closers)
    seen = world.fds()
    for _ in closers:
        assert len(peer.read()[1]) == 16_000_000
    for task in closers:
        task.join()
    assert seen == fds


@pytest.mark.only('green')
def test_the_locks_between_os_threads_are_real(world):
    from simple_websocket.profiles.originals import RealEvent, original

    for name in ('RLock', 'allocate_lock'):
        lock = original('_thread', name)()
        assert type(lock).__module__ == '_thread'
    event = RealEvent()
    assert not event.wait(0)
    world.real_thread(event.set).join()
    assert event.wait(5)


def test_calls_of_an_os_thread_behind_the_end_are_told_of_it(end, world):
    """The last connection of a hub takes the ways into it along."""
    ws, peer = end()
    peer.send((TEXT, b'before'), peer.close_frame(4001))
    world.wait_until(lambda: len(ws.input_buffer))
    assert ws.receive(5) == 'before'
    with pytest.raises(ConnectionClosed):
        ws.receive(5)
    peer.expect_close(4001)
    peer.close()
    world.wait_until(lambda: ws._link.finished)

    def told(call, *args):
        with pytest.raises(ConnectionClosed) as closed:
            call(*args)
        return closed.value.reason

    for call, *args in ((ws.receive,), (ws.receive, 0), (ws.send, 'late'), (ws.close,)):
        assert world.real_thread(told, call, *args).join() == 4001
    assert world.real_thread(ws._link.join, 5).join()


@pytest.mark.only('green')
def test_a_call_of_an_os_thread_in_the_last_step_is_told_of_the_end(world):
    """The step has finished the link, and is not over."""
    ws, peer = accepted(world)
    link = ws._link
    peer.close()
    world.wait_until(lambda: link.finished)
    link._inside = True
    for call, *args in ((ws.send, 'late'), (ws.close,)):
        with pytest.raises(ConnectionClosed):
            world.real_thread(call, *args).join()
    result = world.real_thread(broadcast, [ws], 'late').join()
    assert result.closed == [ws]
    link._inside = False


@pytest.mark.only('green')
def test_a_call_of_an_os_thread_waits_for_an_end_that_is_about_to_come(world, monkeypatch):
    """The way into the hub is closed a moment before the link is finished."""
    ws, peer = accepted(world)
    refused = []

    def closed(self, function):
        refused.append(function)
        return False

    monkeypatch.setattr(type(ws._link), '_call_home', closed)
    late = world.real_thread(lambda: pytest.raises(ConnectionClosed, ws.receive).value.reason)
    world.wait_until(lambda: refused)
    peer.send(peer.close_frame(4001))
    peer.expect_close(4001)
    peer.close()
    assert late.join() == 4001
