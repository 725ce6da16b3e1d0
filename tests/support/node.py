"""Node, and the package `ws` that the interop tests talk to.

    python tests/support/node.py

installs it into .build/interop, with the version and the checksum that
tests/interop/package-lock.json says, unless it is there.
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent.parent
SOURCE = ROOT / 'tests' / 'interop'
TARGET = ROOT / '.build' / 'interop'
MODULES = TARGET / 'node_modules'
FILES = ('package.json', 'package-lock.json')

REQUIRE = 'SWS_REQUIRE_NODE'


def missing() -> list[str]:
    """The programs that are needed and not there."""
    return [name for name in ('node', 'npm') if shutil.which(name) is None]


def installed() -> bool:
    """Whether the package is there, in the version that is asked for."""
    done = TARGET / '.done'
    lock = SOURCE / 'package-lock.json'
    return done.exists() and done.read_bytes() == lock.read_bytes()


def install() -> None:
    """Install the package.

    :raises subprocess.CalledProcessError: when npm fails.
    """
    if installed():
        return
    print('== .build/interop: npm ci', flush=True)
    TARGET.mkdir(parents=True, exist_ok=True)
    for name in FILES:
        shutil.copy(SOURCE / name, TARGET / name)
    quiet = ('--ignore-scripts', '--no-audit', '--no-fund', '--loglevel=error')
    subprocess.run(['npm', 'ci', *quiet], cwd=TARGET, check=True, stdout=subprocess.DEVNULL)
    shutil.copy(SOURCE / 'package-lock.json', TARGET / '.done')


if __name__ == '__main__':
    if missing():
        print(f'no {" and no ".join(missing())} on this machine: nothing to install')
    else:
        install()
