"""Close codes over TCP (RFC 6455 section 7.4): `tests/core/test_close_codes.py`
has them all for what is received."""

from __future__ import annotations

import pytest
from support.codes import INVALID, INVALID_EDGES, NO_CODE, VALID_EDGES
from support.frames import TEXT

from simple_websocket import ConnectionClosed


def test_every_code_that_must_not_be_sent_is_a_value_error_and_nothing_is_sent(end):  # B11
    ws, peer = end()
    let_through = []
    for code in (*INVALID, *NO_CODE):
        try:  # pytest.raises would take a second for all of them
            ws.close(code)
            let_through.append(code)
        except ValueError as error:
            assert f'(the close code) {code} must not be sent' in str(error)
    assert not let_through
    for what in ('', '1000', 1000.0, False, True, [], b''):
        with pytest.raises(TypeError, match='close code'):
            ws.close(what)
    assert ws.connected
    ws.send('nothing came before this')
    peer.expect(TEXT, b'nothing came before this')
    peer.send((TEXT, b'still open'))
    assert ws.receive(5) == 'still open'


@pytest.mark.parametrize('code', VALID_EDGES)
def test_a_code_that_may_be_sent_is_sent(end, world, code):
    ws, peer = end()
    task = world.spawn(ws.close, code, 'bye')
    assert peer.expect_close(code) == 'bye'
    peer.send(peer.close_frame(code))
    task.join()
    assert (ws.close_reason, ws.close_message) == (code, 'bye')


@pytest.mark.parametrize('code', [*VALID_EDGES, *INVALID_EDGES])
def test_a_code_that_is_received_is_echoed_or_fails_with_1002(end, code):  # B10
    ws, peer = end()
    peer.send((TEXT, b'before'), peer.close_frame(code, 'bye'))
    assert ws.receive(5) == 'before'
    with pytest.raises(ConnectionClosed) as closed:
        ws.receive(5)
    if code in VALID_EDGES:
        assert (closed.value.reason, closed.value.message) == (code, 'bye')
        assert peer.expect_close(code) == ''
    else:
        assert (closed.value.reason, closed.value.message) == (1002, 'invalid close code')
        assert peer.expect_close(1002) == 'invalid close code'
        peer.expect_eof()
