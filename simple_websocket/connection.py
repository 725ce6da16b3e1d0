"""What a connection shows of itself, blocking or not.

The classes of ``ws`` and ``aiows`` differ in how they wait.  What they hold
(a link), what they tell about it and what kinds of data they take is here.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn
from weakref import ref

from .close_codes import GOING_AWAY, INTERNAL_ERROR
from .codec import BINARY, TEXT
from .errors import ConnectionClosed, ConnectionError, SimpleWebsocketError
from .handshake import Rejected
from .inbox import InputBuffer
from .profiles import express
from .profiles.link import Link, Payload
from .protocol import ENDING


def encode_message(data: Any) -> tuple[int, Payload]:
    """The opcode and the payload of what an application sends (section 5.6).

    :param data: bytes-like for a binary message; ``str`` for a text message, as is
                 ``str(data)`` of anything else, numbers of NumPy among it.
    """
    if isinstance(data, str):
        return TEXT, data
    if isinstance(data, (bytes, bytearray)):
        return BINARY, data
    try:
        view = memoryview(data)
    except TypeError:
        return TEXT, str(data)
    if not (view.ndim or isinstance(data, memoryview) or view.format.startswith('T')):
        return TEXT, str(data)  # a number of NumPy's, or of ctypes; T is for a struct
    return BINARY, view.tobytes()


def exit_code(kind: type[BaseException] | None) -> int | None:
    """The close code with which a ``with`` block ends that raised ``kind``.

    :returns: None for the default; 1011 after an error; 1001 on the way out of
              the program (Ctrl-C, a killed greenlet, a cancelled task), which
              is not this handler's fault.
    """
    if kind is None or issubclass(kind, (ConnectionClosed, GeneratorExit)):
        return None
    return INTERNAL_ERROR if issubclass(kind, Exception) else GOING_AWAY


@contextmanager
def as_refusal() -> Iterator[None]:
    """Take a ``ConnectionError`` of ours, raised where the application looks at a
    request, for its refusal."""
    try:
        yield
    except ConnectionError as error:
        status = error.status_code
        if not isinstance(status, int) or not 300 <= status < 600:
            status = 500
        raise Rejected(status, 'The application has refused this client.') from error


class _RoomFor(ref[Link]):
    """Tells a link that the application has made room in its buffer, which must not
    keep the link alive."""

    __slots__ = ()

    def __call__(self) -> None:
        link = super().__call__()
        if link is not None:
            link.make_room()


class Event:
    """The ``event`` of a connection that waits without one: setting it makes a
    waiting ``receive`` look again."""

    def __init__(self, link: Link) -> None:
        self._link = link

    def set(self) -> None:
        self._link.wake()

    def clear(self) -> None:
        """Nothing to do: it is never left set."""

    def is_set(self) -> bool:
        """Whether ``receive`` would return, or raise, at once."""
        return bool(self._link.protocol.messages) or self._link.protocol.state >= ENDING

    def wait(self, timeout: float | None = None) -> bool:
        """Like ``is_set``: a connection of this kind has nothing to wait on."""
        return self.is_set()


class Connection(express.Holder):
    """The state of a connection, open or closed.

    It holds the link and is not held by it: when nobody holds the connection
    any more, the link closes the socket.
    """

    #: The negotiated subprotocol, or None (RFC 6455 section 1.9).
    subprotocol: str | None = None

    _link: Link | None

    @property
    def _open_link(self) -> Any:
        if self._link is None:
            raise SimpleWebsocketError(f'{self!r}: make it with accept() or connect()')
        return self._link

    @property
    def connected(self) -> bool:
        """Whether messages can be sent.  Once false it stays so."""
        return self._link is not None and self._link.protocol.state <= ENDING

    @property
    def close_reason(self) -> int:
        """The close code (RFC 6455 section 7.4), once closed: the peer's; ours
        where we closed or failed the connection; 1006 for an end without a
        Close.  1005 until then, and for a Close without a code."""
        code: int = self._open_link.protocol.close_code
        return code

    @property
    def close_message(self) -> str | None:
        """The text that came with the close code, or None."""
        text: str | None = self._open_link.protocol.close_reason
        return text

    @property
    def input_buffer(self) -> InputBuffer:
        """The messages that were received and not yet taken.

        Like a list: it has ``len()``, can be iterated over, and messages can be taken
        out by ``pop(0)`` and put in by ``append()``.
        """
        link: Link = self._open_link
        messages = link.protocol.input_buffer()
        if messages.on_room is None:
            messages.on_room = _RoomFor(link)
        return messages

    @property
    def latency(self) -> float | None:
        """Seconds between the last answered keepalive ping and its pong; None
        as long as there is none (see ``ping_interval``)."""
        seconds: float | None = self._open_link.protocol.latency
        return seconds

    @property
    def pong_received(self) -> bool:
        """Whether the peer is heard, for programs that ask 1.x.  With keepalive a
        connection whose peer is not ends by itself: this is ``connected``."""
        return self.connected

    def __reduce__(self) -> NoReturn:
        raise TypeError(f'{self!r} can neither be pickled nor copied')

    def __del__(self) -> None:
        link = self._link
        if link is None or link.protocol.state > ENDING:
            return  # a close that has begun goes on without us
        try:
            with suppress(Exception):  # warnings may be errors, or gone at exit
                warnings.warn(f'unclosed {self!r}', ResourceWarning, 2, source=self)
        finally:
            link.abandon()

    def _where(self) -> str:
        """The path or the URL of an open connection, without what may be a secret."""
        raise NotImplementedError

    def __repr__(self) -> str:
        if self._link is None:
            state = 'not open'
        elif self.connected:
            state = f'{self._where()} open'
        else:
            state = f'{self._where()} closed: {self.close_reason}'
        return f'<simple_websocket.{type(self).__name__} {state}>'
