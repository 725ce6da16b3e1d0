"""The protocol where it turns over: exact codes and sizes, and calls that come twice."""

from __future__ import annotations

import pytest
from support.lab import PING, PONG, TEXT, End, Frame, closing

from simple_websocket.protocol import DONE, ENDED, close_payload, sendable


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
