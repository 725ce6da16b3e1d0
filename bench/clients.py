"""The blocking clients that are measured.

``python -m bench.clients NAME URL SECONDS`` runs one of them.  At a URL that
ends in ``/echo`` it sends 64 bytes and waits for them to come back, again and
again; at one that ends in ``/stream`` it only receives.  Prints a line of JSON.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

TEXT = 'x' * 64


@dataclass(frozen=True)
class Client:
    """A client, as the table sees it; ``connect`` gives two functions, one that
    sends a message and one that receives one."""

    name: str
    group: str
    role: str
    label: str
    connect: Callable[[str], tuple[Callable, Callable]]
    packages: tuple[str, ...] = ()
    venv: str = 'bench'
    raw = False


CLIENTS: dict[str, Client] = {}


def client(name: str, group: str, role: str, label: str, *packages: str):
    """Enter a function into the table."""

    def enter(connect):
        venv = 'bench-1.1' if name.startswith('1.1-') else 'bench'
        CLIENTS[name] = Client(name, group, role, label, connect, packages, venv)
        return connect

    return enter


def _patch() -> None:
    from gevent import monkey

    monkey.patch_all()


def _simple_websocket(url, **options):
    from simple_websocket import Client

    ws = Client.connect(url, **options)
    return ws.send, ws.receive


@client('client', 'client, threads', 'ours', 'simple-websocket')
def ours(url):
    return _simple_websocket(url)


@client('1.1-client', 'client, threads', 'peer', 'simple-websocket 1.1')
def old(url):
    return _simple_websocket(url)


@client(
    'websocket-client', 'client, threads', 'peer', 'websocket-client', 'websocket-client'
)
def websocket_client(url):
    import websocket

    ws = websocket.create_connection(url)
    return ws.send, ws.recv


@client('websockets-client', 'client, threads', 'peer', 'websockets.sync', 'websockets')
def websockets_sync(url):
    from websockets.sync.client import connect

    ws = connect(url, compression=None, ping_interval=None)
    return ws.send, ws.recv


@client('client-gevent', 'client, gevent', 'ours', 'simple-websocket', 'gevent')
def ours_gevent(url):
    return _simple_websocket(url, profile='gevent')


@client('1.1-client-gevent', 'client, gevent', 'peer', 'simple-websocket 1.1', 'gevent')
def old_gevent(url):
    _patch()
    return _simple_websocket(url)


@client(
    'websocket-client-gevent',
    'client, gevent',
    'peer',
    'websocket-client, patched',
    'websocket-client',
)
def websocket_client_gevent(url):
    _patch()
    return websocket_client(url)


def _request_response(send, receive, seconds):
    count, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        for _ in range(10):
            send(TEXT)
            receive()
        count += 10
    return count


def _stream(send, receive, seconds):
    count, end = 0, time.monotonic() + seconds
    while time.monotonic() < end:
        for _ in range(100):
            receive()
        count += 100
    return count


def main():
    # The working directory, which the environment of 1.1 must not find ours in.
    del sys.path[0]
    name, url, seconds = sys.argv[1:]
    send, receive = CLIENTS[name].connect(url)
    run = _stream if url.endswith('/stream') else _request_response
    run(send, receive, float(seconds) / 5)  # warm up
    began, cpu = time.monotonic(), time.process_time()
    count = run(send, receive, float(seconds))
    result = {
        'count': count,
        'cpu': time.process_time() - cpu,
        'seconds': time.monotonic() - began,
    }
    print(json.dumps(result), flush=True)
    # Not to be measured: what closing costs.
    import os

    os._exit(0)


if __name__ == '__main__':
    main()
