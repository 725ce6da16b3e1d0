"""The processes of a benchmark: the load generator, the servers, the clients.

The measured process has one core to itself, what it talks to has another.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

from .servers import HOST, Entry

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / '.build' / 'bench'
LOAD = BUILD / 'load'

#: Descriptors that a process needs besides its connections.
SPARE_FILES = 200


class Failure(Exception):
    """A case that could not be measured; says why."""


def cores() -> tuple[int, int]:
    """The core for the measured process and the one for its peer."""
    available = sorted(os.sched_getaffinity(0))
    return available[-1], available[0]


def raise_limits() -> int:
    """Allow as many open files as may be.

    :returns: how many connections a process can have.
    """
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(hard, 1 << 16), max(hard, 1 << 16)))
    except (ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return resource.getrlimit(resource.RLIMIT_NOFILE)[0] - SPARE_FILES


def build_programs() -> None:
    """Compile the load generator and the server in C, if that was not done yet."""
    BUILD.mkdir(parents=True, exist_ok=True)
    compiler = next(filter(shutil.which, (os.environ.get('CC', 'cc'), 'gcc', 'clang')), None)
    for name in ('load', 'echo'):
        source, program = ROOT / 'bench' / f'{name}.c', BUILD / name
        if program.exists() and program.stat().st_mtime >= source.stat().st_mtime:
            continue
        if compiler is None or not sys.platform.startswith('linux'):
            sys.exit(
                f'bench: bench/{name}.c needs Linux and a C compiler; '
                'install gcc or clang, or name yours in CC'
            )
        command = [compiler, '-O2', '-Wall', '-o', str(program), str(source)]
        subprocess.run(command, check=True)


def python(venv: str) -> str:
    """The interpreter of an environment."""
    path = ROOT / '.venv' / venv / 'bin' / 'python'
    if not path.exists():
        sys.exit(f'bench: there is no .venv/{venv}; run "make bench"')
    return str(path)


#: Added to the priority of all that is started: 0, or below it (``--priority``).
niceness = 0


def _pinned(core: int, command: list[str], **options) -> subprocess.Popen:
    def pin() -> None:
        os.sched_setaffinity(0, {core})
        os.nice(niceness)

    return subprocess.Popen(command, cwd=ROOT, preexec_fn=pin, **options)


class RunningServer:
    """A server in a process of its own, with a file for what it complains of.

    :param entry: which server.
    :param core: where it runs; by default on the core of what is measured.
    """

    def __init__(self, entry: Entry, core: int | None = None) -> None:
        self.entry = entry
        self._core = cores()[0] if core is None else core
        self.start()

    def start(self) -> None:
        with socket.socket() as free:
            free.bind((HOST, 0))
            self.port = free.getsockname()[1]
        command = [python(self.entry.venv), '-m', 'bench.servers', self.entry.name]
        self.log = BUILD / f'{self.entry.name}.log'
        with open(self.log, 'wb') as log:
            self.process = _pinned(
                self._core, [*command, str(self.port)], stdout=log, stderr=log
            )

    def wait(self) -> None:
        """Wait until it listens."""
        deadline = time.monotonic() + 30
        while True:
            try:
                socket.create_connection((HOST, self.port), 1).close()
                return
            except OSError:
                if self.process.poll() is not None:
                    raise Failure(f'did not start: {self._last_words()}') from None
                if time.monotonic() > deadline:
                    raise Failure('did not start in 30 s') from None
                time.sleep(0.02)

    def _last_words(self) -> str:
        lines = self.log.read_text(errors='replace').strip().splitlines()
        return lines[-1] if lines else f'status {self.process.returncode}'

    def rss(self) -> int:
        """Resident memory, in bytes."""
        with open(f'/proc/{self.process.pid}/statm') as statm:
            return int(statm.read().split()[1]) * resource.getpagesize()

    def threads(self) -> int:
        """How many threads it has."""
        return len(os.listdir(f'/proc/{self.process.pid}/task'))

    def stop(self) -> None:
        self.process.kill()
        self.process.wait()

    def restart(self) -> None:
        """Begin again, after a case that left it in doubt."""
        self.stop()
        self.start()
        self.wait()

    def _load_command(self, mode: str, options: dict) -> list[str]:
        command = [str(LOAD), mode, '--port', str(self.port), '--pid', str(self.process.pid)]
        for name, value in options.items():
            if value is True:
                command.append(f'--{name}')
            elif value is not None and value is not False:
                command += [f'--{name}', str(value)]
        return command

    def load(self, mode: str, **options) -> dict:
        """Run the load generator against it.

        :param mode: ``echo`` or ``rate``.
        :param options: of bench/load.c.
        :returns: what it measured.
        :raises Failure: when that did not work.
        """
        process = _pinned(
            cores()[1],
            self._load_command(mode, options),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            out, err = process.communicate(timeout=150)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
            raise Failure('hung') from None
        if process.returncode:
            raise Failure(err.decode().strip() or f'the load ended with {process.returncode}')
        result = json.loads(out)
        if not result['count']:
            raise Failure('nothing done in the time')
        return result

    @contextmanager
    def idle(self, connections: int, deflate: bool = False):
        """Hold connections open.  Gives a function that ends this, and returns
        what was measured meanwhile."""
        process = _pinned(
            cores()[1],
            self._load_command('idle', {'connections': connections, 'deflate': deflate}),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        try:
            if not process.stdout.readline():
                raise Failure(process.stderr.read().decode().strip())

            def end() -> dict:
                process.stdin.close()
                line = process.stdout.readline()
                if not line:
                    raise Failure(process.stderr.read().decode().strip())
                return json.loads(line)

            yield end
        finally:
            if not process.stdin.closed:
                process.stdin.close()
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            process.stdout.close()
            process.stderr.close()


@contextmanager
def running(entries: list[Entry], core: int | None = None):
    """Start servers; gives those that listen, and why others do not."""
    servers, failures = {}, {}
    try:
        for entry in entries:
            servers[entry.name] = RunningServer(entry, core)
        for entry in entries:
            try:
                servers[entry.name].wait()
            except Failure as failure:
                failures[entry.name] = str(failure)
        yield {n: s for n, s in servers.items() if n not in failures}, failures
    finally:
        for server in servers.values():
            server.stop()


def run_client(name: str, venv: str, url: str, seconds: float) -> dict:
    """Run a client of bench/clients.py for some seconds, on the measured core."""
    command = [python(venv), '-m', 'bench.clients', name, url, str(seconds)]
    return _run(command, 5 + 5 * seconds)


def run_broadcast(profile: str, connections: int) -> dict:
    """Run bench/broadcast.py, on the measured core; its peers move to the other."""
    loader = str(cores()[1])
    command = [python('bench'), '-m', 'bench.broadcast', profile, str(connections), loader]
    return _run(command, 120)


def _run(command: list[str], limit: float) -> dict:
    process = _pinned(
        cores()[0], command, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        out, err = process.communicate(timeout=limit)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise Failure('hung') from None
    if process.returncode:
        raise Failure((err.decode().strip().splitlines() or ['no word'])[-1])
    return json.loads(out)
