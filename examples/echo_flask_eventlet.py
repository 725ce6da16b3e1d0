"""Echo with Flask on eventlet's WSGI server: a green thread for each connection.

    pip install 'simple-websocket[eventlet]' flask
    python echo_flask_eventlet.py               ws://127.0.0.1:8000/echo
    PORT=9000 python echo_flask_eventlet.py     another port

eventlet.websocket is not used, nor is monkey-patching needed (unless other
things that the application does would block).
"""

import os
from contextlib import suppress

import eventlet
import eventlet.wsgi
from flask import Flask, request

from simple_websocket import Server

app = Flask(__name__)


@app.route('/echo', websocket=True)
def echo():
    with Server.accept(request.environ, max_message_size=2**20) as ws:
        for message in ws:
            ws.send(message)
    return ''  # Flask wants a response; it is not sent


if __name__ == '__main__':
    listener = eventlet.listen(('127.0.0.1', int(os.environ.get('PORT', 8000))))
    server = eventlet.spawn(eventlet.wsgi.server, listener, app)
    with suppress(KeyboardInterrupt):  # called directly, it waits for every connection
        server.wait()
