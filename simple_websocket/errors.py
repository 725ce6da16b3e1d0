"""The exceptions that a caller can see.

Whatever goes wrong below (a socket, TLS, zlib, an HTTP parser) is turned into
one of these once, at the edge, and chained with ``from``.  The only others
that a caller meets are ``OSError`` when a TCP connection can't be made,
``TypeError``/``ValueError`` for a wrong argument and ``RuntimeError`` for a
WSGI server that hands out no socket.
"""

from __future__ import annotations

import copyreg
from collections.abc import Iterable
from typing import Any


class SimpleWebsocketError(RuntimeError):
    """The base of every error that this package defines."""

    def __reduce__(self) -> tuple[Any, ...]:
        # Exceptions are copied and pickled by calling the class with what
        # ``str()`` gives, which isn't what ours are made from.
        return copyreg.__newobj__, (type(self), *self.args), self.__dict__  # type: ignore[attr-defined]


class ConnectionError(SimpleWebsocketError):
    """The opening handshake failed (RFC 6455 section 4).

    :param status_code: the HTTP status of the refusal: the one that the
                        server sent to this client, or the one that this
                        server put on the wire; None where there was none (the
                        peer hung up, or did not speak HTTP).
    :param message: what went wrong, in words.
    :param headers: the headers of the server's refusal, pairs of a name, in lower case,
                    and a value.
    :param body: the beginning of its body, as far as it came within half a second of
                 the headers, 1024 bytes at most.
    """

    #: The HTTP status of the refusal, or None.
    status_code: int | None

    #: For a client: the headers of the server's refusal, pairs of a name, in lower
    #: case, and a value; else empty.
    headers: list[tuple[str, str]]

    #: For a client: what came of the refusal's body within half a second of the
    #: headers, 1024 bytes at most; else empty.
    body: bytes

    def __init__(
        self,
        status_code: int | None = None,
        message: str | None = None,
        headers: Iterable[tuple[str, str]] = (),
        body: bytes = b'',
    ) -> None:
        self.status_code = status_code
        self.headers = list(headers)
        self.body = body
        text = 'Connection error'
        if status_code is not None:
            text += f': {status_code}'
        if message:
            text += f': {message}' if status_code is None else f' {message}'
        super().__init__(text)


class ConnectionClosed(SimpleWebsocketError):
    """The connection is closed, or just was.

    Its ``__cause__``, for a 1006, is the ``OSError`` that TCP or TLS broke with, where
    there was one.

    :param reason: the close code (RFC 6455 section 7.4): the peer's, our own
                   where we closed or failed the connection, 1005 for a Close
                   without a code, 1006 for an end without a Close.
    :param message: the text that came with it, or None.
    """

    #: The close code.
    reason: int

    #: The text that came with it, or None.
    message: str | None

    def __init__(self, reason: int | None = 1005, message: str | None = None) -> None:
        self.reason = 1005 if reason is None else int(reason)
        self.message = message
        text = f'Connection closed: {self.reason}'
        super().__init__(f'{text} {message}'.rstrip() if message else text)
