"""What is run, and what came of it."""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import platform
import subprocess
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path

from .agents import BACKENDS, HOSTS
from .environment import ROOT

CODECS = ('compiled', 'wsproto')
ROLES = ('server', 'client')

#: The cases of autobahntestsuite 0.8.2 by section; there is no 8 and no 11.
SECTIONS = {1: 16, 2: 11, 3: 7, 4: 10, 5: 20, 6: 145, 7: 37, 9: 54, 10: 1, 12: 90, 13: 126}
#: All but the limits (9) and compression (12, 13): a matter of seconds.
SHORT = ('1', '2', '3', '4', '5', '6', '7', '10')

#: The cases on which the suite gives no verdict: see the page in the docs.
INFORMATIONAL = ('7.1.6', '7.13.1', '7.13.2')

_LIST = """
from autobahntestsuite.case import Cases
print(' '.join('.'.join(c.__name__[4:].split('_')) for c in Cases))
"""


#: The modules that only runs of one backend load, or of two.
_OWN = {
    'gevent': {'hub', 'gevent'},
    'eventlet': {'hub', 'eventlet'},
    'threads': {'threads', 'locked', 'watchman'},
    'asyncio': {'aio', 'aiows', 'asgi', 'takeover'},
}


class Failure(Exception):
    """A run that could not be finished; says why."""


@dataclass(frozen=True)
class Run:
    """What is tested."""

    role: str
    backend: str
    codec: str

    @property
    def name(self) -> str:
        return f'{self.role}-{self.backend}-{self.codec}'


RUNS = tuple(Run(r, b, c) for b in BACKENDS for c in CODECS for r in ROLES)


def must_be(case: str) -> tuple[str, str]:
    """The two verdicts that a case must have."""
    verdict = 'INFORMATIONAL' if case in INFORMATIONAL else 'OK'
    return verdict, verdict


@dataclass
class Result:
    """What the suite says: case -> (``behavior``, ``behaviorClose``).

    :param expected: the cases that had to run.
    :param complaint: what went wrong besides, or ''.
    :param repeated: the cases that the suite had no patience for at first.
    """

    run: Run
    expected: tuple[str, ...]
    cases: dict[str, tuple[str, str]] = field(default_factory=dict)
    seconds: float = 0.0
    complaint: str = ''
    repeated: tuple[str, ...] = ()

    def counts(self, which: int) -> Counter[str]:
        """How often each verdict was given.

        :param which: 0 for ``behavior``, 1 for ``behaviorClose``.
        """
        return Counter(verdicts[which] for verdicts in self.cases.values())

    @property
    def faulty(self) -> list[str]:
        """The cases whose verdicts are not what they must be, or that lack them."""
        return [case for case in self.expected if self.cases.get(case) != must_be(case)]

    @property
    def faults(self) -> list[str]:
        """All that keeps it from being strict, one line each."""
        faults = [self.complaint] if self.complaint else []
        for case in self.faulty:
            if case in self.cases:
                behavior, close = self.cases[case]
                faults.append(f'{case}: {behavior}, close {close}')
            else:
                faults.append(f'{case}: did not run')
        faults += [f'{case}: was not asked for' for case in set(self.cases) - set(self.expected)]
        return faults

    @property
    def strict(self) -> bool:
        return not self.faults

    def __add__(self, other: Result) -> Result:
        """Both parts of a run."""
        return Result(
            self.run,
            self.expected + other.expected,
            self.cases | other.cases,
            self.seconds + other.seconds,
            self.complaint or other.complaint,
            self.repeated + other.repeated,
        )

    def update(self, again: Result) -> None:
        """Take the verdicts on some of the cases that were run again."""
        self.cases |= again.cases
        self.seconds += again.seconds
        self.complaint = self.complaint or again.complaint


def all_cases(python: Path) -> tuple[str, ...]:
    """The cases of the suite, in its order.

    :raises Failure: when they are not those of 0.8.2.
    """
    listed = subprocess.run([python, '-c', _LIST], capture_output=True, text=True)
    cases = tuple(listed.stdout.split())
    if Counter(section(case) for case in cases) != SECTIONS:
        raise Failure(f'these are not the cases of autobahntestsuite 0.8.2: {listed.stderr}')
    return cases


def section(case: str) -> int:
    return int(case.partition('.')[0])


def select_cases(cases: Iterable[str], prefixes: Sequence[str]) -> tuple[str, ...]:
    """The cases at or below any of the prefixes: ``6`` or ``9.3`` or ``7.1.6``.

    :raises Failure: for a prefix that no case has.
    """
    cases = tuple(cases)
    for prefix in prefixes:
        if not any(f'{case}.'.startswith(f'{prefix}.') for case in cases):
            raise Failure(f'the suite has no section or case {prefix}')
    return tuple(case for case in cases if any(f'{case}.'.startswith(f'{p}.') for p in prefixes))


def parts(cases: Iterable[str]) -> dict[str, tuple[str, ...]]:
    """The cases in parts of some seconds to minutes, by name: each subsection of
    compression, and the rest."""
    parts: dict[str, tuple[str, ...]] = {}
    for case in cases:
        name = '1-10' if section(case) <= 10 else case.rpartition('.')[0]
        parts[name] = (*parts.get(name, ()), case)
    return parts


def _code(path: Path) -> bytes:
    """What a file says, of Python without its comments and its layout."""
    text = path.read_bytes()
    return ast.dump(ast.parse(text)).encode() if path.suffix == '.py' else text


def not_loaded(backend: str) -> set[str]:
    """The modules of the package that no run of a backend loads."""
    return {'injected', *chain.from_iterable(_OWN.values())} - _OWN[backend]


def fingerprint(backend: str, cases: Iterable[str] = ()) -> str:
    """What a result depends on: our code, the installed packages, the cases."""
    python = f'{platform.python_implementation()} {platform.python_version()}'
    digest = hashlib.sha256(' '.join((python, *cases)).encode())
    left_out = not_loaded(backend)
    for path in sorted((ROOT / 'simple_websocket').rglob('*')):
        if path.suffix in ('.py', '.pyx', '.pxd') and path.stem not in left_out:
            digest.update(_code(path))
    digest.update(_code(ROOT / 'conformance' / 'agents.py'))
    for name in ('wsproto', 'greenlet', HOSTS[backend]):
        digest.update(f'{name} {importlib.metadata.version(name)}'.encode())
    return digest.hexdigest()
