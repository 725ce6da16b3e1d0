"""The servers that are soaked and attacked, one process each.

``python -m soak.servers BACKEND FD TLS_FD CERT KEY`` serves on two inherited
listening sockets, the second one with TLS, and logs what it complains of on
standard error.  Each path is a handler of a certain behaviour; the same ones
for every backend.
"""

from __future__ import annotations

import json
import signal
import socket
import sys
import warnings
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from .gauge import gauge

BACKENDS = ('threads', 'gevent', 'eventlet', 'asyncio')

#: Of every connection, beside what a handler says.
OPTIONS: dict[str, Any] = {'ping_interval': 5, 'close_timeout': 5}

#: Seconds for which a handler does not look at its connection.
BUSY = 3.0

LIMIT = 1 << 16
PUSHES = 48


def pushed(number: int) -> bytes:
    """A message that ``/push`` sends."""
    return number.to_bytes(4, 'big') * 8192


# -- handlers that block -------------------------------------------------------


def echo(ws, world):
    for message in ws:
        ws.send(message, timeout=30)


def busy(ws, world):
    """Receives nothing for a while, whatever comes."""
    world.sleep(BUSY)
    for _ in ws:
        pass


def deaf(ws, world):
    """Never receives."""
    while ws.connected:
        world.sleep(0.05)


def push(ws, world):
    """Sends a lot, to a peer that may not read it."""
    for number in range(PUSHES):
        ws.send(pushed(number), timeout=10)


def kill(ws, world):
    """Is killed in ``receive``, where something can be killed."""
    ws.send(ws.receive())
    world.kill_soon(ws)
    ws.receive()


def fail(ws, world):
    """Has a bug."""
    ws.send(ws.receive())
    raise ZeroDivisionError('a bug')


def drop(ws, world):
    """Returns with the connection open; see ``wsgi_app``."""
    ws.send(ws.receive())


HANDLERS = {
    '/echo': (echo, {}),
    '/limited': (echo, {'max_message_size': LIMIT}),
    '/busy': (busy, {}),
    '/deaf': (deaf, {}),
    '/push': (push, {}),
    '/kill': (kill, {}),
    '/fail': (fail, {}),
    '/drop': (drop, {}),
}


class Threads:
    """What a handler needs of its backend."""

    exit: type[BaseException] = SystemExit

    def sleep(self, seconds: float) -> None:
        import time

        time.sleep(seconds)

    def kill_soon(self, ws: Any) -> None:
        """A thread can't be killed; another one can close its connection."""
        import threading

        timer = threading.Timer(0.01, self._close, (ws,))
        timer.start()

    def _close(self, ws: Any) -> None:
        from simple_websocket import ConnectionClosed

        with suppress(ConnectionClosed):
            ws.close(1001)


class Gevent(Threads):
    def __init__(self) -> None:
        import gevent

        self._gevent = gevent
        self.exit = gevent.GreenletExit
        self.sleep = gevent.sleep

    def kill_soon(self, ws: Any) -> None:
        gevent = self._gevent
        gevent.spawn_later(0.01, gevent.kill, gevent.getcurrent())


class Eventlet(Threads):
    def __init__(self) -> None:
        import eventlet
        import greenlet

        self._eventlet = eventlet
        self.exit = greenlet.GreenletExit
        self.sleep = eventlet.sleep
        self._current = greenlet.getcurrent

    def kill_soon(self, ws: Any) -> None:
        self._eventlet.spawn_after(0.01, self._eventlet.kill, self._current())


def wsgi_app(world: Threads) -> Callable[..., list[bytes]]:
    from simple_websocket import ConnectionClosed, ConnectionError, Server

    def app(environ, start_response):
        path = environ['PATH_INFO']
        if path == '/gauge':
            body = json.dumps(gauge()).encode()
            headers = [('Content-Length', str(len(body))), ('Connection', 'close')]
            start_response('200 OK', headers)
            return [body]
        handler, options = HANDLERS[path]
        # What ends a handler here is part of the plan, and none of it may be
        # logged by the host.
        with suppress(ConnectionClosed, ConnectionError, ZeroDivisionError, world.exit):
            if handler is drop:
                drop(Server.accept(environ, **OPTIONS), world)
            else:
                with Server.accept(environ, **OPTIONS, **options) as ws:
                    handler(ws, world)
        return []

    return app


# -- hosts ------------------------------------------------------------------------


def serve_threads(fd: int, tls_fd: int, cert: str, key: str) -> None:
    import ssl
    import threading

    from werkzeug.serving import WSGIRequestHandler, make_server

    class Handler(WSGIRequestHandler):
        def log_request(self, *args: Any) -> None:
            pass

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)
    app = wsgi_app(Threads())
    how: dict[str, Any] = {'threaded': True, 'request_handler': Handler}
    plain = make_server('127.0.0.1', 0, app, fd=fd, **how)
    tls = make_server('127.0.0.1', 0, app, fd=tls_fd, ssl_context=context, **how)
    threading.Thread(target=tls.serve_forever, daemon=True).start()
    plain.serve_forever()


def serve_gevent(fd: int, tls_fd: int, cert: str, key: str) -> None:
    from gevent.pywsgi import WSGIServer
    from gevent.socket import socket as green_socket

    def listener(fileno: int) -> Any:
        return green_socket(socket.AF_INET, socket.SOCK_STREAM, fileno=fileno)

    app = wsgi_app(Gevent())
    tls = WSGIServer(listener(tls_fd), app, log=None, certfile=cert, keyfile=key)
    tls.start()
    WSGIServer(listener(fd), app, log=None).serve_forever()


def serve_eventlet(fd: int, tls_fd: int, cert: str, key: str) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')  # it is in maintenance, and says so
        import eventlet
        import eventlet.wsgi
        from eventlet.green import socket as green

    app = wsgi_app(Eventlet())
    plain = green.socket(fileno=fd)
    tls = eventlet.wrap_ssl(
        green.socket(fileno=tls_fd), certfile=cert, keyfile=key, server_side=True
    )
    how = {'max_size': 20000, 'log_output': False, 'debug': False}
    eventlet.spawn(eventlet.wsgi.server, tls, app, **how)
    eventlet.spawn(eventlet.wsgi.server, plain, app, **how).wait()


def serve_asyncio(fd: int, tls_fd: int, cert: str, key: str) -> None:
    import asyncio
    import ssl

    from aiohttp import web

    from simple_websocket import AioServer, ConnectionClosed, ConnectionError

    async def echo(ws):
        async for message in ws:
            await ws.send(message, timeout=30)

    async def busy(ws):
        await asyncio.sleep(BUSY)
        async for _ in ws:
            pass

    async def deaf(ws):
        while ws.connected:
            await asyncio.sleep(0.05)

    async def push(ws):
        for number in range(PUSHES):
            await ws.send(pushed(number), timeout=10)

    async def kill(ws):
        await ws.send(await ws.receive())
        asyncio.get_running_loop().call_later(0.01, asyncio.current_task().cancel)
        await ws.receive()

    async def fail(ws):
        await ws.send(await ws.receive())
        raise ZeroDivisionError('a bug')

    async def drop(ws):
        await ws.send(await ws.receive())

    handlers = {one.__name__: one for one in (echo, busy, deaf, push, kill, fail, drop)}

    async def handle(request):
        if request.path == '/gauge':
            return web.json_response(gauge(), headers={'Connection': 'close'})
        kind, options = HANDLERS[request.path]
        handler = handlers[kind.__name__]
        with suppress(
            ConnectionClosed, ConnectionError, ZeroDivisionError, asyncio.CancelledError
        ):
            ws = await AioServer.accept(aiohttp=request, **OPTIONS, **options)
            if handler is drop:
                await drop(ws)
            else:
                async with ws:
                    await handler(ws)
        return web.Response()

    async def main():
        app = web.Application()
        app.add_routes([web.route('*', '/{path:.*}', handle)])
        runner = web.AppRunner(app, access_log=None)
        await runner.setup()
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(cert, key)
        try:
            for fileno, tls in ((fd, None), (tls_fd, context)):
                listener = socket.socket(fileno=fileno)
                await web.SockSite(runner, listener, ssl_context=tls).start()
            await asyncio.Event().wait()
        finally:
            await runner.cleanup()
            await asyncio.sleep(0.1)  # transports that are closing need a turn of the loop

    asyncio.run(main())


def main() -> None:
    backend, fd, tls_fd, cert, key = sys.argv[1:]
    # Ended in an orderly way, so that what was left unclosed is told of.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    serve = {
        'threads': serve_threads,
        'gevent': serve_gevent,
        'eventlet': serve_eventlet,
        'asyncio': serve_asyncio,
    }[backend]
    serve(int(fd), int(tls_fd), cert, key)


if __name__ == '__main__':
    main()
