"""Autobahn, in each role, on every backend, with the mode's codec: all sections
but the limits and compression, which take hours (``make conformance``).

Some runs go on side by side, since most of their time is the suite's waiting.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest
from support import modes

from conformance import environment
from conformance import results as suite
from conformance.autobahn import Job

RUNS = [run for run in suite.RUNS if run.codec == modes.current().codec]


@pytest.fixture(scope='module')
def results(request):
    """Run -> the future of its result, for the runs that are tested."""
    python = environment.prepare()
    cases = suite.select_cases(suite.all_cases(python), suite.SHORT)
    tests = (item for item in request.session.items if item.path == request.path)
    runs = [item.callspec.params['run'] for item in tests]
    where = environment.BUILD / 'test'
    jobs = {run: Job(run, cases, python, where / run.name) for run in runs}
    with ThreadPoolExecutor(4) as pool:
        yield {run: pool.submit(job) for run, job in jobs.items()}
        for job in jobs.values():
            job.abort()


# The first one waits for most of it, and where need be for the environment.
@pytest.mark.timeout(220)
@pytest.mark.parametrize('run', RUNS, ids=lambda run: run.name)
def test_every_case_is_strict(run, results):
    result = results[run].result()
    assert result.faults == []
    counts = {'OK': 244, 'INFORMATIONAL': 3}
    assert result.counts(0) == result.counts(1) == counts
