"""An ordinary connection's echo, timed, in a process of its own.

``python -m soak.probe PORT`` sends 64 bytes, waits for them, and does so again
a little later, on and on.  For each line on standard input it prints how long
the echoes took since the line before, in seconds, as JSON.
"""

from __future__ import annotations

import json
import sys
import threading
import time

from tests.support.frames import BINARY

from .peer import Peer

PAUSE = 0.002


def quantile(values: list[float], share: float) -> float:
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


def main() -> None:
    asked = threading.Semaphore(0)
    over = threading.Event()

    def listen() -> None:
        for _ in sys.stdin:
            asked.release()
        over.set()

    threading.Thread(target=listen, daemon=True).start()
    peer = Peer(int(sys.argv[1]), '/echo', timeout=120)
    took: list[float] = []
    while not over.is_set():
        began = time.perf_counter()
        peer.echo(BINARY, bytes(64))
        took.append(time.perf_counter() - began)
        if asked.acquire(blocking=False):
            result = {
                'p50': quantile(took, 0.5),
                'p99': quantile(took, 0.99),
                'max': max(took),
                'count': len(took),
            }
            print(json.dumps(result), flush=True)
            took.clear()
        time.sleep(PAUSE)


if __name__ == '__main__':
    main()
