"""asyncio: by a web framework, by a socket, and on uvloop."""

from .registry import BACKLOG, HOST, server


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
