"""eventlet with nothing monkey-patched: a server and ten clients in one hub.

    pip install 'simple-websocket[eventlet]'
    python eventlet_unpatched.py

Nobody says which kind of thread this is: the server's sockets are green, and
the clients look at the hub that they are called in.
"""

import eventlet
import eventlet.wsgi

from simple_websocket import Client, websocket_app


@websocket_app
def double(ws):
    for message in ws:
        ws.send(2 * int(message))


def ask(number):
    with Client.connect(url) as ws:
        ws.send(number)
        eventlet.sleep(0.2)  # all ten wait here at the same time
        return ws.receive(timeout=5)


listener = eventlet.listen(('127.0.0.1', 0))
url = f'ws://127.0.0.1:{listener.getsockname()[1]}/'
server = eventlet.spawn(eventlet.wsgi.server, listener, double, log_output=False)
print(*eventlet.GreenPool().imap(ask, range(10)))
server.kill()
