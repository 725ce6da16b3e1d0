"""The protocol where it turns over: exact codes and sizes, and calls that come twice."""

from __future__ import annotations

import pytest
from support.frames import BINARY, PING, PONG, TEXT, Frame, closing, parse, wire
from support.lab import End

from simple_websocket.close_codes import close_payload, sendable
from simple_websocket.deflate import PerMessageDeflate
from simple_websocket.inbox import MAX_QUEUE_SIZE, InputBuffer
from simple_websocket.protocol import DONE, ENDED, ENDING


@pytest.mark.parametrize(
    ('code', 'may'),
    [
        *((code, False) for code in (-1, 0, 999, 1004, 1005, 1006, 1015, 1016, 2999, 5000)),
        *((code, True) for code in (1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 4999)),
    ],
)
def test_the_codes_around_each_bound(code, may):
    assert sendable(code) is may
    if may:
        assert close_payload(code, None) == code.to_bytes(2, 'big')


@pytest.mark.parametrize('code', [999, 1005, 2999, 5000])
def test_a_code_that_must_not_be_sent_is_refused(code):
    with pytest.raises(ValueError, match=str(code)):
        close_payload(code, None)


def test_a_reason_may_fill_the_frame():
    assert close_payload(1000, '\u20ac' * 41) == b'\x03\xe8' + '\u20ac'.encode() * 41
    with pytest.raises(ValueError, match='124 bytes'):
        close_payload(1000, '\u20ac' * 41 + 'x')


def test_an_abort_may_be_repeated_and_the_peers_close_is_still_what_is_told(client):
    end = End(client, reading=False).say(Frame(TEXT, b'before'), closing(4001, 'bye'))
    for _ in range(2):
        end.protocol.abort(1011, 'unheard')
        assert end.closed == (4001, 'bye')
        assert end.protocol.state == DONE
    assert end.drain() == ['before']
    assert end.closed == (4001, 'bye')


def test_a_ping_has_four_bytes_and_each_its_own(client):
    end = End(client, ping_interval=10, ping_timeout=100)
    said = end.at(30).hear()
    assert [opcode for opcode, _ in said] == [PING] * 3
    assert {len(payload) for _, payload in said} == {4}
    assert len({payload for _, payload in said}) == 3


def test_each_tick_that_does_something_says_so(client):
    """`dirty` makes the link look at the deadline again."""
    end = End(client, ping_interval=10, ping_timeout=10, close_timeout=5)
    for time, did in [(9.9, False), (10, True), (15, False), (20, True), (24, False), (25, True)]:
        end.protocol.dirty = False
        end.protocol.tick(1000.0 + time)
        end.clock.time = 1000.0 + time
        assert end.protocol.dirty is did, time
        if time == 10:
            end.say(Frame(PONG, end.hear()[0][1]))
        if time == 20:
            end.close()
    assert end.protocol.state in (ENDED, DONE)


class Whole:
    """A decoder that sees a message in one piece, as codecs may: see `codec.py`."""

    def __init__(self, decoder, client):
        self.decoder = decoder
        self.client = client
        self.fed = []

    def feed(self, data):
        self.fed.append(data)
        return self.decoder.feed(data)

    def whole(self, data):
        frame, *others = parse(data, not self.client)
        if others or not frame.fin or frame.rsv or frame.opcode not in (TEXT, BINARY):
            return None
        return frame.payload.decode() if frame.opcode == TEXT else frame.payload


@pytest.fixture
def end(client):
    end = End(client, reading=False, max_queue=2, ping_interval=10, ping_timeout=15)
    end.protocol._decoder = Whole(end.protocol._decoder, client)
    return end


class TestFeed:
    """`feed()` takes a message that came alone as the codec gives it."""

    def test_a_message_alone_waits_to_be_taken(self, end):
        end.say(Frame(TEXT, b'one')).say(Frame(BINARY, b'two'))
        assert end.protocol._decoder.fed == []
        assert end.drain() == ['one', b'two']

    def test_a_message_alone_is_a_sign_of_life(self, end):
        end.at(10).say(Frame(TEXT, b'one'))
        end.at(26)
        assert end.protocol.state < ENDING

    def test_behind_our_close_it_is_discarded(self, end):
        end.close(1000)
        end.say(Frame(TEXT, b'late'))
        assert end.drain() == []

    def test_what_does_not_fit_the_queue_is_not_passed_by(self, end):
        end.say(*(Frame(TEXT, b'%d' % i) for i in range(3))).say(Frame(TEXT, b'last'))
        assert end.drain() == ['0', '1', '2', 'last']


class TestDirect:
    """`direct()` lets a message that comes alone go to who waits for it."""

    @pytest.fixture
    def deliver(self, end):
        """Receive as a link does, for who waits."""

        def deliver(*frames):
            protocol, data = end.protocol, wire(frames, not end.client)
            decoder = protocol.direct()
            message = None if decoder is None else decoder.whole(data)
            if message is None:
                protocol.feed(data)
            else:
                protocol.heard = protocol.answering = True
            return message

        return deliver

    def test_a_message_alone_is_given_and_not_kept(self, end, deliver):
        assert deliver(Frame(TEXT, b'one')) == 'one'
        assert deliver(Frame(BINARY, b'two')) == b'two'
        assert not end.protocol.messages and end.protocol.take() is None

    def test_a_message_that_was_given_may_be_answered_before_a_close(self, end, deliver):
        assert deliver(Frame(TEXT, b'one')) == 'one'
        assert deliver(closing(1001)) is None
        assert end.protocol.state == ENDING and end.hear() == []
        end.protocol.send(TEXT, b'answer')
        end.protocol.ask()
        assert [opcode for opcode, _ in end.hear()] == [TEXT, 8]
        assert end.closed == (1001, None)

    def test_a_message_that_was_given_is_a_sign_of_life(self, end, deliver):
        end.at(10)
        assert deliver(Frame(TEXT, b'one')) == 'one'
        end.at(26)
        assert end.protocol.state < ENDING

    @pytest.mark.parametrize('number', [1, 2, 4])
    def test_it_goes_behind_those_that_wait(self, end, deliver, number):
        end.say(*(Frame(TEXT, b'%d' % i) for i in range(number)))
        assert deliver(Frame(TEXT, b'last')) is None
        assert end.drain() == [*map(str, range(number)), 'last']

    @pytest.mark.parametrize(
        'frames',
        [
            [Frame(TEXT, b'one'), Frame(TEXT, b'two')],
            [Frame(TEXT, b'one', False), Frame(0, b'two')],
            [Frame(PING, b'?'), Frame(TEXT, b'one')],
        ],
    )
    def test_what_is_more_than_a_message_is_taken_as_always(self, end, deliver, frames):
        other = End(end.client, reading=False).say(*frames)
        assert deliver(*frames) is None
        assert end.drain() == other.drain()
        assert end.hear() == other.hear()

    def test_behind_our_close_nothing_is_given(self, end, deliver):
        end.close(1000)
        assert deliver(Frame(TEXT, b'late')) is None
        assert end.drain() == []
        assert deliver(closing(1000)) is None
        assert end.closed == (1000, None)

    def test_behind_a_close_that_waits_nothing_is_given(self, end, deliver):
        assert deliver(Frame(TEXT, b'one')) == 'one'
        assert deliver(closing(1001)) is None
        assert deliver(Frame(TEXT, b'late')) is None
        assert end.drain() == []
        assert end.closed == (1001, None)

    def test_what_is_fed_alone_waits_in_its_turn(self, end, deliver):
        for number in range(4):  # two have room
            end.feed(wire([Frame(TEXT, b'%d' % number)], not end.client))
            assert len(end.protocol.messages) == min(number + 1, 2)
        assert end.drain() == ['0', '1', '2', '3']


def test_a_message_that_is_put_back_is_the_next_and_counts():
    buffer = InputBuffer(10)
    buffer.append('a' * 10)
    buffer.appendleft('b' * (MAX_QUEUE_SIZE - 15))
    buffer.append('c' * 4)
    assert not buffer.full
    buffer.append('d')
    assert buffer.full
    assert [len(buffer.popleft()) for _ in range(4)] == [MAX_QUEUE_SIZE - 15, 10, 4, 1]
    assert not buffer.full
    buffer.append('e' * (MAX_QUEUE_SIZE - 1))
    assert not buffer.full


@pytest.mark.parametrize('threshold', [0, 12, 13])
def test_a_text_may_be_given_as_such_and_its_bytes_count(client, threshold):
    text = '\u20ac' * 4
    end = End(client, deflate=PerMessageDeflate(threshold=threshold))
    end.protocol.send(TEXT, text)
    end.hear()
    (frame,) = end.said
    if threshold > 12:
        assert (frame.rsv, frame.payload) == (0, text.encode())
    else:
        assert frame.rsv == 4
        assert PerMessageDeflate().decompress(frame.payload, True) == text.encode()


def test_a_buffer_is_full_to_the_very_message_and_byte():
    buffer = InputBuffer(2)
    for text in 'abcd':
        buffer.append(text)
    for left in (3, 2, 1):
        buffer.popleft()
        assert (len(buffer), buffer.full) == (left, left >= 2)
    buffer = InputBuffer(10)
    for text in ('a', 'b', 'c' * (MAX_QUEUE_SIZE - 1)):
        buffer.append(text)
    for full in (True, False):  # exactly the size, then one less
        buffer.popleft()
        assert buffer.full is full
