"""How a hub is told which connections there are to read.

All links of a hub share one epoll where there is one (``_poll.pyx``): the hub
watches a single descriptor, and one turn of it reads many links, and can have the
memory of the next fetched meanwhile.  Elsewhere the hub watches each.

Hubs know a descriptor by its number, of which nobody tells them when it changes
hands.  So a link is removed before its descriptor is given back; and where the
application itself closes that, its link is told when the next has the number.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary, ref

from . import express

if TYPE_CHECKING:
    from .hub import HubLink


class Ear(ABC):
    """Has a hub call back when a descriptor is readable; a backend's.

    :param hub: which hub.
    :param fd: the descriptor.
    :param callback: what to call, with anything.
    :param lost: what to call when the hub finds that somebody else has the number;
                 None for a descriptor of our own that was opened just now.
    """

    def __init__(
        self,
        hub: Any,
        fd: int,
        callback: Callable[..., None],
        lost: Callable[[], None] | None = None,
    ) -> None:
        self._hub = hub
        self._fd = fd
        self._callback = callback
        self._lost = lost
        self._handle: Any = None  #: what the hub gave for it

    @abstractmethod
    def start(self) -> None:
        """Begin.

        :raises OSError: when somebody has closed the descriptor.
        """

    @abstractmethod
    def stop(self) -> None:
        """End; also one that was interrupted, or has not begun."""

    @abstractmethod
    def leave(self) -> None:
        """End it in a forked child, where the parent goes on."""


class OneByOne:
    """The links of a hub that are read, each with an ear of its own.

    Made by ``Readers``, which says how to make an ear.
    """

    def __init__(self) -> None:
        self._ears: dict[int, tuple[HubLink, Ear]] = {}

    def make_ear(self, fd: int, callback: Callable[..., None], lost: Callable[[], None]) -> Ear:
        raise NotImplementedError  # pragma: no cover (see ``Readers``)

    def add(self, fd: int, link: HubLink) -> HubLink | None:
        """Call the link's ``_on_readable`` when its descriptor is readable.

        :returns: the link that had this number, if it was not removed: somebody
                  else has closed its descriptor.
        :raises OSError: for a descriptor that can't be watched.
        """
        before, ear = self._ears.get(fd, (None, None))
        if ear is not None:
            ear.stop()
        ear = self.make_ear(fd, link._on_readable, link.on_stolen)
        self._ears[fd] = link, ear
        ear.start()
        return before if before is not link else None

    def remove(self, fd: int, link: HubLink) -> None:
        """Call it no more, for now; nothing happens where it is not called."""
        reader, ear = self._ears.get(fd, (None, None))
        if reader is link and ear is not None:
            ear.stop()
            del self._ears[fd]

    def drop(self, fd: int, link: HubLink) -> None:
        """Call it no more, for good; after the last one nothing is left."""
        self.remove(fd, link)

    def leave(self) -> None:
        """In a forked child: the parent goes on to read."""
        for _, ear in self._ears.values():
            ear.leave()
        self._ears.clear()


SharedPoll: Any = OneByOne
if express.compiled:
    with suppress(ImportError):  # no Linux
        from ._poll import SharedPoll


class Readers(SharedPoll):  # type: ignore[misc]
    """The links of a hub that are read.

    :param hub: which hub.
    :param kind: its ears.
    """

    _of_hub: WeakKeyDictionary[Any, Readers] = WeakKeyDictionary()
    _latest: Readers | None = None

    @classmethod
    def of(cls, hub: Any, kind: type[Ear]) -> Readers:
        readers = cls._latest
        if readers is None or readers._hub() is not hub:
            readers = cls._of_hub.get(hub) or cls._of_hub.setdefault(hub, cls(hub, kind))
            cls._latest = readers  # nearly all programs have one hub
        return readers

    def __init__(self, hub: Any, kind: type[Ear]) -> None:
        super().__init__()
        self._hub = ref(hub)  # weak: the hub keeps us alive, not we it
        self._kind = kind
        self._ear: Ear | None = None

    def make_ear(
        self, fd: int, callback: Callable[..., None], lost: Callable[[], None] | None = None
    ) -> Ear:
        return self._kind(self._hub(), fd, callback, lost)

    def watch(self, fd: int) -> None:
        """Have the hub call ``ready`` when the poll that all share has something."""
        self._ear = self.make_ear(fd, self.ready)
        self._ear.start()

    def unwatch(self) -> None:
        """Stop that; also what was interrupted."""
        if self._ear is not None:
            self._ear.stop()
            self._ear = None

    def leave(self) -> None:
        if self._ear is not None:
            self._ear.leave()
            self._ear = None
        super().leave()


def _leave_to_parent() -> None:
    for readers in list(Readers._of_hub.values()):
        readers.leave()


if hasattr(os, 'register_at_fork'):  # pragma: no branch (Windows has no fork)
    os.register_at_fork(after_in_child=_leave_to_parent)
