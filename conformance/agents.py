"""What is tested: echo servers and echo clients, one process each.

    python -m conformance.agents server gevent
    python -m conformance.agents client gevent URL AGENT CASES

A server prints the port that it listens at. A client runs the cases 1 to CASES
of a fuzzing server at URL, under the name AGENT. Both are what the
documentation shows: an accepted or made connection, a loop over its messages,
each sent back. Nothing is patched; the hosts of the servers are gevent's
pywsgi, eventlet's wsgi, Werkzeug with a thread a connection, and aiohttp.
"""

from __future__ import annotations

import logging
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

HOST = '127.0.0.1'
BACKENDS = ('gevent', 'eventlet', 'threads', 'asyncio')
#: The distribution that serves a backend's connections, for the versions.
HOSTS = {'gevent': 'gevent', 'eventlet': 'eventlet', 'threads': 'werkzeug', 'asyncio': 'aiohttp'}


def _say_port(port: int) -> None:
    print(port, flush=True)


# -- servers ---------------------------------------------------------------


def _echo(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
    from simple_websocket import Server

    with Server.accept(environ) as ws:
        for message in ws:
            ws.send(message)
    return []


def serve_gevent() -> None:
    from gevent.pywsgi import WSGIServer

    server = WSGIServer((HOST, 0), _echo, log=None)
    server.start()
    _say_port(server.server_port)
    server.serve_forever()


def serve_eventlet() -> None:
    import eventlet
    from eventlet import wsgi

    listener = eventlet.listen((HOST, 0))
    _say_port(listener.getsockname()[1])
    wsgi.server(listener, _echo, log_output=False)


def serve_threads() -> None:
    from werkzeug.serving import make_server

    logging.getLogger('werkzeug').setLevel(logging.WARNING)
    server = make_server(HOST, 0, _echo, threaded=True)
    _say_port(server.port)
    server.serve_forever()


def serve_asyncio() -> None:
    import asyncio

    from aiohttp import web

    from simple_websocket import AioServer

    async def echo(request: web.Request) -> web.Response:
        async with await AioServer.accept(aiohttp=request) as ws:
            async for message in ws:
                await ws.send(message)
        return web.Response()

    async def main() -> None:
        app = web.Application()
        app.add_routes([web.get('/', echo)])
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        site = web.TCPSite(runner, HOST, 0)
        await site.start()
        _say_port(runner.addresses[0][1])
        await asyncio.Event().wait()

    asyncio.run(main())


# -- clients ---------------------------------------------------------------


def _cases(url: str, agent: str, count: int) -> list[str]:
    return [f'{url}/runCase?case={case}&agent={agent}' for case in range(1, count + 1)]


def _run_cases(profile: str, urls: list[str]) -> bool:
    """One case after the other; returns whether none raised anything."""
    from simple_websocket import Client

    good = True
    for url in urls:
        try:
            with Client.connect(url, profile=profile) as ws:
                for message in ws:
                    ws.send(message)
        except Exception:
            good = False
            print(url, file=sys.stderr)
            traceback.print_exc()
    return good


def run_threads(urls: list[str]) -> bool:
    return _run_cases('threads', urls)


def run_gevent(urls: list[str]) -> bool:
    import gevent

    return gevent.spawn(_run_cases, 'gevent', urls).get()


def run_eventlet(urls: list[str]) -> bool:
    import eventlet

    return eventlet.spawn(_run_cases, 'eventlet', urls).wait()


def run_asyncio(urls: list[str]) -> bool:
    import asyncio

    from simple_websocket import AioClient

    async def main() -> bool:
        good = True
        for url in urls:
            try:
                async with await AioClient.connect(url) as ws:
                    async for message in ws:
                        await ws.send(message)
            except Exception:
                good = False
                print(url, file=sys.stderr)
                traceback.print_exc()
        return good

    return asyncio.run(main())


SERVERS = {
    'gevent': serve_gevent,
    'eventlet': serve_eventlet,
    'threads': serve_threads,
    'asyncio': serve_asyncio,
}
CLIENTS = {
    'gevent': run_gevent,
    'eventlet': run_eventlet,
    'threads': run_threads,
    'asyncio': run_asyncio,
}


def main() -> None:
    role, backend, *rest = sys.argv[1:]
    from simple_websocket import codec

    if codec.NAME != os.environ.get('SIMPLE_WEBSOCKET_CODEC', codec.NAME):
        sys.exit(f'the codec is {codec.NAME}')
    if role == 'server':
        SERVERS[backend]()
    else:
        url, agent, count = rest
        sys.exit(not CLIENTS[backend](_cases(url, agent, int(count))))


if __name__ == '__main__':
    main()
