"""One run of Autobahn: a role, a backend and a codec against the real suite.

A server of ours is asked by one ``wstest`` in its mode ``fuzzingclient``; a
client of ours goes through the cases of one in the mode ``fuzzingserver``. What
is believed is the report that the suite itself writes.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import json
import os
import select
import shutil
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

from .agents import BACKENDS, HOST, HOSTS
from .environment import ROOT

CODECS = ('compiled', 'wsproto')
ROLES = ('server', 'client')

#: The cases of autobahntestsuite 0.8.2 by section; there is no 8 and no 11.
SECTIONS = {1: 16, 2: 11, 3: 7, 4: 10, 5: 20, 6: 145, 7: 37, 9: 54, 10: 1, 12: 90, 13: 126}
#: All but the limits (9) and compression (12, 13): a matter of seconds.
SHORT = ('1', '2', '3', '4', '5', '6', '7', '10')

#: The cases on which the suite gives no verdict: see the page in the docs.
INFORMATIONAL = ('7.1.6', '7.13.1', '7.13.2')

_LIST = """
from autobahntestsuite.case import Cases
print(' '.join('.'.join(c.__name__[4:].split('_')) for c in Cases))
"""


class Failure(Exception):
    """A run that could not be finished; says why."""


@dataclass(frozen=True)
class Run:
    """What is tested."""

    role: str
    backend: str
    codec: str

    @property
    def name(self) -> str:
        return f'{self.role}-{self.backend}-{self.codec}'


RUNS = tuple(Run(r, b, c) for b in BACKENDS for c in CODECS for r in ROLES)


@dataclass
class Result:
    """What the suite says: case -> (``behavior``, ``behaviorClose``).

    :param expected: the cases that had to run.
    :param complaint: what went wrong besides, or ''.
    """

    run: Run
    expected: tuple[str, ...]
    cases: dict[str, tuple[str, str]] = field(default_factory=dict)
    seconds: float = 0.0
    complaint: str = ''

    def counts(self, which: int) -> Counter[str]:
        """How often each verdict was given.

        :param which: 0 for ``behavior``, 1 for ``behaviorClose``.
        """
        return Counter(verdicts[which] for verdicts in self.cases.values())

    @property
    def faults(self) -> list[str]:
        """All that keeps it from being strict, one line each."""
        faults = [self.complaint] if self.complaint else []
        for case in self.expected:
            allowed = 'INFORMATIONAL' if case in INFORMATIONAL else 'OK'
            verdicts = self.cases.get(case)
            if verdicts is None:
                faults.append(f'{case}: did not run')
            elif verdicts != (allowed, allowed):
                faults.append(f'{case}: {verdicts[0]}, close {verdicts[1]}')
        faults += [f'{case}: was not asked for' for case in set(self.cases) - set(self.expected)]
        return faults

    @property
    def strict(self) -> bool:
        return not self.faults

    def __add__(self, other: Result) -> Result:
        """Both parts of a run."""
        return Result(
            self.run,
            self.expected + other.expected,
            self.cases | other.cases,
            self.seconds + other.seconds,
            self.complaint or other.complaint,
        )


def all_cases(python: Path) -> tuple[str, ...]:
    """The cases of the suite, in its order.

    :raises Failure: when they are not those of 0.8.2.
    """
    listed = subprocess.run([python, '-c', _LIST], capture_output=True, text=True)
    cases = tuple(listed.stdout.split())
    if Counter(section(case) for case in cases) != SECTIONS:
        raise Failure(f'these are not the cases of autobahntestsuite 0.8.2: {listed.stderr}')
    return cases


def section(case: str) -> int:
    return int(case.partition('.')[0])


def select_cases(cases: Iterable[str], prefixes: Sequence[str]) -> tuple[str, ...]:
    """The cases at or below any of the prefixes: ``6`` or ``9.3`` or ``7.1.6``.

    :raises Failure: for a prefix that no case has.
    """
    cases = tuple(cases)
    for prefix in prefixes:
        if not any(f'{case}.'.startswith(f'{prefix}.') for case in cases):
            raise Failure(f'the suite has no section or case {prefix}')
    return tuple(case for case in cases if any(f'{case}.'.startswith(f'{p}.') for p in prefixes))


def parts(cases: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The cases in parts of some seconds to minutes, by name: each subsection of
    compression, and the rest."""
    parts: dict[str, tuple[str, ...]] = {}
    for case in cases:
        name = '1-10' if section(case) <= 10 else case.rpartition('.')[0]
        parts[name] = (*parts.get(name, ()), case)
    return parts


def fingerprint(cases: Iterable[str]) -> str:
    """What a result depends on: our code, the installed packages, the cases."""
    digest = hashlib.sha256(' '.join((sys.version, *cases)).encode())
    for path in sorted((ROOT / 'simple_websocket').rglob('*')):
        if path.suffix in ('.py', '.pyx', '.so'):
            digest.update(path.read_bytes())
    digest.update((ROOT / 'conformance' / 'agents.py').read_bytes())
    for name in ('wsproto', 'greenlet', *HOSTS.values()):
        digest.update(f'{name} {importlib.metadata.version(name)}'.encode())
    return digest.hexdigest()


def patience(cases: Sequence[str]) -> float:
    """Seconds that they may take: many times what they do."""
    slow = sum(section(case) in (9, 12, 13) for case in cases)
    return 120 + 0.5 * len(cases) + 100 * slow


class Job:
    """A run, or a part of it, with its processes.

    :param cases: those to run, by their numbers.
    :param python: the interpreter of Autobahn's environment.
    :param directory: gets the suite's report, and the logs.
    """

    def __init__(self, run: Run, cases: tuple[str, ...], python: Path, directory: Path) -> None:
        self.run = run
        self.directory = directory
        self.result = Result(run, cases)
        self._python = python
        self._deadline = 0.0
        self._fingerprint = fingerprint(cases)
        self._processes: list[subprocess.Popen[bytes]] = []
        self._aborted = False

    @property
    def name(self) -> str:
        return f'{self.run.name} {self.directory.name}'

    @property
    def done(self) -> int:
        """How many cases have begun."""
        try:
            log = (self.directory / 'wstest.log').read_bytes()
        except FileNotFoundError:
            return 0
        return log.count(b'Running test case')

    def recall(self) -> bool:
        """Take the strict result of an earlier time, of the same code.

        :returns: whether there is one.
        """
        try:
            kept = json.loads(self._kept.read_text())
        except (FileNotFoundError, ValueError):
            return False
        if kept['of'] != self._fingerprint:
            return False
        self.result.seconds = kept['seconds']
        self.result.cases = {case: tuple(said) for case, said in kept['cases'].items()}
        return self.result.strict

    def _keep(self) -> None:
        result = {'seconds': self.result.seconds, 'cases': self.result.cases}
        self._kept.write_text(json.dumps({'of': self._fingerprint, **result}))

    @property
    def _kept(self) -> Path:
        return self.directory / 'result.json'

    def abort(self) -> None:
        """End it now, from another thread."""
        self._aborted = True
        for process in self._processes:
            process.kill()

    def __call__(self) -> Result:
        """Run it; everything that was started has ended when it returns."""
        if self._aborted:
            raise Failure('aborted')
        shutil.rmtree(self.directory, ignore_errors=True)
        self.directory.mkdir(parents=True)
        started = time.monotonic()
        self._deadline = started + patience(self.result.expected)
        try:
            with ExitStack() as stack:
                if self.run.role == 'server':
                    self._test_server(stack)
                else:
                    self._test_client(stack)
        except Failure as failure:
            self.result.complaint = str(failure)
        self.result.seconds = time.monotonic() - started
        self._read_report()
        if self.result.strict:
            self._keep()
        return self.result

    def _test_server(self, stack: ExitStack) -> None:
        agent = self._agent(stack, 'server', self.run.backend)
        assert agent.stdout is not None
        port = _first_line(agent, 60)
        server = {'agent': self.run.name, 'url': f'ws://{HOST}:{port}/'}
        suite = self._wstest(stack, 'fuzzingclient', servers=[server])
        self._wait(suite, 'wstest')

    def _test_client(self, stack: ExitStack) -> None:
        with socket.create_server((HOST, 0)) as free:
            url = f'ws://{HOST}:{free.getsockname()[1]}'
        suite = self._wstest(stack, 'fuzzingserver', url=url)
        _wait_until_listening(suite, int(url.rpartition(':')[2]))
        rest = (url, self.run.name, str(len(self.result.expected)))
        try:
            self._wait(self._agent(stack, 'client', self.run.backend, *rest), 'the client')
        finally:
            # What has run, if not all; the suite's server never ends by itself.
            _ask_for_reports(url, self.run.name)

    def _wstest(self, stack: ExitStack, mode: str, **spec: object) -> subprocess.Popen[bytes]:
        path = self.directory / 'spec.json'
        spec = {
            **spec,
            'outdir': str(self.directory / 'report'),
            'cases': self.result.expected,
            'exclude-cases': [],
            'exclude-agent-cases': {},
        }
        path.write_text(json.dumps(spec))
        command = [self._python, '-u', '-m', 'autobahntestsuite.wstest', '-m', mode]
        return self._start(stack, 'wstest', [*command, '-s', path, '-u', '0'])

    def _agent(self, stack: ExitStack, *arguments: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, '-m', 'conformance.agents', *arguments]
        return self._start(stack, 'agent', command, stdout=subprocess.PIPE)

    def _start(
        self, stack: ExitStack, name: str, command: list[str | Path], **options: int
    ) -> subprocess.Popen[bytes]:
        """Start a process that ends with the run, at the latest."""
        with (self.directory / f'{name}.log').open('wb') as log:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env={
                    **os.environ,
                    'PYTHONPATH': str(ROOT) if name == 'agent' else '',
                    'SIMPLE_WEBSOCKET_CODEC': self.run.codec,
                },
                stdin=subprocess.DEVNULL,
                stderr=log,
                **{'stdout': log, **options},
            )
        self._processes.append(process)
        stack.callback(_end, process)
        return process

    def _wait(self, process: subprocess.Popen[bytes], name: str) -> None:
        try:
            status = process.wait(max(0, self._deadline - time.monotonic()))
        except subprocess.TimeoutExpired:
            seconds = patience(self.result.expected)
            raise Failure(f'{name} did not end in {seconds:.0f} s') from None
        if status:
            raise Failure(f'{name} ended with status {status}: see {self.directory}')

    def _read_report(self) -> None:
        try:
            report = json.loads((self.directory / 'report' / 'index.json').read_text())
        except FileNotFoundError:
            self.result.complaint = self.result.complaint or 'the suite wrote no report'
            return
        for case, said in report.get(self.run.name, {}).items():
            self.result.cases[case] = said['behavior'], said['behaviorClose']
        log = (self.directory / 'agent.log').read_text(errors='replace')
        if 'Traceback' in log and not self.result.complaint:
            self.result.complaint = f'a traceback: see {self.directory / "agent.log"}'


def _first_line(process: subprocess.Popen[bytes], timeout: float) -> str:
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], timeout)
    line = process.stdout.readline().decode().strip() if ready else ''
    if not line:
        raise Failure('the server did not start')
    return line


def _wait_until_listening(process: subprocess.Popen[bytes], port: int) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection((HOST, port), 1).close()
            return
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                raise Failure('the fuzzing server did not start') from None
            time.sleep(0.05)


def _ask_for_reports(url: str, agent: str) -> None:
    """Let a fuzzing server write its report; it says nothing before it is done.

    :raises Failure: when it does not.
    """
    from simple_websocket import Client, ConnectionClosed, SimpleWebsocketError

    try:
        with Client.connect(f'{url}/updateReports?agent={agent}', open_timeout=300) as ws:
            ws.receive(timeout=60)
    except ConnectionClosed:
        pass
    except (SimpleWebsocketError, OSError) as error:
        raise Failure(f'the suite did not write its report: {error}') from error


def _end(process: subprocess.Popen[bytes]) -> None:
    if process.poll() is None:
        process.kill()
    process.wait()
    if process.stdout is not None:
        process.stdout.close()
