"""Every close code from 0 to 65,535, received and given by the caller (RFC 6455
section 7.4); `test_protocol_close.py` has what else is in a Close."""

from __future__ import annotations

import pytest
from support.codes import INVALID, INVALID_EDGES, NO_CODE, VALID, VALID_EDGES
from support.frames import CLOSE, TEXT, Frame, closing, fragments, wire
from support.lab import End, ways

from simple_websocket.protocol import CLOSING, ENDED, OPEN


def test_every_code_is_valid_or_not():
    assert len(VALID) == 2012
    assert len(VALID) + len(INVALID) == 65536
    assert VALID.issuperset(VALID_EDGES) and INVALID.issuperset(INVALID_EDGES)


@pytest.mark.parametrize('reason', ['bye', ''])
def test_every_code_that_is_received_is_echoed_or_fails_with_1002(client, reason):
    """Behind a message; the answer to the byte, and what is reported."""
    wrong = []
    for code in range(65536):
        end = End(client).say(Frame(TEXT, b'a'), closing(code, reason))
        heard, got = end.hear(), (end.got, end.closed, end.protocol.half_close)
        if code in VALID:
            expected = [(CLOSE, code.to_bytes(2, 'big'))]
            told = (['a'], (code, reason or None), not client)
        else:
            expected = [(CLOSE, b'\x03\xeainvalid close code')]
            told = (['a'], (1002, 'invalid close code'), True)
        if (heard, got) != (expected, told):
            wrong.append(code)
    assert not wrong


@pytest.mark.parametrize('code', [*VALID_EDGES, *INVALID_EDGES])
def test_a_code_is_judged_in_any_split_and_between_fragments(client, code):
    first, second = fragments(TEXT, b'half', b'half')
    expected = code if code in VALID else 1002
    for frames in ([closing(code)], [first, closing(code, 'bye'), second]):
        for pieces in ways(wire(frames, not client)):
            end = End(client)
            for piece in pieces:
                end.feed(piece)
            assert end.got == []
            assert end.close_said() == end.protocol.close_code == expected


def test_every_code_that_answers_our_close_ends_the_connection(client):
    wrong = []
    for code in range(65536):
        end = End(client)
        end.close(4000, 'ours')
        end.say(closing(code))
        # 7.1.7: who fails the connection closes TCP, the client too
        told = (end.closed, end.protocol.state, end.protocol.half_close)
        if told != ((4000, 'ours'), ENDED, not client or code in INVALID):
            wrong.append(code)
        assert end.hear() == [(CLOSE, b'\x0f\xa0ours')]
    assert not wrong


def test_every_code_of_the_caller_is_sent_or_is_a_value_error(client):
    wrong = []
    refused = End(client)
    for code in range(65536):
        if code in VALID:
            end = End(client)
            end.close(code, 'bye')
            said = [(CLOSE, code.to_bytes(2, 'big') + b'bye')]
            if (end.hear(), end.protocol.state) != (said, CLOSING):
                wrong.append(code)
        else:
            for reason in ('bye', None):
                try:
                    refused.close(code, reason)
                    wrong.append(code)
                except ValueError as error:
                    assert f'(the close code) {code} must not be sent' in str(error)
    assert not wrong
    for code in NO_CODE:
        with pytest.raises(ValueError, match=rf'\(the close code\) {code} must not be sent'):
            refused.close(code)
    assert refused.hear() == []
    assert refused.protocol.state == OPEN
