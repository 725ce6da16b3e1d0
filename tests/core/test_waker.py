"""Who wakes a thread, and who closes its descriptors meanwhile."""

from __future__ import annotations

import os

import pytest

from simple_websocket.profiles.waker import Waker


def is_open(fd):
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


@pytest.fixture(params=['eventfd', 'pipe'])
def waker(request, monkeypatch):
    if request.param == 'pipe':
        monkeypatch.delattr(os, 'eventfd', raising=False)
    waker = Waker()
    yield waker
    waker.close()


def test_a_descriptor_that_is_being_written_to_is_not_given_back(waker):
    """Another thread closes it between the look at it and the write."""
    fds, seen = list(waker._fds), []
    write = waker._write

    def late_write(fd, data):
        waker.close()
        seen.append([is_open(one) for one in fds])
        return write(fd, data)

    waker._write = late_write
    waker.wake()
    assert seen == [[True] * len(fds)]
    assert not any(map(is_open, fds))


def test_a_closed_one_writes_nowhere_and_is_closed_once(waker):
    fds = list(waker._fds)
    waker.close()
    others = [os.dup(0) for _ in fds]  # who has the numbers now
    assert set(others) & set(fds)
    waker._write = None
    waker.wake()
    waker.close()
    assert all(map(is_open, others))
    for fd in others:
        os.close(fd)


def test_one_that_nobody_holds_leaves_no_descriptor():
    waker = Waker()
    fds = list(waker._fds)
    waker.wake()
    del waker
    assert not any(map(is_open, fds))
