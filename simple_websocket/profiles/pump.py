"""System calls with the codec at their side.

Most reads give one small message and nothing else, and most messages leave in
one write.  ``wait_and_take`` is such a read, for a thread that may block, and ``put``
such a write.

As of the codec there are two of each: those of this file, and the compiled
ones of ``_pump.pyx``, where the compiled codec is.  There a message costs one
call from Python, and no bytes object between the kernel's copy and the ``str``
or ``bytes`` that the application gets, or between its message and the kernel.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any

from ..codec import NAME, Chunk, encode
from ..inbox import Message
from .wire import DONTWAIT, Wire

#: What came: a message; the chunks of what was no message in one piece; the
#: bytes, if nobody has decoded them, which are none at the end of the stream.
Came = Message | list[Chunk] | bytearray
END = bytearray()


def at_end(came: Came) -> bool:
    """Whether that is the end of the stream, and not an empty message."""
    return type(came) is bytearray and not came


def python_wait_and_take(wire: Wire, decoder: Any, size: int, arrived: list[Came]) -> None:
    """Wait in the kernel for what comes.

    :param decoder: None for bytes that are not to be decoded yet.
    :param size: at most so many bytes.
    :param arrived: gets what came, in one step of C: after any other a signal
                    handler may raise (Ctrl-C), and it would be lost.
    :raises OSError: when the connection is broken.
    """
    arrived.extend(map(bytearray, map(wire.raw_recv, (size,))))


def python_put(
    wire: Wire, opcode: int, payload: str | bytes | bytearray, masked: bool
) -> bytes | memoryview | None:
    """Send a message as one frame, and do not wait.

    :returns: what TCP did not take of the frame; None when it took all.
    :raises OSError: when the connection is broken.
    :raises UnicodeEncodeError: for text with lone surrogates.
    """
    frame = encode(opcode, payload, masked)
    try:
        sent = wire.raw_send(frame, DONTWAIT)
    except BlockingIOError:
        return frame
    return None if sent == len(frame) else memoryview(frame)[sent:]


wait_and_take, put = python_wait_and_take, python_put
if NAME == 'compiled':
    with suppress(ImportError):  # no Unix
        from . import _pump

        wait_and_take, put = _pump.wait_and_take, _pump.put
