"""The table of servers: what each is, and how it enters."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

HOST = '127.0.0.1'
BACKLOG = 4096


@dataclass(frozen=True)
class Entry:
    """A server, as the table sees it.

    :param name: what to select it by.
    :param group: the way to wait; ratios are taken within a group.
    :param role: ``ours``; ``bare``; ``peer``, which ours must be ahead of;
                 ``mark``, which is not blocking Python but good to know;
                 ``host``, a WSGI server whose application does nothing; or
                 ``support``, which is not compared with others.
    :param label: what to call it in the tables.
    :param start: serves at a port, and does not return.
    :param packages: the distributions whose versions matter.
    :param venv: the environment that it runs in, below ``.venv``.
    :param idle: whether to measure its idle connections.
    """

    name: str
    group: str
    role: str
    label: str
    start: Callable[[int], None]
    packages: tuple[str, ...] = ()
    venv: str = 'bench'
    idle: bool = False

    @property
    def raw(self) -> bool:
        """Whether it speaks no WebSocket."""
        return self.role == 'bare'


SERVERS: dict[str, Entry] = {}

Start = Callable[[int], None]


def server(
    name: str, group: str, role: str, label: str, *packages: str, idle: bool = False
) -> Callable[[Start], Start]:
    """Enter a function into the table."""

    def enter(start: Start) -> Start:
        venv = 'bench-1.1' if name.startswith('1.1-') else 'bench'
        SERVERS[name] = Entry(name, group, role, label, start, packages, venv, idle)
        return start

    return enter
