"""Run Autobahn's cases against every backend, codec and role, and say the outcome.

    python -m conformance                          all 517 cases, 16 runs: hours of CPU
    python -m conformance --short                  sections 1 to 7 and 10: half a minute
    python -m conformance --sections 9.3,12.1.5 --backend gevent --role client

Every case must be OK, or INFORMATIONAL where the suite has no verdict, in its
``behavior`` and in its ``behaviorClose``, and every case must have run. The
reports are left in .build/conformance/.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

from . import autobahn, environment, report
from .agents import BACKENDS
from .autobahn import CODECS, ROLES, RUNS, SHORT, Failure, Job, Result
from .environment import Unavailable

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
    parser.add_argument(
        '--resume', action='store_true', help='take finished runs of the same code as they are'
    )
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
        cases = autobahn.all_cases(python)
        if options.short:
            cases = autobahn.select_cases(cases, [str(section) for section in SHORT])
        elif options.sections:
            cases = autobahn.select_cases(cases, options.sections)
    except (Unavailable, Failure) as error:
        print(f'conformance: {error}', file=sys.stderr)
        return 1
    jobs = [
        Job(run, cases, python)
        for run in RUNS
        if all(
            not chosen or getattr(run, name) in chosen
            for name, chosen in (
                ('backend', options.backend), ('codec', options.codec), ('role', options.role)
            )
        )
    ]
    # In the short sections nearly all of the time is spent waiting.
    at_once = options.jobs or (8 if options.short else os.cpu_count() or 1)
    results = run_all(jobs, at_once, options.resume)
    print()
    print(report.table(results))
    strict = all(result.strict for result in results)
    if options.write and strict:
        print(f'\nwrote {report.write_page(results, python)}')
    elif options.write:
        print('\nnothing written: not every run is strict')
    print(f'\n{sum(r.strict for r in results)} of {len(results)} runs are strict')
    return 0 if strict else 1


def run_all(jobs: list[Job], at_once: int, resume: bool) -> list[Result]:
    """Run them, so many at once, saying what goes on.

    :returns: the results, in the order of the jobs.
    """
    with ThreadPoolExecutor(at_once) as pool:
        futures = {pool.submit(job.resume if resume else job): job for job in jobs}
        waiting = set(futures)
        try:
            while waiting:
                done, waiting = wait(waiting, PULSE, FIRST_COMPLETED)
                for future in done:
                    print(report.line(future.result()), flush=True)
                if not done:
                    running = [futures[f] for f in waiting if f.running()]
                    print(
                        '...',
                        ', '.join(f'{j.run.name} {j.done}/{len(j.result.expected)}' for j in running),
                        flush=True,
                    )
        except BaseException:
            for future, job in futures.items():
                future.cancel()
                job.abort()
            raise
    return [future.result() for future in futures]


if __name__ == '__main__':
    sys.exit(main())
