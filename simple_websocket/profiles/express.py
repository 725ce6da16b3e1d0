"""Short ways for messages that nothing is in the way of.

Most messages come in one piece while somebody waits for them, and leave in one
write that TCP takes whole.  A decorator here gives a class methods in C
(``_express*.pyx``) that see whether this is such a message, and do all that it
needs; for any other they call the method of the class that has their name.  So
what is said there is what happens, and these only make it short.  Those of a
connection act on its link, whose own decorator has told them which slots to look at.

Where the compiled codec is not, nothing changes.
"""

from __future__ import annotations

from contextlib import AbstractContextManager, suppress
from typing import TYPE_CHECKING, Any, TypeVar

from ..codec import NAME
from ..errors import ConnectionClosed
from .originals import builtin

if TYPE_CHECKING:
    from ..ws import Base

_Kind = TypeVar('_Kind', bound=type)


class Holder:
    """What has a link; in C, where that is found without looking for a name."""

    _link: Any = None


def connection(kind: _Kind) -> _Kind:
    """For ``Base``: its ``receive`` and ``send``."""
    return kind


def hub(kind: _Kind) -> _Kind:
    """For ``HubLink``: how it waits and sends, and its ``_on_readable``."""
    return kind


def locked(kind: _Kind) -> _Kind:
    """For ``LockedLink``: how it sends."""
    return kind


def new_lock() -> AbstractContextManager[Any]:
    """A reentrant lock for OS threads, in any process; see ``locked.py``."""
    lock: AbstractContextManager[Any] = builtin('_thread', 'RLock')()
    return lock


def threads(kind: _Kind) -> _Kind:
    """For ``ThreadLink``: how it waits."""
    return kind


def injected(kind: _Kind) -> _Kind:
    """For ``InjectedLink``: how it waits, and its ``_look``."""
    return kind


def aio(kind: _Kind) -> _Kind:
    """For ``AioLink``: its ``receive``, ``iterate``, ``send``, and how it takes in."""
    if NAME == 'compiled':
        with suppress(ImportError):
            from . import _express_aio  # not before it is needed: it imports asyncio

            return _express_aio.aio(kind)
    return kind


class Messages:
    """The messages of a connection, until it closes.

    An iterator rather than a generator: an exception thrown into the wait does
    not end it, and C has nothing on the stack of who waits but one call.

    :param connection: what has ``receive()``, ``Base``'s own.
    """

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def __iter__(self) -> Messages:
        return self

    def __next__(self) -> Any:
        try:
            return self._connection.receive()
        except ConnectionClosed:
            raise StopIteration from None


#: What ``put_to_many`` says of a connection.
SENT, PARTLY = 0, -1


def put_to_many(
    connections: list[Base], frame: bytes, size: int, ident: int
) -> list[int | None]:
    """Send a server's frame on each connection where nothing is before it, in one
    step of C: nobody else gets in between, so no lock is taken.

    :param frame: of a payload of ``size`` bytes, not compressed.
    :param ident: the thread that calls.
    :returns: for each ``SENT``; ``PARTLY``, where TCP has taken some of it and the
              rest is its link's ``_unsent`` now; or None, where nothing was sent:
              ``offer`` it.
    """
    return [None] * len(connections)


AnyMessages = Messages  #: for a ``receive()`` of any kind
compiled = False  #: whether there are the short ways

if NAME == 'compiled':
    with suppress(ImportError):  # no Unix
        from . import _express, _express_many, _lock

        new_lock = _lock.StepLock
        connection, hub, locked = _express.connection, _express.hub, _express.locked
        threads, injected = _express.threads, _express.injected
        Holder = _express.Holder  # type: ignore[misc,assignment]
        Messages = _express.Messages  # type: ignore[misc,assignment]
        put_to_many = _express_many.put_to_many
        compiled = True
