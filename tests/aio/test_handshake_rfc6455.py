"""The opening handshake of RFC 6455 section 4 on asyncio: the same tables as in
`tests/core`, to the byte, and what is left behind them."""

from __future__ import annotations

import asyncio

import pytest
from aio.peer import Peer, listening, tcp_pair
from aio.rows import each_section
from support.frames import CLOSE, TEXT, frame
from support.handshakes import REQUESTS, RESPONSES

from simple_websocket import AioClient, AioServer, ConnectionError

OURS = ['superchat', 'chat']

# The rest is for who reads the request line; for a socket, that is the caller.
HEADERS = [row for row in REQUESTS if (row.method, row.version) == ('GET', 'HTTP/1.1')]


@each_section(HEADERS)
async def test_a_request_gets_its_answer_to_the_byte(row):
    theirs, ours = await tcp_pair()
    peer = Peer(*await asyncio.open_connection(sock=theirs), client=True)
    status = int(row.answer[9:12])
    accepting = AioServer.accept(sock=ours, headers=row.pairs, subprotocols=OURS)
    if status == 101:
        ws = await accepting
        assert await peer.reader.readexactly(len(row.answer)) == row.answer
        await ws.send('open')
        assert await peer.reader.readexactly(6) == frame(TEXT, b'open')
        assert ws.subprotocol in (None, *OURS)
        ws._link.give_up()
        await ws._link.join(5)
    else:
        with pytest.raises(ConnectionError) as refused:
            await accepting
        assert refused.value.status_code == status
        assert await peer.reader.readexactly(len(row.answer)) == row.answer
        await peer.expect_eof()
    await peer.close()


@each_section(RESPONSES)
async def test_a_response_opens_the_connection_or_is_an_error(row):
    async def serve(peer):
        head = (await peer.head()).decode()
        fields = dict(line.split(': ', 1) for line in head.split('\r\n')[1:])
        await peer.send(row.raw(fields['Sec-WebSocket-Key']))
        if row.error is None:
            await peer.send((TEXT, b'open'), peer.close_frame(1000))
            await peer.expect(CLOSE)
        else:
            if row.status is not None:
                peer.writer.write_eof()  # the end of the body
            await peer.expect_eof()  # a client that fails says nothing and hangs up

    # No extension: the table is for a client that asks for none.
    connect = {'subprotocols': OURS, 'compression': None}
    async with listening(serve) as port:
        if row.error is None:
            ws = await AioClient.connect(f'ws://127.0.0.1:{port}/chat', **connect)
            assert ws.subprotocol == row.changes.get('Sec-WebSocket-Protocol')
            assert [message async for message in ws] == ['open']
            assert ws.close_reason == 1000
        else:
            with pytest.raises(ConnectionError, match=row.error) as refused:
                await AioClient.connect(f'ws://127.0.0.1:{port}/chat', **connect)
            assert refused.value.status_code == row.status
