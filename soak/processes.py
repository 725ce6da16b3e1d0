"""The server process, from the outside."""

from __future__ import annotations

import atexit
import http.client
import json
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import trustme

from .gauge import COUNTED, cpu, rss
from .peer import HOST, Peer

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / '.build' / 'soak'

#: What no log may hold.
COMPLAINT = re.compile(
    r'Traceback|Error|Exception|Warning|Bad request|Bad file descriptor', re.IGNORECASE
)


_started: list[subprocess.Popen[Any]] = []


def start(command: list[str], **how: Any) -> subprocess.Popen[Any]:
    """Start a process, in this project's directory, that ends when we end."""
    _started[:] = [one for one in _started if one.poll() is None]
    process = subprocess.Popen(command, cwd=ROOT, **how)
    _started.append(process)
    return process


@atexit.register
def _end_all() -> None:
    for process in _started:
        if process.poll() is None:
            process.kill()
            process.wait()


def end_when_told() -> None:
    """Let SIGTERM end this process in an orderly way."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))


class Failure(Exception):
    """Something that must not happen did; says what."""


def certificate(directory: str) -> tuple[Path, Path, Path]:
    """Certificate and key of ``localhost``, and who vouches for it: files."""
    cert, key, authority = (Path(directory, f'{name}.pem') for name in ('cert', 'key', 'ca'))
    maker = trustme.CA()
    issued = maker.issue_cert('localhost')
    issued.cert_chain_pems[0].write_to_path(cert)
    issued.private_key_pem.write_to_path(key)
    maker.cert_pem.write_to_path(authority)
    return cert, key, authority


def environment(codec: str | None = None) -> dict[str, str]:
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.lower().endswith('_proxy')
    }
    if codec is not None:
        env['SIMPLE_WEBSOCKET_CODEC'] = codec
    return env


class RunningServer:
    """A server process, which listens on two ports, with a file for its log.

    :param backend: one of ``servers.BACKENDS``.
    :param codec: which codec to force; None for the fastest there is.
    :param name: of its log.
    :param others: variables of its environment.
    """

    def __init__(
        self, backend: str, codec: str | None = None, name: str = '', **others: str
    ) -> None:
        self.backend = backend
        self._files = tempfile.TemporaryDirectory()
        self._cert, self._key, self.authority = certificate(self._files.name)
        BUILD.mkdir(parents=True, exist_ok=True)
        self.log = BUILD / f'{name or backend}.log'
        with socket.create_server((HOST, 0), backlog=4096) as plain:
            with socket.create_server((HOST, 0), backlog=4096) as tls:
                self.port, self.tls_port = (one.getsockname()[1] for one in (plain, tls))
                fds = [plain.fileno(), tls.fileno()]
                command = [sys.executable, '-m', 'soak.servers', backend, *map(str, fds)]
                with self.log.open('wb') as log:
                    self.process = start(
                        [*command, str(self._cert), str(self._key)],
                        env={
                            **environment(codec),
                            'PYTHONWARNINGS': 'default::ResourceWarning',
                            **others,
                        },
                        stdin=subprocess.DEVNULL,
                        stdout=log,
                        stderr=log,
                        pass_fds=fds,
                    )

    @property
    def pid(self) -> int:
        return self.process.pid

    def gauge(self) -> dict[str, int]:
        """What it holds, in its own words.

        :raises Failure: when it gives no answer.
        """
        connection = http.client.HTTPConnection(HOST, self.port, timeout=60)
        try:
            connection.request('GET', '/gauge')
            response = connection.getresponse()
            body = response.read()
        except OSError as error:
            raise Failure(f'no answer: {error!r}\n{self.read_log()}') from error
        finally:
            connection.close()
        if response.status != 200:
            raise Failure(f'{response.status}: {body!r}')
        held: dict[str, int] = json.loads(body)
        return held

    def rss(self) -> int:
        return rss(self.pid)

    def cpu(self) -> float:
        return cpu(self.pid)

    def connect(self, path: str = '/echo', **how: object) -> Peer:
        return Peer(self.port, path, **how)  # type: ignore[arg-type]

    def read_log(self) -> str:
        return self.log.read_text(encoding='utf-8', errors='replace')

    def complaints(self) -> str:
        """The log, if it holds a complaint."""
        log = self.read_log()
        return log if COMPLAINT.search(log) else ''

    def stop(self) -> None:
        """End it as a supervisor would, and the hard way if that is of no use."""
        self.process.terminate()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._files.cleanup()


class Peak(threading.Thread):
    """Watches the RSS of a server."""

    def __init__(self, server: RunningServer) -> None:
        super().__init__(daemon=True)
        self._server = server
        self._over = threading.Event()
        self._peak = server.rss()

    def run(self) -> None:
        while not self._over.wait(0.05):
            self._peak = max(self._peak, self._server.rss())

    def end(self) -> int:
        self._over.set()
        self.join()
        return self._peak


def quiet(server: RunningServer, looks: int = 10, timeout: float = 60) -> dict[str, int]:
    """Wait until nothing changes in a server any more; returns what it holds."""
    deadline = time.monotonic() + timeout
    seen: list[dict[str, int]] = []
    while True:
        held = server.gauge()
        if seen and any(held[name] != seen[-1][name] for name in COUNTED):
            seen.clear()
        seen.append(held)
        if len(seen) >= looks:
            return held
        if time.monotonic() > deadline:
            raise Failure(f'it does not come to rest: {held}')
        time.sleep(0.2)


def settle(
    server: RunningServer, baseline: dict[str, int], timeout: float = 60
) -> dict[str, int]:
    """Wait until a server holds no more than before.

    :returns: what it holds then, or when the time is over.
    """
    deadline = time.monotonic() + timeout
    while True:
        held = server.gauge()
        if all(held[name] == baseline[name] for name in COUNTED):
            return held
        if time.monotonic() > deadline:
            return held
        time.sleep(0.25)
