"""gevent: its hub, its pywsgi, and what is built on them."""

from .registry import BACKLOG, HOST, server
from .wsgi import injected_classes, old, ours, send_some, serve_gevent


@server('gevent', 'gevent', 'ours', 'simple-websocket', 'gevent', idle=True)
def ours_gevent(port):
    serve_gevent(ours, port)


@server('injected', 'gevent', 'ours', 'simple-websocket, injected classes', 'gevent')
def ours_injected(port):
    classes = injected_classes()
    serve_gevent(lambda environ, start: ours(environ, start, **classes), port)


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
            sent = send_some(raw, data)
            if sent < len(data):
                watcher.stop()
                sock.sendall(memoryview(data)[sent:])
                watcher.start(readable)
        watcher.stop()
        watcher.close()

    StreamServer((HOST, port), handle, backlog=BACKLOG).serve_forever()


@server('bare-injected', 'gevent', 'bare', 'bare reader on injected classes')
def bare_injected(port):
    """The ceiling of 'injected': the same classes, and nothing to keep but bytes."""
    import selectors

    from gevent.server import StreamServer

    classes = injected_classes()

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
                sent = send_some(raw, data)
                if sent < len(data):
                    sock.sendall(memoryview(data)[sent:])
            event.wait()

    StreamServer((HOST, port), handle, backlog=BACKLOG).serve_forever()


@server('1.1-gevent', 'gevent', 'peer', 'simple-websocket 1.1', 'gevent', idle=True)
def old_gevent(port):
    from gevent import monkey

    monkey.patch_all()
    serve_gevent(old, port)


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

    serve_gevent(echo, port, handler_class=WebSocketHandler)


@server('ws4py-gevent', 'gevent', 'peer', 'ws4py', 'ws4py')
def ws4py_gevent(port):
    from gevent import monkey

    monkey.patch_all()
    from ws4py.server.geventserver import WSGIServer
    from ws4py.server.wsgiutils import WebSocketWSGIApplication
    from ws4py.websocket import EchoWebSocket

    app = WebSocketWSGIApplication(handler_cls=EchoWebSocket)
    WSGIServer((HOST, port), app, backlog=BACKLOG, log=None).serve_forever()
