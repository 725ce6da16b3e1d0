"""Echo with no framework: a plain WSGI application, here on gevent's pywsgi.

    pip install 'simple-websocket[gevent]'
    python echo_wsgi.py             ws://127.0.0.1:8000/echo
    PORT=9000 python echo_wsgi.py   another port

The application runs unchanged on Werkzeug, gunicorn and eventlet.
"""

import os
import signal

import gevent
from gevent.pywsgi import WSGIServer

from simple_websocket import websocket_app


@websocket_app(max_message_size=2**20, ping_interval=25)
def echo(ws):
    for message in ws:
        ws.send(message)


def app(environ, start_response):
    if environ['PATH_INFO'] == '/echo':
        return echo(environ, start_response)
    start_response('404 Not Found', [('Content-Type', 'text/plain')])
    return [b'There is a WebSocket at /echo.\n']


if __name__ == '__main__':
    server = WSGIServer(('127.0.0.1', int(os.environ.get('PORT', 8000))), app)
    gevent.signal_handler(signal.SIGINT, server.stop, 1)  # Ctrl-C
    server.serve_forever()
