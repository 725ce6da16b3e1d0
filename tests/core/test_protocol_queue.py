"""The receive queue: when it is full the protocol stops, nothing is lost, and
nothing is in the way of closing."""

from __future__ import annotations

import copy
import sys
import threading
import tracemalloc
from collections import deque

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.frames import BINARY, CONTINUATION, PING, PONG, TEXT, Frame, closing, fragments, wire
from support.lab import ROLES, End, deflated, quick

from simple_websocket import ConnectionClosed
from simple_websocket.deflate import PerMessageDeflate
from simple_websocket.inbox import MAX_QUEUE_SIZE, InputBuffer
from simple_websocket.protocol import CLOSING, DONE, ENDED, ENDING, OPEN


def texts(*numbers):
    return [Frame(TEXT, str(number).encode()) for number in numbers]


def stopped(client, *frames, **options):
    """An end with a queue of two, full, and what came after it."""
    end = End(client, reading=False, max_queue=2, **options)
    end.say(*texts(1, 2))
    assert not end.protocol.paused
    end.say(*texts(3), *frames)
    assert end.protocol.paused
    assert list(end.protocol.messages) == ['1', '2']
    return end


# Order and bounds (A20, invariant 6)


def test_a_full_queue_pauses_and_goes_on_as_messages_are_taken(client):
    end = stopped(client, *texts(*range(4, 11)))
    assert end.drain() == [str(number) for number in range(1, 11)]
    assert not end.protocol.paused
    assert end.say(*texts(11)).drain()[-1] == '11'


def test_while_it_is_paused_it_has_tcp_looked_at_each_second(client):
    end = stopped(client)
    begun = end.clock.time
    assert end.protocol.deadline == begun + 1
    end.at(1.5)
    assert end.protocol.deadline == begun + 2
    assert end.drain() == ['1', '2', '3']
    assert end.at(3).protocol.deadline is None and end.hear() == []


def test_looking_at_tcp_and_keepalive_have_each_their_time(client):
    end = stopped(client, ping_interval=2.25, ping_timeout=100)
    begun = end.clock.time
    for time, following in ((1, 2), (2, 2.25), (2.25, 3), (3, 4), (4, 4.5)):
        end.at(time)
        assert end.protocol.deadline == begun + following
    assert [opcode for opcode, _ in end.hear()] == [PING]


def test_pausing_and_going_on_make_the_protocol_dirty(client):
    end = End(client, reading=False, max_queue=2)
    end.protocol.dirty = False
    end.say(*texts(1, 2))
    assert not end.protocol.dirty
    end.say(*texts(3, 4))
    assert end.protocol.dirty
    end.protocol.dirty = False
    end.take()
    assert end.protocol.paused
    end.protocol.dirty = False
    end.take()
    assert not end.protocol.paused
    assert end.protocol.dirty


def test_a_full_queue_stops_the_inflating(client):
    size = 1 << 20
    engine = PerMessageDeflate()
    end = End(client, reading=False, max_queue=4, deflate=engine, max_message_size=2 * size)
    data = wire([Frame(BINARY, deflated(bytes(size)), rsv=4)] * 50, not client)
    assert len(data) < 65536
    tracemalloc.start()
    end.feed(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 * size
    assert len(end.protocol.messages) == 1  # a MiB is full, however few they are
    for _ in range(50):
        assert end.take() == bytes(size)
    assert end.take() is None


@pytest.mark.parametrize(
    ('message', 'frame'),
    [
        (b'x' * 1000, Frame(BINARY, b'x' * 1000)),
        ('x' * 1000, Frame(TEXT, b'x' * 1000)),
        ('é' * 1000, Frame(TEXT, 'é'.encode() * 1000)),
    ],
    ids=['binary', 'text', 'text of two bytes'],
)
def test_the_queue_is_full_by_size_too(client, message, frame):
    end = End(client, reading=False, max_queue=10_000)
    while not end.protocol.paused:
        end.say(frame)
    assert len(end.protocol.messages) == MAX_QUEUE_SIZE // 1000 + 1
    assert end.take() == message
    assert not end.protocol.paused


def test_a_million_empty_messages_cost_as_much_as_the_queue(client):
    end = End(client, reading=False, max_queue=32)
    data = wire([Frame(TEXT)] * 1000, not client)
    end.feed(data)
    assert end.protocol.paused
    assert len(end.protocol.messages) == 32
    assert len(end.drain()) == 1000


def test_control_frames_are_answered_by_an_end_whose_queue_is_just_full(client):
    end = End(client, reading=False, max_queue=2).say(*texts(1, 2), Frame(PING, b'p'))
    assert not end.protocol.paused
    assert end.hear() == [(PONG, b'p')]
    end.say(closing(1000))
    assert end.protocol.state == ENDING
    assert end.drain() == ['1', '2']
    assert end.closed == (1000, None)


def test_control_frames_behind_waiting_data_keep_their_place(client):
    end = stopped(client, Frame(PING, b'p'), *texts(4))
    assert end.hear() == []
    end.take()
    assert end.hear() == [(PONG, b'p')]
    assert end.drain() == ['1', '2', '3', '4']


def test_the_end_of_an_unfinished_message_waits_too(client):
    end = End(client, reading=False, max_queue=1)
    end.say(*texts(1), Frame(BINARY, b'a', False))
    assert end.protocol.paused
    end.say(Frame(CONTINUATION, b'b'))
    assert end.drain() == ['1', b'ab']


@quick
@given(
    sizes=st.lists(st.integers(0, 5), max_size=30),
    max_queue=st.integers(1, 6),
    takes=st.lists(st.booleans(), min_size=1, max_size=20),
    piece=st.integers(1, 50),
    client=st.sampled_from(list(ROLES.values())),
)
def test_whenever_messages_are_taken_all_come_in_order(sizes, max_queue, takes, piece, client):
    frames, expected, pongs = [], [], []
    for number, size in enumerate(sizes):
        payload = str(number).encode() * size
        frames += fragments(BINARY, payload[:1], payload[1:])
        frames.append(Frame(PING, payload))
        expected.append(payload)
        pongs.append((PONG, payload))
    data = wire([*frames, closing(1000)], not client)
    end = End(client, reading=False, max_queue=max_queue)
    pieces = [data[at : at + piece] for at in range(0, len(data), piece)]
    for index, one in enumerate(pieces):
        end.feed(one)
        assert len(end.protocol.messages or ()) <= max_queue
        if takes[index % len(takes)]:
            end.take()
    end.drain()
    assert end.got == expected
    assert end.hear()[:-1] == pongs
    assert end.closed == (1000, None)


# The end of the stream behind a full queue


def test_eof_behind_waiting_messages_delivers_them_all_and_is_1006_then(client):
    end = stopped(client, *texts(4, 5)).eof()
    assert end.protocol.state == OPEN
    assert end.protocol.paused
    end.protocol.send(TEXT, b'still')
    assert end.drain() == ['1', '2', '3', '4', '5']
    assert end.protocol.state == DONE
    assert end.closed == (1006, None)


@pytest.mark.parametrize(
    ('last', 'code'), [(closing(4000), 4000), (Frame(3), 1002)], ids=['Close', 'violation']
)
def test_an_end_behind_waiting_messages_has_its_turn_after_them(client, last, code):
    for eof in (False, True):
        end = stopped(client, *texts(4), last)
        if eof:
            end.eof()
        for number in '1234':
            assert end.take() == number
            end.protocol.send(TEXT, number.encode())
        assert len(end.hear()) == 4
        assert end.take() is None
        assert end.close_said() == code
        assert end.closed[0] == code


def test_eof_behind_half_a_message_that_waits_is_1006(client):
    end = stopped(client, Frame(TEXT, b'half', False)).eof()
    assert end.drain() == ['1', '2', '3']
    assert end.closed == (1006, None)


# A full queue never blocks closing


def test_our_close_does_not_wait_for_the_queue(client):
    end = stopped(client, *texts(4), Frame(PING))
    end.close(4000)
    assert end.protocol.state == CLOSING
    assert end.close_said() == 4000
    assert not end.protocol.paused
    end.say(closing(1000))
    assert end.closed == (4000, None)
    # What had found room can be taken; what had not counts as not read.
    assert end.drain() == ['1', '2']


def test_the_peers_close_may_be_among_what_waits_at_our_close(client):
    end = stopped(client, closing(1001, 'bye'))
    end.close(4000)
    assert end.closed == (4000, None)
    assert end.close_said() == 4000
    assert end.drain() == ['1', '2']


def test_eof_behind_what_waits_at_our_close_ends_the_connection(client):
    end = stopped(client, *texts(4)).eof()
    end.close(4000)
    assert end.protocol.state == ENDED
    assert end.close_said() == 4000
    assert end.closed == (4000, None)


def test_a_failure_of_ours_does_not_wait_for_what_waits(client):
    end = stopped(client, *texts(4))
    end.protocol.fail(1011, 'enough')
    assert end.drain() == ['1', '2']
    assert end.close_said() == 1011


def test_what_waits_when_tcp_is_lost_can_still_be_taken(client):
    end = stopped(client, *texts(4), Frame(PING), *fragments(TEXT, b'5', b'6'))
    end.protocol.abort()
    end.say(*texts('late'))
    assert end.protocol.state == DONE
    with pytest.raises(ConnectionClosed):
        end.protocol.send(TEXT, b'late')
    assert end.drain() == ['1', '2', '3', '4', '56']
    assert end.hear() == []
    assert end.closed == (1006, None)


def test_a_goodbye_that_waited_when_tcp_was_lost_is_reported_behind_the_messages(client):
    end = stopped(client, *texts(4), closing(4000, 'bye'), *texts(5))
    end.protocol.abort()
    assert end.drain() == ['1', '2', '3', '4']
    assert end.closed == (4000, 'bye')
    assert end.hear() == []


@pytest.mark.parametrize('bad', [Frame(3), Frame(TEXT, b'\xff'), closing(1005)])
def test_a_violation_that_waited_when_tcp_was_lost_ends_the_messages(client, bad):
    end = stopped(client, *texts(4), bad, *texts(5))
    end.protocol.abort()
    assert end.drain() == ['1', '2', '3', '4']
    assert end.closed == (1006, None)
    assert end.hear() == []


def test_half_a_message_that_waited_when_tcp_was_lost_is_not_kept(client):
    end = stopped(client, *texts(4), Frame(TEXT, bytes(1000), fin=False))
    end.protocol.abort()
    assert end.drain() == ['1', '2', '3', '4']
    assert not end.protocol._parts


# Taken by other ways (CONTRACT: input_buffer)


def test_messages_taken_through_the_buffer_make_room_too(client):
    end = stopped(client, *texts(4, 5))
    assert end.protocol.messages.pop(0) == '1'
    assert end.protocol.messages.pop(0) == '2'
    assert end.drain() == ['3', '4', '5']


def test_what_the_application_appends_is_received_in_its_place(client):
    end = End(client, reading=False).say(*texts(1))
    end.protocol.messages.append('mine')
    end.say(*texts(2))
    assert end.drain() == ['1', 'mine', '2']


def test_the_buffer_is_a_sequence_of_messages():
    buffer = InputBuffer(3)
    assert (len(buffer), bool(buffer), list(buffer), buffer.full) == (0, False, [], False)
    for message in ('a', b'bc', 'd'):
        assert not buffer.full
        buffer.append(message)
    assert (len(buffer), bool(buffer), buffer.full) == (3, True, True)
    assert list(buffer) == ['a', b'bc', 'd']
    assert repr(buffer) == '<3 messages>'
    assert buffer.pop(1) == b'bc'
    assert not buffer.full
    assert buffer.pop() == 'd'
    assert buffer.popleft() == 'a'
    for take in (buffer.pop, buffer.popleft, lambda: buffer.pop(0)):
        with pytest.raises(IndexError):
            take()


WAYS_OUT = {
    'clear': lambda buffer: buffer.clear(),
    'del': lambda buffer: buffer.__delitem__(0),
    'remove': lambda buffer: buffer.remove(b'bc'),
    'pop': lambda buffer: buffer.pop(0),
    'times nothing': lambda buffer: buffer.__imul__(0),
}
WAYS_IN = {
    'extend': lambda buffer: buffer.extend(['x', b'y']),
    'extendleft': lambda buffer: buffer.extendleft(['x', b'y']),
    'insert': lambda buffer: (buffer.insert(0, 'x'), buffer.insert(1, b'y')),
    '+=': lambda buffer: buffer.__iadd__(['x', b'y']),
    'appendleft': lambda buffer: (buffer.appendleft('x'), buffer.appendleft('y')),
}


@pytest.mark.parametrize('way', WAYS_OUT.values(), ids=WAYS_OUT)
def test_whatever_takes_messages_out_of_a_full_buffer_makes_room(client, way):
    end = stopped(client, *texts(4, 5))
    end.protocol.messages[1] = b'bc'
    way(end.protocol.messages)
    assert not end.protocol.messages.full
    left = len(end.protocol.messages)
    assert end.drain()[left:] == ['3', '4', '5']
    assert not end.protocol.paused


@pytest.mark.parametrize('way', WAYS_IN.values(), ids=WAYS_IN)
def test_whatever_puts_messages_into_the_buffer_counts_them(way):
    buffer = InputBuffer(3)
    buffer.append('a')
    way(buffer)
    assert (len(buffer), buffer.full) == (3, True)
    buffer = InputBuffer(10)
    buffer.append(bytes(MAX_QUEUE_SIZE - 2))
    way(buffer)
    assert buffer.full


def test_messages_that_are_replaced_count_as_what_they_are_now():
    buffer = InputBuffer(10)
    buffer.extend([bytes(MAX_QUEUE_SIZE), 'b'])
    assert buffer.full
    buffer[0] = 'small'
    assert not buffer.full
    buffer[1] = bytes(MAX_QUEUE_SIZE)
    assert buffer.full


def test_messages_that_could_not_all_be_put_in_count_as_far_as_they_were():
    buffer = InputBuffer(2)

    def broken():
        yield from ('a', 'b')
        raise OSError

    with pytest.raises(OSError):
        buffer.extend(broken())
    assert (list(buffer), buffer.full) == (['a', 'b'], True)


def test_a_copy_of_the_buffer_is_a_deque_of_its_own():
    buffer = InputBuffer(2)
    buffer.extend(['a', 'b'])
    for other in (buffer.copy(), copy.copy(buffer), buffer + deque()):
        assert (type(other), list(other)) == (deque, ['a', 'b'])


def test_the_buffer_is_full_by_size_until_enough_is_taken():
    buffer = InputBuffer(100)
    buffer.append(bytes(MAX_QUEUE_SIZE - 1))
    assert not buffer.full
    buffer.append('')
    assert not buffer.full
    buffer.append('x')
    assert buffer.full
    buffer.popleft()
    assert not buffer.full
    buffer.append(bytes(MAX_QUEUE_SIZE))
    assert buffer.full
    assert buffer.pop() == bytes(MAX_QUEUE_SIZE)
    assert not buffer.full


def test_books_that_two_threads_have_kept_at_once_are_put_right(monkeypatch):
    """The application's takes a message out in the middle of an ``append``."""
    buffer = InputBuffer(100)
    large = 'x' * (MAX_QUEUE_SIZE - 10)
    buffer.append(large)

    def take_meanwhile(message):
        monkeypatch.undo()
        buffer.pop(0)
        return len(message)

    monkeypatch.setattr('simple_websocket.inbox.len', take_meanwhile, raising=False)
    buffer.append('y' * 20)
    assert list(buffer) == ['y' * 20] and not buffer.full
    buffer.append('z')
    assert not buffer.full
    buffer.append(large)
    assert buffer.full and buffer.take() == 'y' * 20


def test_what_is_iterated_over_is_what_was_there():
    buffer = InputBuffer(100)
    buffer.extend(['a', 'b'])
    seen = []
    for message in buffer:
        seen.append(message)
        buffer.append(message * 2)
    assert seen == ['a', 'b'] and list(buffer) == ['a', 'b', 'aa', 'bb']


def test_a_queue_that_is_emptied_while_it_gets_full_is_not_full(monkeypatch):
    """The application's thread takes all, right before the other writes that down."""
    buffer = InputBuffer(2)
    is_full = InputBuffer._is_full
    told = []
    buffer.on_room = lambda: told.append(len(buffer))

    def emptied_meanwhile(self):
        full = is_full(self)
        monkeypatch.undo()
        if full:
            while buffer:
                buffer.pop(0)
        return full

    buffer.append('a')
    monkeypatch.setattr(InputBuffer, '_is_full', emptied_meanwhile)
    buffer.append('b')
    assert not buffer and not buffer.full


def test_a_copy_is_made_in_one_step():
    """Others may take messages out at any moment."""
    buffer = InputBuffer(1000)
    over = threading.Event()

    def come_and_go():
        while not over.is_set():
            buffer.append('x')
            buffer.popleft()

    interval = sys.getswitchinterval()
    other = threading.Thread(target=come_and_go)
    sys.setswitchinterval(1e-6)
    other.start()
    try:
        for _ in range(20_000):
            assert len(list(buffer)) <= 1
    finally:
        over.set()
        other.join()
        sys.setswitchinterval(interval)
