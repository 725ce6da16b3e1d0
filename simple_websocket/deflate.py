"""Compression Extensions for WebSocket: permessage-deflate (RFC 7692).

Two things live here: the negotiation, which is a matter of header values, and
the engine of one connection, which turns message payloads into DEFLATE data
and back.  The rules:

* A header that doesn't follow the grammar (RFC 6455 section 9.1) is
  an error of its own, ``ExtensionSyntaxError``; a well-formed offer that asks
  for what doesn't exist or can't be done is merely declined, and the next one
  is looked at; a server's answer has no second chance and must be right.
* Nothing is inflated without a bound.  Output is made in small steps, and
  stops one byte past the limit, whatever the ratio.
* zlib contexts cost tens of KiB, so one is made at the first compressed
  message in its direction, and given up as soon as nothing can refer to it.

zlib has no raw compressor for a window of 256 bytes (window bits 8), so that
value can't be promised for what we send.  For what we receive it is harmless:
a larger window than the sender's inflates the same data.

This file refuses to know frames, RSV bits, opcodes, UTF-8 and sockets: who
calls decides which payloads are compressed, and what a failure does to the
connection (each exception carries the close code).
"""

from __future__ import annotations

import io
import re
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

NAME = 'permessage-deflate'

Buffer = bytes | bytearray | memoryview

SERVER_NO_TAKEOVER = 'server_no_context_takeover'
CLIENT_NO_TAKEOVER = 'client_no_context_takeover'
SERVER_BITS = 'server_max_window_bits'
CLIENT_BITS = 'client_max_window_bits'

#: LZ77 reaches back 32 KiB at most (RFC 1951 section 2).
_WINDOW = 32768

#: Input is fed, and output taken, in pieces of this many bytes.  zlib hands
#: back a copy of what it did not consume, so the input piece bounds that copy,
#: and the output piece bounds what is made beyond the limit.
_INPUT_STEP = 1 << 16
_OUTPUT_STEP = 1 << 18

#: How often a DEFLATE stream may end (BFINAL) in a message, beyond once a
#: fragment, for which a sender has reason.  Each end costs us a new context, for
#: as little as two bytes of input, and nothing else that is bounded sees it.
_SPARE_ENDS = 16

_SYNC_TAIL = b'\x00\x00\xff\xff'

#: What is fed after a message: the tail that the sender removed (RFC 7692
#: section 7.2.2), and then a whole empty block.  At a block boundary neither
#: gives output.  Elsewhere the bits are taken for data: lengths, literals.
_TRAILER = _SYNC_TAIL + b'\x00' + _SYNC_TAIL


class DeflateError(Exception):
    """Base of this module's errors; ``code`` is the close code that fits."""

    code = 1002


class ExtensionSyntaxError(DeflateError):
    """A ``Sec-WebSocket-Extensions`` field that isn't one (RFC 6455 section 9.1)."""


class NegotiationError(DeflateError):
    """The peer's parameters are invalid, or not what was asked for."""


class InflateError(DeflateError):
    """A compressed message that isn't DEFLATE data, or not all of it."""

    code = 1007


class InflateTooBig(DeflateError):
    """A message inflates to more than is allowed."""

    code = 1009


def _check_int(
    name: str, value: object, low: int, high: int | None, why: str = ''
) -> None:
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f'{name} must be an int, not {type(value).__name__}')
    if value < low or (high is not None and value > high):
        bounds = f'at least {low}' if high is None else f'from {low} to {high}'
        raise ValueError(f'{name} must be {bounds}{why}, not {value}')


@dataclass(frozen=True)
class Deflate:
    """How to compress: a value for the ``compression=`` argument (RFC 7692).

    Both roles take the same options.  The peer may lower the window bits and
    forbid context takeover, never the reverse; but a server that can't limit its
    own window may talk to a client all the same.

    :param level: zlib's level, 0 (store) to 9 (smallest).  Of JSON messages of
                  1 to 4 KiB, 3 leaves 30 % and takes 70 % of the time
                  that 6, zlib's own default, takes to leave 28 %; 1 is no
                  faster and leaves 31 %.
    :param mem_level: zlib's memory level, 1 to 9: a compressor takes
                      ``2 ** (mem_level + 9)`` bytes for its hash tables, plus
                      ``2 ** (window_bits + 2)`` for its window.  With a window
                      of 12 bits, more than 5 makes messages of a few KiB no
                      smaller.
    :param server_max_window_bits: base-2 logarithm of the window, in bytes,
                                   that the server compresses with: 9 to 15.  A
                                   client asks for it, and takes 15 as well.
    :param client_max_window_bits: the same for the client.
    :param server_no_context_takeover: the server begins each message with an
                                       empty window: less memory between
                                       messages, larger messages.
    :param client_no_context_takeover: the same for the client.
    :param threshold: messages shorter than this many bytes are sent as they
                      are.  Compression is slower than all the rest that is
                      done to a short message, and what it could save is less
                      than the headers of the packet around it.
    :raises TypeError: an argument has the wrong type.
    :raises ValueError: an argument is out of its range.
    """

    level: int = 3
    mem_level: int = 5
    server_max_window_bits: int = 12
    client_max_window_bits: int = 12
    server_no_context_takeover: bool = False
    client_no_context_takeover: bool = False
    threshold: int = 128

    def __post_init__(self) -> None:
        _check_int('level', self.level, 0, 9)
        _check_int('mem_level', self.mem_level, 1, 9)
        why = ' (zlib cannot compress with a window of 8 bits)'
        _check_int(SERVER_BITS, self.server_max_window_bits, 9, 15, why)
        _check_int(CLIENT_BITS, self.client_max_window_bits, 9, 15, why)
        for name in (SERVER_NO_TAKEOVER, CLIENT_NO_TAKEOVER):
            value = getattr(self, name)
            if not isinstance(value, bool):
                raise TypeError(f'{name} must be a bool, not {type(value).__name__}')
        _check_int('threshold', self.threshold, 0, None)


def from_option(option: object) -> Deflate | None:
    """Return what a ``compression=`` argument stands for.

    :param option: None or False for no compression; True or ``'deflate'`` for
                   the default options; or a ``Deflate``.
    :raises ValueError: another string.
    :raises TypeError: anything else.
    """
    if option is None or option is False:
        return None
    if option is True or option == 'deflate':
        return Deflate()
    if isinstance(option, Deflate):
        return option
    if isinstance(option, str):
        raise ValueError(f'compression must be True, a Deflate, or False, not {option!r}')
    raise TypeError(
        f'compression must be True, a Deflate, or False, not {type(option).__name__}'
    )


# The grammar of Sec-WebSocket-Extensions (RFC 6455 section 9.1)


class Extension(NamedTuple):
    """One element of the header: a name and its parameters, as they came."""

    name: str
    params: list[tuple[str, str | None]]


_TOKEN = r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_token = re.compile(_TOKEN)
_param = re.compile(
    rf'[ \t]*;[ \t]*({_TOKEN})'
    rf'(?:[ \t]*=[ \t]*(?:({_TOKEN})|"((?:[^"\\]|\\.)*)"))?'
)
_space = re.compile(r'[ \t]*')
_quoted_pair = re.compile(r'\\(.)')


def parse_extensions(header_values: Sequence[str]) -> list[Extension]:
    """Parse the ``Sec-WebSocket-Extensions`` fields of one request or response.

    Several fields count as one list (RFC 6455 section 9.1).  Empty elements
    of a list are skipped (RFC 9110 section 5.6.1.2); some clients that offer
    nothing send a list of nothing else.

    :param header_values: the field values, in order.
    :raises ExtensionSyntaxError: a value doesn't follow the grammar.
    """
    found: list[Extension] = []
    for text in header_values:
        at = 0
        while at < len(text):
            at = _skip_space(text, at)
            if at < len(text) and text[at] != ',':
                extension, at = _parse_extension(text, at)
                found.append(extension)
                at = _skip_space(text, at)
            if at < len(text) and text[at] != ',':
                raise ExtensionSyntaxError(f'unexpected text at {at} in {text!r}')
            at += 1
    return found


def _skip_space(text: str, at: int) -> int:
    match = _space.match(text, at)
    assert match is not None  # it matches nothing, too
    return match.end()


def _parse_extension(text: str, at: int) -> tuple[Extension, int]:
    match = _token.match(text, at)
    if match is None:
        raise ExtensionSyntaxError(f'no extension name at {at} in {text!r}')
    extension = Extension(match.group(), [])
    at = match.end()
    while (match := _param.match(text, at)) is not None:
        name, value, quoted = match.groups()
        if quoted is not None:
            value = _quoted_pair.sub(r'\1', quoted)
            # "the value after quoted-string unescaping MUST conform to the
            # 'token' ABNF"
            if _token.fullmatch(value) is None:
                raise ExtensionSyntaxError(f'{value!r} is not a token')
        extension.params.append((name, value))
        at = match.end()
    return extension, at


# Negotiation (RFC 7692 sections 5 and 7.1)


def _read_params(
    params: list[tuple[str, str | None]], response: bool
) -> dict[str, int]:
    """Return the parameters of an offer or a response, checked one by one.

    A flag has the value 1, ``client_max_window_bits`` without a number 15.
    """
    read: dict[str, int] = {}
    for name, value in params:
        if name in read:
            raise NegotiationError(f'duplicate parameter {name}')
        if name in (SERVER_NO_TAKEOVER, CLIENT_NO_TAKEOVER):
            if value is not None:
                raise NegotiationError(f'{name} takes no value')
            read[name] = 1
        elif name in (SERVER_BITS, CLIENT_BITS):
            if value is None:
                # 7.1.2.2: only an offer may leave it to the server
                if response or name == SERVER_BITS:
                    raise NegotiationError(f'{name} needs a value')
                read[name] = 15
            elif re.fullmatch('[89]|1[0-5]', value):
                read[name] = int(value)
            else:
                raise NegotiationError(f'{name} must be 8 to 15, not {value!r}')
        else:
            raise NegotiationError(f'unknown parameter {name}')
    return read


def negotiate(
    options: Deflate | None, header_values: Sequence[str]
) -> tuple[PerMessageDeflate | None, str | None]:
    """Answer a client's offers, in the client's order of preference.

    :param options: what this server wants, None to decline everything.
    :param header_values: the ``Sec-WebSocket-Extensions`` fields of the request.
    :returns: the engine and the value of the response's header field; None and
             None if there is no offer that can be accepted.
    :raises ExtensionSyntaxError: the header is malformed (RFC 6455 section
        9.1): the request deserves a 400.
    """
    for name, params in parse_extensions(header_values):
        if options is None or name != NAME:
            continue
        try:
            asked = _read_params(params, response=False)
        except NegotiationError:
            continue
        if asked.get(SERVER_BITS) == 8:
            continue
        return _agree(options, asked)
    return None, None


def _agree(options: Deflate, asked: dict[str, int]) -> tuple[PerMessageDeflate, str]:
    """Accept an offer (RFC 7692 section 7.1)."""
    server_takeover = client_takeover = True
    if options.server_no_context_takeover or SERVER_NO_TAKEOVER in asked:
        server_takeover = False
    if options.client_no_context_takeover or CLIENT_NO_TAKEOVER in asked:
        client_takeover = False
    server_bits = min(options.server_max_window_bits, asked.get(SERVER_BITS, 15))
    # 7.1.2.2: a client that doesn't name the parameter can't be limited
    client_bits = 15
    if CLIENT_BITS in asked:
        client_bits = min(options.client_max_window_bits, asked[CLIENT_BITS])
    answer = NAME
    if not server_takeover:
        answer += f'; {SERVER_NO_TAKEOVER}'
    if not client_takeover:
        answer += f'; {CLIENT_NO_TAKEOVER}'
    if server_bits < 15 or SERVER_BITS in asked:
        answer += f'; {SERVER_BITS}={server_bits}'
    if client_bits < 15:
        answer += f'; {CLIENT_BITS}={client_bits}'
    engine = PerMessageDeflate(
        compress_bits=server_bits,
        decompress_bits=client_bits,
        compress_takeover=server_takeover,
        decompress_takeover=client_takeover,
        level=options.level,
        mem_level=options.mem_level,
        threshold=options.threshold,
    )
    return engine, answer


def offer(options: Deflate) -> str:
    """Return a client's offers, the value of ``Sec-WebSocket-Extensions``.

    ``client_max_window_bits`` is always part of them, since a server that wants
    to save memory may only ask for a small window where the client is known
    to understand (RFC 7692 section 7.1.2.2).  Not every server can limit its
    own window: a second offer does not ask for it.
    """
    begin = NAME
    if options.server_no_context_takeover:
        begin += f'; {SERVER_NO_TAKEOVER}'
    if options.client_no_context_takeover:
        begin += f'; {CLIENT_NO_TAKEOVER}'
    end = f'; {CLIENT_BITS}'
    if options.client_max_window_bits < 15:
        end += f'={options.client_max_window_bits}'
    if options.server_max_window_bits == 15:
        return begin + end
    return f'{begin}; {SERVER_BITS}={options.server_max_window_bits}{end}, {begin}{end}'


def accept_offer(
    options: Deflate | None, header_values: Sequence[str]
) -> PerMessageDeflate | None:
    """Judge a server's answer to ``offer``.

    :param options: what was offered, None if nothing was.
    :param header_values: the ``Sec-WebSocket-Extensions`` fields of the response.
    :returns: the engine, None if the server declined.
    :raises ExtensionSyntaxError: the header is malformed.
    :raises NegotiationError: the answer isn't one to our offer (RFC 7692
        section 5.1: the client must fail the connection).
    """
    answers = parse_extensions(header_values)
    if not answers:
        if header_values:
            raise ExtensionSyntaxError('the server answered an empty list of extensions')
        return None
    for name, _ in answers:
        if options is None or name != NAME:
            raise NegotiationError(f'extension {name} was not asked for')
    if options is None or len(answers) > 1:
        raise NegotiationError(f'{NAME} was accepted twice')
    agreed = _read_params(answers[0].params, response=True)
    if options.server_no_context_takeover and SERVER_NO_TAKEOVER not in agreed:
        raise NegotiationError(f'{SERVER_NO_TAKEOVER} was asked for')
    # A larger value than ours takes nothing away: we stay below it anyway.
    client_bits = min(options.client_max_window_bits, agreed.get(CLIENT_BITS, 15))
    if client_bits == 8:
        raise NegotiationError('zlib cannot compress with a window of 8 bits')
    return PerMessageDeflate(
        compress_bits=client_bits,
        decompress_bits=agreed.get(SERVER_BITS, 15),
        compress_takeover=not (
            options.client_no_context_takeover or CLIENT_NO_TAKEOVER in agreed
        ),
        decompress_takeover=SERVER_NO_TAKEOVER not in agreed,
        level=options.level,
        mem_level=options.mem_level,
        threshold=options.threshold,
    )


class PerMessageDeflate:
    """The compression of one connection, both directions (RFC 7692 section 7.2).

    The two directions share nothing: one thread may compress while another
    decompresses.  Within a direction, calls follow the order of the messages
    on the wire and never overlap; the caller sees to it.

    A direction that raised is finished: the connection has to be failed with
    the ``code`` of the exception.

    :param compress_bits: window bits of what we send, 9 to 15.
    :param decompress_bits: window bits of what the peer sends, 8 to 15.
    :param compress_takeover: whether our window lives on between messages.
    :param decompress_takeover: whether the peer's does.
    :param level: zlib's level, 0 to 9.
    :param mem_level: zlib's memory level, 1 to 9.
    :param threshold: bytes; shorter messages are better not compressed.
                      Kept here for the sender to read: ``compress``
                      compresses whatever it is given.
    """

    def __init__(
        self,
        *,
        compress_bits: int = 15,
        decompress_bits: int = 15,
        compress_takeover: bool = True,
        decompress_takeover: bool = True,
        level: int = 3,
        mem_level: int = 5,
        threshold: int = 0,
    ) -> None:
        self.compress_bits = compress_bits
        self.decompress_bits = decompress_bits
        self.compress_takeover = compress_takeover
        self.decompress_takeover = decompress_takeover
        self.level = level
        self.mem_level = mem_level
        self.threshold = threshold
        self._deflater: zlib._Compress | None = None
        self._inflater: zlib._Decompress | None = None
        # The last output, to prime a successor of the inflater with: that of
        # an incomplete message; also of those before, once a stream has ended.
        # Till then zlib keeps a window of its own, and one is enough.
        self._window = bytearray()
        self._keep_window = False
        # The streams of the current message: whether one ended, and how often
        # that may happen yet.
        self._ended = False
        self._ends_left = _SPARE_ENDS + 1

    def __repr__(self) -> str:
        return (
            f'<{type(self).__name__} send {self.compress_bits} bits, '
            f'receive {self.decompress_bits} bits>'
        )

    def compress(self, payload: Buffer) -> bytes:
        """Compress one whole message (RFC 7692 section 7.2.1).

        :param payload: the message.
        :returns: the payload to send, in frames of any size.
        """
        if not len(payload):
            # 7.2.3.6; and zlib doesn't flush twice when nothing came between.
            return b'\x00'
        deflater = self._deflater
        if deflater is None:
            deflater = zlib.compressobj(
                self.level, zlib.DEFLATED, -self.compress_bits, self.mem_level
            )
            if self.compress_takeover:
                self._deflater = deflater
        head = deflater.compress(payload)
        rest = deflater.flush(zlib.Z_SYNC_FLUSH)
        return head + rest[:-4]

    def decompress(
        self,
        chunk: Buffer,
        final: bool,
        limit: int | None = None,
        ends_fragment: bool = True,
    ) -> bytes:
        """Inflate the next part of a message (RFC 7692 section 7.2.2).

        What is left incomplete at the end of a message is noticed when it
        gives output after the fact, or never could; a message that was cut
        inside the code table of a dynamic block may pass with what was
        inflated of it, and is then noticed at the next message.

        :param chunk: compressed bytes, any number, also none.
        :param final: whether the message ends with them.
        :param limit: bytes that may come out of this call, None for no limit.
        :param ends_fragment: whether a fragment of the message ends with them:
                              the next may end a DEFLATE stream once more.
        :returns: the bytes that came out, at most ``limit``.
        :raises InflateTooBig: there is more; no more than ``limit + 1`` bytes
            were made, and those are gone.
        :raises InflateError: the data is corrupt or incomplete.
        """
        left = None if limit is None else max(limit, 0)
        try:
            output, rest = self._step(chunk, left)
            # Most messages come whole and take one step: they need no more.
            if rest is not None or not final or self._keep_window:
                output = self._go_on(output, rest, left)
            if final:
                self._end_message()
            elif ends_fragment and self._ends_left <= _SPARE_ENDS:
                self._ends_left += 1
        except zlib.error as error:
            self._drop_inflater()
            raise InflateError(f'corrupt compressed data: {error}') from error
        except DeflateError:
            self._drop_inflater()
            raise
        return output

    def _step(self, data: Buffer, left: int | None) -> tuple[bytes, Buffer | None]:
        """Inflate at most one step.

        :returns: the output, and the input that is to follow it: None when there
                 is nothing more to do.  It may be empty: zlib can owe output
                 for input it has taken, and a stream that ended has to be left.
        """
        inflater = self._inflater
        if inflater is None:
            if not len(data):
                return b'', None
            inflater = self._inflater = self._new_inflater()
        # One byte more than is allowed shows that there is too much, and keeps
        # the bound from being 0, zlib's word for none.
        bound = _OUTPUT_STEP if left is None or left >= _OUTPUT_STEP else left + 1
        piece = data if len(data) <= _INPUT_STEP else memoryview(data)[:_INPUT_STEP]
        output = inflater.decompress(piece, bound)
        if left is not None and len(output) > left:
            raise InflateTooBig('the message inflates to too much')
        if len(output) < bound and piece is data and not inflater.eof:
            return output, None
        unused = inflater.unused_data if inflater.eof else inflater.unconsumed_tail
        return output, memoryview(data)[len(piece) - len(unused) :]

    def _go_on(self, output: bytes, rest: Buffer | None, left: int | None) -> bytes:
        """Return the whole output after a first step, and note the window."""
        sink = io.BytesIO()  # grows in place, gives its value without a copy
        while True:
            sink.write(output)
            self._note_window(output)
            if self._inflater is not None and self._inflater.eof:
                self._end_stream()
            if rest is None:
                return sink.getvalue()
            output, rest = self._step(rest, None if left is None else left - sink.tell())

    def _note_window(self, output: bytes) -> None:
        """Move the window past more output."""
        self._window += output[-_WINDOW:]
        # Not every time, for the sake of messages in one-byte fragments.
        if len(self._window) > 2 * _WINDOW:
            del self._window[:-_WINDOW]

    def _new_inflater(self) -> zlib._Decompress:
        # Some compressors that are asked for 8 bits quietly use 9.
        bits = max(self.decompress_bits, 9)
        if not self._window:
            return zlib.decompressobj(-bits)
        # zlib copies the end of it, as much as the window holds, and does so now.
        return zlib.decompressobj(-bits, zdict=self._window)

    def _end_stream(self) -> None:
        """Go on after a block with BFINAL set (RFC 7692 section 7.2.3.4).

        zlib is through with its stream then, and doesn't give its window
        away; a successor is primed with ours.  The first time, that reaches
        back to the beginning of the message only.  This is enough for every
        peer that uses zlib, whose window doesn't outlive a stream either.
        """
        if not self._ends_left:
            raise InflateError('too many final blocks in a message')
        self._ends_left -= 1
        self._ended = True
        self._inflater = None
        self._keep_window = True

    def _end_message(self) -> None:
        inflater = self._inflater
        if inflater is not None:
            if inflater.decompress(_TRAILER, 1) or inflater.eof:
                raise InflateError('the compressed message is incomplete')
        elif not self._ended:
            # 7.2.3.6: an empty message has one byte
            raise InflateError('the compressed message has no data')
        # Otherwise the message ended with a final block, and the sender left
        # out the empty block that should follow: clear enough.
        self._ended = False
        self._ends_left = _SPARE_ENDS + 1
        if not self.decompress_takeover:
            self._drop_inflater()
        elif not self._keep_window:
            self._window.clear()

    def _drop_inflater(self) -> None:
        self._inflater = None
        self._window.clear()
        self._keep_window = False
