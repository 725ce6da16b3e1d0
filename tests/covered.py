"""Measure which lines and branches of the package the tests reach, over all modes.

    python tests/covered.py                      all modes, then the report
    python tests/covered.py --mode core          what one mode reaches
    python tests/covered.py --add --mode core    the same, added to the last run
    python tests/covered.py --report             the report on what is there

The modes run as `tests/matrix.py` runs them.  No mode reaches everything, and
none has to: the sum of them must be 100 % of lines and branches.  A line that
no test can reach says so beside it (`# pragma: no cover`), and why.

Coverage is switched on by the environments themselves, so that servers,
examples and scripts that the tests start are measured too, whatever variables
they are given.  For that, each environment of .venv/ gets a double under
.build/coverage/, which adds to it and leaves it as it is.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import venv
from pathlib import Path

from support.modes import MODES

ROOT = Path(__file__).resolve().parent.parent
WHERE = ROOT / '.build' / 'coverage'
DATA = WHERE / 'data'
HTML = WHERE / 'html'

#: How much longer than usual a mode and a test may take.
PATIENCE = 5

#: What cannot be measured: coverage imports greenlet itself, to follow its
#: switches; and a trace function that is called when greenlet tidies up behind
#: a thread, at the switch intervals of the races, sends CPython 3.11 round in
#: circles (its pending calls are never done).
NOT_MEASURED = (
    'tests/isolated/test_process.py::'
    'test_importing_and_using_it_imports_no_green_library[greenlet]',
    'tests/sync/test_races.py',
)

#: Servers end by SIGTERM, by `os._exit`, and in children that were forked.
CONFIG = f"""\
[run]
branch = true
source = {ROOT / 'simple_websocket'}
data_file = {DATA / 'coverage'}
parallel = true
core = ctrace
sigterm = true
patch = fork, _exit
concurrency = {{concurrency}}
"""

#: Runs at the start of each interpreter of a double.  greenlet's switches can
#: only be followed, and only have to be, where it is installed.
START = """\
import importlib.util
import os
import site
import sys

sys.path.insert(0, {root!r})
site.addsitedir({environment!r})
sys.path.append({coverage!r})

import coverage

kind = 'green' if importlib.util.find_spec('greenlet') else 'threads'
os.environ['COVERAGE_PROCESS_START'] = {config!r} + kind
coverage.process_startup()
"""


def site_packages(environment: Path) -> Path:
    version = '.'.join(map(str, sys.version_info[:2]))
    return environment / 'lib' / f'python{version}' / 'site-packages'


def double(environment: Path) -> None:
    """Make an environment that is `environment`, measured."""
    where = WHERE / 'venvs' / environment.name
    venv.create(where, clear=True, symlinks=True)
    start = START.format(
        root=str(ROOT),
        environment=str(site_packages(environment)),
        coverage=str(site_packages(Path(sys.prefix))),
        config=str(WHERE / 'config-'),
    )
    (site_packages(where) / 'measured.py').write_text(start, encoding='utf-8')
    (site_packages(where) / 'measured.pth').write_text('import measured\n', encoding='utf-8')


def prepare(venvs: Path, add: bool) -> None:
    if not add:
        shutil.rmtree(WHERE, ignore_errors=True)
    DATA.mkdir(parents=True, exist_ok=True)
    for name, concurrency in (('threads', 'thread'), ('green', 'thread, greenlet')):
        config = CONFIG.format(concurrency=concurrency)
        (WHERE / f'config-{name}').write_text(config, encoding='utf-8')
    for name in {mode.venv for mode in MODES}:
        double(venvs / name)


def measure(arguments: list[str]) -> int:
    """Run the modes; how they ended."""
    command = [sys.executable, ROOT / 'tests' / 'matrix.py', '--venvs', WHERE / 'venvs']
    patience = ['--patience', str(PATIENCE), *arguments]
    if '--' not in patience:
        patience.append('--')
    patience += ['-o', f'timeout={60 * PATIENCE}']
    patience += [f'--deselect={name}' for name in NOT_MEASURED]
    return subprocess.run([*command, *patience]).returncode


def coverage(*arguments: str) -> int:
    command = [sys.executable, '-m', 'coverage', arguments[0]]
    config = f'--rcfile={WHERE / "config-threads"}'
    return subprocess.run([*command, config, *arguments[1:]], cwd=ROOT).returncode


def report() -> int:
    """Print what is missing; 0 when nothing is."""
    if len(list(DATA.iterdir())) > 1 and coverage('combine', '--append', '--quiet'):
        return 1
    coverage('html', '--quiet', f'--directory={HTML}')
    print(f'\nby line: {(HTML / "index.html").relative_to(ROOT)}')
    return coverage('report', '--show-missing', '--skip-covered', '--fail-under=100')


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--venvs', type=Path, default=ROOT / '.venv', help='default: .venv')
    parser.add_argument('--add', action='store_true', help='keep what was measured before')
    parser.add_argument('--report', action='store_true', help='report on the last run only')
    options, arguments = parser.parse_known_args()
    failed = 0
    if not options.report:
        prepare(options.venvs.resolve(), options.add)
        failed = measure(arguments)
    return report() or failed


if __name__ == '__main__':
    sys.exit(main())
