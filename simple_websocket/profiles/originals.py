"""The standard library as it was before anybody patched it.

A lock or a thread identity that has to work *between* OS threads must be a
real one, also in a process whose ``threading`` module is green.  Everything
is looked up when asked for: patching may come after our import.
"""

from __future__ import annotations

import importlib
import sys
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
    return getattr(importlib.import_module(module), name)
