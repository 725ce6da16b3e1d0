"""The servers that are measured: ours, the peers, and the bare ways to wait.

``python -m bench.servers NAME PORT`` runs one of them at a loopback port.  All
send back what they receive.  Each is what the library's own documentation
shows, with its logging and its keepalive off and no limit on the size of a
message, so that the same is asked of all.

A bare server has no WebSocket in it: it sends bytes back as they come, in one
way to wait.  That is the ceiling of everything that waits in this way.

Nothing is imported but by the server that runs: they live in two environments
(``bench``, and ``bench-1.1`` for simple-websocket 1.1), and some patch.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass

HOST = '127.0.0.1'
BACKLOG = 4096


@dataclass(frozen=True)
class Entry:
    """A server, as the table sees it.

    :param name: what to select it by.
    :param group: the way to wait; ratios are taken within a group.
    :param role: ``ours``; ``bare``; ``peer``, which ours must be ahead of;
                 ``mark``, which is not blocking Python but good to know;
                 ``host``, a WSGI server whose application does nothing; or
                 ``support``, which is not compared with others.
    :param label: what to call it in the tables.
    :param start: serves at a port, and does not return.
    :param packages: the distributions whose versions matter.
    :param venv: the environment that it runs in, below ``.venv``.
    :param idle: whether to measure its idle connections.
    """

    name: str
    group: str
    role: str
    label: str
    start: Callable[[int], None]
    packages: tuple[str, ...] = ()
    venv: str = 'bench'
    idle: bool = False

    @property
    def raw(self) -> bool:
        """Whether it speaks no WebSocket."""
        return self.role == 'bare'


SERVERS: dict[str, Entry] = {}

Start = Callable[[int], None]


def server(
    name: str, group: str, role: str, label: str, *packages: str, idle: bool = False
) -> Callable[[Start], Start]:
    """Enter a function into the table."""

    def enter(start: Start) -> Start:
        venv = 'bench-1.1' if name.startswith('1.1-') else 'bench'
        SERVERS[name] = Entry(name, group, role, label, start, packages, venv, idle)
        return start

    return enter


# -- WSGI hosts, and the applications on them ------------------------------


def _serve_gevent(app, port, **options):
    from gevent.pywsgi import WSGIServer

    WSGIServer((HOST, port), app, backlog=BACKLOG, log=None, **options).serve_forever()


def _serve_eventlet(app, port):
    import eventlet
    from eventlet import wsgi

    listener = eventlet.listen((HOST, port), backlog=BACKLOG)
    wsgi.server(listener, app, max_size=20000, log_output=False, debug=False)


def _serve_threads(app, port):
    from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler

    class Silent(WSGIRequestHandler):
        def log(self, *args):
            pass

    ThreadedWSGIServer.request_queue_size = BACKLOG
    ThreadedWSGIServer(HOST, port, app, handler=Silent).serve_forever()


def _ours(environ, start_response, **options):
    from simple_websocket import Server

    with Server.accept(environ, **options) as ws:
        for message in ws:
            ws.send(message)
    return []


def _old(environ, start_response):
    from simple_websocket import ConnectionClosed, Server

    ws = Server.accept(environ)
    try:
        while True:
            ws.send(ws.receive())
    except ConnectionClosed:
        pass
    # What a framework does with the '' that 1.1's examples return.
    start_response('200 OK', [('Content-Length', '0')])
    return [b'']


def _injected_classes():
    """What python-engineio injects on gevent."""
    import gevent
    import gevent.event
    import gevent.selectors

    class Thread(gevent.Greenlet):
        def __init__(self, target, args=(), kwargs=None):
            super().__init__(target, *args, **(kwargs or {}))

        def _run(self):
            return self.run()

    return {
        'thread_class': Thread,
        'event_class': gevent.event.Event,
        'selector_class': gevent.selectors.DefaultSelector,
    }


# -- gevent ----------------------------------------------------------------


@server('gevent', 'gevent', 'ours', 'simple-websocket', 'gevent', idle=True)
def ours_gevent(port):
    _serve_gevent(_ours, port)


@server('injected', 'gevent', 'ours', 'simple-websocket, injected classes', 'gevent')
def ours_injected(port):
    classes = _injected_classes()
    _serve_gevent(lambda environ, start: _ours(environ, start, **classes), port)


@server('bare-gevent', 'gevent', 'bare', 'bare hub watcher', 'gevent')
def bare_gevent(port):
    import gevent
    from gevent.server import StreamServer

    def handle(sock, address):
        hub, greenlet, raw = gevent.get_hub(), gevent.getcurrent(), sock._sock

        def readable():
            greenlet.switch(raw.recv(65536))

        watcher = hub.loop.io(raw.fileno(), 1)
        watcher.start(readable)
        while data := hub.switch():
            sent = _send_some(raw, data)
            if sent < len(data):
                watcher.stop()
                sock.sendall(memoryview(data)[sent:])
                watcher.start(readable)
        watcher.stop()
        watcher.close()

    StreamServer((HOST, port), handle, backlog=BACKLOG).serve_forever()


def _send_some(sock, data):
    try:
        return sock.send(data)
    except BlockingIOError:
        return 0


@server('bare-injected', 'gevent', 'bare', 'bare reader on injected classes')
def bare_injected(port):
    """The ceiling of 'injected': the same classes, and nothing to keep but bytes."""
    import selectors

    from gevent.server import StreamServer

    classes = _injected_classes()

    def handle(sock, address):
        raw, arrived, event = sock._sock, [], classes['event_class']()

        def read():
            selector = classes['selector_class']()
            selector.register(raw.fileno(), selectors.EVENT_READ)
            data = b'-'
            while data:
                selector.select()
                data = raw.recv(65536)
                arrived.append(data)
                event.set()
            selector.close()

        classes['thread_class'](target=read).start()
        while True:
            event.clear()
            while arrived:
                data = arrived.pop(0)
                if not data:
                    return
                sent = _send_some(raw, data)
                if sent < len(data):
                    sock.sendall(memoryview(data)[sent:])
            event.wait()

    StreamServer((HOST, port), handle, backlog=BACKLOG).serve_forever()


@server('1.1-gevent', 'gevent', 'peer', 'simple-websocket 1.1', 'gevent', idle=True)
def old_gevent(port):
    from gevent import monkey

    monkey.patch_all()
    _serve_gevent(_old, port)


@server(
    'gevent-websocket', 'gevent', 'peer', 'gevent-websocket', 'gevent-websocket', idle=True
)
def gevent_websocket(port):
    from geventwebsocket.handler import WebSocketHandler

    def echo(environ, start_response):
        ws = environ['wsgi.websocket']
        while (message := ws.receive()) is not None:
            ws.send(message)
        return []

    _serve_gevent(echo, port, handler_class=WebSocketHandler)


@server('ws4py-gevent', 'gevent', 'peer', 'ws4py', 'ws4py')
def ws4py_gevent(port):
    from gevent import monkey

    monkey.patch_all()
    from ws4py.server.geventserver import WSGIServer
    from ws4py.server.wsgiutils import WebSocketWSGIApplication
    from ws4py.websocket import EchoWebSocket

    app = WebSocketWSGIApplication(handler_cls=EchoWebSocket)
    WSGIServer((HOST, port), app, backlog=BACKLOG, log=None).serve_forever()


# -- eventlet --------------------------------------------------------------


@server('eventlet', 'eventlet', 'ours', 'simple-websocket', 'eventlet', idle=True)
def ours_eventlet(port):
    _serve_eventlet(_ours, port)


@server('bare-eventlet', 'eventlet', 'bare', 'bare hub listener', 'eventlet')
def bare_eventlet(port):
    import eventlet
    import eventlet.hubs
    import greenlet

    def handle(sock, address):
        hub, current, raw = eventlet.hubs.get_hub(), greenlet.getcurrent(), sock.fd

        def readable(fileno):
            current.switch(raw.recv(65536))

        def listen():
            return hub.add(hub.READ, raw.fileno(), readable, current.throw, None)

        listener = listen()
        while data := hub.switch():
            sent = _send_some(raw, data)
            if sent < len(data):
                hub.remove(listener)
                sock.sendall(memoryview(data)[sent:])
                listener = listen()
        hub.remove(listener)

    listener = eventlet.listen((HOST, port), backlog=BACKLOG)
    eventlet.serve(listener, handle, concurrency=20000)


@server('1.1-eventlet', 'eventlet', 'peer', 'simple-websocket 1.1', 'eventlet', idle=True)
def old_eventlet(port):
    import eventlet

    eventlet.monkey_patch()
    _serve_eventlet(_old, port)


@server('eventlet-websocket', 'eventlet', 'peer', 'eventlet.websocket', 'eventlet', idle=True)
def eventlet_websocket(port):
    from eventlet.websocket import WebSocketWSGI

    def echo(ws):
        while (message := ws.wait()) is not None:
            ws.send(message)

    _serve_eventlet(WebSocketWSGI(echo, max_frame_length=1 << 30), port)


# -- threads ---------------------------------------------------------------


@server('threads', 'threads', 'ours', 'simple-websocket', 'werkzeug', idle=True)
def ours_threads(port):
    _serve_threads(_ours, port)


@server('bare-threads', 'threads', 'bare', 'bare blocking recv')
def bare_threads(port):
    import socket
    import threading

    def handle(sock):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with sock:
            while data := sock.recv(65536):
                sock.sendall(data)

    with socket.create_server((HOST, port), backlog=BACKLOG) as listener:
        while True:
            threading.Thread(target=handle, args=(listener.accept()[0],), daemon=True).start()


@server('1.1-threads', 'threads', 'peer', 'simple-websocket 1.1', 'werkzeug', idle=True)
def old_threads(port):
    _serve_threads(_old, port)


@server('websockets-sync', 'threads', 'peer', 'websockets.sync', 'websockets', idle=True)
def websockets_sync(port):
    import socket

    from websockets.sync.server import serve

    def echo(ws):
        for message in ws:
            ws.send(message)

    with socket.create_server((HOST, port), backlog=BACKLOG) as listener:
        with serve(echo, sock=listener, max_size=None, ping_interval=None) as running:
            running.serve_forever()


@server('ws4py-threads', 'threads', 'peer', 'ws4py (one manager thread)', 'ws4py')
def ws4py_threads(port):
    from wsgiref.simple_server import make_server

    from ws4py.manager import WebSocketManager
    from ws4py.server.wsgirefserver import WebSocketWSGIRequestHandler, WSGIServer
    from ws4py.server.wsgiutils import WebSocketWSGIApplication
    from ws4py.websocket import EchoWebSocket

    class Silent(WebSocketWSGIRequestHandler):
        def log_message(self, *args):
            pass

    WSGIServer.request_queue_size = BACKLOG
    running = make_server(
        HOST,
        port,
        server_class=WSGIServer,
        handler_class=Silent,
        app=WebSocketWSGIApplication(handler_cls=EchoWebSocket),
    )
    running.manager = WebSocketManager()
    running.manager.start()
    running.serve_forever()


# -- asyncio ---------------------------------------------------------------


def _serve_aiohttp(handler, port):
    from aiohttp import web

    app = web.Application()
    app.add_routes([web.get('/', handler)])
    web.run_app(app, host=HOST, port=port, backlog=BACKLOG, access_log=None, print=None)


def _run_forever(serve):
    """Run ``serve``, a coroutine function that starts a server."""
    import asyncio

    async def main():
        running = await serve(asyncio.get_running_loop())
        await asyncio.Event().wait()
        return running

    asyncio.run(main())


@server('aiohttp', 'asyncio', 'ours', 'simple-websocket, by aiohttp', 'aiohttp', idle=True)
def ours_aiohttp(port):
    from aiohttp import web

    from simple_websocket import AioServer

    async def echo(request):
        async with await AioServer.accept(aiohttp=request) as ws:
            async for message in ws:
                await ws.send(message)
        return web.Response()

    _serve_aiohttp(echo, port)


@server('aio-sock', 'asyncio', 'ours', 'simple-websocket, by socket')
def ours_aio_sock(port):
    import asyncio
    import socket

    from simple_websocket import AioServer

    async def handle(loop, sock):
        head = b''
        while b'\r\n\r\n' not in head:
            data = await loop.sock_recv(sock, 4096)
            if not data:  # somebody only looked whether the port is open
                sock.close()
                return
            head += data
        lines = head.decode().split('\r\n')[1:-2]
        headers = dict(line.split(': ', 1) for line in lines)
        async with await AioServer.accept(sock=sock, headers=headers) as ws:
            async for message in ws:
                await ws.send(message)

    async def serve(loop):
        listener = socket.create_server((HOST, port), backlog=BACKLOG)
        listener.setblocking(False)
        tasks = set()
        while True:
            sock, _ = await loop.sock_accept(listener)
            task = asyncio.ensure_future(handle(loop, sock))
            tasks.add(task)
            task.add_done_callback(tasks.discard)

    _run_forever(serve)


@server('bare-asyncio', 'asyncio', 'bare', 'bare asyncio Protocol')
def bare_asyncio(port):
    import asyncio

    class Echo(asyncio.Protocol):
        def connection_made(self, transport):
            self.transport = transport

        def data_received(self, data):
            self.transport.write(data)

    _run_forever(lambda loop: loop.create_server(Echo, HOST, port, backlog=BACKLOG))


@server('1.1-aiohttp', 'asyncio', 'peer', 'simple-websocket 1.1, by aiohttp', 'aiohttp')
def old_aiohttp(port):
    from aiohttp import web

    from simple_websocket import AioServer, ConnectionClosed

    async def echo(request):
        ws = await AioServer.accept(aiohttp=request)
        try:
            while True:
                await ws.send(await ws.receive())
        except ConnectionClosed:
            pass
        return web.Response()

    _serve_aiohttp(echo, port)


@server('peer-aiohttp', 'asyncio', 'peer', 'aiohttp', 'aiohttp', idle=True)
def peer_aiohttp(port):
    from aiohttp import WSMsgType, web

    async def echo(request):
        ws = web.WebSocketResponse(max_msg_size=0)
        await ws.prepare(request)
        async for message in ws:
            if message.type == WSMsgType.TEXT:
                await ws.send_str(message.data)
            elif message.type == WSMsgType.BINARY:
                await ws.send_bytes(message.data)
        return ws

    _serve_aiohttp(echo, port)


@server('websockets', 'asyncio', 'peer', 'websockets', 'websockets', idle=True)
def websockets_asyncio(port):
    from websockets.asyncio.server import serve

    async def echo(ws):
        async for message in ws:
            await ws.send(message)

    async def start(loop):
        return await serve(
            echo, HOST, port, backlog=BACKLOG, max_size=None, ping_interval=None
        )

    _run_forever(start)


@server('picows', 'asyncio', 'mark', 'picows on uvloop (callbacks)', 'picows', 'uvloop')
def picows_uvloop(port):
    import uvloop
    from picows import WSListener, WSMsgType, ws_create_server

    class Echo(WSListener):
        def on_ws_frame(self, transport, frame):
            if frame.msg_type == WSMsgType.CLOSE:
                transport.send_close(frame.get_close_code())
                transport.disconnect()
            else:
                transport.send(frame.msg_type, frame.get_payload_as_bytes())

    async def serve(loop):
        return await ws_create_server(lambda request: Echo(), HOST, port, backlog=BACKLOG)

    uvloop.install()
    _run_forever(serve)


# -- the hosts, with idle connections and no library ------------------------

_RESPONSE = (
    b'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n'
    b'Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n'  # for the load's key
)


def _hold(sock):
    """Shake hands, and wait until the client says that it leaves."""
    sock.sendall(_RESPONSE)
    sock.recv(64)
    sock.shutdown(2)
    return []


@server('host-gevent', 'gevent', 'host', 'pywsgi alone', 'gevent', idle=True)
def host_gevent(port):
    _serve_gevent(lambda environ, start: _hold(environ['wsgi.input'].raw._sock), port)


@server('host-eventlet', 'eventlet', 'host', 'eventlet.wsgi alone', 'eventlet', idle=True)
def host_eventlet(port):
    _serve_eventlet(lambda environ, start: _hold(environ['eventlet.input'].get_socket()), port)


@server('host-threads', 'threads', 'host', 'Werkzeug alone', 'werkzeug', idle=True)
def host_threads(port):
    _serve_threads(lambda environ, start: _hold(environ['werkzeug.socket']), port)


# -- ours, with a keepalive -------------------------------------------------


def _ours_with_keepalive(environ, start_response):
    return _ours(environ, start_response, ping_interval=25)


@server('keepalive-gevent', 'keepalive', 'support', 'gevent', 'gevent')
def keepalive_gevent(port):
    _serve_gevent(_ours_with_keepalive, port)


@server('keepalive-eventlet', 'keepalive', 'support', 'eventlet', 'eventlet')
def keepalive_eventlet(port):
    _serve_eventlet(_ours_with_keepalive, port)


@server('keepalive-threads', 'keepalive', 'support', 'threads', 'werkzeug')
def keepalive_threads(port):
    _serve_threads(_ours_with_keepalive, port)


# -- what clients are measured against -------------------------------------


@server('for-clients', 'clients', 'support', 'for the clients')
def for_clients(port):
    """Echo at ``/echo``; at ``/stream`` 64-byte messages without an end.

    The stream is made of frames that are built once, so that any client is
    slower than this server; the echo costs the same whoever asks.
    """
    import socket
    import threading

    with socket.create_server((HOST, port), backlog=BACKLOG) as listener:
        while True:
            sock, _ = listener.accept()
            threading.Thread(target=_serve_client, args=(sock,), daemon=True).start()


def _serve_client(sock):
    import base64
    import hashlib
    import socket

    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    head = b''
    while b'\r\n\r\n' not in head:
        data = sock.recv(4096)
        if not data:
            return  # only looked whether we listen
        head += data
    fields = dict(line.split(': ', 1) for line in head.decode().split('\r\n')[1:-2])
    fields = {name.lower(): value.strip() for name, value in fields.items()}
    key = fields['sec-websocket-key'] + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11'
    accept = base64.b64encode(hashlib.sha1(key.encode()).digest()).decode()
    sock.sendall(
        f'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n'
        f'Sec-WebSocket-Accept: {accept}\r\n\r\n'.encode()
    )
    try:
        if head.startswith(b'GET /stream'):
            frames = (b'\x81\x40' + b'x' * 64) * 1000
            while True:
                sock.sendall(frames)
        _echo_small(sock)
    except OSError:
        pass  # the client is done
    finally:
        sock.close()


def _echo_small(sock):
    """Echo messages of at most 125 bytes, one at a time."""
    while True:
        data = sock.recv(4096)
        if len(data) < 6 or data[0] & 0x0F == 8:
            sock.sendall(b'\x88\x00')
            return
        size = data[1] & 0x7F
        while len(data) < 6 + size:
            data += sock.recv(4096)
        mask = int.from_bytes((data[2:6] * (size // 4 + 1))[:size], 'big')
        payload = int.from_bytes(data[6:], 'big') ^ mask
        sock.sendall(bytes((data[0], size)) + payload.to_bytes(size, 'big'))


def main():
    # The working directory, which the environment of 1.1 must not find ours in.
    del sys.path[0]
    name, port = sys.argv[1:]
    SERVERS[name].start(int(port))


if __name__ == '__main__':
    main()
