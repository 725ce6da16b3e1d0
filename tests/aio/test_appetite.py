"""A flood of tiny frames leaves the loop to others, and what TLS hides is seen."""

from __future__ import annotations

import asyncio
import socket

from simple_websocket.profiles.aio import AioLink, TransportWire
from simple_websocket.protocol import MAX_APPETITE, Protocol

PINGS = b'\x89\x80\0\0\0\0' * 40_000
SMALL = b'\x82\x80' + bytes(4)
LARGE = b'\x82\xff' + (1 << 20).to_bytes(8, 'big') + bytes(4) + bytes(1 << 20)


async def test_less_is_read_at_once_from_who_sends_tiny_frames():
    loop = asyncio.get_running_loop()
    ours, theirs = socket.socketpair()
    sizes = []

    class Recording(AioLink):
        def buffer_updated(self, nbytes):
            sizes.append(nbytes)
            super().buffer_updated(nbytes)

    link = Recording(Protocol(False, loop.time), loop)
    await loop.connect_accepted_socket(lambda: link, ours)
    assert len(link.get_buffer(-1)) == MAX_APPETITE
    theirs.setblocking(False)
    await loop.sock_sendall(theirs, PINGS)
    while sum(sizes) < len(PINGS):
        await asyncio.sleep(0)
    assert len(link.get_buffer(-1)) < 4096
    sending = asyncio.ensure_future(loop.sock_sendall(theirs, LARGE))
    assert await link.receive(5) == bytes(1 << 20)
    assert max(sizes) > MAX_APPETITE
    await sending
    await loop.sock_sendall(theirs, SMALL)
    while not link.protocol.messages:
        await asyncio.sleep(0)
    assert await link.receive(5) == b''
    assert len(link.get_buffer(-1)) == MAX_APPETITE
    link.give_up()
    await link.join(5)
    theirs.close()


class Tcp:
    def __init__(self):
        self.gone = False

    def is_closing(self):
        return self.gone


class Tls:
    """A transport over TLS as it is before Python 3.12."""

    def __init__(self):
        self._ssl_protocol = self
        self._transport = Tcp()
        self.closed = False

    def is_closing(self):
        return False

    def get_extra_info(self, name):
        return self

    def set_write_buffer_limits(self, high, low):
        pass

    def can_write_eof(self):
        return False

    def close(self):
        self.closed = True


def test_a_tls_transport_whose_tcp_is_gone_is_closing():
    wire = TransportWire()
    transport = Tls()
    wire.attach(transport)
    assert not wire.closing
    transport._transport.gone = True
    assert wire.closing


def test_tls_that_is_not_asyncios_is_closed_both_ways():
    wire = TransportWire()
    transport = Tls()
    wire.attach(transport)
    wire.shutdown_write()
    assert transport.closed
