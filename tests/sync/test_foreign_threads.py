"""OS threads that are not the hub's: what they wait on is real."""

from __future__ import annotations

import pytest


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
