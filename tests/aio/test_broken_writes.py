"""A connection that breaks at the very moment at which TCP takes more."""

from __future__ import annotations

import asyncio
import os
import socket

import pytest
from aio.peer import end, until

from simple_websocket import ConnectionClosed
from simple_websocket.profiles.aio import AioLink


async def test_a_write_that_fails_as_soon_as_tcp_takes_more_ends_the_transport_once(
    role, monkeypatch
):
    # asyncio goes on with a transport behind resume_writing(): it ended one
    # that a write had just ended a second time, and logged its own error.
    async with end(role, compression=None) as (ws, peer):
        resume = AioLink.resume_writing
        resumed = []

        def resume_writing(link):
            resumed.append(True)
            with socket.socket(fileno=os.dup(ws.sock.fileno())) as tcp:
                tcp.shutdown(socket.SHUT_WR)  # the next write is a broken pipe
            resume(link)

        monkeypatch.setattr(AioLink, 'resume_writing', resume_writing)
        sends = [asyncio.ensure_future(ws.send(b'x' * 8_000_000)) for _ in range(3)]
        await asyncio.sleep(0)
        assert not resumed
        read = asyncio.ensure_future(peer.reader.read(-1))
        await until(lambda: resumed)
        for send in sends[1:]:
            with pytest.raises(ConnectionClosed) as closed:
                await send
            assert closed.value.reason == 1006
        await asyncio.gather(read, *sends, return_exceptions=True)
        assert ws.close_reason == 1006
