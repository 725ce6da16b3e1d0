"""Change the protocol's files, one small thing at a time, and see a test fail each time.

    python tests/mutation.py                 all mutants: about an hour of one core
    python tests/mutation.py --again         those that survived, and what is new

A run that was interrupted goes on when it is started again, unless the package or
the tests have changed since: then what it found is out of date.  --again goes on
all the same, for who writes a test; only a run of all mutants is the proof.

A mutant that survives points at behaviour which no test holds, or at code that
makes no difference.  The ones that can't be killed are explained one by one in
tests/mutants.toml.  The run is good when nothing else survived, and when
everything that is explained there did: code and explanations stay together.

mutmut makes the mutants and runs the tests, in .build/mutation/.
"""

from __future__ import annotations

import argparse
import fcntl
import hashlib
import json
import os
import platform
import shutil
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Container
from pathlib import Path
from typing import IO, TYPE_CHECKING, NamedTuple

try:
    import tomllib
except ImportError:  # Python 3.10; pytest brings it there
    import tomli as tomllib

if TYPE_CHECKING:
    from mutmut.mutation.data import SourceFileMutationData

ROOT = Path(__file__).resolve().parent.parent
WHERE = ROOT / '.build' / 'mutation'
EXPLAINED = ROOT / 'tests' / 'mutants.toml'

#: What mutmut works on and writes to: the mutants, and beside each module a file
#: with what became of them.
MUTANTS = WHERE / 'mutants' / 'simple_websocket'
#: Copies of those files that are whole: who is killed may be writing one.
KEPT = WHERE / 'kept'
#: There while a run of all mutants is not through: a digest of what is tested.
UNFINISHED = WHERE / 'unfinished'

MODULES = (
    *('authority', 'client_handshake', 'close_codes', 'deflate', 'environ', 'handshake'),
    *('inbox', 'keepalive', 'protocol'),
)
TESTS = (
    *('appetite', 'deflate', 'deflate_edges', 'direct', 'handshake', 'handshake_edges'),
    *('options', 'protocol', 'protocol_close', 'protocol_edges', 'protocol_keepalive'),
    *('protocol_pair', 'protocol_queue', 'shared_frames', 'words'),
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
SURVIVED = ('survived', 'no tests', 'skipped')
#: A signal ended the tests: somebody's Ctrl-C, a lack of memory.
UNDECIDED = ('not checked', 'check was interrupted by user', 'suspicious', 'segfault')


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
        'pytest_add_cli_args': ['-p', 'timeout', '-p', 'hypothesispytest', '--timeout', '0'],
        'pytest_add_cli_args_test_selection': [*tests, '-k', f'not ({" or ".join(SLOW)})'],
        # On a busy machine a clock on the wall kills mutants that no test does.
        # tests/core/conftest.py gives each test seconds of the processor; this
        # is for a mutant that waits, or never gets as far as a test.
        'timeout_constant': ['60'],
        'track_dependencies': ['0'],
        'use_git_change_detection': ['0'],
    }
    lines = ['', '[mutmut]']
    for name, values in options.items():
        lines += [f'{name} =', *(f'    {value}' for value in values)]
    config = (ROOT / 'setup.cfg').read_text(encoding='utf-8')
    (WHERE / 'setup.cfg').write_text(config + '\n'.join([*lines, '']), encoding='utf-8')


def digest() -> str:
    """What a run depends on, in short."""
    from importlib.metadata import version

    found = hashlib.sha256(f'{platform.python_version()} {version("mutmut")}'.encode())
    files = [
        *(ROOT / 'simple_websocket').rglob('*.py'),
        *(ROOT / 'tests').rglob('*.py'),
        ROOT / 'setup.cfg',
    ]
    for path in sorted(files):
        found.update(f'{path.relative_to(ROOT)} {path.stat().st_size}\n'.encode())
        found.update(path.read_bytes())
    return found.hexdigest()


def mend() -> None:
    """Repair what a run left that was killed while it wrote."""
    for name in MODULES:
        meta = MUTANTS / f'{name}.py.meta'
        if is_whole(meta):
            continue
        # Without the mutants mutmut makes them anew, and takes over what is known
        # of them.  With them it would believe that there are none.
        meta.with_suffix('').unlink(missing_ok=True)
        meta.unlink(missing_ok=True)
        if is_whole(KEPT / meta.name):
            shutil.copy2(KEPT / meta.name, meta)


def keep() -> None:
    """Copy what became of the mutants so far."""
    KEPT.mkdir(exist_ok=True)
    for meta in MUTANTS.glob('*.meta'):
        new = KEPT / f'{meta.name}.new'
        shutil.copy2(meta, new)
        if is_whole(new):
            new.replace(KEPT / meta.name)


def is_whole(meta: Path) -> bool:
    try:
        return bool(json.loads(meta.read_bytes()))
    except (OSError, ValueError):
        return False


def run(processes: int, log: IO[bytes]) -> bool:
    """Test the mutants of which nothing is known; whether that went through."""
    env = {name: value for name, value in os.environ.items() if not name.startswith('PYTEST_')}
    env |= {
        'SWS_MODE': 'core',
        'SIMPLE_WEBSOCKET_CODEC': 'wsproto',
        'PYTEST_DISABLE_PLUGIN_AUTOLOAD': '1',
    }
    command = [sys.executable, '-m', 'mutmut', 'run', '--max-children', str(processes)]
    # It draws its progress for a terminal, which is not for ours.
    mutmut = subprocess.Popen(
        command, cwd=WHERE, env=env, stdout=log, stderr=log, start_new_session=True
    )
    try:
        while mutmut.poll() is None:
            try:
                mutmut.wait(60)
            except subprocess.TimeoutExpired:
                tell_progress()
    finally:
        if mutmut.poll() is None:  # and whatever it is testing with
            os.killpg(mutmut.pid, signal.SIGTERM)
            mutmut.wait()
    return mutmut.returncode == 0


def tell_progress() -> None:
    keep()
    became = Counter(results(KEPT).values())
    left = sum(became[what] for what in UNDECIDED)
    if became.total() > left:
        print(f'{became.total() - left} of {became.total()} mutants', flush=True)


def load(module: str, where: Path = MUTANTS) -> SourceFileMutationData:
    from mutmut.mutation.data import SourceFileMutationData

    data = SourceFileMutationData(path=f'simple_websocket/{module}.py')
    data.meta_path = where / f'{module}.py.meta'
    data.load()
    return data


def results(where: Path = MUTANTS) -> dict[str, str]:
    """The name of each mutant, and what became of it."""
    from mutmut.stats import status_by_exit_code

    return {
        mutant: status_by_exit_code[code]
        for module in MODULES
        for mutant, code in load(module, where).exit_code_by_key.items()
    }


def forget(unwanted: Container[str]) -> None:
    """Have the mutants of which this became tested again."""
    from mutmut.stats import status_by_exit_code

    for module in MODULES:
        data = load(module)
        for mutant, code in data.exit_code_by_key.items():
            if status_by_exit_code[code] in unwanted:
                data.exit_code_by_key[mutant] = None
        if data.exit_code_by_key:
            data.save()


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
    survived = Counter(identify(name) for name, what in became.items() if what in SURVIVED)
    known = Counter(explained())
    show('survived, and nothing explains why', survived - known)
    show('explained, but did not survive, or is not there', known - survived)
    killed = sum(statuses[what] for what in KILLED)
    print(
        f'\n{statuses.total()} mutants: {killed} killed ({statuses["timeout"]} by a timeout), '
        f'{survived.total()} survived, of which {(survived & known).total()} are explained'
    )
    unknown = sorted(set(statuses) - set(KILLED) - set(SURVIVED))
    for what in unknown:
        print(f'{statuses[what]} {what}')
    return int(survived != known or bool(unknown) or not killed)


def test(again: bool, processes: int, log: IO[bytes]) -> bool:
    """Run the tests against the mutants; whether that went through."""
    now = digest()
    resumed = UNFINISHED.exists() and UNFINISHED.read_text() == now
    UNFINISHED.unlink(missing_ok=True)
    if not (again or resumed):
        shutil.rmtree(MUTANTS.parent, ignore_errors=True)
        shutil.rmtree(KEPT, ignore_errors=True)
    if resumed or not again:
        UNFINISHED.write_text(now)
    lay_out()
    mend()
    forget({*UNDECIDED, *(SURVIVED if again else ())})
    # Which tests reach what may be another matter now.
    (MUTANTS.parent / 'mutmut-stats.json').unlink(missing_ok=True)
    went_through = run(processes, log)
    if went_through:
        UNFINISHED.unlink(missing_ok=True)
    return went_through


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--again', action='store_true', help='go on from the last run')
    parser.add_argument('--report', action='store_true', help='what the last run found')
    parser.add_argument('--processes', type=int, default=1, help='mutants to test at a time')
    options = parser.parse_args()
    WHERE.mkdir(parents=True, exist_ok=True)
    os.chdir(WHERE)
    return report() if options.report else test_and_report(options.again, options.processes)


def test_and_report(again: bool, processes: int) -> int:
    for ending in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(ending) is not signal.SIG_IGN:  # else nohup said so
            signal.signal(ending, signal.default_int_handler)
    with (WHERE / 'log').open('ab') as log:
        try:
            # mutmut has it too, and may outlive who started it.
            fcntl.flock(log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            print('another run is under way')
            return 1
        log.truncate(0)
        try:
            went_through = test(again, processes, log)
        except KeyboardInterrupt:
            print('\ninterrupted: the same command goes on')
            return 130
    if went_through:
        return report()
    print((WHERE / 'log').read_text(errors='replace')[-5000:])
    return 1


if __name__ == '__main__':
    sys.exit(main())
