"""What a connection shows of itself, blocking or not.

The classes of ``ws`` and ``aiows`` differ in how they wait.  What they hold
(a link), what they tell about it and what kinds of data they take is here.
"""

from __future__ import annotations

import socket
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any, NoReturn

from .close_codes import GOING_AWAY, INTERNAL_ERROR
from .codec import BINARY, TEXT
from .errors import ConnectionClosed, SimpleWebsocketError
from .inbox import InputBuffer
from .profiles import express
from .profiles.link import Link, Payload
from .protocol import ENDING


def encode_message(data: Any) -> tuple[int, Payload]:
    """The opcode and the payload of what an application sends (section 5.6).

    :param data: bytes-like for a binary message; ``str`` for a text message,
                 as is ``str(data)`` of anything else.
    """
    if isinstance(data, str):
        return TEXT, data
    if isinstance(data, (bytes, bytearray)):
        return BINARY, data
    try:
        return BINARY, memoryview(data).tobytes()
    except TypeError:
        return TEXT, str(data)


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
def name_the_host(host: str) -> Iterator[None]:
    """Say which host it is that can't be resolved; the resolver does not."""
    try:
        yield
    except socket.gaierror as error:
        raise type(error)(error.errno, f'{error.strerror}: {host}') from error


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
        """The messages that were received and not yet taken."""
        messages: InputBuffer = self._open_link.protocol.input_buffer()
        return messages

    @property
    def latency(self) -> float | None:
        """Seconds between the last answered keepalive ping and its pong; None
        as long as there is none (see ``ping_interval``)."""
        seconds: float | None = self._open_link.protocol.latency
        return seconds

    def __reduce__(self) -> NoReturn:
        raise TypeError(f'{self!r} can neither be pickled nor copied')

    def __del__(self) -> None:
        link = self._link
        if link is None or link.protocol.state > ENDING:
            return  # a close that has begun goes on without us
        link.abandon()
        with suppress(Exception):  # warnings may be errors, or gone at exit
            warnings.warn(f'unclosed {self!r}', ResourceWarning, 2, source=self)

    def __repr__(self) -> str:
        if self._link is None:
            state = 'not open'
        elif self.connected:
            state = 'open'
        else:
            state = f'closed: {self.close_reason}'
        return f'<simple_websocket.{type(self).__name__} {state}>'
