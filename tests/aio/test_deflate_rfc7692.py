"""permessage-deflate on asyncio: the tables of RFC 7692 sections 5 and 7.1 on the
wire, and under each agreement a message in fragments with pings in between."""

from __future__ import annotations

import asyncio

import pytest
from aio.peer import HEADERS, Peer, accepted, listening, tcp_pair
from aio.rows import each_section
from support.deflates import ANSWERS, OFFERS, Packer, Unpacker, agreed, words
from support.frames import BINARY, PING, PONG
from support.peer import switching

from simple_websocket import AioClient, AioServer, ConnectionError

MESSAGE = words(3000)
RSV1 = 0x40


async def converse(ws, peer, there, here):
    """Two messages in each direction, the peer's in fragments with pings between.

    `there` and `here` are (window bits, takeover) of the peer and of us.
    """
    packer, unpacker = Packer(*there), Unpacker(*here)
    for _ in range(2):
        data = packer(MESSAGE)
        third = len(data) // 3
        await peer.send(
            peer.frame(BINARY, data[:third], fin=False, rsv=4),
            (PING, b'1'),
            peer.frame(0, data[third:-third], fin=False),
            (PING, b'2'),
            peer.frame(0, data[-third:]),
        )
        assert await ws.receive(5) == MESSAGE
        await ws.send(MESSAGE)
        await peer.expect(PONG, b'1')
        await peer.expect(PONG, b'2')
        assert unpacker(await peer.expect(RSV1 | BINARY)) == MESSAGE


@each_section(OFFERS)
async def test_an_offer_gets_its_answer(row):
    offered = {'Sec-WebSocket-Extensions': ', '.join(row.values)} if row.values else {}
    if row.malformed:
        theirs, ours = await tcp_pair()
        peer = Peer(*await asyncio.open_connection(sock=theirs), client=True)
        with pytest.raises(ConnectionError) as refused:
            await AioServer.accept(
                sock=ours, headers={**HEADERS, **offered}, compression=row.options
            )
        assert refused.value.status_code == 400
        assert (await peer.head()).startswith(b'HTTP/1.1 400 Bad Request\r\n')
    else:
        ws, peer = await accepted(request=offered, compression=row.options)
        lines = peer.response.decode().strip().split('\r\n')
        answers = [line for line in lines if line.startswith('Sec-WebSocket-Extensions')]
        if row.answer is None:
            assert answers == []
        else:
            assert answers == [f'Sec-WebSocket-Extensions: {row.answer}']
            # zlib takes 9 for 8, and such a sender is to be read, too
            there = max(row.agreed.client_bits, 9), row.agreed.client_takeover
            here = row.agreed.server_bits, row.agreed.server_takeover
            await converse(ws, peer, there, here)
        ws._link.give_up()
        await ws._link.join(5)
    await peer.close()


@each_section(ANSWERS)
async def test_an_answer_opens_the_connection_or_fails_it(row):
    fields = [f'Sec-WebSocket-Extensions: {value}'.encode('latin-1') for value in row.values]
    made = asyncio.get_running_loop().create_future()

    async def serve(peer):
        await peer.send(switching(await peer.head(), *fields))
        made.set_result(peer)
        await done.wait()

    done = asyncio.Event()
    async with listening(serve) as port:
        connect = {'url': f'ws://127.0.0.1:{port}', 'compression': row.options}
        if row.error is not None:
            with pytest.raises(ConnectionError) as refused:
                await AioClient.connect(**connect)
            assert refused.value.status_code is None
        else:
            ws = await AioClient.connect(**connect)
            engine = ws._link.protocol._deflate
            assert (engine and agreed(engine, client=True)) == row.agreed
            if row.agreed is not None:
                there = max(row.agreed.server_bits, 9), row.agreed.server_takeover
                here = row.agreed.client_bits, row.agreed.client_takeover
                await converse(ws, await made, there, here)
            ws._link.give_up()
            await ws._link.join(5)
        done.set()
