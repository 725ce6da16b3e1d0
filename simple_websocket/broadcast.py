"""One message to many connections."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, Literal, NamedTuple

from .codec import encode
from .connection import encode_message
from .errors import ConnectionClosed
from .options import check_timeout
from .profiles.express import PARTLY, SENT, put_to_many
from .profiles.originals import builtin
from .ws import Base


class Broadcast(NamedTuple):
    """What became of a message that was sent to many.

    Each connection is in one of the lists, in the order in which they were
    given.

    :ivar sent: TCP has the message, or takes the rest of it as the peer reads.
    :ivar skipped: it was not sent, since the peer has not read what was sent before.
    :ivar closed: closed before, or by this call; the message may be lost.
    """

    sent: list[Any]
    skipped: list[Any]
    closed: list[Any]


def broadcast(
    connections: Iterable[Base],
    data: Any,
    *,
    slow: Literal['skip', 'close', 'wait'] = 'skip',
    timeout: float | None = None,
) -> Broadcast:
    """Send a message to many connections, and let no slow one hold up the others.

    The frame is made once for all that share its form: for all connections of
    a server but those that compress with a window of their own (RFC 7692
    section 7.1.1; ``Deflate`` can be told to do without).  Every peer is
    offered the message before any is waited for.

    :param connections: of ``Server`` and ``Client``, on whatever profiles.
    :param data: as for ``send``.
    :param slow: what to do with a peer that has not read all that was sent to
                 it before: ``"skip"`` it, which is the default; ``"close"`` the
                 connection, without a Close, since that could not be written
                 either; or ``"wait"``, after all others were served.
    :param timeout: with ``"wait"``: seconds, for all of them together; then the
                    connections whose peers have not taken the message are
                    closed, as by ``send(timeout=)``.  None waits as long as
                    they are connected.
    :returns: what became of it.
    :raises TypeError: for anything but such connections, or a wrong argument.
    :raises ValueError: for a wrong value, or text with lone surrogates; nothing
                        was sent then.
    """
    everyone = list(connections)
    if not all(issubclass(kind, Base) for kind in set(map(type, everyone))):
        stranger = next(ws for ws in everyone if not isinstance(ws, Base))
        raise TypeError(f'connections must be of Server or Client, not {stranger!r}; '
            'on asyncio gather their send(timeout=)')
    if slow not in ('skip', 'close', 'wait'):
        raise ValueError(f"slow must be 'skip', 'close' or 'wait', not {slow!r}")
    check_timeout(timeout)
    if timeout is not None and slow != 'wait':
        raise ValueError(f"timeout is for slow='wait', not {slow!r}")
    opcode, payload = encode_message(data)
    payload = payload.encode() if isinstance(payload, str) else bytes(payload)
    outcome = _offer(everyone, opcode, payload, slow)
    if slow == 'wait':
        _wait(everyone, outcome, None if timeout is None else time.monotonic() + timeout)
    if outcome.count(SENT) == len(everyone):
        return Broadcast(everyone, [], [])  # as nearly always
    lists = Broadcast([], [], [])
    for ws, mark in zip(everyone, outcome, strict=True):
        if mark is None:
            lists.skipped.append(ws)
        else:
            (lists.closed if mark == _CLOSED else lists.sent).append(ws)
    return lists


_CLOSED = -2

#: Connections that are served in one step, in which no other thread runs.
BATCH = 64


def _offer(everyone: list[Any], opcode: int, payload: bytes, slow: str) -> list[int | None]:
    """The mark of each connection, as ``BlockingLink.offer`` returns it, or ``_CLOSED``."""
    outcome: list[int | None] = []
    frame = encode(opcode, payload, False)
    made: dict[Any, bytes] = {None: frame}
    ident = builtin('threading', 'get_ident')()
    for at in range(0, len(everyone), BATCH):
        batch = everyone[at : at + BATCH]
        try:
            marks = put_to_many(batch, frame, len(payload), ident)
            # Those that are begun first: to offer it may take another thread.
            for kind in (PARTLY, None) if marks.count(SENT) < len(batch) else ():
                marks = [
                    _offer_one(ws, mark, opcode, payload, made, slow) if mark == kind else mark
                    for ws, mark in zip(batch, marks, strict=True)
                ]
            outcome += marks
        except BaseException:  # a signal handler raised
            for ws in batch:
                if ws._link is not None:
                    ws._link.fail_if_torn(ident)
            raise
    return outcome


def _offer_one(
    ws: Any, begun: int | None, opcode: int, payload: bytes, made: dict[Any, bytes], slow: str
) -> int | None:
    """What ``put_to_many`` could not do alone.

    :param begun: ``PARTLY``, or None for what has not begun.
    """
    link = ws._link
    if link is None:
        return _CLOSED  # its constructor is not through, or was not
    mark: int | None
    try:
        if begun == PARTLY:
            mark = link.go_on()
        else:
            mark = link.offer(opcode, payload, made, slow == 'wait')
    except ConnectionClosed:
        return _CLOSED
    if mark is None and slow == 'close':
        link.give_up()
        return _CLOSED
    return mark


def _wait(everyone: list[Any], outcome: list[int | None], deadline: float | None) -> None:
    for index, (ws, mark) in enumerate(zip(everyone, outcome, strict=True)):
        if mark is not None and mark > 0:
            left = None if deadline is None else max(deadline - time.monotonic(), 0)
            try:
                ws._open_link.wait_until_sent(mark, left)
            except ConnectionClosed:
                outcome[index] = _CLOSED


__all__ = ['Broadcast', 'broadcast']
