"""Close codes on asyncio (RFC 6455 section 7.4): `tests/core/test_close_codes.py`
has them all for what is received."""

from __future__ import annotations

import asyncio

import pytest
from aio.peer import end
from support.codes import INVALID, INVALID_EDGES, NO_CODE, VALID_EDGES
from support.frames import TEXT

from simple_websocket import ConnectionClosed


async def test_every_code_that_must_not_be_sent_is_a_value_error_and_nothing_is_sent(  # B11
    role,
):
    async with end(role) as (ws, peer):
        let_through = []
        for code in (*INVALID, *NO_CODE):
            try:  # pytest.raises would take a second for all of them
                await ws.close(code)
                let_through.append(code)
            except ValueError as error:
                assert f'(the close code) {code} must not be sent' in str(error)
        assert not let_through
        for what in ('', '1000', 1000.0, False, True, [], b''):
            with pytest.raises(TypeError, match='close code'):
                await ws.close(what)
        assert ws.connected
        await ws.send('nothing came before this')
        await peer.expect(TEXT, b'nothing came before this')


async def test_codes_that_may_be_sent_are_sent(role):
    for code in VALID_EDGES:
        async with end(role) as (ws, peer):
            closing = asyncio.ensure_future(ws.close(code, 'bye'))
            assert await peer.expect_close(code) == 'bye'
            await peer.send(peer.close_frame(code))
            await peer.close()
            await closing
            assert (ws.close_reason, ws.close_message) == (code, 'bye')


async def test_codes_that_are_received_are_echoed_or_fail_with_1002(role):  # B10
    for code in (*VALID_EDGES, *INVALID_EDGES):
        async with end(role) as (ws, peer):
            await peer.send((TEXT, b'before'), peer.close_frame(code, 'bye'))
            assert await ws.receive(5) == 'before'
            with pytest.raises(ConnectionClosed) as closed:
                await ws.receive(5)
            if code in VALID_EDGES:
                assert (closed.value.reason, closed.value.message) == (code, 'bye')
                assert await peer.expect_close(code) == ''
            else:
                assert closed.value.reason == 1002
                assert await peer.expect_close(1002) == 'invalid close code'
                await peer.expect_eof()
