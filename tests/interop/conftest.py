"""The ends of the interop tests: ours in a process for each way to wait, `ws` in
a process of node, `websockets` in this one."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
from pathlib import Path

import pytest

pytest.register_assert_rewrite('interop.peer_websockets')

from interop import peer_websockets  # noqa: E402
from support import node  # noqa: E402

HERE = Path(__file__).resolve().parent
LIVE = HERE.parent / 'live'
LIMIT = 20

WORLDS = ('threads', 'gevent', 'eventlet', 'asyncio')
PEERS = ('websockets', 'ws')


def pytest_configure(config):
    if node.missing():
        raise pytest.UsageError(f'no {" and no ".join(node.missing())} on this machine')
    node.install()


def environment():
    paths = (HERE.parent.parent, HERE, LIVE)
    return {
        **os.environ,
        'PYTHONPATH': os.pathsep.join(map(str, paths)),
        'PYTHONUNBUFFERED': '1',
        'NODE_PATH': str(node.MODULES),
    }


class Process:
    """A process that ends with the tests; what it says of errors is kept."""

    def __init__(self, argv, log, **how):
        self.log = log
        with log.open('wb') as output:
            self.process = subprocess.Popen(argv, stderr=output, env=environment(), **how)

    def stop(self):
        if self.process.stdin:
            self.process.stdin.close()
        self.process.terminate()
        try:
            self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        finally:
            if self.process.stdout:
                self.process.stdout.close()


class Server(Process):
    def __init__(self, argv, log):
        # It inherits the socket: who connects before it is up has to wait.
        with socket.create_server(('127.0.0.1', 0), backlog=64) as listener:
            self.port = listener.getsockname()[1]
            fd = str(listener.fileno())
            argv = [fd if arg == 'FD' else arg for arg in argv]
            super().__init__(
                argv,
                log,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[listener.fileno()],
            )


class Client(Process):
    def __init__(self, argv, log):
        super().__init__(argv, log, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def run(self, case):
        """Run a case; returns its report."""
        self.process.stdin.write(json.dumps(case).encode() + b'\n')
        self.process.stdin.flush()
        ready, _, _ = select.select([self.process.stdout], [], [], LIMIT)
        line = self.process.stdout.readline() if ready else b''
        assert line, f'no report within {LIMIT} s: {self.log.read_text()}'
        return json.loads(line)


class WebsocketsClient:
    run = staticmethod(peer_websockets.run)

    def stop(self):
        """Nothing to stop."""


NODE = ['node', str(HERE / 'peer.js')]
OURS = [sys.executable, str(HERE / 'conversation.py')]
WSGI = [sys.executable, str(LIVE / 'serve.py')]
SERVERS = {
    'threads': [*WSGI, 'werkzeug', 'FD', 'conversation:app'],
    'gevent': [*WSGI, 'gevent', 'FD', 'conversation:app'],
    'eventlet': [*WSGI, 'eventlet', 'FD', 'conversation:app'],
    'asyncio': [*OURS, 'server', 'FD'],
    'ws': [*NODE, 'server', 'FD'],
}
CLIENTS = {**{world: [*OURS, 'client', world] for world in WORLDS}, 'ws': [*NODE, 'client']}


@pytest.fixture(scope='session')
def ends(tmp_path_factory):
    """Gives the server or the client of a name, started when first asked for."""
    made = {}
    logs = tmp_path_factory.mktemp('logs')

    def end(role, name):
        if (role, name) not in made:
            log = logs / f'{name}-{role}.log'
            if role == 'server':
                websockets = peer_websockets.Server
                made[role, name] = (
                    websockets() if name == 'websockets' else Server(SERVERS[name], log)
                )
            else:
                made[role, name] = (
                    WebsocketsClient() if name == 'websockets' else Client(CLIENTS[name], log)
                )
        return made[role, name]

    yield end
    for one in made.values():
        one.stop()


@pytest.fixture
def servers(ends):
    return lambda name: ends('server', name)


@pytest.fixture
def clients(ends):
    return lambda name: ends('client', name)
