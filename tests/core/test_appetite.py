"""How much to read at once: a read of tiny frames must not hold up a hub."""

from __future__ import annotations

import pytest
from support.frames import BINARY, CONTINUATION, PING, TEXT, Frame
from support.lab import End

from simple_websocket.protocol import MANY_FRAMES, MAX_APPETITE


@pytest.fixture(params=[False, True], ids=['server', 'client'])
def end(request):
    return End(client=request.param)


def fill(end, frame, size):
    """A read of so many bytes, of the same frame over and over."""
    one = frame.raw(masked=not end.client)
    end.feed(one * max(size // len(one), 1))
    end.hear()
    return len(one)


@pytest.mark.parametrize('frame', [Frame(PING), Frame(PING, b'x'), Frame(BINARY)])
def test_after_a_read_of_tiny_frames_less_is_read(end, frame):
    end.protocol.dirty = False
    size = fill(end, frame, MAX_APPETITE)
    assert end.protocol.appetite == pytest.approx(MANY_FRAMES * size, rel=0.01)
    assert end.protocol.dirty  # for who has to pass it on
    for _ in range(5):
        fill(end, frame, end.protocol.appetite)
        assert end.protocol.appetite == pytest.approx(MANY_FRAMES * size, rel=0.01)


def test_a_tiny_frame_that_comes_alone_counts_like_many(end):
    fill(end, Frame(PING, b'x' * 60), MAX_APPETITE)
    size = fill(end, Frame(PING), 1)
    assert end.protocol.appetite == MANY_FRAMES * size


def test_fragments_count_too(end):
    end.say(Frame(TEXT, b'a', fin=False))
    size = fill(end, Frame(CONTINUATION, b'b', fin=False), MAX_APPETITE)
    assert end.protocol.appetite == pytest.approx(MANY_FRAMES * size, rel=0.01)


def test_frames_of_some_size_change_nothing(end):
    for payload in (b'x' * 200, b'x' * 5000, b'x' * 60_000):
        fill(end, Frame(BINARY, payload), MAX_APPETITE)
        assert end.protocol.appetite == MAX_APPETITE


def test_a_few_tiny_frames_change_nothing(end):
    fill(end, Frame(PING), 1000)
    assert end.protocol.appetite == MAX_APPETITE


def test_appetite_comes_back_with_large_frames_by_doubling(end):
    fill(end, Frame(PING), MAX_APPETITE)
    data = Frame(BINARY, bytes(1 << 20)).raw(masked=not end.client)
    seen = []
    while data:
        appetite = end.protocol.appetite
        seen.append(appetite)
        end.feed(data[:appetite])
        data = data[appetite:]
    assert end.got == [bytes(1 << 20)]
    assert seen[0] < 4096 and seen[-1] == MAX_APPETITE
    assert all(after <= 2 * before for before, after in zip(seen, seen[1:], strict=False))


def test_the_read_behind_a_flood_of_messages_is_small_while_they_wait(end):
    end.reading = False
    fill(end, Frame(BINARY), MAX_APPETITE)
    assert end.protocol.paused and end.protocol.appetite < 4096
