"""What is said between the peers of the interop tests, on our side.

    python serve.py werkzeug|gevent|eventlet FD conversation:app   (in tests/live)
    python conversation.py server FD                               asyncio, on aiohttp
    python conversation.py client threads|gevent|eventlet|asyncio

A server does what the path says: `/echo`; `/headers` tells what the handshake
carried; `/close/CODE/REASON` closes once it has been told something; `/ping`
says `pong` once the client has answered a ping; `/refuse` refuses; `/last` says
how the last connection was closed, as its server saw it, but for those whose
path begins with `/unseen`. The query may have the compression, `?deflate=JSON`.
A client runs cases, a line of JSON each, from stdin, and tells on stdout what
came of them.

Everything is written once, as coroutines; those of a blocking connection never
wait for anybody else.
"""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from urllib.parse import parse_qs, unquote

from simple_websocket import (
    AioClient,
    AioServer,
    Client,
    ConnectionClosed,
    ConnectionError,
    Server,
)
from simple_websocket.deflate import Deflate

SUBPROTOCOLS = ['superchat', 'chat']
seen = []


class Blocking:
    """A blocking connection with the methods of the other kind."""

    def __init__(self, ws):
        self.ws = ws

    async def send(self, data):
        self.ws.send(data)

    async def receive(self, timeout=None):
        return self.ws.receive(timeout)

    async def close(self, *how):
        self.ws.close(*how)


def finish(coroutine):
    """Run a coroutine that waits for nothing."""
    try:
        coroutine.send(None)
    except StopIteration as stop:
        return stop.value
    raise AssertionError('it waits')


def from_json(data):
    return data if isinstance(data, str) else base64.b64decode(data['base64'])


def to_json(data):
    return data if isinstance(data, str) else {'base64': base64.b64encode(data).decode()}


def compression(options):
    """None for none; `threshold` 0 has everything compressed."""
    return None if options is None else Deflate(**{'threshold': 0, **options})


def agreed(ws):
    """What both ends have agreed on, as `support.deflates.Agreed` has it."""
    engine = ws._link.protocol._deflate
    if engine is None:
        return None
    ours = engine.compress_bits, engine.compress_takeover
    theirs = engine.decompress_bits, engine.decompress_takeover
    server, client = (ours, theirs) if isinstance(ws, (Server, AioServer)) else (theirs, ours)
    return [server[0], client[0], server[1], client[1]]


# The server


def options(path, query):
    deflate = parse_qs(query).get('deflate')
    return {
        'subprotocols': SUBPROTOCOLS,
        'compression': compression(json.loads(deflate[0])) if deflate else True,
        'ping_interval': 0.1 if path == '/ping' else None,
        'origins': [] if path == '/refuse' else None,
        'close_timeout': 10,
    }


async def serve(conversation, ws, path, test_header):
    kind, *args = map(unquote, path.removeprefix('/unseen')[1:].split('/'))
    if kind == 'last':
        while not seen:
            await conversation.receive(0.005)
        await conversation.send(json.dumps(seen.pop(0)))
        await conversation.close()
        return
    try:
        if kind == 'headers':
            carried = {'x-test': test_header, 'subprotocol': ws.subprotocol, 'agreed': agreed(ws)}
            await conversation.send(json.dumps(carried))
        elif kind == 'close':
            await conversation.receive()
            await conversation.close(int(args[0]), args[1])
        elif kind == 'ping':
            while ws.latency is None:
                await conversation.receive(0.005)
            await conversation.send('pong')
        while True:
            await conversation.send(await conversation.receive())
    except ConnectionClosed as closed:
        if not path.startswith('/unseen'):
            seen.append([closed.reason, closed.message or ''])


def app(environ, start_response):
    path = environ['PATH_INFO'].encode('latin-1').decode()  # PEP 3333
    try:
        ws = Server.accept(
            environ, headers={'X-Server': 'ours'}, **options(path, environ.get('QUERY_STRING', ''))
        )
    except ConnectionError:
        return []
    finish(serve(Blocking(ws), ws, path, environ.get('HTTP_X_TEST')))
    return []


def serve_asyncio(fd):
    import socket

    from aiohttp import web

    async def handler(request):
        how = options(request.path, request.query_string)
        ws = await AioServer.accept(aiohttp=request, **how)
        await serve(ws, ws, request.path, request.headers.get('X-Test'))

    application = web.Application()
    application.router.add_get('/{path:.*}', handler)
    web.run_app(application, sock=socket.socket(fileno=fd), print=None)


# The client


async def converse(conversation, case, report):
    got = report['got'] = []
    try:
        for verb, *args in case['steps']:
            if verb == 'send':
                await conversation.send(from_json(args[0]))
            elif verb == 'receive':
                got.append(to_json(await conversation.receive()))
            else:
                await conversation.close(*args)
        while True:
            got.append(to_json(await conversation.receive()))
    except ConnectionClosed as closed:
        report['close'] = [closed.reason, closed.message or '']


def arguments(case):
    return {
        'url': case['url'],
        'subprotocols': case.get('subprotocols'),
        'headers': case.get('headers'),
        'compression': compression(case.get('deflate', {})),
        'close_timeout': 10,
    }


def about(ws):
    return {'subprotocol': ws.subprotocol or '', 'agreed': agreed(ws)}


def run_blocking(case, profile):
    try:
        ws = Client.connect(profile=profile, **arguments(case))
    except ConnectionError as error:
        return {'refused': error.status_code, 'error': str(error)}
    report = about(ws)
    finish(converse(Blocking(ws), case, report))
    return report


async def run_asyncio(case):
    try:
        ws = await AioClient.connect(**arguments(case))
    except ConnectionError as error:
        return {'refused': error.status_code, 'error': str(error)}
    report = about(ws)
    await converse(ws, case, report)
    return report


def main():
    role, what = sys.argv[1:]
    if role == 'server':
        serve_asyncio(int(what))
        return
    # One for all: at the end of a case, the server has yet to end TCP.
    loop = asyncio.new_event_loop()
    for line in sys.stdin:
        case = json.loads(line)
        if what == 'asyncio':
            report = loop.run_until_complete(run_asyncio(case))
        else:
            report = run_blocking(case, what)
        print(json.dumps(report), flush=True)


if __name__ == '__main__':
    main()
