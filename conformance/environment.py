"""The environment that Autobahn's test suite needs: a CPython 2.7 with the suite.

A Python 2.7 is looked for in ``$PYTHON27``, as ``python2.7`` on the PATH, and in
pyenv's directory of versions; one is taken once it has said that it is one
(pyenv's ``python2.7`` on the PATH may be there and refuse). What is built is
.venv/autobahn, by the last virtualenv that knows 2.7, from
requirements/autobahn.txt, and again when that file or the interpreter changes.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / '.build' / 'conformance'
VENV = ROOT / '.venv' / 'autobahn'
TOOL = ROOT / '.venv' / 'virtualenv'
REQUIREMENTS = ROOT / 'requirements' / 'autobahn.txt'
#: The last ones that make environments for Python 2.7.
VIRTUALENV = 'virtualenv<20.22'

_WHO = 'import platform as p; print(p.python_implementation() + " " + p.python_version())'


class Unavailable(Exception):
    """Autobahn cannot run here; says why."""


def _is_python27(path: Path | str) -> bool:
    try:
        asked = subprocess.run([str(path), '-c', _WHO], capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return asked.returncode == 0 and asked.stdout.startswith('CPython 2.7.')


def _candidates(environ: Mapping[str, str]) -> Iterator[Path]:
    # Not only the first on the PATH: that may be pyenv's, which refuses.
    for directory in environ.get('PATH', os.defpath).split(os.pathsep):
        path = shutil.which('python2.7', path=directory)
        if path is not None:
            yield Path(path)
    home = Path(environ.get('HOME', '/'))
    pyenv = Path(environ.get('PYENV_ROOT') or home / '.pyenv')
    for version in sorted(pyenv.glob('versions/2.7*'), reverse=True):
        yield version / 'bin' / 'python2.7'


def find_python27(environ: Mapping[str, str] = os.environ) -> Path:
    """The CPython 2.7 to use.

    :param environ: where to look for ``PYTHON27``, ``PATH``, ``PYENV_ROOT``
                    and ``HOME``.
    :raises Unavailable: when there is none.
    """
    if named := environ.get('PYTHON27'):
        found = shutil.which(named, path=environ.get('PATH'))
        if found is None or not _is_python27(found):
            raise Unavailable(f'PYTHON27={named} is no CPython 2.7')
        return Path(found)
    for path in _candidates(environ):
        if _is_python27(path):
            return path
    raise Unavailable(
        'there is no CPython 2.7, which Autobahn needs: none is python2.7 on the PATH or '
        'among the versions of pyenv; name one in PYTHON27'
    )


def _run(log: Path, *command: str | Path) -> None:
    with log.open('ab') as output:
        output.write(f'$ {" ".join(map(str, command))}\n'.encode())
        output.flush()
        # The warning is that 2.7 is old.
        env = {**os.environ, 'PIP_DISABLE_PIP_VERSION_CHECK': '1'}
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=env
        )
    if done.returncode:
        raise Unavailable(f'the environment for Autobahn could not be built: see {log}')


def prepare() -> Path:
    """Build the environment unless it is there.

    :returns: its interpreter.
    :raises Unavailable: when there is no Python 2.7, or the build fails.
    """
    python27 = find_python27()
    stamp = VENV / '.done'
    wanted = f'{python27} {hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()}\n'
    BUILD.mkdir(parents=True, exist_ok=True)
    with _alone():
        if not (stamp.exists() and stamp.read_text() == wanted):
            print(f'== .venv/autobahn: installing {REQUIREMENTS.relative_to(ROOT)}', flush=True)
            log = BUILD / 'environment.log'
            log.unlink(missing_ok=True)
            tool = TOOL / 'bin' / 'python'
            _run(log, sys.executable, '-m', 'venv', '--clear', TOOL)
            _run(log, tool, '-m', 'pip', 'install', VIRTUALENV)
            _run(log, tool, '-m', 'virtualenv', '--clear', '-p', python27, VENV)
            _run(log, VENV / 'bin' / 'python', '-m', 'pip', 'install', '-r', REQUIREMENTS)
            stamp.write_text(wanted)
    return VENV / 'bin' / 'python'


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Let one process at a time build."""
    with (BUILD / 'environment.lock').open('w') as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def version_of(python: Path) -> str:
    """What an interpreter calls itself."""
    return subprocess.check_output([python, '-c', _WHO], text=True).strip()
