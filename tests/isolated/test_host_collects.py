"""The garbage collector may run between a handler's return and the host's end
of the request: what the handler left open is closed as ever."""

from __future__ import annotations

import gc
import socket
import threading

import pytest
from support.frames import TEXT
from support.peer import KEY, Peer
from werkzeug.serving import make_server

from simple_websocket import Server

REQUEST = (
    'GET / HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n'
    f'Sec-WebSocket-Key: {KEY}\r\nSec-WebSocket-Version: 13\r\n\r\n'
).encode()


@pytest.fixture
def port():
    def app(environ, start_response):
        ws = Server.accept(environ)
        ws.send(ws.receive())
        return []

    server = make_server('127.0.0.1', 0, app, threaded=True)
    end = server.shutdown_request

    def shutdown_request(request):
        gc.collect()
        end(request)

    server.shutdown_request = shutdown_request
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server.server_port
    server.shutdown()
    thread.join(10)
    server.server_close()


def test_werkzeug(port):
    with socket.create_connection(('127.0.0.1', port), 10) as sock:
        peer = Peer(sock, client=True)
        peer.send(REQUEST)
        peer.head()
        peer.send((TEXT, b'hello'))
        peer.expect(TEXT, b'hello')
        peer.expect_close(1000)
        peer.send(peer.close_frame(1000))
        peer.expect_eof()
