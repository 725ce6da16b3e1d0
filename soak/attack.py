"""Attack a server, and say what it costs: memory, and other people's time.

``python -m soak.attack NAME`` runs one attack, without a name all of them, on
every backend.  Meanwhile another connection's echo is timed; before that too.
Memory is the growth of the server process, at its highest.
"""

from __future__ import annotations

import argparse
import json
import socket
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass

from tests.support.frames import BINARY, CLOSE, CONTINUATION, PING, TEXT

from . import report
from .peer import HOST, Peer, frame
from .processes import Peak, RunningServer, end_when_told, environment, start
from .servers import BACKENDS

#: Seconds that an attack goes on, at least.
SECONDS = 4.0

#: Seconds for which the echo is timed beforehand.
BEFORE = 3.0


class Target:
    """A server under attack.

    :param server: which one.
    :param seconds: for how long.
    """

    def __init__(self, server: RunningServer, seconds: float) -> None:
        self.server = server
        self._until = time.monotonic() + seconds

    @property
    def on(self) -> bool:
        return time.monotonic() < self._until

    def rest(self) -> None:
        """Hold what there is, until the time is over."""
        time.sleep(max(self._until - time.monotonic(), 0))


@dataclass(frozen=True)
class Attack:
    name: str
    label: str
    run: Callable[[Target], str]
    both: bool  #: whether the codec matters


ATTACKS: dict[str, Attack] = {}


def attack(
    name: str, label: str, both: bool = False
) -> Callable[[Callable[[Target], str]], Callable[[Target], str]]:
    """Enter a function into the table; it returns what was done."""

    def enter(run: Callable[[Target], str]) -> Callable[[Target], str]:
        ATTACKS[name] = Attack(name, label, run, both)
        return run

    return enter


def refused(peer: Peer, code: int) -> None:
    """See that a Close with this code comes, unless an RST has overtaken it."""
    with suppress(ConnectionResetError):
        opcode, payload = peer.hear()
        assert (opcode, payload[:2]) == (CLOSE, code.to_bytes(2, 'big')), (opcode, payload)
    peer.reset()


def bomb(size: int) -> bytes:
    """So many zeros, compressed."""
    squeezer = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = squeezer.compress(bytes(size)) + squeezer.flush(zlib.Z_SYNC_FLUSH)
    return data[:-4]


@attack('bomb', 'deflate bombs of 64 MiB, against ``max_message_size=65536``')
def attack_bomb(target: Target) -> str:
    payload = bomb(64 << 20)
    number = 0
    while target.on:
        peer = target.server.connect('/limited', deflate=True)
        peer.send(frame(BINARY, payload, rsv1=True))
        refused(peer, 1009)
        number += 1
    return f'{number} bombs of {len(payload) >> 10} KiB, each refused with 1009'


@attack('bomb-unlimited', 'the same bomb, once, without ``max_message_size``')
def attack_bomb_unlimited(target: Target) -> str:
    payload = bomb(64 << 20)
    peer = target.server.connect('/deaf', deflate=True)
    peer.send(frame(BINARY, payload, rsv1=True))
    target.rest()
    peer.reset()
    return 'one message of 64 MiB, as the default allows'


@attack('pings', 'pings of 125 bytes, pongs never read', both=True)
def attack_pings(target: Target) -> str:
    return flood(target, frame(PING, bytes(125)), 'pings')


@attack('empty-pings', 'empty pings, pongs never read', both=True)
def attack_empty_pings(target: Target) -> str:
    return flood(target, frame(PING), 'pings')


def flood(target: Target, one: bytes, what: str) -> str:
    """Send the same frame on and on, and read nothing."""
    peer = target.server.connect('/echo', receive_buffer=4096)
    sent = pour(target, peer.sock, one)
    peer.reset()
    return f'{sent // len(one):,} {what}'


def pour(target: Target, sock: socket.socket, one: bytes) -> int:
    """Write the same bytes as long as the attack goes on; returns how many."""
    data = memoryview(one * max(65536 // len(one), 1))
    sock.settimeout(0.1)
    sent = at = 0
    while target.on:
        with suppress(TimeoutError):
            taken = sock.send(data[at:])
            sent += taken
            at = (at + taken) % len(data)
    return sent


@attack('empty-messages', '1,000,000 empty messages, echoes read', both=True)
def attack_empty_messages(target: Target) -> str:
    peer = target.server.connect('/echo')
    data = frame(BINARY) * 10_000

    def send() -> None:
        with suppress(OSError):
            for _ in range(100):
                peer.sock.sendall(data)

    sender = threading.Thread(target=send)
    sender.start()
    echoes = 0
    while echoes < 1_000_000:
        heard = peer.frame()
        assert heard == (BINARY, b'') or heard[0] == PING, heard
        echoes += heard[0] == BINARY
    sender.join()
    peer.reset()
    return f'{echoes:,} messages and echoes'


@attack('empty-fragments', '1,000,000 empty fragments', both=True)
def attack_empty_fragments(target: Target) -> str:
    return fragments(target, b'')


@attack('fragments', 'one-byte fragments without end', both=True)
def attack_fragments(target: Target) -> str:
    return fragments(target, b'x')


def fragments(target: Target, payload: bytes) -> str:
    """Messages that do not end, on one connection after the other."""
    data = frame(CONTINUATION, payload, False) * 10_000
    number = connections = 0
    while target.on or number < 1_000_000:
        peer = target.server.connect('/echo')
        peer.send(frame(TEXT, payload, False))
        with suppress(ConnectionError):
            for _ in range(14):
                peer.send(data)
                number += 10_000
        refused(peer, 1009)
        connections += 1
    return f'{number:,} fragments, cut off with 1009 on each of {connections} connections'


@attack('half-handshakes', '1,000 half requests')
def attack_half_handshakes(target: Target) -> str:
    socks = []
    for _ in range(1000):
        sock = socket.create_connection((HOST, target.server.port), 30)
        sock.sendall(b'GET /echo HTTP/1.1\r\nHost: localhost\r\nUpgrade: webs')
        socks.append(sock)
    target.rest()
    threads = report.threads_of(target.server.pid)
    for sock in socks:
        sock.sendall(b'ocket\r\n\r\n')  # no key: refused, in an orderly way
        sock.close()
    return f'{len(socks):,} requests without an end; {threads} threads in the server'


@attack('unreceived', '200 MB to a handler that does not receive')
def attack_unreceived(target: Target) -> str:
    peer = target.server.connect('/deaf')
    peer.sock.settimeout(1)
    data = memoryview(frame(BINARY, bytes(100_000)))
    sent = 0
    with suppress(TimeoutError):
        while sent < 200_000_000:
            sent += peer.sock.send(data[sent % len(data) :])
    target.rest()
    peer.reset()
    assert sent < 200_000_000, 'all of it was taken'
    return f'{sent / 1e6:.1f} MB were taken, mostly by TCP; then it waits'


# -- how they are measured ---------------------------------------------------------


class Probe:
    """An ordinary connection to the same server."""

    def __init__(self, server: RunningServer) -> None:
        self._process = start(
            [sys.executable, '-m', 'soak.probe', str(server.port)],
            env=environment(),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def look(self) -> dict[str, float]:
        """What the echoes took since the last look."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write('\n')
        self._process.stdin.flush()
        result: dict[str, float] = json.loads(self._process.stdout.readline())
        return result

    def stop(self) -> None:
        self._process.communicate()


def measure(one: Attack, backend: str, codec: str, seconds: float) -> report.Result:
    """Run an attack against a server of its own."""
    server = RunningServer(backend, codec, f'attack-{one.name}-{backend}-{codec}')
    probe = None
    try:
        server.gauge()  # it serves
        probe = Probe(server)
        probe.look()
        time.sleep(BEFORE)
        before = probe.look()
        rss = server.rss()
        peak = Peak(server)
        peak.start()
        done = one.run(Target(server, seconds))
        meanwhile = probe.look()
        grown = peak.end() - rss
    finally:
        if probe is not None:
            probe.stop()
        server.stop()
    if log := server.complaints():
        print(f'{one.name} on {backend}: the server complained:\n{log[:3000]}', file=sys.stderr)
    return {
        'attack': one.name,
        'label': one.label,
        'backend': backend,
        'codec': codec,
        'done': done,
        'before': before,
        'meanwhile': meanwhile,
        'grown': grown,
        'complained': bool(log),
        'date': time.strftime('%Y-%m-%d', time.gmtime()),
        'versions': report.versions(),
    }


def main() -> int:
    parser = argparse.ArgumentParser(
        prog='python -m soak.attack', description=__doc__.split('\n')[0]
    )
    parser.add_argument('name', nargs='*', help=f'of {", ".join(ATTACKS)}; default: all')
    parser.add_argument('--backend', action='append', choices=BACKENDS, help='default: all')
    parser.add_argument('--codec', action='append', choices=('compiled', 'wsproto'))
    parser.add_argument('--seconds', type=float, default=SECONDS, help='of each attack')
    parser.add_argument('--write', action='store_true', help='write docs/attacks.rst')
    options = parser.parse_args()
    end_when_told()
    for name in options.name:
        if name not in ATTACKS:
            parser.error(f'there is no attack {name}')
    complained = False
    for name in options.name or ATTACKS:
        one = ATTACKS[name]
        for backend in options.backend or BACKENDS:
            for codec in options.codec or ('compiled', 'wsproto')[: 1 + one.both]:
                result = measure(one, backend, codec, options.seconds)
                complained |= result['complained']
                report.save('attacks', f'{name}-{backend}-{codec}', result)
                print(report.line(result), flush=True)
    if options.write:
        report.write_attacks({name: one.label for name, one in ATTACKS.items()})
    return int(complained)


if __name__ == '__main__':
    sys.exit(main())
