"""Who decodes what he receives himself is given the decoder, in `direct()`, where
a message may go past those that wait; what comes of it is what comes of `feed()`."""

from __future__ import annotations

import pytest
from support.frames import BINARY, CONTINUATION, PING, PONG, TEXT, Frame, closing, fragments, wire
from support.lab import End, ways

from simple_websocket.protocol import ENDED, ENDING, MANY_FRAMES, MAX_APPETITE


def pump(end, data):
    """Receive as a link does whose application waits for a message."""
    protocol = end.protocol
    decoder = protocol.direct()
    if decoder is None:
        end.feed(data)
        return
    message = decoder.whole(data)
    if message is None:
        protocol.take_in(decoder.feed(data))
    else:
        protocol.heard = protocol.answering = True
        end.got.append(message)
    end.drain()


STREAMS = {
    'messages': [Frame(TEXT, b'a'), Frame(BINARY), Frame(BINARY, bytes(300))],
    'empty fragments': fragments(BINARY, b'', b'', b''),
    'a ping between fragments': [
        Frame(TEXT, b'\xe2', False),
        Frame(PING, b'p'),
        Frame(CONTINUATION, b'\x82\xac'),
        Frame(TEXT, b'b'),
    ],
    'a pong that nobody asked for': [Frame(PONG, b'x'), Frame(TEXT, b'a')],
    'a Close': [Frame(TEXT, b'a'), closing(4001, 'bye'), Frame(TEXT, b'late')],
    'a violation': [Frame(TEXT, b'a'), Frame(3), Frame(TEXT, b'late')],
    'invalid UTF-8': [Frame(TEXT, b'a'), Frame(TEXT, b'\xff')],
}


@pytest.mark.parametrize('frames', STREAMS.values(), ids=STREAMS)
def test_what_is_decoded_directly_is_what_is_fed(client, frames):
    data = wire(frames, masked=not client)
    for pieces in ways(data):
        fed, direct = End(client), End(client)
        for piece in pieces:
            fed.feed(piece)
            pump(direct, piece)
        assert direct.got == fed.got
        assert direct.hear() == fed.hear()
        for name in ('state', 'close_code', 'close_reason', 'half_close', 'paused', 'deadline'):
            assert getattr(direct.protocol, name) == getattr(fed.protocol, name), name


def test_messages_that_wait_are_not_overtaken(client):
    end = End(client, reading=False, max_queue=1)
    assert end.protocol.direct() is not None
    end.say(Frame(TEXT, b'1'))
    assert end.protocol.direct() is None
    end.say(Frame(TEXT, b'2'))
    assert end.protocol.take() == '1'
    assert end.protocol.direct() is None  # the second has found its place only now
    assert end.protocol.take() == '2'
    assert end.protocol.direct() is not None


def test_nor_is_what_waits_behind_a_full_queue(client):
    end = End(client, reading=False, max_queue=1)
    end.say(Frame(TEXT, b'1'), Frame(BINARY, b'2', False))
    assert end.protocol.messages.pop(0) == '1'  # as applications do with input_buffer
    assert end.protocol.direct() is None


@pytest.mark.parametrize('last', [closing(4001), Frame(3)], ids=['Close', 'violation'])
def test_behind_the_end_nothing_is_decoded_directly(client, last):
    end = End(client, reading=False).say(Frame(TEXT, b'a'), last)
    assert end.take() == 'a'
    assert (end.protocol.state, end.protocol.direct()) == (ENDING, None)
    assert end.take() is None
    assert (end.protocol.state, end.protocol.direct()) == (ENDED, None)


def test_nor_behind_our_close_or_after_tcp_is_lost(client):
    end = End(client)
    end.close(1000)
    assert end.protocol.direct() is None
    end = End(client)
    end.protocol.abort()
    assert end.protocol.direct() is None


@pytest.mark.parametrize('frame', [Frame(PONG), Frame(TEXT, b'half', False)])
def test_what_is_taken_in_is_a_sign_of_life(client, frame):
    end = End(client, ping_interval=10, ping_timeout=15)
    end.at(10)
    end.hear()
    end.protocol.take_in(end.protocol.direct().feed(frame.raw(masked=not client)))
    assert end.protocol.heard
    end.at(26)
    assert end.protocol.state < ENDING


def test_half_a_frame_changes_no_appetite_however_small_it_is(client):
    end = End(client)
    end.feed(Frame(PING).raw(masked=not client) * MAX_APPETITE)
    end.hear()
    small = end.protocol.appetite
    assert small < MAX_APPETITE
    end.protocol.dirty = False
    data = Frame(BINARY, bytes(100)).raw(masked=not client)
    for at in range(2):
        pump(end, data[at : at + 1])
        assert end.protocol.heard
        assert (end.protocol.appetite, end.protocol.dirty) == (small, False)
    pump(end, data[2:])
    assert end.got == [bytes(100)]
    assert end.protocol.appetite > small


def test_exactly_as_many_frames_as_are_wanted_change_no_appetite(client):
    for number, changes in [(MANY_FRAMES, False), (MANY_FRAMES + 1, True)]:
        end = End(client)
        end.say(*[Frame(PING)] * number)
        assert (end.protocol.appetite < MAX_APPETITE) is changes
