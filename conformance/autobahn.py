"""One run of Autobahn: a role, a backend and a codec against the real suite.

A server of ours is asked by one ``wstest`` in its mode ``fuzzingclient``; a
client of ours goes through the cases of one in the mode ``fuzzingserver``. What
is believed is the report that the suite itself writes.

The suite ends a case by itself after a time, half a second in most of section
6, and then finds fault with how it ended. On a machine that does other things
this says nothing of us, so that a case in which such a timer went off, and only
such a one, is run again by itself, twice at most; how many were is told.
"""

from __future__ import annotations

import datetime
import json
import os
import random
import select
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

from .agents import HOST
from .environment import ROOT
from .results import Failure, Result, Run, fingerprint, section

#: How often a case is run again when the suite ran out of patience.
REPEATS = 2


def patience(cases: tuple[str, ...]) -> float:
    """Seconds that they may take: many times what they do."""
    slow = sum(section(case) in (9, 12, 13) for case in cases)
    return 60 + 0.5 * len(cases) + 100 * slow


class Job:
    """A run, or a part of it, with its processes.

    :param cases: those to run, by their numbers.
    :param python: the interpreter of Autobahn's environment.
    :param directory: gets the suite's report, and the logs.
    """

    def __init__(self, run: Run, cases: tuple[str, ...], python: Path, directory: Path) -> None:
        self.run = run
        self.directory = directory
        self.date = datetime.date.today().isoformat()
        self.result = Result(run, cases)
        self._python = python
        self._deadline = 0.0
        self._fingerprint = fingerprint(run.backend, cases)
        self._processes: list[subprocess.Popen[bytes]] = []
        self._aborted = False
        self._again: Job | None = None

    @property
    def name(self) -> str:
        return f'{self.run.name} {self.part}'

    @property
    def part(self) -> str:
        return self.directory.name

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
        self.date = kept['on']
        self.result.seconds = kept['seconds']
        self.result.cases = {case: tuple(said) for case, said in kept['cases'].items()}
        self.result.repeated = tuple(kept['repeated'])
        return self.result.strict

    def _keep(self) -> None:
        kept = {
            'of': self._fingerprint,
            'on': self.date,
            'seconds': self.result.seconds,
            'cases': self.result.cases,
            'repeated': self.result.repeated,
        }
        self._kept.write_text(json.dumps(kept))

    @property
    def _kept(self) -> Path:
        return self.directory / 'result.json'

    def abort(self) -> None:
        """End it now, from another thread."""
        self._aborted = True
        for process in self._processes:
            process.kill()
        if self._again is not None:
            self._again.abort()

    def __call__(self) -> Result:
        """Run it; everything that was started has ended when it returns."""
        late = self._run_once()
        for number in range(REPEATS):
            if not late:
                break
            directory = self.directory / f'again-{number + 1}'
            self._again = type(self)(self.run, late, self._python, directory)
            if not self.result.repeated:
                self.result.repeated = late
            late = self._again._run_once()
            self.result.update(self._again.result)
        if self.result.strict:
            self._keep()
        return self.result

    def _run_once(self) -> tuple[str, ...]:
        """Run the cases; returns those that are no fault of ours for all we know."""
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
        return self._read_report()

    def _test_server(self, stack: ExitStack) -> None:
        agent = self._agent(stack, 'server', self.run.backend)
        assert agent.stdout is not None
        port = _first_line(agent, 60)
        server = {'agent': self.run.name, 'url': f'ws://{HOST}:{port}/'}
        suite = self._wstest(stack, 'fuzzingclient', servers=[server])
        self._wait(suite, 'wstest')

    def _test_client(self, stack: ExitStack) -> None:
        url = self._fuzzing_server(stack)
        rest = (url, self.run.name, str(len(self.result.expected)))
        try:
            self._wait(self._agent(stack, 'client', self.run.backend, *rest), 'the client')
        finally:
            # What has run, if not all; the suite's server never ends by itself.
            _ask_for_reports(url, self.run.name)

    def _fuzzing_server(self, stack: ExitStack) -> str:
        """Start the suite's server; it wants a port, which others may take first."""
        for tries_left in (3, 2, 1, 0):
            port = _free_port()
            url = f'ws://{HOST}:{port}'
            suite = self._wstest(stack, 'fuzzingserver', url=url)
            try:
                _wait_until_listening(suite, port)
                break
            except Failure:
                if not tries_left:
                    raise
        return url

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
        command = (self._python, '-u', '-m', 'autobahntestsuite.wstest', '-m', mode)
        return self._start(stack, 'wstest', (*command, '-s', path, '-u', '0'))

    def _agent(self, stack: ExitStack, *arguments: str) -> subprocess.Popen[bytes]:
        command = (sys.executable, '-m', 'conformance.agents', *arguments)
        return self._start(stack, 'agent', command)

    def _start(
        self, stack: ExitStack, name: str, command: Sequence[str | Path]
    ) -> subprocess.Popen[bytes]:
        """Start a process that ends with the run, at the latest; an agent's
        output is for us, all else goes into a log."""
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
                stdout=subprocess.PIPE if name == 'agent' else log,
                stderr=log,
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

    def _read_report(self) -> tuple[str, ...]:
        """Take the suite's verdicts; returns the cases to run again."""
        directory = self.directory / 'report'
        try:
            report = json.loads((directory / 'index.json').read_text())[self.run.name]
        except (FileNotFoundError, KeyError):
            self.result.complaint = self.result.complaint or 'the suite wrote no report'
            return ()
        for case, said in report.items():
            self.result.cases[case] = said['behavior'], said['behaviorClose']
        log = (self.directory / 'agent.log').read_text(errors='replace')
        if 'Traceback' in log and not self.result.complaint:
            self.result.complaint = f'a traceback: see {self.directory / "agent.log"}'
        return tuple(
            case
            for case in self.result.faulty
            if case in report
            and timer_went_off(json.loads((directory / report[case]['reportfile']).read_text()))
        )


def timer_went_off(details: dict[str, Any]) -> bool:
    """Whether the suite ended a case by itself, for the time that it took.

    :param details: the suite's report of the case.
    """
    ended = any(event[0] in ('KLE', 'TIE') for event in details['wirelog'])
    kinds = ('OpenHandshake', 'CloseHandshake', 'ServerConnectionDrop')
    return ended or any(details[f'was{kind}Timeout'] for kind in kinds)


def _first_line(process: subprocess.Popen[bytes], timeout: float) -> str:
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], timeout)
    line = process.stdout.readline().decode().strip() if ready else ''
    if not line:
        raise Failure('the server did not start')
    return line


def _free_port() -> int:
    """One below those that the system gives to anybody who asks for any."""
    while True:
        port = random.randrange(20_000, 30_000)
        with suppress(OSError), socket.create_server((HOST, port)):
            return port


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
