"""The targets: modules with a function ``check(data: bytes) -> None``.

``check`` raises for a finding, whatever the exception is, and returns for
everything else. It is a function of ``data`` alone: the same bytes find the
same thing in every process, but for masks and pings, which are random.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable

#: In the order in which the time budget is spent, and their share of it.
TARGETS = {
    'protocol': 4,
    'codec': 2,
    'deflate': 2,
    'server_handshake': 2,
    'client_handshake': 2,
}


def load(name: str) -> Callable[[bytes], None]:
    """The ``check`` of a target.

    :raises LookupError: for one that does not exist.
    """
    if name not in TARGETS:
        raise LookupError(f'{name}: not one of {", ".join(TARGETS)}')
    check: Callable[[bytes], None] = importlib.import_module(f'fuzz.targets.{name}').check
    return check
