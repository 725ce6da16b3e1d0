"""The pages of the documentation that the soak and the attacks write.

Results are kept as JSON in ``.build/soak/``, one file each, so that a page can
be written out of several runs: ``python -m soak.report``.
"""

from __future__ import annotations

import importlib.metadata
import json
import os
import platform
from typing import Any

from .processes import BUILD, ROOT
from .servers import BACKENDS

Result = dict[str, Any]

LABELS = {
    'threads': 'threads (Werkzeug)',
    'gevent': 'gevent (pywsgi)',
    'eventlet': 'eventlet (wsgi)',
    'asyncio': 'asyncio (aiohttp)',
}

GAUGES = {
    'fds': 'file descriptors',
    'threads': 'OS threads',
    'tasks': 'greenlets or tasks',
    'watchers': 'entries in the hub, the loop or the watchman',
    'connections': 'open connections',
    'protocols': 'connections in memory',
}


def versions() -> dict[str, str]:
    """Of what matters to the figures."""
    found = {'Python': platform.python_version(), 'Linux': platform.release().split('-')[0]}
    for name in ('simple-websocket', 'gevent', 'eventlet', 'aiohttp', 'werkzeug', 'wsproto'):
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    found['cores'] = str(os.cpu_count())
    return found


def save(kind: str, name: str, result: Result) -> None:
    """Keep a result for the pages."""
    directory = BUILD / kind
    directory.mkdir(parents=True, exist_ok=True)
    (directory / f'{name}.json').write_text(json.dumps(result, indent=1), encoding='utf-8')


def saved(kind: str) -> dict[str, Result]:
    """What was kept, by name."""
    files = sorted((BUILD / kind).glob('*.json'))
    return {file.stem: json.loads(file.read_text(encoding='utf-8')) for file in files}


def summary(result: Result) -> str:
    """What to say of one backend on a terminal."""
    lines = [f'== {result["backend"]}: ' + ('BAD' if result['verdicts'] else 'good')]
    for name in ('baseline', 'end'):
        lines.append(f'{name}: {result.get(name)}')
    for name, number in sorted(result.get('counts', {}).items()):
        lines.append(f'{number:12,} {name}')
    return '\n'.join(lines + result['verdicts'])


def threads_of(pid: int) -> int:
    """How many threads a process has."""
    return len(os.listdir(f'/proc/{pid}/task'))


def line(result: Result) -> str:
    """What to say of one attack on a terminal."""
    before, meanwhile = result['before'], result['meanwhile']
    times = ', '.join(
        f'{name} {before[name] * 1e3:.1f} -> {meanwhile[name] * 1e3:.1f} ms'
        for name in ('p50', 'p99', 'max')
    )
    return (
        f'{result["attack"]:16} {result["backend"]:8} {result["codec"]:8} '
        f'+{mib(result["grown"])}; {times}; {result["done"]}'
    )


def mib(size: float) -> str:
    return f'{size / (1 << 20):.1f} MiB'


def table(rows: list[list[str]]) -> str:
    """A list-table, its first row being the header."""
    lines = ['.. list-table::', '   :header-rows: 1', '   :widths: auto', '']
    for row in rows:
        for number, cell in enumerate(row):
            lines.append(f'   {"  " if number else "* "}- {cell}'.rstrip())
    return '\n'.join(lines) + '\n'


def told(found: dict[str, str]) -> str:
    return ', '.join(f'{name} {version}' for name, version in found.items())


SOAK = '''\
Soak
====

.. This page is written by ``make soak ARGS=--write`` (soak/report.py).

Everything at once, for a long time: does anything stay behind?  For each
backend one server process is under the load of another one, which mixes
clients of every kind, with TLS and without: echoes of 0 B to 1 MiB, whole,
compressed and in thousands of fragments; connections that stay and many more
that are made and dropped; floods of pings and of empty frames, answered or
never read; slow readers; ends by a Close, by a FIN, by half a close, by an
RST, also in the middle of a frame; handlers that are killed, fail, return early
or do not receive; bombs, violations and requests that are refused.  The
keepalive is on, every 5 seconds.  Whatever must come back is compared with what
was expected, byte by byte.

A run is good when in the end, all clients gone, the server process holds as
many descriptors, threads, greenlets, entries in its hub and connections as
before; its resident memory is at most {tolerance} above what it was after the
warm-up; it has logged no error, and no warning about anything left unclosed;
and every answer was right.  Anything else ends ``make soak`` with status 1.

Run it in a clone; the backends run at the same time and take about a core
together:

.. code-block:: console

   $ make soak ARGS='--minutes 20'

The last run
------------

{date}, {minutes} of load a backend after a warm-up of {warm_up}.  {versions}.

{gauges}
"before / after" are counts of the server process after the warm-up and at the
end of the run.  Memory is counted once the garbage is collected and what is
free was given back to the system, with one arena of the C library's allocator
(``MALLOC_ARENA_MAX=1``): with an arena a thread, what each of them keeps free
would hide a leak.  "complaints" are errors and warnings in the server's log,
wrong answers, and anything above that is not as before.

{complaints}{counts}'''


def write_soak() -> None:
    """Write docs/soak.rst out of the results that are kept, good or bad.

    :raises SystemExit: when one is missing.
    """
    results = saved('soak')
    for name in BACKENDS:
        if 'end' not in results.get(name, {}):
            raise SystemExit(f'there is no result of {name}: nothing is written')
    chosen = [results[name] for name in BACKENDS]
    labels = [LABELS[name] for name in BACKENDS]
    first = chosen[0]
    rows = [['', *labels]]
    for name, label in GAUGES.items():
        rows.append([label, *(_pair(one, name) for one in chosen)])
    rows.append(['resident memory', *(_memory(one) for one in chosen)])
    rows.append(['highest', *(mib(one['peak_rss']) for one in chosen)])
    rows.append(['codec', *(one['codec'] for one in chosen)])
    rows.append(['seconds of load', *(f'{one["took"]:.0f}' for one in chosen)])
    rows.append(['CPU seconds of the server', *(f'{one["server_cpu"]:.0f}' for one in chosen)])
    rows.append(['complaints', *(str(len(one['verdicts'])) for one in chosen)])
    counted = sorted({name for one in chosen for name in one['counts']})
    counts = [['what was done', *labels]]
    counts += [[name, *(f'{one["counts"].get(name, 0):,}' for one in chosen)] for name in counted]
    page = SOAK.format(
        tolerance=mib(first['tolerance']),
        date=first['date'],
        minutes=f'{first["seconds"] / 60:g} minutes',
        warm_up=f'{first["warm_up"]:.0f} seconds',
        versions=told(first['versions']),
        gauges=table(rows),
        complaints=_complaints(chosen),
        counts=table(counts),
    )
    (ROOT / 'docs' / 'soak.rst').write_text(page, encoding='utf-8')


ATTACKS = '''\
Attacks
=======

.. This page is written by ``make attack ARGS=--write`` (soak/report.py).

What it costs a server to be attacked by one peer, and what the others notice:
how far its memory grows, and how long the echo of 64 bytes takes on another
connection, before the attack and while it goes on.  :doc:`security` says what
is bounded by what.

Each attack has its own server process; attacker, server and the timed
connection are three processes.  Memory is the resident size of the server at
its highest, above what it was before.  The server sends a ping every 5 seconds
and has the default options otherwise, but for what is said.

Repeat one, or all, in a clone:

.. code-block:: console

   $ make attack ARGS=bomb

{names}

What to make of it
------------------

* Memory grows by less than 3 MiB in all of them but two.  Without
  ``max_message_size`` a message is as large as its sender likes: set it.  And a
  half request is held by the WSGI server, which has not called a handler yet: a
  thread each on Werkzeug, a greenlet or a buffer each elsewhere.  A limit on
  connections and a timeout for requests are the host's, or a proxy's.
* On a hub or a loop everybody waits while one read is decoded.  The first read
  of a flood is 64 KiB (256 KiB on asyncio): ten thousand empty frames and more,
  which is where the longest echoes come from.  Those that follow shrink to
  about 512 frames, so that the median stays low (on asyncio only once the frames
  are tiny, and not over TLS).  The compiled codec takes a
  tenth of the time of wsproto, and it shows: have a C compiler at hand where
  the package is installed.
* What remains is CPU time: whoever sends without pause keeps one core busy, on
  any server, and takes his share of it.  Limit the rate in front of it.

The last run
------------

{date}.  {versions}.  {cores}

{sections}'''

BUSY = (
    'Attacker, server and timed connection had {cores} cores for themselves and for '
    'other work of the machine: compare with *before*, and take the highest values '
    'with a grain of salt.'
)


def write_attacks(attacks: dict[str, str]) -> None:
    """Write docs/attacks.rst out of the results that are kept.

    :param attacks: what each is called, by name.
    :raises SystemExit: when one is missing.
    """
    results = list(saved('attacks').values())
    sections, names = [], [['name', 'what it does']]
    for name, label in attacks.items():
        rows = [['server', 'codec', 'memory', *TIMES, 'what was done']]
        chosen = [one for one in results if one['attack'] == name]
        if {one['backend'] for one in chosen} != set(BACKENDS):
            raise SystemExit(f'there are no results of {name} on each backend')
        chosen.sort(key=lambda one: (BACKENDS.index(one['backend']), one['codec']))
        rows += [_attack_row(one) for one in chosen]
        title = label[0].upper() + label[1:]
        sections.append(f'{title}\n{"^" * len(title)}\n\n{table(rows)}')
        names.append([f'``{name}``', label])
    versions = results[0]['versions']
    page = ATTACKS.format(
        names=table(names),
        date=max(one['date'] for one in results),
        versions=told(versions),
        cores=BUSY.format(cores=versions['cores']),
        sections='\n'.join(sections),
    )
    (ROOT / 'docs' / 'attacks.rst').write_text(page, encoding='utf-8')


TIMES = ('p50, ms', 'p99, ms', 'longest, ms')


def _attack_row(result: Result) -> list[str]:
    times = [
        f'{result["before"][name] * 1e3:.1f} → {result["meanwhile"][name] * 1e3:.1f}'
        for name in ('p50', 'p99', 'max')
    ]
    label = LABELS[result['backend']]
    return [label, result['codec'], f'+{mib(result["grown"])}', *times, result['done']]


def _complaints(results: list[Result]) -> str:
    """Every complaint, by its first line and its last, with what is known of it."""
    lines = []
    for result in results:
        for verdict in result['verdicts']:
            first, *_, last = (verdict.strip() + '\n').splitlines() * 2
            where = first.partition(': Traceback')[0]
            lines.append(f'* {LABELS[result["backend"]]}; {where}: ``{last}``')
            if 'note' in result:
                lines.append(f'  {result["note"]}')
    return '\n'.join(lines) + '\n\n' if lines else ''


def _pair(result: Result, name: str) -> str:
    return f'{result["baseline"][name]} / {result["end"][name]}'


def _memory(result: Result) -> str:
    return f'{mib(result["baseline"]["rss"])} / {mib(result["end"]["rss"])}'


if __name__ == '__main__':
    write_soak()
