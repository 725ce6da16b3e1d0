"""Pings and pongs (RFC 6455 section 5.5): answers that a peer cannot make pile
up, and a keepalive that finds silent peers and blames no others."""

from __future__ import annotations

import pytest
from support.frames import CLOSE, PING, PONG, TEXT, Frame, closing, wire
from support.lab import End

from simple_websocket.protocol import CLOSING, DONE, ENDED, ENDING, OPEN


def alive(client=False, interval=10, timeout=5, **options):
    return End(client, ping_interval=interval, ping_timeout=timeout, **options)


def pings(end):
    """Payloads of the pings that were said; nothing else was."""
    said = end.hear()
    assert all(opcode == PING for opcode, _ in said), said
    return [payload for _, payload in said]


def failed(end):
    """Whether the keepalive gave the peer up."""
    if end.protocol.state == OPEN:
        return False
    assert end.closed == (1011, 'keepalive ping timeout')
    assert end.protocol.half_close
    return True


# Pings are sent


def test_a_ping_goes_out_every_interval_and_no_two_are_alike(client):
    end = alive(client, timeout=None)
    sent = []
    for time in range(10, 101, 10):
        assert end.at(time - 0.1).hear() == []
        sent += pings(end.at(time))
    assert len(sent) == len(set(sent)) == 10


def test_without_an_interval_no_ping_is_sent(client):
    end = alive(client, interval=None, timeout=None)
    assert end.protocol.deadline is None
    assert end.at(10_000).hear() == []


def test_a_tick_before_its_time_does_nothing(client):
    end = alive(client)
    end.protocol.dirty = False
    for time in (0, 5, 9.999):
        end.protocol.tick(1000 + time)
    assert end.hear() == []
    assert not end.protocol.dirty
    assert end.protocol.deadline == 1010


def test_a_late_tick_makes_up_for_one_ping_only(client):
    end = alive(client, timeout=None)
    end.clock.time = 1075.0
    end.protocol.tick(1075.0)
    assert len(pings(end)) == 1
    assert end.protocol.deadline == 1085


def test_pings_go_out_every_interval_with_a_longer_timeout_too(client):
    end = alive(client, interval=10, timeout=35)
    for time in range(10, 201, 10):
        (payload,) = pings(end.at(time))
        end.say(Frame(PONG, payload))
    assert end.protocol.state == OPEN


def test_each_tick_that_did_something_makes_the_protocol_dirty(client):
    end = alive(client)
    end.protocol.dirty = False
    end.at(10)
    assert end.protocol.dirty
    assert end.protocol.deadline == 1015
    end.say(Frame(PONG))
    end.at(15)
    assert end.protocol.deadline == 1020


# Silent peers (B14)


@pytest.mark.parametrize(
    ('interval', 'timeout', 'end_of_it'),
    [(10, 5, 15), (10, 10, 20), (10, 25, 35), (10, 1, 11), (0.5, 20, 20.5), (10, 20, 30)],
)
def test_a_silent_peer_is_1011_after_interval_and_timeout(client, interval, timeout, end_of_it):
    end = alive(client, interval, timeout)
    assert not failed(end.at(end_of_it - 0.01))
    assert failed(end.at(end_of_it))
    said = end.hear()
    assert said[-1] == (CLOSE, b'\x03\xf3keepalive ping timeout')
    assert all(opcode == PING for opcode, _ in said[:-1])
    assert end.at(end_of_it + 5).protocol.state == DONE


@pytest.mark.parametrize(('interval', 'timeout'), [(10, 5), (10, 10), (10, 25), (0.5, 20)])
@pytest.mark.parametrize('answered', [1, 2, 7])
def test_a_peer_that_falls_silent_is_found_within_interval_and_timeout(
    client, interval, timeout, answered
):
    end = alive(client, interval, timeout)
    for _ in range(answered):
        end.at(end.protocol._keepalive._next - 1000)
        end.say(Frame(PONG, end.hear()[-1][1]))
    last = end.clock.time
    end.at(last - 1000 + timeout - 0.01)
    assert not failed(end)
    assert failed(end.at(last - 1000 + interval + timeout))


def test_without_a_timeout_a_silent_peer_is_never_given_up(client):
    assert alive(client, timeout=None).at(10_000).protocol.state == OPEN


SIGNS = {
    'the pong': lambda payload: Frame(PONG, payload),
    'another pong': lambda payload: Frame(PONG, b'another'),
    'a ping': lambda payload: Frame(PING),
    'a message': lambda payload: Frame(TEXT, b'a'),
    'half a message': lambda payload: Frame(TEXT, b'half', False),
    'half a header': lambda payload: b'\x81',
}


@pytest.mark.parametrize('sign', SIGNS.values(), ids=SIGNS)
@pytest.mark.parametrize('timeout', [5, 15])
def test_whatever_arrives_is_a_sign_of_life(client, sign, timeout):
    end = alive(client, 10, timeout).at(10)
    ((_, payload),) = end.hear()
    end.at(14.9).say(sign(payload))
    end.at(10 + timeout)
    assert not failed(end)


def test_one_byte_of_a_long_frame_each_time_is_life_enough(client):
    end = alive(client)
    data = wire([Frame(TEXT, bytes(20))], not client)
    for index in range(len(data)):
        end.at(10 * index + 12)
        end.feed(data[index : index + 1])
    assert not failed(end)


def test_life_before_the_ping_is_no_answer_to_it(client):
    end = alive(client)
    end.at(9.9).say(Frame(TEXT, b'a'))
    assert not failed(end.at(14.9))
    assert failed(end.at(15))


def test_the_wall_clock_has_no_part_in_it(client):
    # A7, D7: `now` alone counts; nothing else is asked for the time.
    end = alive(client, timeout=None)
    end.clock.time = 500.0
    end.protocol.tick(500.0)
    assert end.hear() == []


def test_a_message_that_waits_comes_before_the_verdict(client):
    end = alive(client, reading=False).say(Frame(TEXT, b'a'))
    end.at(15)
    assert end.protocol.state == ENDING
    assert end.take() == 'a'
    end.protocol.send(TEXT, b'answer')
    assert end.take() is None
    assert end.close_said() == 1011
    assert failed(end)


# Not the peer's fault


@pytest.mark.parametrize('timeout', [5, 15])
def test_a_peer_that_we_do_not_read_is_not_blamed(client, timeout):
    end = alive(client, 10, timeout, reading=False, max_queue=1)
    end.say(Frame(TEXT, b'a'), Frame(TEXT, b'b'))
    assert end.protocol.paused
    assert not failed(end.at(500))
    # Its answers may have waited for the window that we kept shut.
    end.drain()
    assert not end.protocol.paused
    assert not failed(end.at(500 + timeout - 0.01))
    assert failed(end.at(500 + 2 * timeout + 10))


def test_a_pause_that_ends_just_before_the_verdict_is_not_blamed_on_the_peer(client):
    end = alive(client, 10, 5, reading=False, max_queue=1).at(11)
    end.say(Frame(TEXT, b'a'), Frame(TEXT, b'b'))
    end.at(24.9).drain()  # the ping of 20 is due an answer at 25
    assert not failed(end.at(29.9))
    assert failed(end.at(30))


def test_a_pause_long_ago_is_no_excuse(client):
    end = alive(client, 10, 5, reading=False, max_queue=1)
    end.say(Frame(TEXT, b'a'), Frame(TEXT, b'b')).drain()
    assert not failed(end.at(14.9))
    assert failed(end.at(15))


def test_pings_go_out_while_paused(client):
    end = alive(client, timeout=None, reading=False, max_queue=1)
    end.say(Frame(TEXT, b'a'), Frame(TEXT, b'b'))
    assert len(pings(end.at(30))) == 3


def test_a_ping_that_tcp_did_not_take_is_sent_when_it_does(client):
    end = alive(client, 10, 5)
    end.protocol.congested = True
    end.at(12)
    assert end.hear() == []
    end.protocol.dirty = False
    end.protocol.drained()
    assert len(pings(end)) == 1
    # The clock of its answer starts now.
    assert end.protocol.dirty
    assert not failed(end.at(16.9))
    assert failed(end.at(17))


def test_pings_do_not_pile_up_behind_a_write_that_stands(client):
    end = alive(client, 10, 100)
    end.protocol.congested = True
    end.at(95)
    assert end.hear() == []
    end.protocol.drained()
    assert len(pings(end)) == 1
    end.protocol.drained()
    assert end.hear() == []


def test_a_peer_that_takes_nothing_and_says_nothing_is_given_up(client):
    end = alive(client)
    end.protocol.congested = True
    assert failed(end.at(15))


def test_a_peer_that_takes_what_we_write_is_alive(client):
    end = alive(client)
    end.protocol.congested = True
    for time in range(12, 100, 10):
        end.at(time)
        end.protocol.heard = True  # its link says so
    assert not failed(end.at(99))
    assert failed(end.at(105))


# Keepalive and closing


def test_no_ping_is_sent_while_closing(client):
    end = alive(client, interval=1, close_timeout=30)
    end.close(4000)
    assert end.at(29).protocol.state == CLOSING
    assert [opcode for opcode, _ in end.hear()] == [CLOSE]
    assert end.at(30).protocol.state == DONE
    assert end.closed == (4000, None)


def test_no_ping_is_sent_while_the_peers_close_waits(client):
    end = alive(client, interval=1, close_timeout=30, reading=False)
    end.say(Frame(TEXT, b'a'), closing(1001))
    assert end.at(14).protocol.state == ENDING
    assert end.hear() == []
    assert end.at(15).protocol.state == ENDED
    assert end.closed == (1001, None)


def test_closing_has_a_deadline_of_its_own(client):
    end = alive(client, interval=100, timeout=100, close_timeout=3).at(50)
    end.close()
    assert end.protocol.deadline == 1053
    assert end.at(53).protocol.state == DONE


# Latency


def test_the_latency_is_the_time_from_ping_to_pong(client):
    end = alive(client)
    assert end.protocol.latency is None
    (payload,) = pings(end.at(10))
    end.at(10.25).say(Frame(PONG, payload))
    assert end.protocol.latency == 0.25
    (payload,) = pings(end.at(20))
    assert end.protocol.latency == 0.25
    end.at(20.5).say(Frame(PONG, payload))
    assert end.protocol.latency == 0.5


def test_a_pong_to_another_ping_or_a_second_one_says_nothing_of_latency(client):
    end = alive(client, timeout=30)
    (payload,) = pings(end.at(10))
    end.say(Frame(PONG, b'another'), Frame(PONG))
    assert end.protocol.latency is None
    end.at(11).say(Frame(PONG, payload))
    end.at(15).say(Frame(PONG, payload))
    assert end.protocol.latency == 1
    (other,) = pings(end.at(20))
    assert other != payload
    end.say(Frame(PONG, payload))
    assert end.protocol.latency == 1


def test_a_round_trip_longer_than_the_interval_is_measured(client):
    end = alive(client, timeout=30)
    (first,) = pings(end.at(10))
    (second,) = pings(end.at(20))
    end.at(22).say(Frame(PONG, first))
    assert end.protocol.latency == 12
    end.at(29).say(Frame(PONG, second))
    assert end.protocol.latency == 9


def test_a_pong_answers_the_pings_before_as_well(client):
    end = alive(client, timeout=30)
    (first,) = pings(end.at(10))
    (second,) = pings(end.at(20))
    end.at(21).say(Frame(PONG, second))
    end.at(22).say(Frame(PONG, first))
    assert end.protocol.latency == 1


def test_pings_that_nothing_answers_are_not_kept_for_ever(client):
    end = alive(client, timeout=None)
    sent = [pings(end.at(10 * number))[0] for number in range(1, 30)]
    end.say(Frame(PONG, sent[12]))
    assert end.protocol.latency is None
    end.say(Frame(PONG, sent[13]))
    assert end.protocol.latency == 150


def test_a_ping_that_waited_for_tcp_is_timed_from_when_it_left(client):
    end = alive(client)
    end.protocol.congested = True
    end.at(13)
    end.protocol.drained()
    (payload,) = pings(end)
    end.at(13.5).say(Frame(PONG, payload))
    assert end.protocol.latency == 0.5


# Pongs to a peer that does not read (B4; section 5.5.3)


def test_pings_that_come_while_tcp_is_full_are_answered_by_one_pong(client):
    end = End(client)
    end.protocol.congested = True
    end.say(*(Frame(PING, str(number).encode()) for number in range(1000)))
    assert end.protocol.out == []
    end.protocol.drained()
    assert end.hear() == [(PONG, b'999')]
    assert not end.protocol.congested
    end.protocol.drained()
    assert end.hear() == []
    assert end.say(Frame(PING, b'p')).hear() == [(PONG, b'p')]


def test_a_ping_flood_costs_a_peer_that_never_reads_one_pong(client):
    end = End(client)
    end.say(Frame(PING, b'x'))
    end.hear()
    end.protocol.congested = True
    flood = wire([Frame(PING, bytes(125))] * 400, not client)
    for _ in range(20):
        end.feed(flood)
    assert end.protocol.out == []
    assert not end.protocol.paused  # what it says besides is heard
    end.say(Frame(TEXT, b'a'))
    assert end.got == ['a']


def test_an_owed_pong_does_not_follow_a_close(client):
    for close in (lambda end: end.close(), lambda end: end.say(closing(1000))):
        end = End(client)
        end.protocol.congested = True
        end.say(Frame(PING, b'p'))
        close(end)
        end.protocol.drained()
        assert [opcode for opcode, _ in end.hear()] == [CLOSE]
        end.protocol.drained()
        assert end.hear() == []
