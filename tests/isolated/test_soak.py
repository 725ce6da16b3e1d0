"""The soak, for some seconds: all backends at once, and nothing is left over."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
BACKENDS = ('threads', 'gevent', 'eventlet', 'asyncio')
SECONDS = 4


@pytest.fixture(scope='module')
def report():
    env = {name: value for name, value in os.environ.items() if name != 'SWS_MODE'}
    done = subprocess.run(
        [sys.executable, '-m', 'soak', '--minutes', str(SECONDS / 60), '--share', '2'],
        cwd=ROOT,
        env=env,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert done.stderr == ''
    return done


@pytest.mark.timeout(120)
@pytest.mark.parametrize('backend', BACKENDS)
def test_a_short_soak_leaves_nothing_behind(report, backend):
    before, _, rest = report.stdout.partition(f'== {backend}: ')
    assert rest.startswith('good\n'), rest
    counted = rest.split('\n== ')[0]
    assert ' echoes\n' in counted and ' connections over TLS\n' in counted


@pytest.mark.timeout(120)
def test_its_status_tells(report):
    assert report.returncode == ('BAD' in report.stdout)
