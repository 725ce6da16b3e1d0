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
import functools
import os
import signal
import sys
from collections.abc import Iterable
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

from . import environment, report, results
from .agents import BACKENDS
from .autobahn import Job
from .environment import BUILD, Unavailable
from .results import CODECS, ROLES, RUNS, SHORT, Failure, Result

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
    parser.add_argument('--write', action='store_true', help='write docs/conformance.rst')
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
        cases = results.all_cases(python)
        whole = results.parts(cases)
        if sections := options.sections or (SHORT if options.short else ()):
            cases = results.select_cases(cases, sections)
    except (Unavailable, Failure) as error:
        print(f'conformance: {error}', file=sys.stderr)
        return 1
    runs = [
        run
        for run in RUNS
        if (not options.backend or run.backend in options.backend)
        and (not options.codec or run.codec in options.codec)
        and (not options.role or run.role in options.role)
    ]
    jobs = [
        # A part of a part does not replace what is known of all of it.
        Job(
            run,
            some,
            python,
            BUILD / ('full' if some == whole[part] else 'some') / run.name / part,
        )
        for part, some in results.parts(cases).items()
        for run in runs
    ]
    todo = [job for job in jobs if not ((options.resume or options.kept) and job.recall())]
    if not options.kept:
        # In the short sections nearly all of the time is spent waiting.
        run_all(todo, options.jobs or (4 if options.short else os.cpu_count() or 1))
    outcome = [
        functools.reduce(Result.__add__, (job.result for job in jobs if job.run == run))
        for run in runs
    ]
    print(f'\n{report.table(outcome)}\n')
    failed = [job for job in todo if job.result.cases and not job.result.strict]
    strict = all(result.strict for result in outcome)
    if options.write and (strict or (options.kept and not failed)):
        print(f'wrote {report.write_page(outcome, python)}')
    elif options.write:
        print('nothing written: not everything is strict')
    print(f'{sum(result.strict for result in outcome)} of {len(outcome)} runs are strict')
    return 0 if strict else 1


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
    sys.exit(main())
