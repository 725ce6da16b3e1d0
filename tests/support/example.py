"""A program of `examples/`, run as a user would: a process of its own."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent.parent
EXAMPLES = ROOT / 'examples'

# eventlet's farewell to its users, and the line of code that warnings show.
_EVENTLET = re.compile(
    r'^\S+:\d+: EventletDeprecationWarning: \n(?:.*\n)*?https://eventlet\S+migration\.html\n\n'
    r'(?:  .*\n)?',
    re.MULTILINE,
)
_COLOUR = re.compile(r'\x1b\[[\d;]*m')


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(('127.0.0.1', 0))
        return probe.getsockname()[1]


class Program:
    """A running example; what it prints is collected as it comes."""

    def __init__(self, path: str, *args: str, **environ: str) -> None:
        env = {**os.environ, 'PYTHONPATH': str(ROOT), 'PYTHONUNBUFFERED': '1', **environ}
        # Who was started in the background ignores SIGINT, and its children would too.
        previous = signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            self.process = subprocess.Popen(
                [sys.executable, str(EXAMPLES / path), *args],
                cwd=EXAMPLES,
                env=env,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
                errors='replace',
                start_new_session=True,
            )
        finally:
            signal.signal(signal.SIGINT, previous)
        self.out: list[str] = []
        self.err: list[str] = []
        self._readers = [
            threading.Thread(target=lines.extend, args=(stream,), daemon=True)
            for lines, stream in ((self.out, self.process.stdout), (self.err, self.process.stderr))
        ]
        for reader in self._readers:
            reader.start()

    @property
    def stdout(self) -> str:
        return ''.join(self.out)

    @property
    def stderr(self) -> str:
        """Without colours, and eventlet's notice that it is deprecated."""
        return _EVENTLET.sub('', _COLOUR.sub('', ''.join(self.err)))

    def wait_for(self, condition: Any, what: str, timeout: float = 15) -> Any:
        deadline = time.monotonic() + timeout
        while True:
            # Asked before the last look: what it printed at its end counts.
            ended = self.process.poll() is not None
            if found := condition():
                return found
            if ended or time.monotonic() > deadline:
                state = f'ended with {self.process.returncode}' if ended else 'still runs'
                raise AssertionError(
                    f'{what}: not within {timeout} s; the program {state}\n'
                    f'-- stdout\n{self.stdout}-- stderr\n{self.stderr}'
                )
            time.sleep(0.02)

    def wait_for_port(self, port: int) -> None:
        def listens() -> bool:
            try:
                socket.create_connection(('127.0.0.1', port), 1).close()
            except OSError:
                return False
            return True

        self.wait_for(listens, f'listens at port {port}')

    def wait(self, timeout: float = 15) -> int:
        """Wait for the end; returns the exit status."""
        status = self.process.wait(timeout)
        for reader in self._readers:
            reader.join(5)
        return status

    def interrupt(self, timeout: float = 8) -> int:
        """Press Ctrl-C; returns the exit status.

        When it waits, if that is soon: of a signal that comes just before a wait,
        Python (and so a hub, in its poll) takes notice only behind it.
        """
        deadline = time.monotonic() + 1
        while self._runs() and time.monotonic() < deadline:
            time.sleep(0.001)
        os.killpg(self.process.pid, signal.SIGINT)  # as a terminal does
        return self.wait(timeout)

    def _runs(self) -> bool:
        """Whether its main thread has something to do."""
        try:
            stat = Path(f'/proc/{self.process.pid}/stat').read_text()
        except OSError:  # it has ended
            return False
        return stat.rpartition(')')[2].split()[0] == 'R'

    def kill(self) -> None:
        # Also what it started, even if it has ended itself.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.wait()
        for stream in (self.process.stdin, self.process.stdout, self.process.stderr):
            with contextlib.suppress(OSError):
                stream.close()


@contextlib.contextmanager
def running(path: str, *args: str, **environ: str) -> Iterator[Program]:
    program = Program(path, *args, **environ)
    try:
        yield program
    finally:
        program.kill()
