"""Run the tests in every mode, a process each, and print one table.

    python tests/matrix.py                              all modes
    python tests/matrix.py --mode gevent -- -k close    one, with pytest's arguments

A run is good when every mode ran tests, and all of them passed: a skipped or
expectedly failing test is a failure of the run. Reports and full output are
left in .build/test/.

Where the compiled codec could not be built, the modes that force it are left
out of a run of all modes, which says so; with SWS_REQUIRE_COMPILED=1 they fail.
So is the mode that needs node, where there is none (SWS_REQUIRE_NODE=1), and
those that run Autobahn, where there is no Python 2.7 (SWS_REQUIRE_AUTOBAHN=1).
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
import signal
import subprocess
import sys
import time
import xml.etree.ElementTree as ElementTree
from dataclasses import dataclass, field, replace
from pathlib import Path

from support import node
from support.modes import BY_NAME, CODEC_VARIABLE, MODES, VARIABLE, Mode

ROOT = Path(__file__).resolve().parent.parent
REPORTS = ROOT / '.build' / 'test'
JOBS = 4
# What every environment has; others that happen to be installed stay out.
PLUGINS = ('-p', 'timeout', '-p', 'hypothesispytest')
COLUMNS = ('passed', 'failed', 'errors', 'skipped')


@dataclass
class Run:
    """One mode, from its start to its counts."""

    mode: Mode
    command: list[str]
    patience: float = 1.0  # times the mode's bound, and the waits of its tests
    process: subprocess.Popen[bytes] | None = None
    started: float = 0.0
    seconds: float = 0.0
    counts: dict[str, int] = field(default_factory=lambda: dict.fromkeys(COLUMNS, 0))
    notes: list[str] = field(default_factory=list)

    @property
    def log(self) -> Path:
        return REPORTS / f'{self.mode.name}.log'

    @property
    def report(self) -> Path:
        return REPORTS / f'{self.mode.name}.xml'

    @property
    def good(self) -> bool:
        bad = sum(self.counts[name] for name in ('failed', 'errors', 'skipped'))
        return not bad and self.counts['passed'] > 0

    def start(self) -> None:
        self.report.unlink(missing_ok=True)
        self.started = time.monotonic()
        with self.log.open('wb') as log:
            log.write(f'$ {shlex.join(self.command)}\n'.encode())
            log.flush()
            self.process = subprocess.Popen(
                self.command,
                cwd=ROOT,
                env=environment(self.mode) | {'SWS_PATIENCE': str(self.patience)},
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                # A group of its own, so that its servers end with it.
                start_new_session=True,
            )

    def ended(self) -> bool:
        """Whether the process is over; one past its bound is ended."""
        assert self.process is not None
        self.seconds = time.monotonic() - self.started
        if self.process.poll() is None:
            bound = self.mode.bound * self.patience
            if self.seconds < bound:
                return False
            self.notes.append(f'ended after {bound:.0f} s, its bound')
            self.counts['errors'] += 1
            # tests/conftest.py prints where every thread is.
            self.process.send_signal(signal.SIGUSR1)
            time.sleep(1)
        self.end()
        self.count()
        return True

    def end(self) -> None:
        if self.process is not None:
            try:
                os.killpg(self.process.pid, signal.SIGKILL)
            except ProcessLookupError:
                pass
            self.process.wait()

    def count(self) -> None:
        """Read what happened from the report and the exit status."""
        assert self.process is not None
        if self.report.exists():
            for suite in ElementTree.parse(self.report).getroot().iter('testsuite'):
                failed, errors, skipped = (
                    int(suite.get(name, 0)) for name in ('failures', 'errors', 'skipped')
                )
                total = int(suite.get('tests', 0))
                self.counts['failed'] += failed
                self.counts['errors'] += errors
                self.counts['skipped'] += skipped
                self.counts['passed'] += max(0, total - failed - errors - skipped)
                for case in suite.iter('testcase'):
                    for what in case.findall('skipped'):
                        self.notes.append(
                            f'skipped: {case.get("classname")}::{case.get("name")}: '
                            f'{what.get("message")}'
                        )
        elif not self.notes:
            self.notes.append('no report')
        for line in self.log.read_text(errors='replace').splitlines():
            if line.startswith('no chromium'):
                self.notes.append(line)
        status = self.process.returncode
        bad = sum(self.counts[name] for name in ('failed', 'errors'))
        if status == 5 or (status == 0 and not any(self.counts.values())):
            self.notes.append('ran no test')
        elif not (ROOT / self.mode.tests).is_dir():
            self.notes.append(f'there is no {self.mode.tests}')
        elif status != 0:
            self.notes.append(f'exit status {status}')
        if not bad and (status != 0 or not any(self.counts.values())):
            self.counts['errors'] += 1

    def summary(self) -> str:
        counted = ', '.join(f'{n} {name}' for name, n in self.counts.items() if n)
        notes = ''.join(f' ({note})' for note in self.notes)
        return f'{self.mode.name}: {counted}{notes} in {self.seconds:.1f} s'


def environment(mode: Mode) -> dict[str, str]:
    env = {
        name: value
        for name, value in os.environ.items()
        # All traffic is loopback, and no option sneaks in.
        if not name.lower().endswith('_proxy') and not name.startswith('PYTEST_')
    }
    env[VARIABLE] = mode.name
    if mode.codec:
        env[CODEC_VARIABLE] = mode.codec
    env['PYTEST_DISABLE_PLUGIN_AUTOLOAD'] = '1'
    return env


def interpreter(mode: Mode, options: argparse.Namespace) -> str:
    return options.python or str(Path(options.venvs) / mode.venv / 'bin' / 'python')


def lacks(mode: Mode, options: argparse.Namespace) -> str:
    """What the mode needs and cannot have here, in words; or ''."""
    required = os.environ.get
    if mode.codec == 'compiled' and not required('SWS_REQUIRE_COMPILED'):
        if asked(mode, options, '-c', 'import simple_websocket.codec').returncode:
            return 'the compiled codec could not be built (no C compiler?)'
    if mode.tests == 'tests/conformance' and not required('SWS_REQUIRE_AUTOBAHN'):
        prepared = asked(mode, options, '-m', 'conformance', '--prepare')
        if prepared.returncode:
            return prepared.stderr.strip().removeprefix('conformance: ')
    if mode.name == 'interop' and not required(node.REQUIRE):
        if programs := node.missing():
            return f'no {" and no ".join(programs)} on this machine'
    return ''


def asked(
    mode: Mode, options: argparse.Namespace, *arguments: str
) -> subprocess.CompletedProcess[str]:
    command = [interpreter(mode, options), *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=environment(mode), stderr=subprocess.PIPE, text=True
    )


def command(mode: Mode, options: argparse.Namespace) -> list[str]:
    python = interpreter(mode, options)
    report = REPORTS / f'{mode.name}.xml'
    return [
        *(python, *mode.launch, *PLUGINS),
        *(f'--junit-xml={report}', mode.tests, *options.pytest),
    ]


def chosen(name: str) -> Mode:
    # tox hands over the name of its environment, py312-gevent-patched.
    name = re.sub(r'^py\d+-', '', name)
    try:
        return BY_NAME[name]
    except KeyError:
        message = f'no mode {name}; there are {", ".join(BY_NAME)}'
        raise argparse.ArgumentTypeError(message) from None


def run_all(runs: list[Run], jobs: int) -> None:
    """Run them, `jobs` at once, saying what goes on."""
    live = sys.stdout.isatty()
    waiting, running, done = list(runs), [], 0
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                run = waiting.pop(0)
                run.start()
                running.append(run)
                if not live:
                    print(f'{run.mode.name}: started', flush=True)
            time.sleep(0.1)
            for run in list(running):
                if run.ended():
                    running.remove(run)
                    done += 1
                    finished(run, live)
            if live:
                now = ', '.join(f'{r.mode.name} ({r.seconds:.0f} s)' for r in running)
                print(f'\r\033[K{done}/{len(runs)} done; {now}', end='', flush=True)
    finally:
        if live:
            print('\r\033[K', end='')
        for run in running:
            run.end()


def finished(run: Run, live: bool) -> None:
    if live:
        print('\r\033[K', end='')
    if not run.good:
        print(f'---- {run.mode.name} ' + '-' * 60)
        sys.stdout.write(run.log.read_text(errors='replace'))
        print('-' * 66)
    print(run.summary(), flush=True)


def table(runs: list[Run]) -> str:
    rows = [('mode', *COLUMNS, 'seconds')]
    for run in runs:
        counts = (str(run.counts[name]) for name in COLUMNS)
        rows.append((run.mode.name, *counts, f'{run.seconds:.1f}'))
    wide = max(len(row[0]) for row in rows)
    return '\n'.join(
        row[0].ljust(wide) + ''.join(cell.rjust(9) for cell in row[1:]) for row in rows
    )


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--mode', action='append', type=chosen, help='default: all')
    parser.add_argument('--venvs', default=ROOT / '.venv', help='default: .venv')
    parser.add_argument('--python', help='run every mode on this one instead')
    parser.add_argument('--bound', type=float, help='seconds that a mode may take')
    parser.add_argument('--jobs', type=int, default=JOBS, help='modes at a time')
    parser.add_argument('--patience', type=float, default=1.0, help='times the bound of a mode')
    parser.add_argument('pytest', nargs='*', help='after --: arguments for pytest')
    options = parser.parse_args()

    REPORTS.mkdir(parents=True, exist_ok=True)
    # A terminated run ends its servers too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    left_out = {}
    if not options.mode:
        left_out = {mode: why for mode in MODES if (why := lacks(mode, options))}
    chosen_modes = options.mode or [mode for mode in MODES if mode not in left_out]
    if options.bound:
        chosen_modes = [replace(mode, bound=options.bound) for mode in chosen_modes]
    runs = [Run(mode, command(mode, options), options.patience) for mode in chosen_modes]
    started = time.monotonic()
    try:
        run_all(runs, options.jobs)
    except KeyboardInterrupt:
        print('interrupted', file=sys.stderr)
        return 130

    print()
    print(table(runs))
    for run in runs:
        for note in run.notes:
            print(f'{run.mode.name}: {note}')
    for mode, reason in left_out.items():
        print(f'{mode.name}: LEFT OUT: {reason}')
    print(f'{len(runs)} modes in {time.monotonic() - started:.0f} s\n')
    total = {name: sum(run.counts[name] for run in runs) for name in COLUMNS}
    line = f'{total["passed"]} passed, {total["failed"] + total["errors"]} failed'
    if total['skipped']:
        line += f', {total["skipped"]} skipped'
    print(line)
    return 0 if all(run.good for run in runs) else 1


if __name__ == '__main__':
    sys.exit(main())
