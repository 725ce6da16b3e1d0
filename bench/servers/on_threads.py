"""Threads: one for each connection, but where a peer has its own idea."""

from .registry import BACKLOG, HOST, server
from .wsgi import old, ours, serve_threads


@server('threads', 'threads', 'ours', 'simple-websocket', 'werkzeug', idle=True)
def ours_threads(port):
    serve_threads(ours, port)


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
    serve_threads(old, port)


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
