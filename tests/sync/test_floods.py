"""A flood of tiny frames on one connection leaves a hub to the others."""

from __future__ import annotations

import pytest
from support.frames import BINARY, PING

from simple_websocket.protocol import MAX_APPETITE


@pytest.mark.only('green')
def test_a_hub_reads_less_at_once_from_who_sends_tiny_frames(end, world):  # B5
    ws, peer = end()
    wire = ws._link.wire
    asked, raw_recv = [], wire.raw_recv

    def recorded(size, *flags):
        asked.append(size)
        return raw_recv(size, *flags)

    wire.raw_recv, wire.fileno = recorded, None
    receiver = world.spawn(ws.receive)
    peer.send(peer.frame(PING) * 50_000)
    world.settles_to(lambda: min(asked, default=MAX_APPETITE) < 4096, True)
    assert max(asked) == MAX_APPETITE
    peer.send((BINARY, bytes(1 << 20)))
    assert receiver.join() == bytes(1 << 20)
    assert asked[-1] == MAX_APPETITE
