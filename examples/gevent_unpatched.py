"""gevent with nothing monkey-patched: a server and ten clients in one hub.

    pip install 'simple-websocket[gevent]'
    python gevent_unpatched.py

Nobody says which kind of thread this is: the server's sockets are gevent's,
and the clients look at the hub that they are called in.
"""

import gevent
from gevent.pywsgi import WSGIServer

from simple_websocket import Client, websocket_app


@websocket_app
def double(ws):
    for message in ws:
        ws.send(2 * int(message))


def ask(number):
    with Client.connect(url) as ws:
        ws.send(number)
        gevent.sleep(0.2)  # all ten wait here at the same time
        return ws.receive(timeout=5)


server = WSGIServer(('127.0.0.1', 0), double, log=None)
server.start()
url = f'ws://127.0.0.1:{server.server_port}/'
clients = [gevent.spawn(ask, number) for number in range(10)]
print(*[client.get() for client in clients])
server.stop()
