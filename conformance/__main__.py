"""Run Autobahn's cases against every backend, codec and role, and say the outcome.

    python -m conformance                          all 517 cases, 16 runs: hours of CPU
    python -m conformance --short                  sections 1 to 7 and 10: half a minute
    python -m conformance --sections 9.3,12.1.5 --backend gevent --role client

Every case must be OK, or INFORMATIONAL where the suite has no verdict, in its
``behavior`` and in its ``behaviorClose``, and every case must have run. The
reports are left in .build/conformance/full/, those of less than a part in some/.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from pathlib import Path

from . import environment, report, results
from .agents import BACKENDS
from .autobahn import Job
from .environment import BUILD, Unavailable
from .record import Record
from .results import CODECS, ROLES, RUNS, SHORT, Failure, Result, Run

#: Seconds between two words about what goes on.
PULSE = 60


def _list(value: str) -> list[str]:
    return [item for item in value.split(',') if item]


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog='conformance', description=__doc__.splitlines()[0])
    parser.add_argument('--sections', type=_list, help='sections or cases: 1,2,9.3,7.1.6')
    parser.add_argument('--short', action='store_true', help='sections 1 to 7 and 10')
    for name, values in (('backend', BACKENDS), ('codec', CODECS), ('role', ROLES)):
        parser.add_argument(f'--{name}', action='append', choices=values, help='default: all')
    parser.add_argument('--jobs', type=int, help='runs at a time; default: the cores')
    for name, words in (
        ('resume', 'take what has run already, of the same code, as it is'),
        ('kept', 'the same, and run nothing'),
    ):
        parser.add_argument(f'--{name}', action='store_true', help=words)
    parser.add_argument('--write', action='store_true', help='write the page and the record')
    parser.add_argument('--find', action='store_true', help='only say where Python 2.7 is')
    parser.add_argument('--prepare', action='store_true', help='only build the environment')
    options = parser.parse_args()
    if options.write and (options.sections or options.short):
        parser.error('--write needs all sections')
    if options.write and (options.backend or options.codec or options.role):
        parser.error('--write needs all backends, codecs and roles')
    return options


def main() -> int:
    options = _parse()
    # A terminated run ends what it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        if options.find:
            print(environment.find_python27())
            return 0
        python = environment.prepare()
        if options.prepare:
            return 0
        jobs = _jobs(options, python)
    except (Unavailable, Failure) as error:
        print(f'conformance: {error}', file=sys.stderr)
        return 1
    todo = jobs
    if options.resume or options.kept:
        record = Record()
        todo = [job for job in jobs if not (job.recall() or record.recall(job))]
    if not options.kept:
        # In the short sections nearly all of the time is spent waiting.
        run_all(todo, options.jobs or (4 if options.short else os.cpu_count() or 1))
    outcome: dict[Run, Result] = {}
    for job in jobs:
        before = outcome.get(job.run)
        outcome[job.run] = before + job.result if before else job.result
    return _tell(options, jobs, list(outcome.values()), python)


def _jobs(options: argparse.Namespace, python: Path) -> list[Job]:
    """What was asked for, in parts."""
    cases = results.all_cases(python)
    whole = results.parts(cases)
    if sections := options.sections or (SHORT if options.short else ()):
        cases = results.select_cases(cases, sections)
    jobs = []
    for part, some in results.parts(cases).items():
        # A part of a part does not replace what is known of all of it.
        directory = BUILD / ('full' if some == whole[part] else 'some')
        for run in RUNS:
            if (
                (not options.backend or run.backend in options.backend)
                and (not options.codec or run.codec in options.codec)
                and (not options.role or run.role in options.role)
            ):
                jobs.append(Job(run, some, python, directory / run.name / part))
    return jobs


def _tell(
    options: argparse.Namespace, jobs: list[Job], outcome: list[Result], python: Path
) -> int:
    """Print the table, and write the page and the record; returns the exit status."""
    print(f'\n{report.table(outcome)}\n')
    strict = sum(result.strict for result in outcome)
    if options.write:
        # What is kept is strict, if not all.
        if strict == len(outcome) or options.kept:
            Record().write(jobs)
            dates = sorted({job.date for job in jobs if job.result.strict})
            print(f'wrote {report.write_page(outcome, dates, python)}')
        else:
            print('nothing written: not everything is strict')
    print(f'{strict} of {len(outcome)} runs are strict')
    return 0 if strict == len(outcome) else 1


def run_all(jobs: list[Job], at_once: int) -> None:
    """Run them, so many at once, saying what goes on."""
    with ThreadPoolExecutor(at_once) as pool:
        futures = {pool.submit(job): job for job in jobs}
        waiting = set(futures)
        try:
            while waiting:
                done, waiting = wait(waiting, PULSE, FIRST_COMPLETED)
                for future in done:
                    future.result()
                    print(report.line(futures[future]), flush=True)
                if not done:
                    print('...', _progress(futures[f] for f in waiting if f.running()), flush=True)
        except BaseException:
            for future, job in futures.items():
                future.cancel()
                job.abort()
            raise


def _progress(jobs: Iterable[Job]) -> str:
    return ', '.join(f'{job.name} {job.done}/{len(job.result.expected)}' for job in jobs)


if __name__ == '__main__':
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit('interrupted; --resume goes on from here')
