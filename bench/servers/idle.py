"""Servers for idle connections: hosts without a library, ours with a keepalive."""

from .registry import server
from .wsgi import ours, serve_eventlet, serve_gevent, serve_threads

_RESPONSE = (
    b'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n'
    b'Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n'  # for the load's key
)


def _hold(sock):
    """Shake hands, and wait until the client says that it leaves."""
    sock.sendall(_RESPONSE)
    sock.recv(64)
    sock.shutdown(2)
    return []


@server('host-gevent', 'gevent', 'host', 'pywsgi alone', 'gevent', idle=True)
def host_gevent(port):
    serve_gevent(lambda environ, start: _hold(environ['wsgi.input'].raw._sock), port)


@server('host-eventlet', 'eventlet', 'host', 'eventlet.wsgi alone', 'eventlet', idle=True)
def host_eventlet(port):
    serve_eventlet(lambda environ, start: _hold(environ['eventlet.input'].get_socket()), port)


@server('host-threads', 'threads', 'host', 'Werkzeug alone', 'werkzeug', idle=True)
def host_threads(port):
    serve_threads(lambda environ, start: _hold(environ['werkzeug.socket']), port)


def _ours_with_keepalive(environ, start_response):
    return ours(environ, start_response, ping_interval=25)


@server('keepalive-gevent', 'keepalive', 'support', 'gevent', 'gevent')
def keepalive_gevent(port):
    serve_gevent(_ours_with_keepalive, port)


@server('keepalive-eventlet', 'keepalive', 'support', 'eventlet', 'eventlet')
def keepalive_eventlet(port):
    serve_eventlet(_ours_with_keepalive, port)


@server('keepalive-threads', 'keepalive', 'support', 'threads', 'werkzeug')
def keepalive_threads(port):
    serve_threads(_ours_with_keepalive, port)
