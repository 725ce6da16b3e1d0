"""What a delivery of ``broadcast`` costs.

``python -m bench.broadcast PROFILE CONNECTIONS CORE`` opens that many
connections, whose other ends another process reads on that core, sends 64 bytes
to all of them again and again, and prints a line of JSON: CPU of this process,
beside that of the bare ``send`` of the same bytes on the same sockets.
"""

from __future__ import annotations

import json
import os
import select
import socket
import sys
import time
from collections.abc import Callable

TEXT = 'x' * 64
FRAME = b'\x81\x40' + TEXT.encode()
ROUNDS = 20


def _read_all(port: int, count: int, core: int) -> None:
    """The peers: connect, and read whatever comes until the end."""
    os.sched_setaffinity(0, {core})
    peers = {}
    poll = select.epoll()
    for _ in range(count):
        peer = socket.create_connection(('127.0.0.1', port))
        poll.register(peer, select.EPOLLIN)
        peers[peer.fileno()] = peer
    while True:
        for fd, _ in poll.poll():
            if not peers[fd].recv(65536):
                return


def _accept(listener: socket.socket, count: int, profile: str, make: Callable) -> list:
    from simple_websocket import Server

    connections = []
    for _ in range(count):
        sock, _ = listener.accept()
        environ = {
            'REQUEST_METHOD': 'GET',
            'PATH_INFO': '/',
            'SERVER_PROTOCOL': 'HTTP/1.1',
            'HTTP_HOST': 'localhost',
            'HTTP_UPGRADE': 'websocket',
            'HTTP_CONNECTION': 'Upgrade',
            'HTTP_SEC_WEBSOCKET_KEY': 'dGhlIHNhbXBsZSBub25jZQ==',
            'HTTP_SEC_WEBSOCKET_VERSION': '13',
            'werkzeug.socket': make(sock),
        }
        connections.append(Server.accept(environ, profile=profile))
    return connections


def _cpu(once: Callable[[], object], pause: Callable[[float], None]) -> float:
    """CPU seconds of ``once``, without those of what the pause behind it runs."""
    began = time.process_time()
    once()
    spent = time.process_time() - began
    pause(0.05)  # the peers read
    return spent


def measure(profile: str, count: int, core: int) -> dict:
    """Measure one profile with so many connections."""
    import resource

    resource.setrlimit(resource.RLIMIT_NOFILE, (count + 1000,) * 2)
    make, pause = (lambda sock: sock), time.sleep
    if profile == 'gevent':
        import gevent
        import gevent.socket

        make, pause = (lambda sock: gevent.socket.socket(fileno=sock.detach())), gevent.sleep
    listener = socket.create_server(('127.0.0.1', 0), backlog=4096)
    child = os.fork()
    if not child:
        try:
            _read_all(listener.getsockname()[1], count, core)
        finally:
            os._exit(0)
    from simple_websocket import broadcast

    connections = _accept(listener, count, profile, make)
    sends = [ws._link.wire.raw_send for ws in connections]
    pause(0.5)

    def bare() -> None:
        for send in sends:
            send(FRAME)

    ways = {'broadcast': lambda: broadcast(connections, TEXT), 'bare': bare}
    result = {
        name: {
            'server_cpu': 0.0,
            'count': ROUNDS * count,
            'seconds': 0.0,
            'connections': count,
        }
        for name in ways
    }
    for way in ways.values():
        _cpu(way, pause)
        _cpu(way, pause)
    # In turn: a machine that is slower for a while is so for both of them.
    for _ in range(ROUNDS):
        for name, way in ways.items():
            began = time.monotonic()
            result[name]['server_cpu'] += _cpu(way, pause)
            result[name]['seconds'] += time.monotonic() - began
    os.kill(child, 15)
    os.waitpid(child, 0)
    return result


def main() -> None:
    """See the top of this file."""
    profile, count, core = sys.argv[1:]
    print(json.dumps(measure(profile, int(count), int(core))), flush=True)
    os._exit(0)  # nobody wants to see each of them closed


if __name__ == '__main__':
    main()
