"""Frames (RFC 6455 section 5): bytes in, chunks out, and the way back.

A *codec* is a ``Decoder`` class and an ``encode`` function.  This file holds
the seam and the reference, on top of ``wsproto.frame_protocol``.  The compiled
one of ``_codec.pyx`` is used wherever it could be built: it gives the same
chunks or the same failure for the same bytes, whatever split they arrive in.

The decoder hands on a data frame in as many chunks as its payload took to
arrive, so that invalid UTF-8 and a deflate bomb can be seen before the frame
is complete; a control frame always comes whole.  It keeps only what the next
header must be judged by: whether a message is open, how large it has become
and of how many frames.  It does not know sockets, time, what a message says
or what a Close means.

The environment variable ``SIMPLE_WEBSOCKET_CODEC``, read at import, forces a
codec: ``wsproto`` or ``compiled``; ``NAME`` tells which one is in use.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING, NamedTuple

from wsproto.extensions import Extension
from wsproto.frame_protocol import (
    CloseReason,
    FrameDecoder,
    FrameProtocol,
    Opcode,
    ParseFailed,
    RsvBits,
    XorMaskerSimple,
)

if TYPE_CHECKING:
    from ._codec import CompiledDecoder

CONTINUATION, TEXT, BINARY, CLOSE, PING, PONG = 0x0, 0x1, 0x2, 0x8, 0x9, 0xA

#: Not on the wire: the opcode of the chunk that reports a violation.  It is
#: the last one that a decoder ever returns.
FAILURE = -1

PROTOCOL_ERROR = 1002
INVALID_PAYLOAD = 1007
MESSAGE_TOO_BIG = 1009


class Chunk(NamedTuple):
    """A whole control frame, or some payload of a data frame."""

    opcode: int  #: TEXT or BINARY where a message begins, CONTINUATION after
    payload: bytes  #: unmasked; still compressed where the message is
    final: bool  #: whether the message ends here
    compressed: bool  #: RSV1 of the message's first frame; a control frame has none
    code: int = 0  #: the close code, for FAILURE (``payload`` says why)
    ends_frame: bool = True  #: whether its frame ends here


class _Judge(Extension):
    """Judges each frame header before wsproto looks at the payload.

    wsproto asks again for the same header when its bytes arrive in pieces, so
    nothing is remembered before the frame is complete, but of which message
    the current frame is.
    """

    name = 'frame judge'

    def __init__(self, limit: int | None, max_fragments: int | None, compression: bool) -> None:
        self.limit = limit
        self.max_fragments = max_fragments
        self.compression = compression
        self.compressed = False  #: the message that the current data frame is part of
        self._in_message = False
        self._size = 0
        self._fragments = 0
        self._control = False
        self._length = 0

    def offer(self) -> bool:
        # It is no extension that a peer could see: nobody asks, but wsproto's
        # base class is abstract without an answer.
        return False  # pragma: no cover

    def frame_inbound_header(
        self,
        proto: FrameDecoder | FrameProtocol,
        opcode: Opcode,
        rsv: RsvBits,
        payload_length: int,
    ) -> CloseReason | RsvBits:
        self._control = opcode.iscontrol()
        if self._control:
            return RsvBits(False, False, False)
        first = not self._in_message
        if first == (opcode is Opcode.CONTINUATION):  # 5.4
            raise ParseFailed(
                'a continuation without a message' if first else 'a data frame inside a message'
            )
        if first:
            self.compressed = rsv.rsv1
        self._length = payload_length
        if self.limit is not None and not self.compressed:
            if self._size + payload_length > self.limit:
                raise ParseFailed('message too big', CloseReason.MESSAGE_TOO_BIG)
        if self.max_fragments is not None and self._fragments >= self.max_fragments:
            raise ParseFailed('message of too many fragments', CloseReason.MESSAGE_TOO_BIG)
        return RsvBits(self.compression and first, False, False)  # RFC 7692 section 6

    def frame_inbound_complete(
        self, proto: FrameDecoder | FrameProtocol, fin: bool
    ) -> bytes | CloseReason | None:
        if not self._control:
            self._in_message = not fin
            self._size = 0 if fin else self._size + self._length
            self._fragments = 0 if fin else self._fragments + 1
        return None


class WsprotoDecoder:
    """Turns what a peer sent into chunks.

    :param client: whether this end is the client, whose peer must not mask
                   (section 5.1); a server's peer must.
    :param limit: the bytes that an uncompressed message may have, None for no
                  limit; judged by the declared length, before the payload.
    :param max_fragments: the frames that one message may have, None for no limit.
    :param compression: whether RSV1 was negotiated (RFC 7692 section 6).
    """

    def __init__(
        self,
        client: bool,
        limit: int | None = None,
        max_fragments: int | None = None,
        compression: bool = False,
    ) -> None:
        self._judge = _Judge(limit, max_fragments, compression)
        self._frames = FrameDecoder(client, [self._judge])
        self._failed = False

    def whole(self, data: bytes | bytearray) -> str | bytes | None:
        """The message, where these bytes are one frame that is all of it.

        A shortcut that a codec may offer; this one always says: ``feed`` it.

        :param data: what was read.
        :returns: the ``str`` of a text, the bytes of a binary message; None
                  for anything else, and then nothing was taken in.
        """
        return None

    def feed(self, data: bytes | bytearray | memoryview) -> list[Chunk]:
        """Take bytes in and return what they complete.

        :param data: the bytes, of any number.
        :returns: chunks in the order of the wire; a violation is the last of
                  them, with opcode ``FAILURE``, and everything after it is
                  ignored.
        """
        chunks: list[Chunk] = []
        if self._failed:
            return chunks
        self._frames.receive_bytes(data)  # type: ignore[arg-type]
        judge = self._judge
        try:
            while True:
                frame = self._frames.process_buffer()
                if frame is None:
                    return chunks
                opcode, payload, complete, fin = frame
                assert isinstance(payload, bytes)
                compressed = judge.compressed and not opcode.iscontrol()
                final = complete and fin
                chunks.append(Chunk(int(opcode), payload, final, compressed, 0, complete))
        except ParseFailed as error:
            self._failed = True
            chunks.append(Chunk(FAILURE, str(error).encode(), True, False, int(error.code)))
            return chunks


def wsproto_encode(
    opcode: int,
    payload: str | bytes | bytearray | memoryview,
    masked: bool,
    compressed: bool = False,
    fin: bool = True,
) -> bytes:
    """Make one frame (section 5.2).

    :param opcode: the frame's opcode.
    :param payload: its payload, already compressed where ``compressed`` is set;
                    a str, or bytes-like (a memoryview must be one of bytes).
    :param masked: whether to mask it, with a fresh key of ``os.urandom``: what
                   a client must do (section 5.3).
    :param compressed: RSV1 (RFC 7692 section 6).
    :param fin: whether the message ends with this frame.
    :returns: the frame's bytes.
    :raises UnicodeEncodeError: for text with lone surrogates.
    """
    if isinstance(payload, str):
        payload = payload.encode()
    size = len(payload)
    first = opcode | (0x80 if fin else 0) | (0x40 if compressed else 0)
    bit = 0x80 if masked else 0
    if size < 126:
        header = bytes((first, bit | size))
    elif size < 65536:
        header = struct.pack('!BBH', first, bit | 126, size)
    else:
        header = struct.pack('!BBQ', first, bit | 127, size)
    if not masked:
        return b''.join((header, payload))
    key = os.urandom(4)
    return b''.join((header, key, XorMaskerSimple(key).process(bytearray(payload))))


def _choose(name: str | None) -> str:
    """The codec to use, by the value of the environment variable.

    :raises ImportError: for one that is not there.
    :raises ValueError: for one that does not exist.
    """
    if name not in (None, '', 'wsproto', 'compiled'):
        raise ValueError(f'SIMPLE_WEBSOCKET_CODEC={name}: neither wsproto nor compiled')
    if name == 'wsproto':
        return name
    try:
        from ._codec import CompiledDecoder as CompiledDecoder
    except ImportError as error:
        if name != 'compiled':
            return 'wsproto'
        raise ImportError(
            'SIMPLE_WEBSOCKET_CODEC=compiled, but there is no compiled codec: the package '
            f'was installed without a C compiler, or for another Python ({error})'
        ) from error
    return 'compiled'


#: The codec that is in use: its name and its two halves.
NAME = _choose(os.environ.get('SIMPLE_WEBSOCKET_CODEC'))
Decoder: type[WsprotoDecoder] | type[CompiledDecoder]
if NAME == 'compiled':
    from . import _codec

    Decoder, encode = _codec.CompiledDecoder, _codec.encode
else:
    Decoder, encode = WsprotoDecoder, wsproto_encode
