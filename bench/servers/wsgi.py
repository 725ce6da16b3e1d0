"""The WSGI servers, the applications on them, and what the bare servers share."""

from .registry import BACKLOG, HOST


def serve_gevent(app, port, **options):
    from gevent.pywsgi import WSGIServer

    WSGIServer((HOST, port), app, backlog=BACKLOG, log=None, **options).serve_forever()


def serve_eventlet(app, port):
    import eventlet
    from eventlet import wsgi

    listener = eventlet.listen((HOST, port), backlog=BACKLOG)
    wsgi.server(listener, app, max_size=20000, log_output=False, debug=False)


def serve_threads(app, port):
    from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler

    class Silent(WSGIRequestHandler):
        def log(self, *args):
            pass

    ThreadedWSGIServer.request_queue_size = BACKLOG
    ThreadedWSGIServer(HOST, port, app, handler=Silent).serve_forever()


def ours(environ, start_response, **options):
    from simple_websocket import Server

    with Server.accept(environ, **options) as ws:
        for message in ws:
            ws.send(message)
    return []


def old(environ, start_response):
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


def injected_classes():
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


def send_some(sock, data):
    try:
        return sock.send(data)
    except BlockingIOError:
        return 0
