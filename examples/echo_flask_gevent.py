"""Echo with Flask on gevent's pywsgi: a greenlet for each connection.

    pip install 'simple-websocket[gevent]' flask
    python echo_flask_gevent.py             ws://127.0.0.1:8000/echo
    PORT=9000 python echo_flask_gevent.py   another port

gevent's own WebSocket add-ons are not needed, nor is monkey-patching (unless
other things that the application does would block).
"""

import os
import signal

import gevent
from flask import Flask, request
from gevent.pywsgi import WSGIServer

from simple_websocket import Server

app = Flask(__name__)


@app.route('/echo', websocket=True)
def echo():
    with Server.accept(request.environ, max_message_size=2**20) as ws:
        for message in ws:
            ws.send(message)
    return ''  # Flask wants a response; it is not sent


if __name__ == '__main__':
    server = WSGIServer(('127.0.0.1', int(os.environ.get('PORT', 8000))), app)
    gevent.signal_handler(signal.SIGINT, server.stop, 1)  # Ctrl-C
    server.serve_forever()
