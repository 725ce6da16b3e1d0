"""Tables and a plot of what was measured, for the terminal and the docs."""

from __future__ import annotations

import datetime
import json
import os
import platform
import subprocess
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import groupby
from statistics import median
from typing import Any

from .cases import RATIOS, VALUES
from .processes import BUILD, ROOT, python
from .servers import SERVERS

Sample = dict[str, Any]

#: What is compared; less is better.
_KEYS: dict[str, Callable[[Sample], float]] = {
    'cpu': lambda s: s['server_cpu'] / s['count'] * 1e6,
    'client_cpu': lambda s: s['cpu'] / s['count'] * 1e6,
    'p50': lambda s: s['p50'],
    'kib': lambda s: s['kib'],
    'percent': lambda s: s['percent'],
}

_UNITS = {'cpu': 'µs', 'client_cpu': 'µs', 'p50': 'µs', 'kib': 'KiB', 'percent': '% CPU'}


@dataclass
class Row:
    """What one server or client did in one table."""

    entry: Any
    samples: list[Sample] = field(default_factory=list)
    failure: str | None = None

    def middle(self, value: Callable[[Sample], float]) -> float:
        """The median of something."""
        return median(value(sample) for sample in self.samples)


@dataclass
class Table:
    """One case; ``key`` is what is compared."""

    name: str
    title: str
    key: str
    rows: list[Row] = field(default_factory=list)

    def row(self, name: str) -> Row | None:
        """The row of a server that was measured."""
        for row in self.rows:
            if row.entry.name == name and row.samples and not row.failure:
                return row
        return None

    def first(self, group: str, role: str) -> Row | None:
        """The first of a group's rows that has a role."""
        for row in self.rows:
            if row.entry.group == group and row.entry.role == role and self.row(row.entry.name):
                return row
        return None

    def value(self, row: Row) -> float:
        """What is compared, the median of all rounds."""
        return row.middle(_KEYS[self.key])

    def ratio(self, row: Row, other: Row) -> float:
        """How many times the other's value: the median of each round's."""
        of = _KEYS[self.key]
        pairs = zip(row.samples, other.samples, strict=False)
        return median(of(one) / of(two) for one, two in pairs)


# -- columns ---------------------------------------------------------------

_Column = tuple[str, Callable[[Table, Row], str]]


def _times(role: str) -> Callable[[Table, Row], str]:
    def cell(table: Table, row: Row) -> str:
        other = table.first(row.entry.group, role)
        return f'{table.ratio(row, other):.2f}' if other else ''

    return cell


def _number(value: float) -> str:
    return f'{value:,.1f}' if value < 1000 else f'{value:,.0f}'


def _median(of: Callable[[Sample], float]) -> Callable[[Table, Row], str]:
    return lambda table, row: _number(row.middle(of))


def _load_share(table: Table, row: Row) -> str:
    return f'{row.middle(lambda s: s["load_cpu"] / s["seconds"]):.0%}'


def _with_deflate(table: Table, row: Row) -> str:
    return _number(row.samples[0]['deflate_kib']) if 'deflate_kib' in row.samples[0] else ''


def _per_second(sample: Sample) -> float:
    return sample['count'] / sample['seconds']


_ECHO: list[_Column] = [
    ('CPU µs/message', _median(_KEYS['cpu'])),
    ('× bare', _times('bare')),
    ('× ours', _times('ours')),
    ('messages/s', _median(_per_second)),
    ('p50 µs', _median(lambda s: s['p50'])),
    ('p99 µs', _median(lambda s: s['p99'])),
    ('load', _load_share),
]

_COLUMNS: dict[str, list[_Column]] = {
    'rate': [
        ('CPU µs/connection', _median(_KEYS['cpu'])),
        ('× ours', _times('ours')),
        ('connections/s', _median(_per_second)),
        ('p99 µs', _median(lambda s: s['p99'])),
        ('load', _load_share),
    ],
    'idle': [
        ('KiB/connection', _median(_KEYS['kib'])),
        ('× host', _times('host')),
        ('× ours', _times('ours')),
        ('deflate negotiated', _with_deflate),
        ('threads/connection', _median(lambda s: s['threads'])),
        ('connections', lambda table, row: f'{row.samples[0]["connections"]:,}'),
    ],
    'keepalive': [
        ('% of a core', lambda table, row: f'{table.value(row):.2f}'),
        ('pings answered', lambda table, row: f'{row.samples[0]["pings"]:,}'),
        ('connections', lambda table, row: f'{row.samples[0]["connections"]:,}'),
    ],
}
_COLUMNS['broadcast'] = [
    ('CPU µs/delivery', _median(_KEYS['cpu'])),
    ('× bare', _times('bare')),
    ('connections', lambda table, row: f'{row.samples[0]["connections"]:,}'),
]
_COLUMNS['loop'] = _COLUMNS['stream'] = [
    ('CPU µs/message', _median(_KEYS['client_cpu'])),
    ('× ours', _times('ours')),
    ('messages/s', _median(_per_second)),
]


def _grid(table: Table) -> list[tuple[str, list[list[str]]]]:
    """For each group its name and rows of cells; the headings come first."""
    columns = _COLUMNS.get(table.name, _ECHO)
    grid = [('', [[''] + [heading for heading, _ in columns]])]
    for group, rows in groupby(table.rows, lambda row: row.entry.group):
        lines = []
        for row in rows:
            if row.failure or not row.samples:
                cells = [f'not measured: {" ".join((row.failure or "nothing").split())}']
            else:
                cells = [cell(table, row) for _, cell in columns]
            lines.append([row.entry.label, *cells])
        grid.append((group, lines))
    return grid


# -- what to look at first -------------------------------------------------


def slower(tables: list[Table]) -> list[str]:
    """Where ours is slower, or larger, than a peer; the worst comes first."""
    found = []
    for table in tables:
        for row in table.rows:
            if row.entry.role != 'ours' or not table.row(row.entry.name):
                continue
            for peer in table.rows:
                fellow = peer.entry.role == 'peer' and peer.entry.group == row.entry.group
                if not fellow or not table.row(peer.entry.name):
                    continue
                ratio = table.ratio(row, peer)
                if ratio > 1:
                    unit = _UNITS[table.key]
                    line = (
                        f'{table.title}; {row.entry.group}: {row.entry.label} '
                        f'{_number(table.value(row))} {unit}, {peer.entry.label} '
                        f'{_number(table.value(peer))} {unit} ({ratio:.2f} times)'
                    )
                    found.append((ratio, line))
    return [line for _, line in sorted(found, reverse=True)]


def missed(tables: list[Table]) -> list[str]:
    """Where ours is above the value or the ratio that was promised."""
    by_name = {table.name: table for table in tables}
    lines = []
    for case, name, other, limit in RATIOS:
        table = by_name.get(case)
        one, two = (table.row(name), table.row(other)) if table else (None, None)
        if table and one and two and table.ratio(one, two) > limit:
            lines.append(
                f'{table.title}: {name} is {table.ratio(one, two):.2f} times {other}, '
                f'and not at most {limit}'
            )
    for case, name, limit in VALUES:
        table = by_name.get(case)
        row = table.row(name) if table else None
        if table and row and table.value(row) > limit:
            unit = _UNITS[table.key]
            lines.append(
                f'{table.title}: {name} {table.value(row):.2f} {unit}, and not at most {limit}'
            )
    for name in ('gevent', 'eventlet'):
        if (growth := _growth(by_name, name)) > 1.5:
            others = ', '.join(
                f'{other} {_growth(by_name, other):.2f}' for other in (f'bare-{name}', 'bare-c')
            )
            lines.append(
                f'{by_name["crowd"].title}: {name} {growth:.2f} times that at 100, '
                f'not at most 1.5 ({others})'
            )
    return lines


def _growth(by_name: dict[str, Table], name: str) -> float:
    """How many times the CPU at 100 connections a message takes at 10,000; 0 where that
    was not measured."""
    small, crowd = by_name.get('small'), by_name.get('crowd')
    few, many = small and small.row(name), crowd and crowd.row(name)
    return crowd.value(many) / small.value(few) if few and many else 0.0


def _saturated(tables: list[Table]) -> list[str]:
    """Where the load generator may have been the bottleneck."""
    return [
        f'{table.title}: {row.entry.name}'
        for table in tables
        for row in table.rows
        if row.samples
        and 'load_cpu' in row.samples[0]
        and row.middle(lambda s: s['load_cpu'] / s['seconds']) > 0.9
    ]


def _remarks(tables: list[Table]) -> list[tuple[str, list[str]]]:
    remarks = [
        ('Slower than a peer', slower(tables)),
        ('Over its target', missed(tables)),
        ('The load generator may have been the limit', _saturated(tables)),
    ]
    return [(title, lines) for title, lines in remarks if lines or title != remarks[2][0]]


# -- the machine and the versions ------------------------------------------


def describe_machine() -> dict[str, str]:
    """Where and with what this was measured."""
    with open('/proc/cpuinfo') as cpuinfo:
        models = [line.split(':', 1)[1].strip() for line in cpuinfo if 'model name' in line]
    commit = subprocess.run(
        ['git', 'rev-parse', '--short', 'HEAD'], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()
    return {
        'date': datetime.date.today().isoformat(),
        'CPU': f'{models[0] if models else "unknown"}, {os.cpu_count()} cores',
        'kernel': f'{platform.system()} {platform.release()}',
        'Python': f'{platform.python_implementation()} {platform.python_version()}',
        'simple-websocket': f'{_version_of_ours()}{f", commit {commit}" if commit else ""}',
        'others': _versions('bench'),
        'load average before': f'{os.getloadavg()[0]:.2f}',
    }


def _ask(venv: str, code: str) -> str:
    command = [python(venv), '-c', code]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()


def _version_of_ours() -> str:
    code = (
        'import importlib.metadata as m; from simple_websocket import codec as c; '
        'print(m.version("simple-websocket"), "with the", '
        '"compiled" if "_codec" in c.Decoder.__module__ else "wsproto", "codec", end="")'
    )
    return _ask('bench', code)


def _versions(venv: str) -> str:
    names = {name for entry in SERVERS.values() for name in entry.packages}
    names |= {'websocket-client', 'greenlet'}
    code = (
        'import importlib.metadata as m, json, sys; '
        'print(json.dumps({n: m.version(n) for n in json.loads(sys.argv[1])}))'
    )
    command = [python(venv), '-c', code, json.dumps(sorted(names))]
    answer = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return ', '.join(f'{name} {version}' for name, version in json.loads(answer).items())


# -- the terminal ----------------------------------------------------------


def as_text(tables: list[Table], machine: dict[str, str]) -> str:
    """All of it for a terminal; what is slower than a peer comes first."""
    lines = []
    for title, remarks in _remarks(tables):
        lines += ['', f'{title}:', *(f'  {line}' for line in remarks or ['nothing'])]
    for table in tables:
        grid = _grid(table)
        cells = [line for _, group in grid for line in group]
        names = max(len(line[0]) for line in cells) + 2
        widths = [max(len(heading), 9) for heading in cells[0][1:]]
        lines += ['', table.title, '-' * len(table.title)]
        for group, rows in grid:
            lines += [f'{group}:'] if group else []
            for name, *values in rows:
                line = ''.join(f'  {v:>{w}}' for v, w in zip(values, widths, strict=False))
                lines.append(f'  {name:{names}}{line}')
    lines += [''] + [f'{name}: {value}' for name, value in machine.items()]
    return '\n'.join(lines)


# -- the docs --------------------------------------------------------------

_PROSE = """\
Benchmarks
==========

.. This page is written by ``make bench`` (bench/report.py).

How much work a server spends on a message, in each way to wait: this library
beside others, and beside *bare* echo servers, which have no WebSocket in them
and wait in the same way.  They are the ceiling: what a library takes more is
its own.

.. image:: _static/bench.svg
   :alt: CPU time a message, by server
   :width: 100%

CPU is the server process's own time a message, user and system, on one core;
on another core one process in C opens the connections, sends a message on each,
waits for the whole echo, and sends the next.  *load* is how busy that process
was.  *× bare* and *× ours* are ratios to the bare server and to this library's
first row of the same group, which were measured in turn in the same run; the
figures are medians.  Latency (p50, p99) is what one message takes with all
connections busy.  *picows* calls back from C and does not block: it shows how
far one can get.  *bare epoll* is a server in C and does nothing but recv and send:
what it takes is the kernel's share of any server.  It answers faster than the one
process asks, so its messages a second are that process's.

Measure on a machine of yours by ``make bench`` in a clone; ``make bench
ARGS=--short`` takes two minutes.
"""


def _heading(title: str, mark: str) -> list[str]:
    return ['', title, mark * len(title), '']


def _rst_table(rows: list[list[str]], headings: list[str]) -> list[str]:
    lines = ['.. list-table::', '   :header-rows: 1', '   :widths: auto', '']
    for row in [headings, *rows]:
        cells = row + [''] * (len(headings) - len(row))
        lines += [f'   {"*" if i == 0 else " "} - {cell}' for i, cell in enumerate(cells)]
    return [line.rstrip() for line in lines]


def as_rst(tables: list[Table], machine: dict[str, str]) -> str:
    """The page of the docs."""
    lines = [_PROSE.rstrip()]
    for title, remarks in _remarks(tables):
        lines += _heading(title, '-')
        lines += [f'* {line}' for line in remarks] or ['Nothing, in this run.']
    for table in tables:
        lines += _heading(table.title, '-')
        (_, [headings]), *groups = _grid(table)
        lines += _rst_table(_with_group_names(groups), headings)
    lines += _heading('Machine and versions', '-')
    lines += [f':{name}: {value}' for name, value in machine.items()]
    return '\n'.join(lines) + '\n'


def _with_group_names(groups: list[tuple[str, list[list[str]]]]) -> list[list[str]]:
    rows = []
    for group, members in groups:
        rows += [[f'**{group}**'], *members]
    return rows


# -- the plot --------------------------------------------------------------

_COLOURS = {'ours': '#2563eb', 'bare': '#9ca3af', 'peer': '#f59e0b', 'mark': '#10b981'}
_LEGEND = {
    'ours': 'this library',
    'bare': 'bare, no WebSocket',
    'peer': 'others',
    'mark': 'callbacks from C',
}
_LEFT, _WIDTH, _BAR, _FULL = 250, 760, 18, 430


def _escape(text: str) -> str:
    return text.replace('&', '&amp;').replace('<', '&lt;')


def _bars(table: Table) -> tuple[list[str], int]:
    rows = [row for row in table.rows if table.row(row.entry.name)]
    highest = max(table.value(row) for row in rows)
    parts, y = [], 70
    for group, members in groupby(rows, lambda row: row.entry.group):
        y += 14
        parts.append(f'<text x="12" y="{y}" font-weight="bold">{_escape(group)}</text>')
        y += 8
        for row in sorted(members, key=table.value):
            value = table.value(row)
            width = max(value / highest * _FULL, 1)
            parts.append(
                f'<text x="{_LEFT - 8}" y="{y + 12}" text-anchor="end">'
                f'{_escape(row.entry.label)}</text>'
                f'<rect x="{_LEFT}" y="{y + 1}" width="{width:.1f}" height="{_BAR - 4}" '
                f'fill="{_COLOURS[row.entry.role]}"/>'
                f'<text x="{_LEFT + width + 6:.1f}" y="{y + 12}">{_number(value)}</text>'
            )
            y += _BAR
    return parts, y + 14


def as_svg(table: Table) -> str:
    """The first table as bars: CPU a message, by server."""
    bars, height = _bars(table)
    legend, x = [], 12
    for role, text in _LEGEND.items():
        legend.append(
            f'<rect x="{x}" y="44" width="12" height="12" fill="{_COLOURS[role]}"/>'
            f'<text x="{x + 18}" y="54">{text}</text>'
        )
        x += 40 + 7 * len(text)
    return '\n'.join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {height}" '
            f'font-family="sans-serif" font-size="12">',
            f'<rect width="{_WIDTH}" height="{height}" fill="#ffffff"/>',
            '<text x="12" y="26" font-size="16" font-weight="bold">'
            f'CPU µs a message: {_escape(table.title)}</text>',
            *legend,
            *bars,
            '</svg>',
            '',
        ]
    )


def write(tables: list[Table], machine: dict[str, str], into_docs: bool) -> None:
    """Write the page, the plot and the raw samples below .build/bench, and the
    first two into the docs as well if that was asked for."""
    outputs = {'benchmarks.rst': as_rst(tables, machine)}
    small = next((t for t in tables if t.name == 'small'), None)
    if small and any(small.row(row.entry.name) for row in small.rows):
        outputs['_static/bench.svg'] = as_svg(small)
    for folder in [BUILD / 'docs', *([ROOT / 'docs'] if into_docs else [])]:
        for name, text in outputs.items():
            path = folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
            print(f'wrote {path.relative_to(ROOT)}')
    samples = {
        table.name: {row.entry.name: row.failure or row.samples for row in table.rows}
        for table in tables
    }
    (BUILD / 'samples.json').write_text(json.dumps({**machine, **samples}, indent=1))
