"""eventlet: its hub and its wsgi server."""

from .registry import BACKLOG, HOST, server
from .wsgi import old, ours, send_some, serve_eventlet


@server('eventlet', 'eventlet', 'ours', 'simple-websocket', 'eventlet', idle=True)
def ours_eventlet(port):
    serve_eventlet(ours, port)


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
            sent = send_some(raw, data)
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
    serve_eventlet(old, port)


@server('eventlet-websocket', 'eventlet', 'peer', 'eventlet.websocket', 'eventlet', idle=True)
def eventlet_websocket(port):
    from eventlet.websocket import WebSocketWSGI

    def echo(ws):
        while (message := ws.wait()) is not None:
            ws.send(message)

    serve_eventlet(WebSocketWSGI(echo, max_frame_length=1 << 30), port)
