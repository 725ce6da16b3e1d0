"""The opening handshake of RFC 6455 section 4 over TCP: the same tables as in
`tests/core`, to the byte, and what is left behind them."""

from __future__ import annotations

import socket

import pytest
from support.frames import CLOSE, TEXT, frame
from support.handshakes import REQUESTS, RESPONSES
from support.peer import Peer, tcp_pair

from simple_websocket import Client, ConnectionError, Server

pytestmark = pytest.mark.only('default-codec')

OURS = ['superchat', 'chat']


@pytest.mark.parametrize('row', REQUESTS, ids=lambda row: row.name)
def test_a_request_gets_its_answer_to_the_byte(world, row):
    theirs, ours = tcp_pair(world)
    peer = Peer(theirs, client=True)
    environ = {**row.environ, 'werkzeug.socket': ours}
    status = int(row.answer[9:12])
    if status == 101:
        ws = Server.accept(environ, subprotocols=OURS)
        assert peer._exactly(len(row.answer)) == row.answer
        ws.send('open')
        assert peer._exactly(6) == frame(TEXT, b'open')
        assert ws.subprotocol in (None, *OURS)
        ws._link.abandon()
    else:
        with pytest.raises(ConnectionError) as refused:
            Server.accept(environ, subprotocols=OURS)
        assert refused.value.status_code == status
        assert peer._exactly(len(row.answer)) == row.answer
        peer.expect_eof()


@pytest.mark.parametrize('row', RESPONSES, ids=lambda row: row.name)
def test_a_response_opens_the_connection_or_is_an_error(world, row):
    listener, port = world.listen()

    def serve():
        peer = Peer(world.closing(listener.accept()[0]), client=False)
        fields = dict(line.split(': ', 1) for line in peer.head().decode().split('\r\n')[1:])
        peer.send(row.raw(fields['Sec-WebSocket-Key']))
        if row.error is None:
            peer.send((TEXT, b'open'), peer.close_frame(1000))
            peer.expect(CLOSE)
        else:
            if row.status is not None:
                peer.sock.shutdown(socket.SHUT_WR)  # the end of the body
            peer.expect_eof()  # a client that fails says nothing and hangs up

    task = world.spawn(serve)
    # No extension: the table is for a client that asks for none.
    connect = {'subprotocols': OURS, 'compression': None}
    if row.error is None:
        ws = Client.connect(f'ws://127.0.0.1:{port}/chat', **connect)
        assert ws.subprotocol == row.changes.get('Sec-WebSocket-Protocol')
        assert list(ws) == ['open']
        assert ws.close_reason == 1000
    else:
        with pytest.raises(ConnectionError, match=row.error) as refused:
            Client.connect(f'ws://127.0.0.1:{port}/chat', **connect)
        assert refused.value.status_code == row.status
    task.join()
