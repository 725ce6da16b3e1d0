"""An exception between two of our own steps, as a signal handler raises it."""

from __future__ import annotations

import pytest
from support.peer import TEXT, accepted

from simple_websocket import ConnectionClosed


def test_an_interrupt_right_behind_a_write_sends_nothing_twice(world):
    ws, peer = accepted(world)
    wire = ws._link.wire
    send = wire.raw_send

    def interrupted(*args):
        send(*args)
        raise KeyboardInterrupt

    wire.raw_send = interrupted
    with pytest.raises(KeyboardInterrupt):
        ws.send('hello')
    wire.raw_send = send
    assert not ws.connected
    with pytest.raises(ConnectionClosed) as closed:
        ws.send('again')
    assert closed.value.reason == 1006
    peer.expect(TEXT, b'hello')
    peer.expect_eof()
