"""permessage-deflate over TCP: the tables of RFC 7692 sections 5 and 7.1 on the
wire, and under each agreement a message in fragments with pings in between."""

from __future__ import annotations

import pytest
from support.deflates import ANSWERS, OFFERS, Packer, Unpacker, agreed, words
from support.frames import BINARY, CLOSE, PING, PONG
from support.peer import Peer, accepted, environ_for, switching, tcp_pair

from simple_websocket import Client, ConnectionError, Server

MESSAGE = words(3000)
RSV1 = 0x40


def converse(ws, peer, there, here):
    """Two messages in each direction, the peer's in fragments with pings between.

    `there` and `here` are (window bits, takeover) of the peer and of us.
    """
    packer, unpacker = Packer(*there), Unpacker(*here)
    for _ in range(2):
        data = packer(MESSAGE)
        third = len(data) // 3
        peer.send(
            peer.frame(BINARY, data[:third], fin=False, rsv=4),
            (PING, b'1'),
            peer.frame(0, data[third:-third], fin=False),
            (PING, b'2'),
            peer.frame(0, data[-third:]),
        )
        assert ws.receive(5) == MESSAGE
        ws.send(MESSAGE)
        peer.expect(PONG, b'1')
        peer.expect(PONG, b'2')
        assert unpacker(peer.expect(RSV1 | BINARY)) == MESSAGE
    peer.send(peer.close_frame(1000))
    assert list(ws) == []
    peer.expect_close(1000)
    assert ws.close_reason == 1000


@pytest.mark.parametrize('row', OFFERS, ids=lambda row: row.name)
def test_an_offer_gets_its_answer(world, row):
    offered = {'sec_websocket_extensions': ','.join(row.values)} if row.values else {}
    if row.malformed:
        theirs, ours = tcp_pair(world)
        with pytest.raises(ConnectionError) as refused:
            Server.accept(environ_for(ours, **offered), compression=row.options)
        assert refused.value.status_code == 400
        assert Peer(theirs, client=True).head().startswith(b'HTTP/1.1 400 Bad Request\r\n')
        return
    ws, peer = accepted(world, request=offered, compression=row.options)
    lines = peer.response.decode().split('\r\n')
    answers = [line for line in lines if line.startswith('Sec-WebSocket-Extensions')]
    if row.answer is None:
        assert answers == []
        ws.send(MESSAGE)
        peer.expect(BINARY, MESSAGE)
        ws._link.abandon()
    else:
        assert answers == [f'Sec-WebSocket-Extensions: {row.answer}']
        there = row.agreed.client_bits, row.agreed.client_takeover
        here = row.agreed.server_bits, row.agreed.server_takeover
        # zlib takes 9 for 8, and such a sender is to be read, too
        converse(ws, peer, (max(there[0], 9), there[1]), here)


@pytest.mark.parametrize('row', ANSWERS, ids=lambda row: row.name)
def test_an_answer_opens_the_connection_or_fails_it(world, row):
    listener, port = world.listen()
    fields = [f'Sec-WebSocket-Extensions: {value}'.encode('latin-1') for value in row.values]

    def serve():
        peer = Peer(world.closing(listener.accept()[0]), client=False)
        peer.send(switching(peer.head(), *fields))
        if row.error is not None:
            peer.expect_eof()
        return peer

    task = world.spawn(serve)
    connect = {'url': f'ws://127.0.0.1:{port}', 'compression': row.options}
    if row.error is not None:
        with pytest.raises(ConnectionError) as refused:
            Client.connect(**connect)
        assert refused.value.status_code is None
        task.join()
        return
    ws = Client.connect(**connect)
    peer = task.join()
    engine = ws._link.protocol._deflate
    assert (engine and agreed(engine, client=True)) == row.agreed
    if row.agreed is not None:
        there = max(row.agreed.server_bits, 9), row.agreed.server_takeover
        converse(ws, peer, there, (row.agreed.client_bits, row.agreed.client_takeover))
    else:
        ws.send(MESSAGE)
        peer.expect(BINARY, MESSAGE)
        peer.send(peer.close_frame(1000))
        assert list(ws) == []
        peer.expect(CLOSE)
