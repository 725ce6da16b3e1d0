"""`make conformance` finds its Python, judges strictly, and its page is whole.

What needs the Python 2.7 itself is in tests/conformance.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from argparse import Namespace

import matrix
import pytest
from support.modes import BY_NAME

from conformance import report
from conformance.agents import BACKENDS
from conformance.autobahn import Job, timer_went_off
from conformance.environment import ROOT, Unavailable, find_python27
from conformance.record import Record
from conformance.results import (
    INFORMATIONAL,
    RUNS,
    SECTIONS,
    SHORT,
    Failure,
    Result,
    fingerprint,
    not_loaded,
    parts,
    section,
    select_cases,
)

#: Names of the right number in each section, the three special ones included.
CASES = tuple(
    sorted(
        (
            case
            for number, count in SECTIONS.items()
            for case in (
                *(f'{number}.99.{index}' for index in range(count - 3 * (number == 7))),
                *(INFORMATIONAL if number == 7 else ()),
            )
        ),
        key=section,
    )
)


def program(path, line, status=0):
    """An executable that says a line, whatever it is asked."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f'#!/bin/sh\necho "{line}"\nexit {status}\n')
    path.chmod(0o755)
    return path


PYTHON27 = 'CPython 2.7.18'


# -- finding a Python 2.7 ----------------------------------------------------


def test_the_variable_names_the_python(tmp_path):
    named = program(tmp_path / 'mine', PYTHON27)
    other = program(tmp_path / 'bin' / 'python2.7', PYTHON27)
    environ = {'PATH': str(other.parent), 'PYTHON27': str(named)}
    assert find_python27(environ) == named


@pytest.mark.parametrize('says', ['CPython 3.12.1', 'PyPy 2.7.18', None])
def test_a_named_python_that_is_none_is_not_replaced(tmp_path, says):
    named = tmp_path / 'mine'
    if says:
        program(named, says)
    other = program(tmp_path / 'bin' / 'python2.7', PYTHON27)
    with pytest.raises(Unavailable, match=rf'^PYTHON27={re.escape(str(named))} is no CPython'):
        find_python27({'PATH': str(other.parent), 'PYTHON27': str(named)})


def test_a_program_that_refuses_is_passed_over(tmp_path):
    shim = program(tmp_path / 'shims' / 'python2.7', 'pyenv: python2.7: command not found', 127)
    real = program(tmp_path / 'bin' / 'python2.7', PYTHON27)
    environ = {'PATH': os.pathsep.join((str(shim.parent), str(real.parent)))}
    assert find_python27(environ) == real


@pytest.mark.parametrize('where', ['HOME', 'PYENV_ROOT'])
def test_pyenvs_versions_are_looked_at(tmp_path, where):
    root = tmp_path / ('.pyenv' if where == 'HOME' else '')
    python = program(root / 'versions' / '2.7.18' / 'bin' / 'python2.7', PYTHON27)
    program(root / 'versions' / '3.12.1' / 'bin' / 'python2.7', PYTHON27)
    assert find_python27({'PATH': '', where: str(tmp_path)}) == python


@pytest.fixture
def without_python27(tmp_path):
    empty = {'PATH': '/nonexistent', 'HOME': str(tmp_path), 'PYENV_ROOT': '', 'PYTHON27': ''}
    return {**os.environ, **empty}


@pytest.mark.parametrize('argument', ['--find', '--prepare', '--short'])
def test_the_command_says_that_there_is_none(without_python27, argument):
    done = subprocess.run(
        [sys.executable, '-m', 'conformance', argument],
        cwd=ROOT,
        env=without_python27,
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 1
    assert done.stdout == ''
    assert re.fullmatch(r'conformance: there is no CPython 2\.7, .*\bPYTHON27\n', done.stderr)


@pytest.mark.parametrize('codec', ['compiled', 'wsproto'])
def test_the_matrix_leaves_the_modes_out_and_says_why(without_python27, monkeypatch, codec):
    for name in ('PATH', 'HOME', 'PYENV_ROOT'):
        monkeypatch.setenv(name, without_python27[name])
    for name in ('PYTHON27', 'SWS_REQUIRE_AUTOBAHN', 'SWS_REQUIRE_COMPILED'):
        monkeypatch.delenv(name, raising=False)
    mode, options = BY_NAME[f'conformance-{codec}'], Namespace(python=sys.executable)
    assert matrix.lacks(mode, options).startswith('there is no CPython 2.7')
    assert matrix.lacks(BY_NAME['core'], options) == ''
    monkeypatch.setenv('SWS_REQUIRE_AUTOBAHN', '1')
    assert matrix.lacks(mode, options) == ''


# -- judging -----------------------------------------------------------------


def result_of(changes):
    """A strict result but for some cases."""
    said = dict.fromkeys(CASES, ('OK', 'OK'))
    said |= dict.fromkeys(INFORMATIONAL, ('INFORMATIONAL', 'INFORMATIONAL'))
    said |= changes
    cases = {case: verdicts for case, verdicts in said.items() if verdicts}
    return Result(RUNS[0], CASES, cases, 1.0)


def test_all_as_it_must_be_is_strict():
    result = result_of({})
    assert result.strict
    assert result.counts(0) == result.counts(1) == {'OK': 514, 'INFORMATIONAL': 3}


@pytest.mark.parametrize(
    'case, verdicts, fault',
    [
        ('6.99.7', ('NON-STRICT', 'OK'), '6.99.7: NON-STRICT, close OK'),
        ('6.99.7', ('OK', 'UNCLEAN'), '6.99.7: OK, close UNCLEAN'),
        ('6.99.7', ('OK', 'WRONG CODE'), '6.99.7: OK, close WRONG CODE'),
        ('12.99.1', ('UNIMPLEMENTED', 'OK'), '12.99.1: UNIMPLEMENTED, close OK'),
        ('6.99.7', ('INFORMATIONAL', 'OK'), '6.99.7: INFORMATIONAL, close OK'),
        ('7.1.6', ('OK', 'OK'), '7.1.6: OK, close OK'),
        ('13.99.125', None, '13.99.125: did not run'),
        ('8.1', ('OK', 'OK'), '8.1: was not asked for'),
    ],
)
def test_anything_else_is_a_fault(case, verdicts, fault):
    result = result_of({case: verdicts})
    assert result.faults == [fault]
    assert not result.strict


def test_a_complaint_is_a_fault_and_outlives_adding():
    complained = Result(RUNS[0], CASES, result_of({}).cases, 1.0, 'a traceback')
    assert complained.faults == ['a traceback']
    assert (Result(RUNS[0], ()) + complained).faults == ['a traceback']


def test_a_line_names_what_is_wrong(tmp_path):
    job = Job(RUNS[0], CASES, tmp_path / 'python', tmp_path / '1-10')
    job.result = result_of({'6.99.7': ('NON-STRICT', 'OK'), '13.99.1': None})
    assert report.line(job).splitlines() == [
        'server-gevent-compiled 1-10: NOT STRICT, 516 of 517 cases in 1 s',
        '    6.99.7: NON-STRICT, close OK',
        '    13.99.1: did not run',
    ]
    job.result = result_of({})
    job.result.repeated = ('6.99.1', '6.99.2')
    assert report.line(job) == (
        'server-gevent-compiled 1-10: strict, 517 of 517 cases in 1 s, run again: 6.99.1, 6.99.2'
    )


@pytest.mark.parametrize(
    'changes, cells',
    [
        ({}, ['517', '514', '3', '0']),
        ({'6.99.7': ('NON-STRICT', 'OK')}, ['517', '513/514', '3', '1 NON-STRICT']),
        ({'6.99.7': ('OK', 'UNCLEAN')}, ['517', '514/513', '3', '1 UNCLEAN']),
        ({'6.99.7': None}, ['516', '513', '3', '1 not run']),
    ],
)
def test_a_row_counts_both_verdicts(changes, cells):
    row = report.table([result_of(changes)]).splitlines()[-1]
    assert re.split(r'\s{2,}', row)[4:8] == cells


TIMEOUTS = (
    'wasOpenHandshakeTimeout',
    'wasCloseHandshakeTimeout',
    'wasServerConnectionDropTimeout',
)
QUIET = {'wirelog': [['TO', [4, '81']], ['KL', 0.5], ['TI', 1]], **dict.fromkeys(TIMEOUTS, False)}


def test_a_timer_of_the_suite_is_told_from_a_fault():
    assert not timer_went_off(QUIET)
    for event in ('KLE', 'TIE'):
        assert timer_went_off({**QUIET, 'wirelog': [*QUIET['wirelog'], [event]]})
    for name in TIMEOUTS:
        assert timer_went_off({**QUIET, name: True})


class Scripted(Job):
    """A job whose suite says what is in `script`, a list of one dict a time:
    case -> (verdicts, whether a timer of the suite went off)."""

    script = []
    ran = []

    def _test_server(self, stack):
        self.ran.append(self.result.expected)
        report, index = self.directory / 'report', {}
        report.mkdir()
        (self.directory / 'agent.log').touch()
        said = dict.fromkeys(self.result.expected, (('OK', 'OK'), False)) | self.script.pop(0)
        for case, ((behavior, close), late) in said.items():
            index[case] = {'behavior': behavior, 'behaviorClose': close, 'reportfile': case}
            (report / case).write_text(json.dumps({**QUIET, 'wasCloseHandshakeTimeout': late}))
        (report / 'index.json').write_text(json.dumps({self.run.name: index}))


@pytest.fixture
def scripted(tmp_path, monkeypatch):
    def run(*script):
        monkeypatch.setattr(Scripted, 'script', list(script))
        monkeypatch.setattr(Scripted, 'ran', [])
        job = Scripted(RUNS[0], ('1.1', '1.2', '1.3'), tmp_path / 'python', tmp_path / 'run')
        assert job.run.role == 'server'
        return job()

    return run


LATE, WRONG = (('OK', 'UNCLEAN'), True), (('NON-STRICT', 'OK'), False)


def test_a_case_that_the_suite_ended_is_run_again_and_counted(scripted):
    result = scripted({'1.2': LATE}, {})
    assert result.strict
    assert result.repeated == ('1.2',)
    assert Scripted.ran == [('1.1', '1.2', '1.3'), ('1.2',)]


def test_a_case_that_is_always_late_is_a_fault(scripted):
    result = scripted({'1.2': LATE}, {'1.2': LATE}, {'1.2': LATE})
    assert result.faults == ['1.2: OK, close UNCLEAN']


def test_a_case_that_is_wrong_in_time_is_not_run_again(scripted):
    result = scripted({'1.2': WRONG, '1.3': LATE}, {})
    assert result.faults == ['1.2: NON-STRICT, close OK']
    assert Scripted.ran[1:] == [('1.3',)]


def test_a_case_that_is_wrong_the_second_time_is_a_fault(scripted):
    result = scripted({'1.2': LATE}, {'1.2': WRONG})
    assert result.faults == ['1.2: NON-STRICT, close OK']
    assert len(Scripted.ran) == 2


# -- selecting ---------------------------------------------------------------


def test_a_prefix_selects_whole_numbers_only():
    cases = ('1.1.1', '7.1.1', '7.1.6', '7.13.1', '10.1.1', '12.1.1')
    assert select_cases(cases, ['1']) == ('1.1.1',)
    assert select_cases(cases, ['7.1', '12']) == ('7.1.1', '7.1.6', '12.1.1')
    assert select_cases(cases, ['7.1.6']) == ('7.1.6',)
    with pytest.raises(Failure, match='no section or case 8'):
        select_cases(cases, ['7', '8'])


def test_the_short_sections_are_all_but_limits_and_compression():
    assert {section(case) for case in CASES} - set(map(int, SHORT)) == {9, 12, 13}


def test_the_parts_are_all_cases_once():
    split = parts(CASES)
    assert [case for part in split.values() for case in part] == list(CASES)
    assert set(split) == {'1-10', '12.99', '13.99'}


def test_only_a_strict_result_of_the_same_cases_is_taken_again(tmp_path):
    job = Job(RUNS[0], CASES, tmp_path / 'python', tmp_path)
    assert not job.recall()
    job.result = result_of({})
    job._keep()
    again = Job(RUNS[0], CASES, tmp_path / 'python', tmp_path)
    assert again.recall()
    assert (again.result.cases, again.result.seconds) == (job.result.cases, 1.0)
    assert not Job(RUNS[0], CASES[:-1], tmp_path / 'python', tmp_path).recall()
    job.result = result_of({'6.99.7': ('NON-STRICT', 'OK')})
    job._keep()
    assert not Job(RUNS[0], CASES, tmp_path / 'python', tmp_path).recall()


def test_the_record_has_what_was_strict_and_is_of_no_use_to_other_code(tmp_path, monkeypatch):
    path = tmp_path / 'record.json'
    jobs = [Job(run, CASES, tmp_path / 'python', tmp_path / '13.7') for run in RUNS[:2]]
    jobs[0].result = result_of({})
    jobs[0].result.repeated = ('6.99.1', '6.99.2')
    jobs[0].date = '2026-01-02'
    jobs[1].result = result_of({'6.99.7': ('NON-STRICT', 'OK')})
    assert not Record(path).recall(jobs[0])
    Record(path).write(jobs)
    again = [Job(run, CASES, tmp_path / 'python', tmp_path / '13.7') for run in RUNS[:2]]
    assert [Record(path).recall(job) for job in again] == [True, False]
    assert (again[0].date, again[0].result.cases) == ('2026-01-02', jobs[0].result.cases)
    assert again[0].result.repeated == ('6.99.1', '6.99.2')
    assert not Record(path).recall(Job(RUNS[0], CASES, tmp_path / 'python', tmp_path / '13.6'))
    monkeypatch.setattr('conformance.record.fingerprint', lambda backend: 'of other code')
    assert not Record(path).recall(again[0])


def pages_words(changes):
    """What the page says, of a strict run and one with changes, without line ends."""
    other = result_of(changes)
    other.run = RUNS[-1]
    dates = ['2026-01-02', '2026-01-03']
    return ' '.join(report.page([result_of({}), other], dates, sys.executable).split())


def test_the_page_says_what_has_not_run():
    assert '*not run*' not in pages_words({})
    assert 'Run on 2026-01-02 to 2026-01-03: ' in pages_words({})
    words = pages_words({'13.99.1': None})
    assert '- 516 - 513 - 3 - 1 not run - 0' in words
    assert '*not run* counts' in words
    # The other row has run it, but with the other codec.
    assert RUNS[0].codec != RUNS[-1].codec
    assert 'Together the rows have run every case.' in words


# -- the page ----------------------------------------------------------------


def test_the_page_has_every_run_and_each_is_strict():
    text = report.PAGE.read_text(encoding='utf-8')
    rows = [re.split(r'\n\s+- ', row) for row in re.split(r'\n\s+\* - ', text)[1:]]
    assert rows[0] == list(report._HEAD)
    assert {(row[0], row[2], row[3]) for row in rows[1:]} == {
        (run.backend, run.codec, run.role) for run in RUNS
    }
    for *_, cases, ok, informational, others, _ in rows[1:]:
        assert (cases, ok, informational, others) == ('517', '514', '3', '0')
    assert len(rows) == 1 + len(RUNS)
    assert re.search(r'\nRun on 2\d\d\d-[-0-9to ]+: CPython 3\.\d+\.\d+, simple-websocket ', text)


#: How a run of a backend loads the package: as an end of a connection.
LOADS = dict.fromkeys(
    ('threads', 'gevent', 'eventlet'),
    'import socket\n'
    'from support.peer import environ_for\n'
    'from simple_websocket import Server\n'
    'ours, theirs = socket.socketpair()\n'
    'Server.accept(environ_for(ours), profile=sys.argv[1])._link.give_up()\n',
) | {'asyncio': 'import simple_websocket.takeover\n'}


@pytest.mark.parametrize('backend', BACKENDS)
def test_a_result_does_not_depend_on_what_its_run_does_not_load(backend):
    code = f'import sys\n{LOADS[backend]}print(*sys.modules)\n'
    where = {**os.environ, 'PYTHONPATH': str(ROOT / 'tests')}
    command = [sys.executable, '-c', code, backend]
    told = subprocess.run(command, env=where, capture_output=True, text=True)
    assert told.returncode == 0, told.stderr
    loaded = [name for name in told.stdout.split() if name.startswith('simple_websocket.')]
    link = 'aio' if backend == 'asyncio' else backend
    assert f'simple_websocket.profiles.{link}' in loaded
    assert not {name.rpartition('.')[2] for name in loaded} & not_loaded(backend)


def test_a_result_depends_on_the_backend_and_on_the_cases():
    assert len({fingerprint(backend, cases) for backend in BACKENDS for cases in ('', '1')}) == 8
