"""Autobahn, in each role, on every backend, with the mode's codec: all sections
but the limits and compression, which take hours (``make conformance``).

Some runs go on side by side, since most of their time is the suite's waiting.
"""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor

import pytest
from support import modes

from conformance import environment
from conformance import results as suite
from conformance.autobahn import Job
from conformance.results import INFORMATIONAL

RUNS = [run for run in suite.RUNS if run.codec == modes.current().codec]
WHERE = environment.BUILD / 'test'


@pytest.fixture(scope='module')
def results(request):
    """Run -> the future of its result, for the runs that are tested."""
    python = environment.prepare()
    cases = suite.select_cases(suite.all_cases(python), suite.SHORT)
    tests = (item for item in request.session.items if item.path == request.path)
    runs = [item.callspec.params['run'] for item in tests]
    jobs = {run: Job(run, cases, python, WHERE / run.name) for run in runs}
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


@pytest.mark.timeout(220)
@pytest.mark.parametrize('run', RUNS, ids=lambda run: run.name)
def test_cases_without_a_verdict_end_as_the_documentation_says(run, results):
    results[run].result()
    directory = WHERE / run.name / 'report'
    index = json.loads((directory / 'index.json').read_text())[run.name]
    said = [json.loads((directory / index[c]['reportfile']).read_text()) for c in INFORMATIONAL]
    received = [[(what[0], len(what[1])) for what in case['received']] for case in said]
    # The suite's report shortens a text to 68 characters.
    assert received == [[('message', 68), ('message', len('Hello World!'))], [], []]
    assert [case['remoteCloseCode'] for case in said] == [1000, 1002, 1002]
    assert all(case['wasClean'] for case in said)
