"""Measure ours beside the peers and the bare ways to wait, in one run.

The servers of a group (those that wait in the same way) are all started, and a
case goes through them in rounds: ours, bare and peers in turn, then again in
the opposite order.  What else the machine does, and its changes of speed, so
fall upon all alike; ratios are taken within a round, and of those the median.

CPU is the server process's own, read at both ends of the window, so it counts
whatever the kernel does on its behalf.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass

from . import processes, report
from .cases import ECHOES, OTHER_CASES, Echo
from .clients import CLIENTS
from .processes import (
    BUILD,
    Failure,
    RunningServer,
    build_programs,
    cores,
    raise_limits,
    run_broadcast,
    run_client,
    running,
)
from .report import Row, Table
from .servers import HOST, SERVERS, Entry

_BEGAN = time.monotonic()

_COMPARED = ('ours', 'bare', 'peer', 'mark')

GROUPS = ('gevent', 'eventlet', 'threads', 'asyncio', 'C')


class Bench:
    """A run.

    :param options: the command line's.
    """

    def __init__(self, options: argparse.Namespace) -> None:
        self.short = options.short
        self.rounds = options.rounds or (2 if self.short else 5)
        self.seconds = options.seconds or (0.14 if self.short else 0.8)
        self.only = set(options.only.split(',')) if options.only else None
        self.cases = set(options.cases.split(',')) if options.cases else None
        self.most_connections = raise_limits()
        self.tables: dict[str, Table] = {}

    def run(self) -> list[Table]:
        """Measure all that was asked for."""
        for case in ECHOES:
            if self.wants(case.name) and (case.short or not self.short):
                self.tables[case.name] = Table(case.name, case.title, case.key)
        if self.wants('rate'):
            self.tables['rate'] = Table('rate', 'Connect, shake hands, close', 'cpu')
        for group in GROUPS:
            self.run_group(group)
        if self.wants('idle'):
            self.run_idle()
        if self.wants('keepalive') and not self.short:
            self.run_keepalive()
        if self.wants('broadcast'):
            self.run_broadcast()
        for name in ('loop', 'stream'):
            if self.wants(name):
                self.run_clients(name)
        return [table for table in self.tables.values() if table.rows]

    def wants(self, case: str) -> bool:
        """Whether a case was asked for."""
        return self.cases is None or case in self.cases

    def selected(self, entries: Iterable) -> list:
        """Those that were asked for."""
        return [e for e in entries if self.only is None or e.name in self.only]

    # -- echo and connect rate ---------------------------------------------

    def run_group(self, group: str) -> None:
        """All cases of the servers that wait in one way."""
        entries = self.selected(
            e for e in SERVERS.values() if e.group == group and e.role in _COMPARED
        )
        if not entries or not self.tables:
            return
        with running(entries) as (servers, failures):
            for case in ECHOES:
                if case.name in self.tables:
                    chosen = [e for e in entries if _concerns(case, e)]
                    self.run_echo(case, chosen, servers, failures)
            if 'rate' in self.tables:
                chosen = [e for e in entries if not e.raw]
                self.in_rounds(
                    self.tables['rate'],
                    chosen,
                    servers,
                    failures,
                    lambda server: server.load(
                        'rate', connections=20, seconds=self.seconds, warmup=self.seconds / 4
                    ),
                )

    def run_echo(self, case: Echo, entries: list, servers: dict, failures: dict) -> None:
        """One case of echo."""
        files = {
            raw: case.write(BUILD / f'{case.name}-{"raw" if raw else "ws"}.bin', raw)
            for raw in {entry.raw for entry in entries}
        }

        def measure(server: RunningServer) -> dict:
            self.check_limit(case.connections)
            return server.load(
                'echo',
                messages=files[server.entry.raw],
                connections=case.connections,
                seconds=self.seconds,
                warmup=self.seconds / 4,
                raw=server.entry.raw,
                deflate=case.deflate,
            )

        self.in_rounds(self.tables[case.name], entries, servers, failures, measure)

    def check_limit(self, connections: int) -> None:
        """See that a process can have so many connections."""
        if connections > self.most_connections:
            raise Failure(f'the limit of open files leaves {self.most_connections} connections')

    def in_rounds(self, table: Table, entries, servers, failures, measure) -> None:
        """Measure servers in turn, and in turn again."""
        if not entries:
            return
        _say(f'{entries[0].group}: {table.title}')
        rows = [Row(entry, failure=failures.get(entry.name)) for entry in entries]
        table.rows += rows
        for number in range(self.rounds):
            for row in rows if number % 2 == 0 else rows[::-1]:
                if row.failure:
                    continue
                server = servers[row.entry.name]
                try:
                    row.samples.append(measure(server))
                except Failure as failure:
                    row.failure = str(failure)
                    try:
                        server.restart()
                    except Failure as again:
                        failures[row.entry.name] = str(again)

    # -- idle connections --------------------------------------------------

    def run_idle(self) -> None:
        """Memory of connections that do nothing."""
        table = self.tables['idle'] = Table('idle', 'Idle connections', 'kib')
        entries = self.selected(e for e in SERVERS.values() if e.idle)
        for entry in sorted(entries, key=lambda e: GROUPS.index(e.group)):
            many = 10000 if entry.group != 'threads' else 2000
            many = 1000 if self.short else many
            _say(f'idle: {entry.name}, {many} connections')
            row = Row(entry)
            table.rows.append(row)
            try:
                sample = self.measure_idle(entry, many, False)
                if not self.short and (entry.role == 'ours' or entry.venv == 'bench-1.1'):
                    sample['deflate_kib'] = self.measure_idle(entry, many, True)['kib']
                row.samples.append(sample)
            except Failure as failure:
                row.failure = str(failure)

    def measure_idle(self, entry: Entry, connections: int, deflate: bool) -> dict:
        """How much a server, that has done some work before, grows."""
        self.check_limit(connections)
        with running([entry]) as (servers, failures):
            if failures:
                raise Failure(failures[entry.name])
            server = servers[entry.name]
            server.load('rate', connections=20, seconds=0.2)
            time.sleep(0.2)
            before, threads = server.rss(), server.threads()
            with server.idle(connections, deflate):
                time.sleep(0.4)
                grown = server.rss() - before
                return {
                    'kib': grown / 1024 / connections,
                    'threads': round((server.threads() - threads) / connections, 2),
                    'connections': connections,
                }

    def run_keepalive(self) -> None:
        """CPU of connections that do nothing but answer pings."""
        table = self.tables['keepalive'] = Table(
            'keepalive', 'Idle connections, a ping every 25 s', 'percent'
        )
        for entry in self.selected(e for e in SERVERS.values() if e.group == 'keepalive'):
            many = 2000 if entry.name == 'keepalive-threads' else 10000
            _say(f'keepalive: {entry.label}, {many} connections, half a minute')
            row = Row(entry)
            table.rows.append(row)
            try:
                self.check_limit(many)
                row.samples.append(self.measure_keepalive(entry, many))
            except Failure as failure:
                row.failure = str(failure)

    def measure_keepalive(self, entry: Entry, connections: int) -> dict:
        with running([entry]) as (servers, failures):
            if failures:
                raise Failure(failures[entry.name])
            with servers[entry.name].idle(connections) as end:
                time.sleep(30)
                result = end()
        share = 100 * result['server_cpu'] / result['seconds']
        return {'percent': share, 'pings': result['pings'], 'connections': connections}

    # -- one message to many -----------------------------------------------

    def run_broadcast(self) -> None:
        """CPU of a delivery, beside that of a bare send on the same sockets."""
        table = self.tables['broadcast'] = Table('broadcast', 'Broadcast of 64 B', 'cpu')
        for profile, many in (('gevent', 2000 if self.short else 10000), ('threads', 2000)):
            ours = Delivery(f'broadcast-{profile}', profile, 'ours', 'broadcast()')
            bare = Delivery(f'send-{profile}', profile, 'bare', 'bare send')
            if not self.selected([ours]):
                continue
            _say(f'broadcast: {profile}, {many} connections')
            rows = [Row(ours), Row(bare)]
            table.rows += rows
            try:
                self.check_limit(many)
                for _ in range(1 if self.short else 3):
                    result = run_broadcast(profile, many)
                    for row, name in zip(rows, ('broadcast', 'bare'), strict=True):
                        row.samples.append(result[name])
            except Failure as failure:
                for row in rows:
                    row.failure = str(failure)

    # -- clients -----------------------------------------------------------

    def run_clients(self, name: str) -> None:
        """The blocking clients, all against the same server."""
        title = {
            'loop': 'Client: send 64 B and wait for the echo',
            'stream': 'Client: receive messages of 64 B',
        }[name]
        table = self.tables[name] = Table(name, title, 'client_cpu')
        table.rows = [Row(entry) for entry in self.selected(CLIENTS.values())]
        path = 'echo' if name == 'loop' else 'stream'
        if not table.rows:
            return
        _say(title)
        seconds = max(self.seconds, 0.2)
        with running([SERVERS['for-clients']], cores()[1]) as (servers, failures):
            if failures:
                raise SystemExit(f'bench: the server for clients {failures["for-clients"]}')
            url = f'ws://{HOST}:{servers["for-clients"].port}/{path}'
            for number in range(self.rounds):
                for row in table.rows if number % 2 == 0 else table.rows[::-1]:
                    if row.failure:
                        continue
                    entry = row.entry
                    try:
                        row.samples.append(run_client(entry.name, entry.venv, url, seconds))
                    except Failure as failure:
                        row.failure = str(failure)


@dataclass(frozen=True)
class Delivery:
    """A row of the table of broadcasts."""

    name: str
    group: str
    role: str
    label: str
    packages: tuple[str, ...] = ()
    venv: str = 'bench'


def _concerns(case: Echo, entry: Entry) -> bool:
    return entry.role in case.roles and (not case.names or entry.name in case.names)


def _say(text: str) -> None:
    print(f'{time.monotonic() - _BEGAN:6.0f} s  {text}', file=sys.stderr, flush=True)


def _parse_options() -> argparse.Namespace:
    cases = [case.name for case in ECHOES] + list(OTHER_CASES)
    parser = argparse.ArgumentParser(prog='make bench', description='Run the benchmarks.')
    parser.add_argument('--short', action='store_true', help='under two minutes, but rough')
    parser.add_argument('--only', metavar='NAMES', help='servers and clients, by commas')
    parser.add_argument('--cases', metavar='NAMES', help=', '.join(cases))
    parser.add_argument('--rounds', type=int, help='how often each is measured')
    parser.add_argument('--seconds', type=float, help='how long each time')
    parser.add_argument(
        '--write', action='store_true', help='write the docs, as a full run does'
    )
    parser.add_argument('--list', action='store_true', help='list the names')
    parser.add_argument(
        '--priority', action='store_true', help='go before all else on a busy machine (as root)'
    )
    options = parser.parse_args()
    for given, known in (
        (options.only, {*SERVERS, *CLIENTS}),
        (options.cases, set(cases)),
    ):
        unknown = set(given.split(',')) - known if given else set()
        if unknown:
            parser.error(f'unknown: {", ".join(sorted(unknown))}; see --list')
    return options


def main() -> None:
    options = _parse_options()
    if options.list:
        for entry in [*SERVERS.values(), *CLIENTS.values()]:
            print(f'{entry.name:24} {entry.group:16} {entry.role:8} {entry.label}')
        return
    build_programs()
    if options.priority:
        processes.niceness = -15
    machine = report.describe_machine()
    bench = Bench(options)
    machine['rounds'] = f'{bench.rounds} of {bench.seconds} s each'
    try:
        tables = bench.run()
    except KeyboardInterrupt:
        sys.exit('bench: interrupted')
    print(report.as_text(tables, machine))
    full = not (options.short or options.only or options.cases)
    report.write(tables, machine, into_docs=full or options.write)
    print(f'took {time.monotonic() - _BEGAN:.0f} s')


if __name__ == '__main__':
    main()
