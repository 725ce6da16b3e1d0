"""What a type checker makes of a program that uses the package.

Nobody runs this: ``make style`` checks it.  Each ``assert_type`` must hold, and
each line with a ``type: ignore`` must be an error, since mypy is told to complain
of those that are for nothing.
"""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from typing_extensions import assert_type

import simple_websocket
from simple_websocket import (
    AioClient,
    AioServer,
    Client,
    ConnectionError,
    Deflate,
    Server,
    broadcast,
    websocket_app,
)
from simple_websocket.asgi import WebSocketASGI

#: As frameworks declare them.
Message = MutableMapping[str, Any]


class Room(Server):
    """Who connects gets what was asked for."""


class Dialled(Client):
    pass


class AioRoom(AioServer):
    pass


class AioDialled(AioClient):
    pass


def messages(ws: Server, timeout: float | None) -> None:
    assert_type(ws.receive(), str | bytes)
    assert_type(ws.receive(timeout=None), str | bytes)
    assert_type(ws.receive(0), str | bytes | None)
    assert_type(ws.receive(timeout=timeout), str | bytes | None)
    json.loads(ws.receive())  # as programs for 1.x have it
    json.loads(ws.receive(timeout=1))  # type: ignore[arg-type]
    for message in ws:
        assert_type(message, str | bytes)
    ws.send(5)  # as str(5)


def servers(environ: dict[str, Any]) -> None:
    with Server.accept(environ) as ws:
        assert_type(ws, Server)
    with Room.accept(environ, 'chat', ping_interval=25) as room:
        assert_type(room, Room)
        assert_type(room.environ, dict[str, Any])
        assert_type(room.subprotocols, list[str])
        assert_type(room.subprotocol, str | None)
    for accept in (Server, Server.accept):
        accept(
            environ,
            ('a', 'b'),
            receive_bytes=1,
            ping_interval=2.5,
            max_message_size=None,
            thread_class=None,
            event_class=None,
            selector_class=None,
            profile='gevent',
            ping_timeout=3,
            close_timeout=4,
            max_queue=5,
            max_fragments=None,
            compression=Deflate(),
            origins=['same', None],
            headers={'A': 'b'},
            logger=None,
        )
    Server.accept(environ, pign_interval=3)  # type: ignore[call-arg]
    Server.accept(environ, ping_timeout='x')  # type: ignore[arg-type]
    Server.accept(environ, origins=5)  # type: ignore[arg-type]
    Server.accept(environ, subprotocols=[5])  # type: ignore[list-item]
    Server.accept(environ, compression='gzip')  # type: ignore[arg-type]
    Server.accept(environ, open_timeout=3)  # type: ignore[call-arg]
    Server(environ, pign_interval=3)  # type: ignore[call-arg]
    Server(environ, ping_timeout='x')  # type: ignore[arg-type]


def clients(url: str) -> None:
    with Client.connect(url, open_timeout=None, server_hostname='a') as ws:
        assert_type(ws, Client)
        assert_type(ws.url, str)
    with Dialled.connect(url, 'chat', [('A', 'b')], profile='threads') as mine:
        assert_type(mine, Dialled)
    Client.connect(url, origins='same')  # type: ignore[call-arg]
    Client.connect(url, open_timeout='x')  # type: ignore[arg-type]
    Client(url, pign_interval=3)  # type: ignore[call-arg]
    try:
        Client(url)
    except ConnectionError as error:
        assert_type(error.status_code, int | None)
        assert_type(error.headers, list[tuple[str, str]])
        assert_type(error.body, bytes)


async def on_asyncio(request: Any, timeout: float | None) -> None:
    async with await AioServer.accept(aiohttp=request, origins='same') as ws:
        assert_type(ws, AioServer)
        assert_type(await ws.receive(), str | bytes)
        assert_type(await ws.receive(timeout), str | bytes | None)
        async for message in ws:
            assert_type(message, str | bytes)
    assert_type(await AioRoom.accept(sock=request, headers={}), AioRoom)
    assert_type(await AioRoom.accept(request, subprotocols='chat'), AioRoom)
    await AioServer.accept(aiohttp=request, pign_interval=3)  # type: ignore[call-overload]
    await AioServer.accept(aiohttp=request, ping_timeout='x')  # type: ignore[call-overload]
    AioServer(request, ping_timeout='x')  # type: ignore[arg-type]
    async with await AioDialled.connect('ws://a', sock=None, open_timeout=3) as mine:
        assert_type(mine, AioDialled)
    async with AioClient('ws://a') as other:
        assert_type(other, AioClient)
    await AioClient.connect('ws://a', pign_interval=3)  # type: ignore[call-arg]


async def on_asgi(
    scope: MutableMapping[str, Any],
    receive: Callable[[], Awaitable[Message]],
    send: Callable[[Message], Awaitable[None]],
) -> None:
    ws = await AioServer.accept(asgi=(scope, receive, send), max_message_size=1)
    assert_type(ws, WebSocketASGI)
    assert_type(await ws.receive(), str | bytes)
    assert_type(await ws.receive(0), str | bytes | None)
    async with ws as same:
        assert_type(same, WebSocketASGI)
    async for message in ws:
        assert_type(message, str | bytes)
    assert_type(await WebSocketASGI.accept(scope, receive, send, origins='same'), WebSocketASGI)
    await AioServer.accept(asgi=ws)  # type: ignore[call-overload]
    await WebSocketASGI.accept(scope, receive, send, pign_interval=3)  # type: ignore[call-arg]


@websocket_app(max_message_size=65536, subprotocols='chat', thread_class=None)
def echo(ws: Server) -> None:
    """A handler."""


@websocket_app
def plain(ws: Server) -> None:
    """Another."""


websocket_app(max_size=3)  # type: ignore[call-overload]
websocket_app(ping_timeout='x')  # type: ignore[call-overload]


def to_many(servers: list[Server], rooms: set[Room], strangers: list[AioServer]) -> None:
    broadcast(servers, 'x')
    outcome = broadcast(rooms, b'x', slow='wait', timeout=1)
    rooms.difference_update(outcome.closed)
    broadcast(servers, 'x', slow='never')  # type: ignore[arg-type]
    broadcast(strangers, 'x')  # type: ignore[arg-type]


simple_websocket.Sever  # type: ignore[attr-defined]  # noqa: B018
