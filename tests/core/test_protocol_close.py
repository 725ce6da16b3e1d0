"""The closing handshake (RFC 6455 section 7): what ends a connection, in which
order, with which code, and by when."""

from __future__ import annotations

import tracemalloc
from enum import IntEnum

import pytest
from support.codes import VALID
from support.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Frame,
    closing,
    fragments,
    wire,
)
from support.lab import End, ways

from simple_websocket import ConnectionClosed
from simple_websocket.close_codes import close_payload, sendable
from simple_websocket.protocol import CLOSING, DONE, ENDED, ENDING, OPEN


def raises_closed(end, code, reason=None):
    """Whatever is sent, it is refused with this."""
    end.hear()
    for call in (lambda: end.protocol.send(TEXT, b'late'), lambda: end.close(1000)):
        with pytest.raises(ConnectionClosed) as closed:
            call()
        assert (closed.value.reason, closed.value.message) == (code, reason)
    assert end.hear() == []


def test_what_tcp_broke_with_is_told_with_a_1006_alone(client):
    for said, code in ((b'', 1006), (closing(4000), 4000)):
        end = End(client)
        if said:
            end.say(said)
        end.protocol.cause = OSError(5, 'the cause')
        end.protocol.eof()
        end.protocol.abort()
        with pytest.raises(ConnectionClosed) as closed:
            end.protocol.send(TEXT, b'late')
        assert closed.value.reason == code
        assert closed.value.__cause__ is (end.protocol.cause if code == 1006 else None)


# The peer closes (B10)


def test_the_codes_that_may_be_sent_are_those_that_may_be_received():
    assert {code for code in range(-1, 70000) if sendable(code)} == VALID


def test_a_close_without_a_code_is_1005_and_answered_without_one(client):
    end = End(client).say(closing())
    assert end.hear() == [(CLOSE, b'')]
    assert end.closed == (1005, None)


CLOSES = {
    'no payload': (b'', 1005, None, b''),
    'a code': (b'\x03\xe8', 1000, None, b'\x03\xe8'),
    'a reason': (b'\x0f\xa0bye', 4000, 'bye', b'\x0f\xa0'),
    'the longest reason': (b'\x03\xe8' + b'x' * 123, 1000, 'x' * 123, b'\x03\xe8'),
    'a reason in UTF-8': (b'\x03\xe8' + 'κόσμε'.encode(), 1000, 'κόσμε', b'\x03\xe8'),
    'one byte': (b'\x03', 1002, 'invalid close code', None),
    'one byte, zero': (b'\0', 1002, 'invalid close code', None),
    'invalid UTF-8': (b'\x03\xe8\xff', 1007, 'invalid UTF-8 in a close reason', None),
    'cut UTF-8': (b'\x03\xe8\xe2\x82', 1007, 'invalid UTF-8 in a close reason', None),
}


@pytest.mark.parametrize(('payload', 'code', 'reason', 'echo'), CLOSES.values(), ids=CLOSES)
def test_a_close_is_read_in_any_split(client, payload, code, reason, echo):
    data = wire([Frame(TEXT, b'a'), Frame(CLOSE, payload)], not client)
    for pieces in [*ways(data), [data + data]]:
        end = End(client)
        for piece in pieces:
            end.feed(piece)
        assert end.got == ['a']
        if echo is None:
            echo = code.to_bytes(2, 'big') + reason.encode()
        assert end.hear() == [(CLOSE, echo)]
        assert end.closed == (code, reason)
        # 7.1.1: the server ends TCP first, and so does who fails the connection
        assert end.protocol.half_close is (not client or code in (1002, 1007))
        raises_closed(end, code, reason)


def test_a_close_in_the_middle_of_a_message_drops_the_message(client):
    end = End(client)
    end.say(Frame(TEXT, b'half', False), closing(1001), Frame(CONTINUATION, b' a message'))
    assert end.got == []
    assert end.closed == (1001, None)


def test_what_follows_a_close_is_discarded(client):
    late = [Frame(TEXT, b'late'), Frame(PING, b'late'), closing(4000), b'\xff\xff\xff']
    data = wire([Frame(TEXT, b'a'), closing(1000, 'bye'), *late], not client)
    for pieces in ways(data):
        end = End(client)
        for piece in pieces:
            end.feed(piece)
        assert end.got == ['a']
        assert end.hear() == [(CLOSE, b'\x03\xe8')]
        assert end.closed == (1000, 'bye')


def test_after_the_peers_close_tcp_ends_within_close_timeout(client):
    end = End(client, close_timeout=3).say(closing(1000))
    assert end.at(2.9).protocol.state == ENDED
    assert not end.protocol.paused
    assert end.at(3).protocol.state == DONE
    assert end.protocol.deadline is None
    assert end.closed == (1000, None)


# Order: what came before has its turn (invariant 5)


def ends_with(frame, code):
    return pytest.param(frame, code, id=f'{code}')


endings = pytest.mark.parametrize(
    ('last', 'code'), [ends_with(closing(4001), 4001), ends_with(Frame(3), 1002)]
)


@endings
def test_messages_before_the_end_are_taken_and_answered_first(client, last, code):
    end = End(client, reading=False)
    end.say(Frame(TEXT, b'a'), Frame(TEXT, b'b'), Frame(PING, b'p'), last)
    assert end.protocol.state == ENDING
    assert end.protocol.paused
    assert end.hear() == [(PONG, b'p')]
    for expected in ('a', 'b'):
        assert end.take() == expected
        assert end.protocol.state == ENDING
        end.protocol.send(TEXT, expected.encode() * 2)
    assert end.hear() == [(TEXT, b'aa'), (TEXT, b'bb')]
    assert end.take() is None
    assert end.close_said() == code
    assert end.protocol.state == ENDED
    raises_closed(end, end.protocol.close_code, end.protocol.close_reason)


@endings
def test_an_answer_to_the_last_message_may_still_be_sent_after_the_end_is_known(
    client, last, code
):
    end = End(client, reading=False).say(Frame(TEXT, b'a'))
    assert end.take() == 'a'
    end.say(last)
    assert end.protocol.state == ENDING
    end.protocol.send(TEXT, b'answer')
    assert end.hear() == [(TEXT, b'answer')]
    assert end.take() is None
    assert end.close_said() == code


@endings
def test_a_receiver_that_waits_learns_of_the_end_at_once(client, last, code):
    end = End(client, reading=False).say(Frame(TEXT, b'a'))
    assert [end.take(), end.take()] == ['a', None]
    end.say(last)
    assert end.protocol.state == ENDED
    assert end.close_said() == code


@endings
def test_an_application_that_never_received_learns_of_the_end_at_once(client, last, code):
    end = End(client, reading=False)
    end.protocol.send(TEXT, b'news')
    end.say(last)
    assert end.protocol.state == ENDED
    assert end.close_said() == code


@endings
def test_an_application_that_takes_its_time_has_half_of_close_timeout(client, last, code):
    """The peer, which may give its Close as long, still hears the answer."""
    end = End(client, reading=False, close_timeout=2).say(Frame(TEXT, b'a'), last)
    assert end.at(0.9).protocol.state == ENDING
    assert end.hear() == []
    end.at(1)
    assert end.protocol.state == ENDED
    assert end.close_said() == code
    assert end.take() == 'a'  # it was received, so it can be had
    assert end.take() is None
    assert end.at(2.9).protocol.state == ENDED
    assert end.at(3).protocol.state == DONE


@endings
def test_who_has_answered_the_last_message_lets_the_end_have_its_turn(client, last, code):
    """As a handler does that was asked once and then only sends."""
    end = End(client, reading=False).say(Frame(TEXT, b'subscribe'))
    assert end.take() == 'subscribe'
    end.protocol.send(TEXT, b'news')
    end.say(last)
    assert end.protocol.state == ENDED
    assert end.hear()[0] == (TEXT, b'news') and end.protocol.close_code == code


@endings
def test_a_message_that_comes_between_a_look_and_the_question_is_not_passed_over(
    client, last, code
):
    # Another thread may feed between take() and ask().
    end = End(client, reading=False)
    assert end.protocol.take() is None
    end.say(Frame(TEXT, b'a'), last)
    end.protocol.ask()
    assert end.protocol.state == ENDING
    assert end.take() == 'a'
    end.protocol.send(TEXT, b'answer')
    assert end.take() is None
    assert end.close_said() == code


def test_a_ping_behind_a_close_that_waits_is_not_answered(client):
    end = End(client, reading=False).say(Frame(TEXT, b'a'), closing(1000), Frame(PING))
    end.say(Frame(PING))
    assert end.hear() == []


# close() (B11, A4)


def test_our_close_is_sent_and_the_answer_ends_the_connection(client):
    end = End(client)
    end.close(4000, 'done')
    assert end.hear() == [(CLOSE, b'\x0f\xa0done')]
    assert end.protocol.state == CLOSING
    assert not end.protocol.paused
    raises_closed(end, 4000, 'done')
    end.say(closing(1000, 'whatever'))
    assert end.closed == (4000, 'done')
    assert end.protocol.half_close is not client
    raises_closed(end, 4000, 'done')


def test_what_the_peer_still_sends_after_our_close_is_discarded(client):
    late = [Frame(TEXT, b'late'), Frame(PING, b'late'), *fragments(BINARY, b'\xff', b'x')]
    data = wire([*late, Frame(TEXT, b'\xff'), closing(1000)], not client)
    for pieces in [*ways(data), [data + data]]:
        end = End(client)
        end.close(1001)
        for piece in pieces:
            end.feed(piece)
        assert end.got == []
        assert end.hear() == [(CLOSE, b'\x03\xe9')]
        assert end.closed == (1001, None)


def test_our_close_in_the_middle_of_the_peers_message_drops_it(client):
    end = End(client).say(Frame(TEXT, b'half', False))
    end.close()
    end.say(Frame(CONTINUATION, b'rest'), closing(1000))
    assert end.got == []
    assert end.closed == (1000, None)


def test_messages_received_before_our_close_can_still_be_taken(client):
    end = End(client, reading=False).say(Frame(TEXT, b'a'), Frame(TEXT, b'b'))
    end.close(1000)
    assert end.drain() == ['a', 'b']
    assert end.protocol.state == CLOSING


def test_a_peer_that_never_answers_our_close_is_left_at_close_timeout(client):
    end = End(client, close_timeout=3)
    end.close(4000)
    for time in (0, 1, 2, 2.9):
        end.at(time).say(Frame(TEXT, b'on and on'), Frame(PING))
        assert end.protocol.state == CLOSING
    assert end.at(3).protocol.state == DONE
    assert end.closed == (4000, None)
    assert len(end.hear()) == 1


def test_an_answer_to_our_close_does_not_extend_the_deadline(client):
    end = End(client, close_timeout=3)
    end.close()
    end.at(2.9).say(closing(1000))
    assert end.protocol.state == ENDED
    assert end.at(3).protocol.state == DONE


def test_a_violation_in_the_answer_to_our_close_ends_the_connection(client):
    for frame in (Frame(3), closing(1005), Frame(CLOSE, b'\x03'), Frame(CLOSE, b'\x03\xe8\xff')):
        end = End(client)
        end.close(4000)
        end.say(frame)
        assert end.closed == (4000, None)
        assert end.protocol.half_close
        assert len(end.hear()) == 1


def test_both_ends_close_at_once():
    server, client = End(False), End(True)
    server.close(4001, 'server')
    client.close(4002, 'client')
    from_server, from_client = (b''.join(one.protocol.out) for one in (server, client))
    server.feed(from_client)
    client.feed(from_server)
    assert server.closed == (4001, 'server')
    assert client.closed == (4002, 'client')
    assert (len(server.hear()), len(client.hear())) == (1, 1)
    assert (server.protocol.half_close, client.protocol.half_close) == (True, False)


def test_closing_twice_is_an_error_and_nothing_is_sent(client):
    end = End(client)
    end.close(4000, 'first')
    assert len(end.hear()) == 1
    raises_closed(end, 4000, 'first')


def test_close_while_the_peers_close_waits_answers_it_with_our_words(client):
    end = End(client, reading=False).say(Frame(TEXT, b'a'), closing(1001, 'bye'))
    end.close(4000, 'me too')
    assert end.hear() == [(CLOSE, b'\x0f\xa0me too')]
    assert end.closed == (1001, 'bye')
    assert end.protocol.half_close is not client
    assert end.drain() == ['a']
    raises_closed(end, 1001, 'bye')


def test_close_while_a_violation_waits_tells_the_violation(client):
    end = End(client, reading=False).say(Frame(TEXT, b'a'), Frame(3))
    end.close(1000, 'bye')
    assert end.close_said() == 1002
    assert end.closed[0] == 1002
    assert end.protocol.half_close


class Code(IntEnum):
    GOING_AWAY = 1001


PAYLOADS = [
    (1000, None, b'\x03\xe8'),
    (1000, '', b'\x03\xe8'),
    (Code.GOING_AWAY, 'bye', b'\x03\xe9bye'),
    (4999, 'x' * 123, b'\x13\x87' + b'x' * 123),
    (3000, '€' * 41, b'\x0b\xb8' + '€'.encode() * 41),
]


@pytest.mark.parametrize(('code', 'reason', 'payload'), PAYLOADS)
def test_a_close_payload_has_code_and_reason(code, reason, payload):
    assert close_payload(code, reason) == payload
    assert type(close_payload(code, reason)) is bytes


@pytest.mark.parametrize(
    ('code', 'reason', 'error'),
    [
        (1000, 'x' * 124, ValueError),
        (1000, '€' * 42, ValueError),
        (1000, 'half \ud800', ValueError),
        (1000, b'bytes', TypeError),
        ('1000', None, TypeError),
        (1000.0, None, TypeError),
        (True, None, TypeError),
        (None, None, TypeError),
    ],
)
def test_what_no_close_can_carry_is_an_error(code, reason, error):
    with pytest.raises(error):
        close_payload(code, reason)


# The end of the stream (B13, A10)


def test_eof_without_a_close_is_1006_and_nothing_is_said(client):
    end = End(client).say(Frame(TEXT, b'a')).eof()
    assert end.got == ['a']
    assert end.hear() == []
    assert end.protocol.state == DONE
    raises_closed(end, 1006)


def test_eof_at_any_byte_of_a_frame_is_1006(client):
    data = wire([Frame(TEXT, b'Hello'), Frame(BINARY, bytes(200))], not client)
    whole = len(wire([Frame(TEXT, b'Hello')], not client))
    for at in range(len(data)):
        end = End(client)
        end.feed(data[:at])
        end.eof()
        assert end.got == (['Hello'] if at >= whole else [])
        assert end.closed == (1006, None)


def test_messages_that_wait_at_eof_can_still_be_taken(client):
    end = End(client, reading=False).say(Frame(TEXT, b'a'), Frame(TEXT, b'b')).eof()
    assert end.closed == (1006, None)
    assert end.drain() == ['a', 'b']


def test_eof_after_our_close_keeps_our_code_and_lets_the_close_out(client):
    end = End(client)
    end.close(4000, 'bye')
    end.eof()
    assert end.protocol.state == ENDED
    assert end.protocol.eof_seen and not end.protocol.half_close
    assert end.close_said() == 4000
    assert end.closed == (4000, 'bye')


def test_eof_after_the_closing_handshake_changes_nothing(client):
    for ours_first in (False, True):
        end = End(client)
        if ours_first:
            end.close(4000)
        end.say(closing(4000)).eof()
        assert end.protocol.state == ENDED
        assert end.protocol.eof_seen
        assert end.protocol.paused  # an end of file reads as ready for ever
        assert end.close_said() == 4000
        assert end.closed == (4000, None)
        assert end.at(5).protocol.state == DONE


@endings
def test_a_peer_that_closed_its_half_behind_the_end_still_gets_answers(client, last, code):
    end = End(client, reading=False).say(Frame(TEXT, b'a'), last).eof()
    assert end.protocol.state == ENDING
    assert end.take() == 'a'
    end.protocol.send(TEXT, b'answer')
    assert end.take() is None
    assert end.hear()[0] == (TEXT, b'answer')
    assert end.protocol.state == ENDED
    assert end.protocol.close_code == code


@endings
def test_close_after_the_end_and_eof(client, last, code):
    end = End(client, reading=False).say(Frame(TEXT, b'a'), last).eof()
    end.close(4567)
    assert end.close_said() == (1002 if code == 1002 else 4567)
    assert end.protocol.state == ENDED
    assert end.protocol.close_code == code


@endings
def test_the_end_and_eof_are_bounded_by_close_timeout(client, last, code):
    end = End(client, reading=False, close_timeout=2).say(Frame(TEXT, b'a'), last).eof()
    end.at(2)
    assert end.close_said() == code
    assert end.at(4).protocol.state == DONE


def test_eof_twice_is_eof(client):
    end = End(client).eof()
    end.protocol.dirty = False
    end.eof()
    assert not end.protocol.dirty


# Giving up


def test_abort_says_nothing_and_reports_1006(client):
    end = End(client, reading=False).say(Frame(TEXT, b'a'))
    end.protocol.abort()
    assert end.protocol.state == DONE
    assert end.hear() == []
    assert end.drain() == ['a']
    raises_closed(end, 1006)


def test_abort_reports_what_it_is_told(client):
    end = End(client)
    end.protocol.abort(1011, 'out of order')
    raises_closed(end, 1011, 'out of order')


@endings
def test_abort_keeps_the_peers_code_where_it_is_known(client, last, code):
    for take in (False, True):
        end = End(client, reading=False).say(Frame(TEXT, b'a'), last)
        if take:
            end.take()
        end.protocol.abort()
        assert end.protocol.state == DONE
        assert end.protocol.close_code == code
        assert end.hear() == []
    end = End(client).say(last)
    end.protocol.abort()
    assert end.protocol.close_code == code


def test_abort_keeps_our_code_after_our_close(client):
    end = End(client)
    end.close(4000, 'bye')
    end.protocol.abort()
    assert end.protocol.state == DONE
    assert end.closed == (4000, 'bye')


def test_half_a_message_is_let_go_at_the_end(client):
    for finish in ('abort', 'eof'):
        tracemalloc.start()
        end = End(client).say(Frame(BINARY, bytes(1 << 20), False))
        assert tracemalloc.get_traced_memory()[0] > 1 << 20
        getattr(end.protocol, finish)()
        assert tracemalloc.get_traced_memory()[0] < 1 << 16
        tracemalloc.stop()


def test_nothing_changes_after_the_end(client):
    end = End(client)
    end.protocol.abort()
    end.say(Frame(TEXT, b'late'), Frame(PING), closing(1000), Frame(3))
    end.eof()
    end.protocol.fail(1011, 'late')
    end.protocol.abort(1011)
    end.at(100)
    assert end.got == []
    assert end.hear() == []
    assert end.closed == (1006, None)
    assert end.protocol.state == DONE
    assert end.protocol.deadline is None


def test_fail_is_a_close_with_our_code(client):
    end = End(client)
    end.protocol.fail(1011, 'no more')
    assert end.hear() == [(CLOSE, b'\x03\xf3no more')]
    assert end.closed == (1011, 'no more')
    assert end.protocol.half_close


def test_the_reason_of_a_failure_is_cut_to_what_a_close_carries(client):
    end = End(client)
    end.protocol.fail(1002, 'x' + '€' * 100)
    assert end.hear() == [(CLOSE, b'\x03\xea' + ('x' + '€' * 40).encode())]


# A handshake that is refused


def test_a_refusal_is_http_and_nothing_else(client):
    end = End(client, close_timeout=3)
    end.protocol.refuse(b'HTTP/1.1 400 Bad Request\r\n\r\n')
    end.say(Frame(TEXT, b'a'), Frame(PING), closing(1000))
    assert end.protocol.out == [b'HTTP/1.1 400 Bad Request\r\n\r\n']
    end.protocol.out.clear()
    assert end.protocol.state == ENDED
    assert end.protocol.half_close
    raises_closed(end, 1006)
    assert end.at(2.9).protocol.state == ENDED
    assert end.at(3).protocol.state == DONE


# What a link is told


def test_every_change_of_state_makes_the_protocol_dirty(client):
    def step(end, change, state):
        end.protocol.dirty = False
        change()
        assert end.protocol.dirty
        assert end.protocol.state == state

    end = End(client, reading=False)
    assert end.protocol.dirty
    step(end, lambda: end.say(Frame(TEXT, b'a'), closing(1000)), ENDING)
    step(end, end.drain, ENDED)
    step(end, lambda: end.at(5), DONE)
    end = End(client)
    step(end, end.close, CLOSING)
    step(end, lambda: end.say(closing(1000)), ENDED)
    step(end, lambda: end.eof(), ENDED)
    end = End(client)
    step(end, end.eof, DONE)
    end = End(client)
    step(end, end.protocol.abort, DONE)


def test_an_open_connection_has_no_reason_to_report(client):
    assert End(client).protocol.close_reason is None


def test_an_open_connection_without_keepalive_has_no_deadline(client):
    end = End(client)
    assert end.protocol.deadline is None
    assert end.at(1e9).protocol.state == OPEN
