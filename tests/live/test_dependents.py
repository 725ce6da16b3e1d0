"""What is built on the package runs on it unchanged: the real python-socketio,
its client and its server on real servers, and Flask-SocketIO.

(Flask-Sock is among the endings of `test_hosts.py`, on every host.)"""

from __future__ import annotations

import queue
import re

import pytest
import requests
import socketio
import websocket
from live.servers import HOSTS, wait_until

pytestmark = pytest.mark.timeout(30)

BY_NAME = {host.name: host for host in HOSTS}
#: Without TLS: the client reads in one thread and writes in another, which an
#: SSLSocket before Python 3.13 takes for the end of the stream now and then.
SERVERS = [
    ('werkzeug', 'threading'),
    ('gunicorn-gthread', 'threading'),
    ('gevent', 'gevent'),
    ('gevent-patched', 'gevent'),
    ('gunicorn-gevent', 'gevent'),
    ('gunicorn-gevent-pywsgi', 'gevent'),
    ('eventlet', 'eventlet'),
    ('eventlet-patched', 'eventlet'),
    ('werkzeug', 'flask'),
]
#: engineio's writer thread asks `connected` and then calls `close()`, which
#: raises if the connection was closed between the two.
LATE_CLOSE = re.compile(
    r'Exception in thread Thread-\d+ \(writer\):\n(?:(?!Exception in)[^\n]*\n)*?'
    r'    self\.ws\.close\(\)\n(?:(?!Exception in)[^\n]*\n)*?'
    r'simple_websocket\.errors\.ConnectionClosed: [^\n]*\n'
)


@pytest.fixture(scope='module', params=SERVERS, ids='-'.join)
def socketio_server(request, start):
    name, app = request.param
    host = BY_NAME[name]
    if host.gunicorn and app == 'threading':
        # A polling client holds a thread for each of its requests.
        host = type(host)(host.name, host.mode, (*host.argv, '--threads', '20'))
    server = start(host, f'socketio_apps:{app}')
    yield server
    server.stop()


@pytest.fixture(params=['websocket', 'polling, then websocket'])
def client(request, socketio_server):
    server = socketio_server
    server.forget_log()
    session = requests.Session()
    session.trust_env = False
    client = socketio.Client(reconnection=False, http_session=session)
    received = client.received = queue.Queue()
    client.on('welcome', lambda data: received.put(('welcome', data)))
    client.on('called', lambda data: received.put(('called', data)))
    client.on('disconnect', lambda *reason: received.put(('disconnect', reason)))
    transports = ['websocket'] if request.param == 'websocket' else ['polling', 'websocket']
    client.connect(f'http://127.0.0.1:{server.port}', transports=transports)
    event, data = received.get(timeout=5)
    assert event == 'welcome' and data == {'to': client.get_sid()}
    assert client.transport() == 'websocket'
    tcp = client.eio.ws.sock
    yield client
    client.disconnect()
    # Left to the garbage collector where the server was first to disconnect.
    tcp.close()
    session.close()
    server.wait_for_log('app: left')
    server.pid()
    server.assert_quiet(but=LATE_CLOSE)


def test_socketio_events_go_both_ways(client):
    assert client.call('echo', {'text': 'grüße', 'blob': b'\0\xff'}, timeout=5) == {
        'text': 'grüße',
        'blob': b'\0\xff',
    }
    large = 'x' * 300_000
    assert client.call('echo', large, timeout=5) == large
    for number in range(20):
        client.emit('call_back', number)
    # Each event has a thread of its own at the server, so their order is open.
    assert sorted(client.received.get(timeout=5) for _ in range(20)) == [
        ('called', number) for number in range(20)
    ]


def test_socketio_keepalive_goes_on(client):
    pongs = []
    send = client.eio._send_packet

    def count(packet):
        if packet.packet_type == 3:
            pongs.append(packet)
        send(packet)

    client.eio._send_packet = count
    wait_until(lambda: len(pongs) >= 3, 'three pongs')
    assert client.connected
    assert client.call('echo', 'still here', timeout=5) == 'still here'


def test_socketio_server_throws_a_client_out(client, socketio_server):
    client.emit('throw_out')
    assert client.received.get(timeout=5)[0] == 'disconnect'
    wait_until(lambda: not client.connected, 'the client notices')


def test_websocket_client_talks_to_flask_sock(start):
    server = start(BY_NAME['gunicorn-gthread'])
    ws = websocket.create_connection(f'ws://127.0.0.1:{server.port}/flask-sock?us', timeout=5)
    ws.send('hello')
    assert ws.recv() == 'hello'
    opcode, payload = ws.recv_data()
    assert (opcode, payload[:2]) == (8, (4001).to_bytes(2, 'big'))
    ws.shutdown()  # close() does nothing once the server's Close was answered
    server.pid()
    server.assert_quiet()
    server.stop()
