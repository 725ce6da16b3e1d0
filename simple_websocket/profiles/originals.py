"""The standard library as it was before anybody patched it.

A lock or a thread identity that has to work *between* OS threads must be a
real one, also in a process whose ``threading`` module is green.  Everything
is looked up when asked for: patching may come after our import.

Patching reaches into ``threading``: what is written in Python there (its
``RLock`` under gevent, ``Event``) is made of green locks, even when the class
itself is the original.  Real locks come from ``_thread``.
"""

from __future__ import annotations

import importlib
import sys
from contextlib import suppress
from functools import cache
from typing import Any


def original(module: str, name: str) -> Any:
    """An attribute of a standard module, unpatched.

    :param module: the module's name, as ``"threading"``.
    :param name: the attribute's name.
    """
    monkey = sys.modules.get('gevent.monkey')
    if monkey is not None and monkey.is_module_patched(module):
        return monkey.get_original(module, name)
    patcher = sys.modules.get('eventlet.patcher')
    if patcher is not None and any(map(patcher.is_monkey_patched, ('thread', 'select', 'socket'))):
        return getattr(patcher.original(module), name)
    return getattr(sys.modules.get(module) or importlib.import_module(module), name)


@cache
def builtin(module: str, name: str) -> Any:
    """``original`` of a function in C, looked up once: patching puts another in
    its place, but of the function itself there is one."""
    return original(module, name)


class RealEvent:
    """An event for one OS thread to wait on and any to set."""

    def __init__(self) -> None:
        self._lock = original('_thread', 'allocate_lock')()
        self._lock.acquire()

    def set(self) -> None:
        with suppress(RuntimeError):  # it is set already
            self._lock.release()

    def wait(self, timeout: float | None = None) -> bool:
        acquired: bool = self._lock.acquire(True, -1 if timeout is None else max(timeout, 0))
        return acquired
