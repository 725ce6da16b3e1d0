"""Servers that the package does not know: one that an application describes,
and those that give no socket."""

from __future__ import annotations

import socket
import threading
from wsgiref.simple_server import WSGIRequestHandler, make_server

import pytest
from support.frames import CLOSE, TEXT
from support.peer import KEY, Peer

from simple_websocket import ConnectionError, Server, hosts, register_host
from simple_websocket.hosts import Host

pytestmark = pytest.mark.timeout(20)

REQUEST = (
    'GET /chat HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n'
    f'Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n'
).encode()


class TinyServer:
    """One request a connection, and a response whatever the application did."""

    def __init__(self, app):
        self.app = app
        self.listener = socket.create_server(('127.0.0.1', 0))
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self):
        sock, _ = self.listener.accept()
        rfile = sock.makefile('rb')
        method, path, version = rfile.readline().decode().split()
        environ = {
            'REQUEST_METHOD': method,
            'PATH_INFO': path,
            'SERVER_PROTOCOL': version,
            'SERVER_SOFTWARE': 'tiny/1',
            'tiny.socket': sock,
            'wsgi.input': rfile,
        }
        while line := rfile.readline().decode().strip():
            name, _, value = line.partition(':')
            environ['HTTP_' + name.upper().replace('-', '_')] = value.strip()
        try:
            body = self.app(environ, lambda status, headers: None)
            response = b'HTTP/1.1 200 OK\r\n\r\n' + b''.join(body)
        except Exception:
            response = b'HTTP/1.1 500 Internal Server Error\r\n\r\n'
        sock.sendall(response)
        rfile.close()
        sock.close()

    def connect(self):
        return Peer(socket.create_connection(self.listener.getsockname()), client=True)


@pytest.fixture
def tiny():
    """Starts a tiny server, of a kind that was made known."""
    servers = []
    register_host(Host('tiny', lambda env: env.get('tiny.socket'), lambda env: env['wsgi.input']))

    def start(app):
        servers.append(TinyServer(app))
        return servers[-1]

    yield start
    del hosts._hosts[0]
    for server in servers:
        server.thread.join(5)
        assert not server.thread.is_alive()
        server.listener.close()


def test_a_registered_host_carries_a_conversation(tiny):
    modes = []

    def app(environ, start_response):
        with Server.accept(environ) as ws:
            modes.append(ws.mode)
            for message in ws:
                ws.send(message)
        return [b'too late']

    peer = tiny(app).connect()
    peer.send(REQUEST, (TEXT, b'came along'), (TEXT, b'hello'), (CLOSE, b'\x03\xe8'))
    assert peer.head().startswith(b'HTTP/1.1 101 ')
    peer.expect(TEXT, b'came along')
    peer.expect(TEXT, b'hello')
    peer.expect_close(1000)
    peer.expect_eof()
    peer.close()
    assert modes == ['tiny']


@pytest.mark.parametrize('error, code', [(None, 1000), (ValueError, 1011)])
def test_a_registered_host_closes_what_the_handler_leaves_open(tiny, error, code):
    def app(environ, start_response):
        Server.accept(environ)
        if error is not None:
            raise error
        return []

    peer = tiny(app).connect()
    peer.send(REQUEST)
    peer.head()
    peer.expect_close(code)
    peer.send((CLOSE, code.to_bytes(2, 'big')))
    peer.expect_eof()
    peer.close()


def test_a_registered_host_refuses_what_is_no_upgrade(tiny):
    codes = []

    def app(environ, start_response):
        try:
            Server.accept(environ)
        except ConnectionError as error:
            codes.append(error.status_code)
        return [b'too late']

    server = tiny(app)
    peer = server.connect()
    peer.send(b'GET / HTTP/1.1\r\nHost: localhost\r\n\r\n')
    assert peer.head().startswith(b'HTTP/1.1 426 ')
    while chunk := peer.sock.recv(65536):
        peer.buffer += chunk
    assert b'HTTP/' not in peer.buffer and b'too late' not in peer.buffer
    peer.close()
    server.thread.join(5)
    assert codes == [426]


def test_register_host_takes_a_host_only():
    with pytest.raises(TypeError, match='host must be a Host'):
        register_host('tiny')


def test_a_server_without_a_socket_is_told_which_have_one():
    errors = []

    def app(environ, start_response):
        try:
            Server.accept(environ)
        except RuntimeError as error:
            errors.append(str(error))
        start_response('501 Not Implemented', [('Content-Length', '0')])
        return []

    class Silent(WSGIRequestHandler):
        def log_message(self, *_):
            pass

    with make_server('127.0.0.1', 0, app, handler_class=Silent) as server:
        with socket.create_connection(server.server_address, 5) as sock:
            sock.sendall(REQUEST)
            server.handle_request()
            assert b' 501 ' in sock.recv(1000)
    (error,) = errors
    for name in ('WSGIServer', 'Werkzeug', 'gunicorn', 'gevent', 'eventlet', 'register_host'):
        assert name in error
