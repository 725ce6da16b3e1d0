"""docs/faults.rst names for every fault the tests that show what becomes of it:
they exist, and run in the modes in which the page says that they do."""

from __future__ import annotations

import pathlib
import re
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import matrix
import pytest
from support.modes import BY_NAME, MODES

ROOT = pathlib.Path(__file__).resolve().parents[2]
PAGE = (ROOT / 'docs' / 'faults.rst').read_text()

NUMBERS = [
    f'{table}{number}'
    for table, last in {'A': 25, 'B': 15, 'C': 6, 'D': 9}.items()
    for number in range(1, last + 1)
]

ROW = re.compile(r'^   \* - ([A-Z]\d+)\n((?:(?:     .*)?\n)+)', re.MULTILINE)
TEST = re.compile(r'\| ``(tests/\S+?)``(?: \*\((.+?)\)\*)?$', re.MULTILINE)

#: Modes that collect the same tests as one of the others: they differ in the
#: codec, or run in an environment of their own that may not be built.
SAME_AS = {
    'threads-bare': 'threads',
    'threads-wsproto': 'threads',
    'gevent-wsproto': 'gevent',
    'eventlet-wsproto': 'eventlet',
    'aio-wsproto': 'aio',
    'aio-uvloop': 'aio',
    'core-compiled': 'core',
}


def rows(page):
    """The number of each row, its cells, and its tests with their modes."""
    for number, body in ROW.findall(page):
        cells = re.split(r'^     - ', body, flags=re.MULTILINE)[1:]
        yield number, [cell.strip() for cell in cells], TEST.findall(body)


def claimed(test, note):
    """The modes that the page says a test runs in: those of its directory, and
    of these the ones that a word behind it names."""
    directory = test.rpartition('/')[0]
    return {
        mode.name
        for mode in MODES
        if mode.tests == directory and (not note or frozenset(note.split()) <= mode.tags)
    }


def problems(page, collected):
    """What is wrong with the page, given the tests that each mode collects."""
    found = []
    numbers = [number for number, _, _ in rows(page)]
    found += [f'{number} is missing' for number in NUMBERS if number not in numbers]
    found += [f'{number} is there twice' for number in NUMBERS if numbers.count(number) > 1]
    found += [f'{number} is no fault' for number in numbers if number not in NUMBERS]
    for number, cells, tests in rows(page):
        if len(cells) != 2 or not re.match(r'(?s)\S.+\n\n       \*Ours:\* \S', cells[0]):
            found.append(f'{number} does not say what happens and what ours does')
        if not tests:
            found.append(f'{number} names no test')
        for test, note in tests:
            actual = {mode for mode, names in collected.items() if test in names}
            if not actual:
                found.append(f'{number}: there is no {test}')
            elif actual != claimed(test, note):
                wrong = actual ^ claimed(test, note)
                found.append(f'{number}: {test} is told wrong about {", ".join(sorted(wrong))}')
    return found


def collect(mode):
    """The names of the tests that pytest finds in a mode."""
    # The mode `core` wants an environment without green libraries.
    runs_as = BY_NAME['threads'] if mode.name == 'core' else mode
    command = [sys.executable, *mode.launch, *matrix.PLUGINS]
    done = subprocess.run(
        [*command, '--collect-only', '-q', mode.tests],
        cwd=ROOT,
        env=matrix.environment(runs_as),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return {line.partition('[')[0] for line in done.stdout.splitlines() if '::' in line}


@pytest.fixture(scope='module')
def collected():
    """The tests that each mode collects, as pytest says; without parameters."""
    modes = [
        mode
        for mode in MODES
        if mode.name not in SAME_AS and mode.name != 'live-eventlet-gunicorn'
    ]
    with ThreadPoolExecutor(4) as pool:
        tests = dict(zip((mode.name for mode in modes), pool.map(collect, modes), strict=True))
    for name, other in SAME_AS.items():
        tests[name] = tests[other]
    return tests


@pytest.mark.timeout(180)
def test_every_fault_is_there_with_tests_that_run_where_it_says(collected):
    assert problems(PAGE, collected) == []


def names_of(page):
    """Collected tests as the page claims them."""
    found = {mode.name: set() for mode in MODES}
    for _, _, tests in rows(page):
        for test, note in tests:
            for mode in claimed(test, note):
                found[mode].add(test)
    return found


def test_the_page_is_read_whole():
    assert [number for number, _, _ in rows(PAGE)] == NUMBERS
    assert sum(len(tests) for _, _, tests in rows(PAGE)) == PAGE.count('``tests/') - 5


@pytest.mark.parametrize(
    ('old', 'new', 'problem'),
    [
        ('   * - B7\n', '   * - B16\n', 'B7 is missing'),
        ('   * - C6\n', '   * - C5\n', 'C5 is there twice'),
        ('   * - D9\n', '   * - D10\n', 'D10 is no fault'),
        ('::test_a_violation_fails_the_connection``', '::test_nothing``', 'B1: there is no'),
        ('test_a_killed_receiver_loses_nothing`` *(green)*', 'X``', 'D1: there is no'),
        ('loses_nothing`` *(green)*', 'loses_nothing``', 'D1: .* told wrong about threads'),
        ('does_not_lose_it`` *(threads)*', 'does_not_lose_it``', 'wrong about eventlet, .*gevent'),
        ('*Ours:* It arrives whole', 'It arrives whole', 'A1 does not say'),
        ('``tests/isolated/test_process.py', '``tests/sync/test_process.py', 'there is no'),
    ],
)
def test_what_is_wrong_with_it_is_found(old, new, problem):
    assert old in PAGE
    found = problems(PAGE.replace(old, new, 1), names_of(PAGE))
    assert any(re.search(problem, one) for one in found), found


def test_a_row_without_a_test_is_found():
    number, _, tests = next(rows(PAGE))
    page = PAGE
    for test, _ in tests:
        page = page.replace(f'| ``{test}``', '|', 1)
    assert f'{number} names no test' in problems(page, names_of(PAGE))
