"""Change the protocol's files, one small thing at a time, and see a test fail each time.

    python tests/mutation.py                 all mutants: some minutes
    python tests/mutation.py --again         those that survived, and what is new

A mutant that survives points at behaviour which no test holds, or at code that
makes no difference.  The ones that can't be killed are explained one by one in
tests/mutants.toml.  The run is good when nothing else survived, and when
everything that is explained there did: code and explanations stay together.

mutmut makes the mutants and runs the tests, in .build/mutation/.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

try:
    import tomllib
except ImportError:  # Python 3.10; pytest brings it there
    import tomli as tomllib

ROOT = Path(__file__).resolve().parent.parent
WHERE = ROOT / '.build' / 'mutation'
EXPLAINED = ROOT / 'tests' / 'mutants.toml'

MODULES = ('protocol', 'inbox', 'closure', 'deflate', 'handshake', 'client_handshake')
TESTS = (
    *('deflate', 'deflate_edges', 'handshake', 'handshake_edges', 'options', 'protocol'),
    *('protocol_close', 'protocol_edges', 'protocol_keepalive', 'protocol_pair'),
    *('protocol_queue', 'words'),
)

#: Tests that measure time or memory, or go through all close codes: they take
#: seconds, and the rest notices what they would.
SLOW = (
    'linear',
    'bounded_memory',
    'no_more_than_the_limit',
    'half_a_message_is_let_go',
    'must_not_be_sent_is_a_value',
    'every_close_code',
)

#: In mutmut's words, and in ours.
KILLED = ('killed', 'timeout', 'caught by type check')
SURVIVED = ('survived', 'no tests', 'suspicious', 'skipped', 'segfault')


class Mutant(NamedTuple):
    """What a mutant is, whatever its number: it stays the same when code moves."""

    where: str  #: module and function
    change: str  #: the lines of the diff


def lay_out() -> None:
    """Copy what mutmut needs; the copy decides which tests it runs."""
    for name in ('simple_websocket', 'tests'):
        shutil.rmtree(WHERE / name, ignore_errors=True)
        # The compiled codec is C: there is nothing in it to mutate.
        ignore = shutil.ignore_patterns('*.so', '__pycache__')
        shutil.copytree(ROOT / name, WHERE / name, ignore=ignore)
    tests = [f'tests/core/test_{name}.py' for name in TESTS]
    options = {
        'source_paths': ['simple_websocket'],
        'only_mutate': [f'simple_websocket/{name}.py' for name in MODULES],
        'pytest_add_cli_args': ['-p', 'timeout', '-p', 'hypothesispytest'],
        'pytest_add_cli_args_test_selection': [*tests, '-k', f'not ({" or ".join(SLOW)})'],
        'track_dependencies': ['0'],
        'use_git_change_detection': ['0'],
    }
    lines = ['', '[mutmut]']
    for name, values in options.items():
        lines += [f'{name} =', *(f'    {value}' for value in values)]
    config = (ROOT / 'setup.cfg').read_text(encoding='utf-8')
    (WHERE / 'setup.cfg').write_text(config + '\n'.join([*lines, '']), encoding='utf-8')


def run(names: list[str]) -> int:
    env = {name: value for name, value in os.environ.items() if not name.startswith('PYTEST_')}
    env |= {
        'SWS_MODE': 'core',
        'SIMPLE_WEBSOCKET_CODEC': 'wsproto',
        'PYTEST_DISABLE_PLUGIN_AUTOLOAD': '1',
    }
    # It asks for a terminal's width, and draws its progress for one.
    with (WHERE / 'log').open('wb') as log:
        command = [sys.executable, '-m', 'mutmut', 'run', '--max-children', '1', *names]
        done = subprocess.run(command, cwd=WHERE, env=env, stdout=log, stderr=log)
    return done.returncode


def results() -> dict[str, str]:
    """The name of each mutant, and what became of it."""
    from mutmut.mutation.data import SourceFileMutationData
    from mutmut.stats import status_by_exit_code

    found = {}
    for name in MODULES:
        data = SourceFileMutationData(path=Path(f'simple_websocket/{name}.py'))
        data.load()
        for mutant, code in data.exit_code_by_key.items():
            found[mutant] = status_by_exit_code[code]
    return found


def identify(name: str) -> Mutant:
    from mutmut.mutation.diff_apply import get_diff_for_mutant
    from mutmut.utils.format_utils import orig_function_and_class_names_from_key

    function, owner = orig_function_and_class_names_from_key(name)
    module = name.split('.')[1]
    where = '.'.join(filter(None, (module, owner, function)))
    diff = get_diff_for_mutant(name, path=f'simple_websocket/{module}.py')
    lines = diff.splitlines()[2:]
    change = [f'{line[0]} {line[1:].strip()}' for line in lines if line[0] in '+-']
    return Mutant(where, '\n'.join(change))


def explained() -> list[Mutant]:
    entries = tomllib.loads(EXPLAINED.read_text(encoding='utf-8')).get('explained', [])
    return [
        Mutant(entry['where'], change.strip())
        for entry in entries
        for change in entry['changes']
        if entry['why']
    ]


def show(title: str, mutants: Counter[Mutant]) -> None:
    if mutants:
        print(f'\n{title}:')
    for mutant in sorted(mutants.elements()):
        print(f'\n{mutant.where}\n{mutant.change}')


def report() -> int:
    became = results()
    statuses = Counter(became.values())
    unknown = sorted(set(statuses) - set(KILLED) - set(SURVIVED))
    survived = Counter(identify(name) for name, what in became.items() if what in SURVIVED)
    known = Counter(explained())
    show('survived, and nothing explains why', survived - known)
    show('explained, but did not survive, or is not there', known - survived)
    killed = sum(statuses[what] for what in KILLED)
    total, alive = sum(statuses.values()), survived.total()
    print(
        f'\n{total} mutants: {killed} killed ({statuses["timeout"]} by a timeout), '
        f'{alive} survived, of which {(survived & known).total()} are explained'
    )
    for what in unknown:
        print(f'{statuses[what]} {what}')
    return int(survived != known or bool(unknown) or not killed)


def test(again: bool) -> bool:
    """Run the tests against the mutants; whether that went through."""
    if not again:
        shutil.rmtree(WHERE / 'mutants', ignore_errors=True)
    lay_out()
    # Which tests reach what may be another matter now.
    (WHERE / 'mutants' / 'mutmut-stats.json').unlink(missing_ok=True)
    if run([]):
        return False
    names = [name for name, what in results().items() if what in SURVIVED]
    return not (again and names and run(names))


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--again', action='store_true', help='go on from the last run')
    parser.add_argument('--report', action='store_true', help='what the last run found')
    options = parser.parse_args()
    WHERE.mkdir(parents=True, exist_ok=True)
    os.chdir(WHERE)
    if not options.report and not test(options.again):
        print((WHERE / 'log').read_text(errors='replace')[-5000:])
        return 1
    return report()


if __name__ == '__main__':
    sys.exit(main())
