"""Soak the package: everything at once, for as long as you like.

For each backend a server process is under the load of another process, which
mixes clients of every kind.  In the end the server must hold what it held
before, and nobody may have complained.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import threading
import time

from simple_websocket.codec import NAME

from . import report
from .gauge import COUNTED
from .processes import (
    Failure,
    Peak,
    RunningServer,
    end_when_told,
    environment,
    quiet,
    settle,
    start,
)
from .servers import BACKENDS

#: Bytes by which a server may be larger in the end than after the warm-up.
TOLERANCE = 12 << 20

WARM_UP = 0.1  # of the time, for the warm-up
LONGEST_WARM_UP = 60.0


def load(server: RunningServer, seconds: float, share: float, seed: int) -> dict:
    """Put a server under load; returns counts and failures."""
    command = [sys.executable, '-m', 'soak.load', str(server.port), str(server.tls_port)]
    command += [str(server.authority), str(server.pid), str(seconds), str(share), str(seed)]
    process = start(
        command,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        output, complaints = process.communicate(timeout=seconds + 180)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
        raise Failure('the load hangs') from None
    if process.returncode or complaints:
        raise Failure(f'the load ended with {process.returncode}: {complaints}')
    result: dict = json.loads(output)
    return result


class Soak(threading.Thread):
    """One backend, from its start to its verdict.

    :param seconds: for the load, the warm-up not counted.
    :param share: of a core, for server and load together.
    :param seed: of what is random.
    """

    def __init__(
        self, backend: str, codec: str | None, seconds: float, share: float, seed: int
    ) -> None:
        super().__init__(name=backend, daemon=True)
        self.backend = backend
        self.codec = codec
        self.seconds = seconds
        self.share = share
        self.seed = seed
        self.verdicts: list[str] = []
        self.result: dict = {
            'backend': backend,
            'codec': codec or NAME,
            'seconds': seconds,
            'seed': seed,
            'share': share,
            'tolerance': TOLERANCE,
            'date': time.strftime('%Y-%m-%d', time.gmtime()),
            'versions': report.versions(),
        }

    def run(self) -> None:
        # One arena: what many threads leave free in theirs would hide a leak.
        server = RunningServer(self.backend, self.codec, MALLOC_ARENA_MAX='1')
        try:
            self._soak(server)
        except Exception as error:
            self.verdicts.append(f'{type(error).__name__}: {error}')
        finally:
            server.stop()
        if log := server.complaints():
            self.verdicts.append(f'the server complained:\n{log[:4000]}')
        self.result['verdicts'] = self.verdicts

    def _soak(self, server: RunningServer) -> None:
        fresh = server.gauge()
        warm_up = self.result['warm_up'] = min(self.seconds * WARM_UP, LONGEST_WARM_UP)
        self._check(load(server, warm_up, self.share, self.seed))
        # What a backend makes once, and keeps, is there now; connections are not.
        baseline = self.result['baseline'] = quiet(server)
        if fresh['connections'] or baseline['connections'] or baseline['protocols']:
            self.verdicts.append(f'connections before the soak: {fresh}, {baseline}')
        peak = Peak(server)
        peak.start()
        began, spent = time.monotonic(), server.cpu()
        done = load(server, self.seconds, self.share, self.seed + 1)
        self.result['took'] = time.monotonic() - began
        self.result['server_cpu'] = server.cpu() - spent
        self.result['peak_rss'] = peak.end()
        self.result['counts'] = done['counts']
        self._check(done)
        end = self.result['end'] = settle(server, baseline)
        for name in COUNTED:
            if end[name] != baseline[name]:
                self.verdicts.append(f'{name}: {end[name]}, and {baseline[name]} before')
        growth = end['rss'] - baseline['rss']
        if growth > TOLERANCE:
            self.verdicts.append(f'RSS grew by {growth / 1024:.0f} KiB')

    def _check(self, done: dict) -> None:
        self.verdicts += done['failures']
        if not done['counts'].get('echoes'):
            self.verdicts.append('nothing was echoed')


def main() -> int:
    parser = argparse.ArgumentParser(prog='python -m soak', description=__doc__.split('\n')[0])
    parser.add_argument('--minutes', type=float, default=5, help='of load, a backend')
    parser.add_argument('--backend', action='append', choices=BACKENDS, help='default: all')
    parser.add_argument('--codec', choices=('compiled', 'wsproto'), help='force a codec')
    parser.add_argument(
        '--share', type=float, default=1.0, help='of a core, for all of it; default 1'
    )
    parser.add_argument('--seed', type=int, default=int(time.time()), help='for what is random')
    parser.add_argument('--write', action='store_true', help='write docs/soak.rst')
    options = parser.parse_args()
    end_when_told()
    backends = options.backend or list(BACKENDS)
    share = options.share / len(backends)
    print(f'seed {options.seed}', flush=True)
    soaks = [
        Soak(backend, options.codec, options.minutes * 60, share, options.seed + 10 * number)
        for number, backend in enumerate(backends)
    ]
    for soak in soaks:
        soak.start()
    for soak in soaks:
        soak.join()
        if options.write:
            report.save('soak', soak.backend, soak.result)
        print(report.summary(soak.result), flush=True)
    good = not any(soak.verdicts for soak in soaks)
    if options.write:
        report.write_soak()
    return 0 if good else 1


if __name__ == '__main__':
    sys.exit(main())
