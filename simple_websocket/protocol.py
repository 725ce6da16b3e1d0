"""The protocol of one open connection (RFC 6455): bytes and time in, messages
and bytes out.

``Protocol`` does no I/O and never waits.  Whoever moves the bytes (a *link*)
calls it from one place at a time and follows these rules:

* what arrived goes into ``feed()``, the end of it into ``eof()``; nothing is
  read while ``paused``, and where others wait for their turn meanwhile, no
  more than ``appetite`` at once;
* ``out`` holds the frames to write, in their order: write them whole.  Set
  ``congested`` when TCP takes no more, call ``drained()`` when it has taken all;
* a receiver takes with ``take()`` and calls ``ask()`` when there was nothing;
  while it waits, what comes may be spared the queue: see ``direct()``;
* when ``dirty`` is set, look again at ``state``, ``paused``, ``half_close``
  and ``deadline``, and call ``tick()`` when that deadline has come; if it is
  ``paused`` then, look first whether TCP is there still: nothing else tells.  If
  not, read what is left all the same, ``abort()``;
* in ``ENDED``: write what is in ``out``, then end our half of TCP if
  ``half_close`` says so, and let go of the socket once ``eof_seen``.

The states go one way only::

    OPEN ──> ENDING ──> ENDED ──> DONE
      └────> CLOSING ─────┘

    OPEN     messages flow both ways
    ENDING   the peer's Close, or a violation of its, is known, but messages
             that came before it have not been taken, or the last of them not
             answered; we may send, and our Close is not on the wire
    CLOSING  our Close is out, the peer's has not come
    ENDED    nothing more will be said by either; TCP is still to be closed
    DONE     let go of the socket now, whatever is unwritten

DONE is reached from every state by ``abort()``; from OPEN also by the end of the
stream, from CLOSING and ENDED also by the deadline.

Order is kept: a Close or a violation waits until the application has taken
every message before it and asks for the next one, or has answered the last; for
half of ``close_timeout`` at most.

A full queue stops the inflating and assembling, not only the reading, so that
64 KiB of compressed frames cannot become gigabytes of messages.  Control frames
ahead of the first data frame without room are still handled at once.  After our own
Close, data that waits behind a full queue counts as not read: it is discarded.

This file refuses to know sockets, threads, clocks (``now`` is passed in) and
any green library.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

from .close_codes import ABNORMAL_CLOSURE, INTERNAL_ERROR, NO_STATUS, close_payload, sendable
from .codec import (
    BINARY,
    CLOSE,
    CONTINUATION,
    FAILURE,
    INVALID_PAYLOAD,
    PING,
    PONG,
    PROTOCOL_ERROR,
    TEXT,
    Chunk,
    Decoder,
    encode,
)
from .deflate import DeflateError
from .errors import ConnectionClosed
from .inbox import InputBuffer, Message, Parts
from .keepalive import Keepalive

if TYPE_CHECKING:
    from .deflate import PerMessageDeflate

OPEN, ENDING, CLOSING, ENDED, DONE = range(5)

#: Bytes to read at once, unless they turn out to be nothing but tiny frames.
MAX_APPETITE = 1 << 16

#: About how many frames to decode in one go: nobody else in a hub runs meanwhile.
MANY_FRAMES = 512

#: Seconds between two looks whether TCP is still there while nothing is read.
TCP_LOOK_INTERVAL = 1.0

_DATA = frozenset((CONTINUATION, TEXT, BINARY))


class _Ending(NamedTuple):
    """What ends the connection once the messages before it are dealt with."""

    code: int  #: to report
    reason: str | None  #: to report
    payload: bytes  #: of our Close
    failed: bool  #: whether we fail the connection; else the peer has closed it


class Protocol:
    """One connection after its opening handshake; see the top of this file.

    Not safe for concurrent use: its link serialises the calls.

    :param client: whether this end is the client.
    :param now: a monotonic clock, in seconds.
    :param max_message_size: bytes a message may have once inflated and
                             reassembled; None for no limit.
    :param max_queue: messages that may wait to be taken.
    :param max_fragments: frames that a message may come in; None for no limit.
    :param deflate: the negotiated compression, or None.
    :param ping_interval: seconds between pings; None for none.
    :param ping_timeout: seconds in which something, anything, must arrive
                         after a ping; None never gives up.
    :param close_timeout: seconds that each step of the closing may take.
    """

    # A server holds ten thousands of these, most of them idle: what an idle
    # connection does not need is None until it does.
    __slots__ = (
        '_chunks', '_decoder', '_deflate', '_ending', '_keepalive', '_limit', '_listening',
        '_look', '_max_queue', '_now', '_owed_ping', '_owed_pong', '_parts', '_text', 'answering',
        'appetite', 'cause', 'client', 'close_code', 'close_reason', 'close_timeout', 'congested',
        'deadline', 'dirty', 'eof_seen', 'half_close', 'heard', 'latency', 'messages', 'out',
        'plain_below', 'state',
    )  # fmt: skip

    def __init__(
        self,
        client: bool,
        now: Callable[[], float],
        *,
        max_message_size: int | None = None,
        max_queue: int = 32,
        max_fragments: int | None = None,
        deflate: PerMessageDeflate | None = None,
        ping_interval: float | None = None,
        ping_timeout: float | None = None,
        close_timeout: float = 5.0,
    ) -> None:
        self.state = OPEN
        self.out: list[bytes] = []
        self.messages: InputBuffer | None = None  #: None until there was one
        self.dirty = True
        self.half_close = False  #: in ENDED: end our half of TCP after ``out``
        self.eof_seen = False  #: the peer's half of TCP has ended
        self.appetite = MAX_APPETITE  #: bytes to read at once
        self.congested = False  #: set by the link while written bytes wait for TCP
        self.heard = False  #: a sign of life since the last ping; a link may set it
        self.close_code = NO_STATUS
        self.close_reason: str | None = None
        self.cause: BaseException | None = None  #: what TCP broke with; set by the link
        self.latency: float | None = None  #: seconds from a ping to its pong
        self.close_timeout = close_timeout

        self.client = client  #: whether this end is the client
        #: Messages of fewer bytes are sent as they are, not compressed.
        self.plain_below = deflate.threshold if deflate is not None else sys.maxsize
        self._now = now
        self._limit = max_message_size
        self._deflate = deflate
        self._decoder = Decoder(client, max_message_size, max_fragments, deflate is not None)
        self._max_queue = max_queue
        self._chunks: deque[Chunk] | None = None  # decoded, not yet handled
        self._listening = True  # the peer's data still become messages
        #: The application has taken a message, and sent nothing since: it may answer it.
        self.answering = False
        self._ending: _Ending | None = None

        # The message that is being put together.
        self._text = False
        self._parts: Parts | None = None

        self._look: float | None = None  # when to, while paused
        self._keepalive: Keepalive | None = None
        self._owed_ping = False
        self._owed_pong: bytes | None = None
        self.deadline: float | None = None
        if ping_interval is not None:
            self._keepalive = Keepalive(ping_interval, ping_timeout, now())
            self.deadline = self._keepalive.deadline

    # -- in ---------------------------------------------------------------

    def feed(self, data: bytes | bytearray) -> None:
        """Take bytes that the peer sent."""
        if self.state == OPEN and not (self._chunks or self.full):
            message = self._decoder.whole(data)
            if message is not None:
                self.heard = True
                self.input_buffer().append(message)
                return
        if self.state == OPEN or self.state == CLOSING:
            self.take_in(self._decoder.feed(data))

    def direct(self) -> Any:
        """The decoder, for a link whose receiver waits and which decodes what comes
        itself.  A message that comes ``whole()`` is the receiver's at once; the
        link sets ``heard`` and ``answering``.  The chunks of all else go into
        ``take_in()``.

        :returns: None where something is before what comes now: ``feed()`` it.
        """
        if self.state == OPEN and not (self._chunks or self.messages):
            return self._decoder
        return None

    def take_in(self, chunks: list[Chunk]) -> None:
        """Take chunks that the decoder has given."""
        self.heard = True
        if self._chunks is None:
            self._chunks = deque()
        self._chunks.extend(chunks)
        self._handle_chunks()
        if len(chunks) > MANY_FRAMES or (chunks and self.appetite < MAX_APPETITE):
            self._learn_appetite(chunks)

    def _learn_appetite(self, chunks: list[Chunk]) -> None:
        """64 KiB can be ten thousand empty frames, which take so long that all
        other connections of a hub would notice.  Next time, read as much as
        makes about MANY_FRAMES of the kind that came now."""
        header = 2 if self.client else 6  # with the mask
        size = sum(header + len(chunk.payload) for chunk in chunks)
        enough = MANY_FRAMES * size // len(chunks)
        self.appetite = min(enough, 2 * self.appetite, MAX_APPETITE)
        self.dirty = True

    def input_buffer(self) -> InputBuffer:
        """``messages``, from now on there."""
        if self.messages is None:
            self.messages = InputBuffer(self._max_queue)
        return self.messages

    def eof(self) -> None:
        """Take the end of the stream: the peer's FIN, an RST, a dead TLS session."""
        if not self.eof_seen:
            self.eof_seen = self.dirty = True
            if not self._chunks:  # else those come first
                self._reach_eof()

    def _reach_eof(self) -> None:
        if self.state == OPEN:
            self._set_closed(ABNORMAL_CLOSURE, None)
            self._move(DONE)
        elif self.state == CLOSING:
            self._move(ENDED)
        # In ENDING and ENDED, a peer that closed only its half can still read
        # an answer and our Close.

    def abort(self, code: int = ABNORMAL_CLOSURE, reason: str | None = None) -> None:
        """Give up at once, without a Close on the wire.

        Messages that have arrived can still be taken.

        :param code: what to report, unless the peer's Close is known already.
        :param reason: the text to report with it.
        """
        if self._ending is not None:
            code, reason = self._ending.code, self._ending.reason
            self._ending = None
        if self.state <= ENDING:
            self._set_closed(code, reason)
        self._move(DONE)

    def _handle_chunks(self) -> None:
        """Handle what was decoded in its turn, data while there is room for it."""
        chunks = self._chunks
        while chunks:
            if self._listening and chunks[0].opcode in _DATA and self.full:
                self.dirty = True
                if self._look is None and self.state == OPEN:
                    self._look = self._now() + TCP_LOOK_INTERVAL
                    self._schedule()
                return
            chunk = chunks.popleft()
            self._handlers[chunk.opcode](self, chunk)

    def resume(self) -> None:
        """There may be room again: go on where a full queue stopped us."""
        if self._chunks:
            self._go_on()

    def _go_on(self) -> None:
        self._handle_chunks()
        if not self._chunks:
            self.dirty = True
            if self.state == DONE:
                self._stop_listening()  # what is half there will never be whole
            elif self.eof_seen:
                self._reach_eof()

    def _on_data(self, chunk: Chunk) -> None:
        if not self._listening:
            return  # section 1.4: data after a Close, either's, is discarded
        opcode, payload, final, compressed, _, ends_frame = chunk
        if opcode != CONTINUATION:
            self._text = opcode == TEXT
        if compressed:
            assert self._deflate is not None
            room = None if self._limit is None else self._limit - len(self._parts or b'')
            try:
                payload = self._deflate.decompress(payload, final, room, ends_frame)
            except DeflateError as error:
                self.fail(error.code, str(error))
                return
        message: Message
        try:
            if not final:
                if self._parts is None:
                    self._parts = Parts(self._text)
                self._parts.add(payload)
                return
            parts, self._parts = self._parts, None
            if parts:
                message = parts.whole(payload)
            else:
                message = str(payload, 'utf-8') if self._text else payload
        except UnicodeDecodeError:
            self.fail(INVALID_PAYLOAD, 'invalid UTF-8')
        else:
            self.input_buffer().append(message)

    def _on_ping(self, chunk: Chunk) -> None:
        if self.state != OPEN:
            return
        if self.congested:
            # 5.5.3: the most recent ping may be answered for all of them, so
            # that a peer that pings and never reads costs one pong, not many.
            self._owed_pong = chunk.payload
        else:
            self.out.append(encode(PONG, chunk.payload, self.client))

    def _on_pong(self, chunk: Chunk) -> None:
        if self._keepalive is not None:
            latency = self._keepalive.pong(chunk.payload, self._now())
            if latency is not None:
                self.latency = latency

    def _on_close(self, chunk: Chunk) -> None:
        payload = chunk.payload
        code, reason = NO_STATUS, None
        if payload:
            code = int.from_bytes(payload[:2], 'big')
            if len(payload) < 2 or not sendable(code):
                self.fail(PROTOCOL_ERROR, 'invalid close code')
                return
            try:
                reason = payload[2:].decode() or None
            except UnicodeDecodeError:
                self.fail(INVALID_PAYLOAD, 'invalid UTF-8 in a close reason')
                return
        if self.state == OPEN:
            self._end(_Ending(code, reason, payload[:2], False))  # 5.5.1: the code is echoed
        elif self.state == CLOSING:
            self.half_close = not self.client  # 7.1.1: the server closes TCP first
            self._move(ENDED)
        elif self._listening:  # aborted, but its goodbye was among what waited
            self._set_closed(code, reason)
            self._stop_listening()

    def _on_failure(self, chunk: Chunk) -> None:
        self.fail(chunk.code, chunk.payload.decode())

    _handlers: ClassVar[dict[int, Callable[[Protocol, Chunk], None]]] = {
        CONTINUATION: _on_data,
        TEXT: _on_data,
        BINARY: _on_data,
        CLOSE: _on_close,
        PING: _on_ping,
        PONG: _on_pong,
        FAILURE: _on_failure,
    }

    # -- out --------------------------------------------------------------

    def send(self, opcode: int, payload: str | bytes | bytearray | memoryview) -> None:
        """Put a message into ``out``; see ``frame``."""
        self.out.append(self.frame(opcode, payload))

    def frame(self, opcode: int, payload: str | bytes | bytearray | memoryview) -> bytes:
        """A message as it goes to the wire, after all that is in ``out``.

        :param opcode: TEXT or BINARY.
        :param payload: its text, or its bytes: valid UTF-8 for TEXT.
        :raises ConnectionClosed: when our Close is out or TCP is gone.
        :raises ValueError: for text with lone surrogates.
        """
        if self.state > ENDING:
            raise self.closed_error()
        self.answering = False
        deflate = self._deflate
        if deflate is not None:
            if isinstance(payload, str):
                payload = payload.encode()
            if len(payload) >= deflate.threshold:
                return encode(opcode, deflate.compress(payload), self.client, True)
        return encode(opcode, payload, self.client)

    def shared_frame(self, opcode: int, payload: bytes, made: dict[Any, bytes]) -> bytes:
        """``frame()`` of a message that goes to many connections.

        :param made: the frames that were made for others of them, by what they
                     depend on: masks and a compression that looks back at
                     former messages are a connection's own.
        """
        if self.state > ENDING or self.client:
            return self.frame(opcode, payload)
        key: Any = None
        if len(payload) >= self.plain_below:
            deflate = self._deflate
            assert deflate is not None
            if deflate.compress_takeover:
                return self.frame(opcode, payload)
            key = (deflate.compress_bits, deflate.level, deflate.mem_level)
        frame = made.get(key)
        if frame is None:
            frame = made[key] = self.frame(opcode, payload)
        return frame

    def close(self, payload: bytes, code: int, reason: str | None) -> None:
        """Start the closing handshake, or answer the peer's (section 7.1.2).

        :param payload: from ``close_payload(code, reason)``.
        :param code: what to report, unless the peer was first.
        :param reason: the text to report with it, or None.
        :raises ConnectionClosed: when the connection is closed already.
        """
        if self.state > ENDING:
            raise self.closed_error()
        if self._ending is not None:
            if not self._ending.failed:  # a violation is told by its own code
                self._ending = self._ending._replace(payload=payload)
            self._finish_ending()
            return
        self._set_closed(code, reason)
        self._stop_listening()
        self._put_close(payload)
        self._move(CLOSING)
        self._go_on()  # the peer's Close may be among what waited

    def drained(self) -> None:
        """Everything in ``out`` so far has been taken by TCP."""
        self.congested = False
        if self.state == OPEN:
            if self._owed_pong is not None:
                self.out.append(encode(PONG, self._owed_pong, self.client))
            if self._owed_ping:
                self._send_owed_ping()
        self._owed_pong = None

    def refuse(self, response: bytes) -> None:
        """Answer the opening handshake with an HTTP error and nothing else.

        :param response: the whole HTTP response.
        """
        self.out.append(response)
        self.half_close = True
        self.deadline = self._now() + self.close_timeout
        self._set_closed(ABNORMAL_CLOSURE, None)
        self._stop_listening()
        self._move(ENDED)

    # -- messages ---------------------------------------------------------

    def take(self) -> Message | None:
        """The oldest message, or None where there is none."""
        if not self.messages:
            return None
        message = self.messages.take()
        self.answering = True
        self.resume()
        return message

    @property
    def full(self) -> bool:
        """Whether there is no room for another message."""
        return self.messages is not None and self.messages.full

    def ask(self) -> None:
        """The application asks for a message and none is there: whatever it
        had to answer is answered, so a Close or a failure may have its turn."""
        self.resume()
        if self.messages:
            return  # it came in the meantime
        self.answering = False
        if self._ending is not None:
            self._finish_ending()

    @property
    def paused(self) -> bool:
        """Whether to leave what the peer sends in TCP's hands for now."""
        if self.state == OPEN:
            return bool(self._chunks)
        return self.state == ENDING or (self.state == ENDED and self.eof_seen)

    # -- the end ----------------------------------------------------------

    def closed_error(self) -> ConnectionClosed:
        """Return what to tell whoever wants more of a connection that has ended."""
        closed = ConnectionClosed(self.close_code, self.close_reason)
        if self.close_code == ABNORMAL_CLOSURE and self.cause is not None:
            closed.__cause__ = self.cause
        return closed

    def fail(self, code: int, reason: str) -> None:
        """_Fail the WebSocket Connection_ (section 7.1.7): Close, read no
        further, close TCP; after what came before it has been taken."""
        if self.state == OPEN:
            reason = reason.encode()[:123].decode(errors='ignore')
            self._end(_Ending(code, reason, close_payload(code, reason), True))
        elif self.state == CLOSING:
            self.half_close = True
            self._move(ENDED)
        self._stop_listening()

    def _end(self, ending: _Ending) -> None:
        self._ending = ending
        self._stop_listening()
        # Not all of it: the peer, which may give its Close no longer, hears our answer.
        self.deadline = self._now() + self.close_timeout / 2
        self._move(ENDING)
        if not self.messages and not self.answering:
            self._finish_ending()

    def _finish_ending(self) -> None:
        assert self._ending is not None
        code, reason, payload, failed = self._ending
        self._ending = None
        self._set_closed(code, reason)
        self._put_close(payload)
        self.half_close = failed or not self.client  # 7.1.1, 7.1.7
        self._move(ENDED)

    def _put_close(self, payload: bytes) -> None:
        self.out.append(encode(CLOSE, payload, self.client))
        self.deadline = self._now() + self.close_timeout

    def _set_closed(self, code: int, reason: str | None) -> None:
        self.close_code = code
        self.close_reason = reason

    def _stop_listening(self) -> None:
        self._listening = False
        self._parts = None

    def _move(self, state: int) -> None:
        self.state = max(state, self.state)
        self.dirty = True
        if self.state == DONE:
            self.deadline = None
            if not self._chunks:
                self._stop_listening()

    # -- time -------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Do what is due: a ping, giving up on a silent peer, the end of a
        closing that took too long.

        :param now: the clock's time, in seconds.
        """
        if self.deadline is None or now < self.deadline:
            return
        if self.state == OPEN:
            if self._look is not None and now >= self._look:
                self._look = now + TCP_LOOK_INTERVAL if self.paused else None
            if self._keepalive is not None and now >= self._keepalive.deadline:
                self._keep_alive(now, self._keepalive)
            if self.state == OPEN:
                self._schedule()
        elif self.state == ENDING:
            self._finish_ending()
        else:
            self._move(DONE)

    def _keep_alive(self, now: float, keepalive: Keepalive) -> None:
        if keepalive.gives_up(now, self.heard):
            self.fail(INTERNAL_ERROR, 'keepalive ping timeout')
            return
        if keepalive.advance(now, self.heard, self.paused):
            self.heard = False
            # Behind a write that TCP does not take, pings would only pile up.
            self._owed_ping = self.congested
            if not self.congested:
                self.out.append(encode(PING, keepalive.ping(now), self.client))

    def _send_owed_ping(self) -> None:
        self._owed_ping = False
        keepalive = self._keepalive
        if keepalive is None:
            self.ping()
            return
        now = self._now()
        keepalive.expect_life(now, self.paused)
        self.out.append(encode(PING, keepalive.ping(now), self.client))
        self._schedule()

    def _schedule(self) -> None:
        """Set the deadline, of an open connection."""
        ping = None if self._keepalive is None else self._keepalive.deadline
        self.deadline = min((at for at in (self._look, ping) if at is not None), default=None)
        self.dirty = True

    def ping(self) -> None:
        """Have the peer send something, for a receiver that nothing else can wake."""
        if self.state != OPEN:
            return
        if self.congested:
            self._owed_ping = True
        else:
            self.out.append(encode(PING, b'', self.client))

    def is_missing(self, now: float) -> bool:
        """Whether ``tick`` would give the peer up, which has said nothing for so long."""
        keepalive = self._keepalive
        silent = keepalive is not None and keepalive.gives_up(now, self.heard)
        return silent and self.state == OPEN
