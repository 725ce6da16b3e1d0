"""The hosts of the live tests: how each is started, and a server that runs.

A server inherits its listening socket, so the port is known, and connections
queue, before the server is up.
"""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from support.peer import KEY, Peer

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent

#: What no log may hold after normal use.
NOISE = re.compile(
    r'Traceback|Error|Exception|Warning|Bad request|EBADF|Bad file descriptor|socket error'
    r'|" (400|500) ',
    re.IGNORECASE,
)


def wait_until(condition: Callable[[], Any], what: str, timeout: float = 10) -> Any:
    """Look until there is something; fail when `timeout` seconds are over."""
    deadline = time.monotonic() + timeout
    while not (found := condition()):
        assert time.monotonic() < deadline, f'not within {timeout} s: {what}'
        time.sleep(0.01)
    return found


@dataclass(frozen=True)
class Host:
    """One way to serve a WSGI application.

    `mode` is the value that `Server.mode` must have; `argv` is what Python is
    started with, where {fd}, {cert} and {key} are filled in.
    """

    name: str
    mode: str
    argv: tuple[str, ...]
    tls: bool = False
    parallel: bool = True

    @property
    def gunicorn(self) -> bool:
        return 'gunicorn' in self.argv


TLS = {
    'serve.py': ('--tls', '{cert}', '{key}'),
    'gunicorn': ('--certfile', '{cert}', '--keyfile', '{key}'),
}


def http_and_https(name: str, mode: str, *argv: str, parallel: bool = True) -> list[Host]:
    tls = TLS['gunicorn' if 'gunicorn' in argv else 'serve.py']
    return [
        Host(name, mode, argv, False, parallel),
        Host(f'{name}-tls', mode, (*argv, *tls), True, parallel),
    ]


def serve(server: str, *options: str) -> tuple[str, ...]:
    return (str(HERE / 'serve.py'), server, '{fd}', *options)


def gunicorn(worker: str, *options: str) -> tuple[str, ...]:
    return (
        *('-m', 'gunicorn', '--bind', 'fd://{fd}', '--worker-class', worker),
        *('--pythonpath', str(HERE), '--graceful-timeout', '1', *options),
    )


HOSTS = [
    *http_and_https('werkzeug', 'werkzeug', *serve('werkzeug')),
    *http_and_https('gunicorn-sync', 'gunicorn', *gunicorn('sync'), parallel=False),
    *http_and_https('gunicorn-gthread', 'gunicorn', *gunicorn('gthread', '--threads', '4')),
    *http_and_https('gunicorn-gevent', 'gunicorn', *gunicorn('gevent')),
    *http_and_https('gunicorn-gevent-pywsgi', 'gevent', *gunicorn('gevent_pywsgi')),
    *http_and_https('gevent', 'gevent', *serve('gevent')),
    *http_and_https('gevent-patched', 'gevent', *serve('gevent', '--patch')),
    *http_and_https('eventlet', 'eventlet', *serve('eventlet')),
    *http_and_https('eventlet-patched', 'eventlet', *serve('eventlet', '--patch')),
]

#: For an environment with the last gunicorn that has this worker.
EVENTLET_WORKER = http_and_https('gunicorn-eventlet', 'gunicorn', *gunicorn('eventlet'))


class Running:
    """A server process, and its log as a test sees it."""

    def __init__(self, host: Host, app: str, log: Path, certificate: Any) -> None:
        self.host = host
        self.log = log
        self.seen = 0
        self.connections: list[Any] = []
        self.certificate = certificate
        files = {'cert': certificate.cert, 'key': certificate.key}
        with socket.create_server(('127.0.0.1', 0), backlog=128) as listener:
            self.port: int = listener.getsockname()[1]
            fd = listener.fileno()
            with log.open('wb') as output:
                self.process = subprocess.Popen(
                    [sys.executable, *(a.format(fd=fd, **files) for a in host.argv), app],
                    cwd=HERE,
                    env={
                        **os.environ,
                        'PYTHONPATH': os.pathsep.join((str(ROOT), str(HERE))),
                        'PYTHONUNBUFFERED': '1',
                        # For gunicorn's control socket.
                        'XDG_RUNTIME_DIR': str(log.parent),
                        'PYTHONWARNINGS': 'default::ResourceWarning',
                    },
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    pass_fds=[fd],
                )

    def connect(self, timeout: float = 10) -> Any:
        sock = socket.create_connection(('127.0.0.1', self.port), timeout)
        if self.host.tls:
            # An end without close_notify is an error (RFC 5246 section 7.2.1).
            sock = self.certificate.context.wrap_socket(
                sock, server_hostname='localhost', suppress_ragged_eofs=False
            )
        self.connections.append(sock)
        return sock

    def disconnect(self) -> None:
        """End what a test has left open."""
        while self.connections:
            self.connections.pop().close()

    def peer(self, path: str, *frames: Any, timeout: float = 10) -> Peer:
        """A client with an open connection, whose first frames came along with
        the request."""
        peer = Peer(self.connect(timeout), client=True)
        peer.sock.settimeout(timeout)
        peer.send(self.request(path), *frames)
        head = peer.head()
        assert head.startswith(b'HTTP/1.1 101 '), head
        return peer

    def request(self, path: str, method: str = 'GET', **headers: str | None) -> bytes:
        fields = {
            'Host': f'localhost:{self.port}',
            'Upgrade': 'websocket',
            'Connection': 'Upgrade',
            'Sec-WebSocket-Key': KEY,
            'Sec-WebSocket-Version': '13',
            **headers,
        }
        lines = [f'{name}: {value}' for name, value in fields.items() if value is not None]
        return '\r\n'.join([f'{method} {path} HTTP/1.1', *lines, '', '']).encode()

    def get(self, path: str) -> bytes:
        """An ordinary request on a connection of its own."""
        kind = http.client.HTTPSConnection if self.host.tls else http.client.HTTPConnection
        tls = {'context': self.certificate.context} if self.host.tls else {}
        connection = kind('localhost', self.port, timeout=30, **tls)
        connection.sock = self.connect(30)
        try:
            connection.request('GET', path)
            response = connection.getresponse()
            body = response.read()
            assert response.status == 200, body
            return body
        finally:
            connection.close()

    def pid(self) -> int:
        """Of the process that runs the application; also shows that it serves."""
        return int(self.get('/pid'))

    def new_log(self) -> str:
        """What was written since `forget_log`."""
        with self.log.open('rb') as log:
            log.seek(self.seen)
            return log.read().decode(errors='replace')

    def forget_log(self) -> None:
        self.seen = self.log.stat().st_size

    def assert_quiet(self, but: re.Pattern[str] | None = None) -> None:
        log = self.new_log()
        if but is not None:
            log = but.sub('', log)
        assert not NOISE.search(log), log

    def wait_for_log(self, text: str) -> None:
        wait_until(lambda: text in self.new_log(), f'{text!r} in the log')

    def terminate(self, timeout: float = 10) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(timeout)

    def stop(self) -> None:
        if self.process.poll() is None:
            try:
                self.terminate()
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
                raise


@dataclass(frozen=True)
class Certificate:
    """For `localhost`: two files for a server and a context for a client."""

    cert: str
    key: str
    context: ssl.SSLContext
