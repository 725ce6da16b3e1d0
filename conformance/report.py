"""What came of it: lines and a table for the terminal, and a page of the docs."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Sequence
from pathlib import Path

from .agents import HOSTS
from .autobahn import Job
from .environment import ROOT, version_of
from .results import INFORMATIONAL, SECTIONS, SHORT, Result

PAGE = ROOT / 'docs' / 'conformance.rst'

#: Faults of one job that are printed before the rest is only counted.
_MOST_FAULTS = 20

_HEAD = (
    *('backend', 'host', 'codec', 'role', 'cases', 'OK', 'INFORMATIONAL', 'others', 'again'),
)


def _host(result: Result) -> str:
    return HOSTS[result.run.backend] if result.run.role == 'server' else '–'


def _pair(result: Result, verdict: str) -> str:
    """How often a verdict was given, for ``behavior`` and ``behaviorClose``."""
    one, two = (result.counts(which)[verdict] for which in (0, 1))
    return str(one) if one == two else f'{one}/{two}'


def _others(result: Result) -> str:
    """The cases that are neither, by verdict; those that did not run among them."""
    others: dict[str, int] = {}
    for verdicts in result.cases.values():
        # The worse of a case's two.
        bad = [verdict for verdict in verdicts if verdict not in ('OK', 'INFORMATIONAL')]
        if bad:
            others[bad[0]] = others.get(bad[0], 0) + 1
    if missing := len(set(result.expected) - set(result.cases)):
        others['not run'] = missing
    return ', '.join(f'{count} {verdict}' for verdict, count in others.items()) or '0'


def _row(result: Result) -> tuple[str, ...]:
    run = result.run
    return (
        run.backend,
        _host(result),
        run.codec,
        run.role,
        str(len(result.cases)),
        _pair(result, 'OK'),
        _pair(result, 'INFORMATIONAL'),
        _others(result),
        str(len(result.repeated)),
    )


def line(job: Job) -> str:
    """What came of a job, and all that is wrong with it."""
    result = job.result
    verdict = 'strict' if result.strict else 'NOT STRICT'
    lines = [
        f'{job.name}: {verdict}, {len(result.cases)} of {len(result.expected)} cases '
        f'in {result.seconds:.0f} s'
    ]
    if result.repeated:
        lines[0] += f', run again: {", ".join(result.repeated)}'
    faults = result.faults
    lines += [f'    {fault}' for fault in faults[:_MOST_FAULTS]]
    if len(faults) > _MOST_FAULTS:
        lines.append(f'    and {len(faults) - _MOST_FAULTS} more')
    return '\n'.join(lines)


def table(results: Sequence[Result]) -> str:
    """The table for the terminal."""
    rows = [_HEAD, *(_row(result) for result in results)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return '\n'.join(
        '  '.join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    )


def _versions(python: Path) -> str:
    packages = ['simple-websocket', 'autobahntestsuite', 'wsproto', 'greenlet', *HOSTS.values()]
    versions = [f'{platform.python_implementation()} {platform.python_version()}']
    for name in packages:
        if name == 'autobahntestsuite':
            versions.append(f'{name} 0.8.2 on {version_of(python)}')
        else:
            versions.append(f'{name} {importlib.metadata.version(name)}')
    return ', '.join(versions)


def _sections() -> str:
    return ', '.join(f'{section}: {count}' for section, count in SECTIONS.items())


def page(results: Sequence[Result], dates: Sequence[str], python: Path) -> str:
    """The page of the documentation."""
    rows = ''.join('   * - ' + '\n     - '.join(cell) + '\n' for cell in map(_row, results))
    return _PAGE.format(
        total=sum(SECTIONS.values()),
        strict=sum(SECTIONS.values()) - len(INFORMATIONAL),
        informational=len(INFORMATIONAL),
        dates=' to '.join(dict.fromkeys((dates[0], dates[-1]))),
        versions=_versions(python),
        head='   * - ' + '\n     - '.join(_HEAD),
        rows=rows,
        missing=_missing(results),
        sections=_sections(),
        short=', '.join(SHORT[:-1]) + f' and {SHORT[-1]}',
    )


def _missing(results: Sequence[Result]) -> str:
    """What to say of the cases that did not run."""
    if all(result.strict for result in results):
        return ''
    text = (
        '\n*not run* counts cases of sections 12 and 13 that have not been run in that row\n'
        'with this version of the code.  All that have run are strict.'
    )
    total = sum(SECTIONS.values())
    by_codec: dict[str, set[str]] = {}
    for result in results:
        by_codec.setdefault(result.run.codec, set()).update(result.cases)
    if all(len(cases) == total for cases in by_codec.values()):
        text += '  Together the rows\nof each codec have run every case.'
    elif len(set().union(*by_codec.values())) == total:
        text += '  Together the rows\nhave run every case.'
    return text + '\n'


def write_page(results: Sequence[Result], dates: Sequence[str], python: Path) -> Path:
    """Write the page; returns where it is, relative to the project.

    :param dates: of the days on which it was run, in their order.
    """
    PAGE.write_text(page(results, dates, python), encoding='utf-8')
    return PAGE.relative_to(ROOT)


_PAGE = """\
Conformance
===========

.. This page is written by ``make conformance ARGS=--write`` (conformance/report.py).

The Autobahn test suite is what WebSocket libraries are measured by: {total} cases of
framing, pings, fragments, UTF-8, closing, limits and compression.  Each case
gets two verdicts, on what was answered (``behavior``) and on how the connection
was closed (``behaviorClose``).  A verdict is OK; NON-STRICT, for what works but
is not what the specification asks for; INFORMATIONAL, where the specification
leaves it open; or one of several kinds of failure.

Here {strict} cases must be OK and {informational} INFORMATIONAL, in both verdicts, in both
roles, on every backend and with either codec.  Anything else, NON-STRICT
included, is a fault, and so is a case that did not run.

Result
------

Run on {dates}: {versions}.

.. list-table::
   :header-rows: 1

{head}
{rows}{missing}
``OK`` and ``INFORMATIONAL`` count the cases with that verdict twice; a case with
two different ones would show as two numbers.  ``again`` counts the cases that
were run a second time, because the suite itself ended them: it gives half a
second to most cases of section 6, and one to others, which is little on a machine
that does other things.  No other case gets a second chance.

What runs
---------

The suite is the published one, ``autobahntestsuite`` 0.8.2 under its last Python,
CPython 2.7, and its report is what counts.  The servers are a loop that sends
back what it receives (``for message in ws: ws.send(message)``), with the
defaults of every option, under gevent's pywsgi, eventlet's wsgi, Werkzeug with a
thread a connection, and aiohttp.  The clients are the same loop around
``Client.connect(url)`` and ``AioClient.connect(url)``.  Nothing is
monkey-patched.  ``compiled`` and ``wsproto`` are the two codecs: the extension,
and what stands in where it could not be built.

Cases by section: {sections}.  There is no section 8 and no 11.

The three INFORMATIONAL cases
-----------------------------

The suite has no verdict on these, whatever a library does.

7.1.6
   A message of 256 KiB, a small message, a Close and a ping come in one go.
   Whether the messages are still answered is up to the implementation.  Here
   both are, then the Close; the ping behind it is ignored.
7.13.1, 7.13.2
   A Close with the code 5000, or 65535.  The specification does not say what
   such codes mean (section 7.4.2).  Here they are answered by a Close with 1002.

Run it yourself
---------------

In a clone, with a CPython 2.7 on the machine besides Python 3:

.. code-block:: console

   $ make conformance

.. code-block:: console

   $ make conformance ARGS=--resume

The second goes on where the first was interrupted, and leaves out what
``conformance/record.json`` says has run with the same code and the same versions.
Together that is hours of CPU, nearly all of it in sections 12 and 13: a thousand
messages in each of 216 cases, compressed and inflated at both ends.  Sections {short}
take half a minute; they are a part of ``make test`` as well:

.. code-block:: console

   $ make conformance ARGS=--short

.. code-block:: console

   $ make conformance ARGS='--backend gevent --codec wsproto --role client --sections 9,12.1'

A Python 2.7 is looked for on the PATH and among the versions of pyenv
(``pyenv install 2.7.18``); the variable ``PYTHON27`` names another.  Where there
is none, the command says so and fails, and ``make test`` says that it has left
these tests out.  The suite's own pages, with what went over the wire in each
case, are left in ``.build/conformance/full/`` or ``some/``, a directory a run and
part.  The exit status is 0 only when all that was asked for has run and is
strict.
"""
