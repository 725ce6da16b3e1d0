"""The protocol of one open connection (RFC 6455): bytes and time in, messages
and bytes out.

``Protocol`` does no I/O and never waits.  Whoever moves the bytes (a *link*)
calls it from one place at a time and follows these rules:

* what arrived goes into ``feed()``, the end of it into ``eof()``;
* ``out`` holds the frames to write, in their order: write them whole;
* when ``dirty`` is set, look again at ``state``, ``paused``, ``half_close``
  and ``deadline``, and call ``tick()`` when that deadline has come.

The states go one way only::

    OPEN ──> ENDING ──> ENDED ──> DONE
      └────> CLOSING ─────┘

    OPEN     messages flow both ways
    ENDING   the peer's Close, or a violation of its, is known, but messages
             that came before it have not been taken or may still be answered;
             we may send, and our Close is not on the wire
    CLOSING  our Close is out, the peer's has not come
    ENDED    nothing is said any more; TCP is still to be closed
    DONE     let go of the socket

Order is kept: a Close or a violation waits until the application has taken
every message before it and asks for the next one, for ``close_timeout`` at
most.  A full queue stops the decoding, not only the reading, so that 64 KiB
of compressed frames cannot become gigabytes of messages.

This file refuses to know sockets, threads, clocks (``now`` is passed in) and
any green library.
"""

from __future__ import annotations

import codecs
import os
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from .codec import (
    BINARY,
    CLOSE,
    CONTINUATION,
    FAILURE,
    INVALID_PAYLOAD,
    MESSAGE_TOO_BIG,
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

if TYPE_CHECKING:
    from .deflate import PerMessageDeflate

OPEN, ENDING, CLOSING, ENDED, DONE = range(5)

NORMAL_CLOSURE = 1000
NO_STATUS = 1005
ABNORMAL_CLOSURE = 1006
INTERNAL_ERROR = 1011

#: Codes that may stand in a Close frame (section 7.4): the RFC's and IANA's
#: assigned ones without those that only an API may report (1005, 1006, 1015).
_ASSIGNED_CODES = frozenset((1000, 1001, 1002, 1003, *range(1007, 1015)))

#: Bytes in the receive queue from which reading stops, whatever their number.
MAX_QUEUE_BYTES = 1 << 20

Message = str | bytes


def sendable(code: int) -> bool:
    """Whether a close code may stand in a Close frame (section 7.4)."""
    return code in _ASSIGNED_CODES or 3000 <= code <= 4999


def close_payload(code: int, reason: str | None) -> bytes:
    """The payload of a Close frame (section 5.5.1).

    :param code: the close code.
    :param reason: a text of at most 123 bytes in UTF-8, or None.
    :raises ValueError: for a code that must not be sent, a reason that is too
                        long or has no UTF-8 form.
    :raises TypeError: for a code that is no integer or a reason that is no text.
    """
    if isinstance(code, bool) or not isinstance(code, int):
        raise TypeError(f'reason (the close code) must be an int, not {type(code).__name__}')
    if not sendable(code):
        raise ValueError(f'reason (the close code) {code} must not be sent in a Close frame')
    if reason is not None and not isinstance(reason, str):
        raise TypeError(f'message must be a str, not {type(reason).__name__}')
    text = (reason or '').encode()
    if len(text) > 123:
        raise ValueError(f'message is {len(text)} bytes long, a Close frame takes 123')
    return int(code).to_bytes(2, 'big') + text


class InputBuffer:
    """The messages that were received and not yet taken, oldest first."""

    __slots__ = ('_messages', 'bytes')

    def __init__(self) -> None:
        self._messages: deque[Message] = deque()
        self.bytes = 0

    def __len__(self) -> int:
        return len(self._messages)

    def __iter__(self) -> Iterator[Message]:
        return iter(self._messages)

    def append(self, message: Message) -> None:
        """Add a message behind the others."""
        self._messages.append(message)
        self.bytes += len(message)

    def pop(self, index: int = -1) -> Message:
        """Take the message at ``index`` out (the last one by default).

        :raises IndexError: when there is none.
        """
        message = self._messages[index]
        del self._messages[index]
        self.bytes -= len(message)
        return message

    def popleft(self) -> Message:
        """Take the oldest message out."""
        message = self._messages.popleft()
        self.bytes -= len(message)
        return message

    def __repr__(self) -> str:
        return f'<{len(self)} messages>'


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
        self.messages = InputBuffer()
        self.dirty = True
        self.half_close = False
        self.congested = False  #: set by the link while written bytes wait for TCP
        self.deadline: float | None = None
        self.close_code = NO_STATUS
        self.close_reason: str | None = None
        self.latency: float | None = None
        self.close_timeout = close_timeout

        self._client = client
        self._now = now
        self._limit = max_message_size
        self._max_queue = max_queue
        self._deflate = deflate
        self._decoder = Decoder(client, max_message_size, max_fragments, deflate is not None)
        self._backlog: deque[Chunk] = deque()
        self._answering = False
        self._eof = False
        self._ending: tuple[int, str | None, bytes, bool] | None = None

        # The message that is being put together.
        self._text = False
        self._parts = bytearray()
        self._utf8 = codecs.getincrementaldecoder('utf-8')()

        self._ping_interval = ping_interval
        self._ping_timeout = ping_timeout
        self._heard = False
        self._ping: tuple[bytes, float] | None = None
        self._next_ping = None if ping_interval is None else now() + ping_interval
        self._pong_due: float | None = None
        self._owed_pong: bytes | None = None
        self.deadline = self._next_ping

    # -- in ---------------------------------------------------------------

    def feed(self, data: bytes | bytearray | memoryview) -> None:
        """Take bytes that the peer sent."""
        self._heard = True
        if self.state >= ENDED:
            return
        chunks = self._decoder.feed(data)
        if self._backlog:
            self._backlog.extend(chunks)
        else:
            self._process(chunks)

    def eof(self) -> None:
        """Take the end of the stream: the peer's FIN, an RST, a dead TLS session."""
        if self._eof:
            return
        self._eof = True
        if self.state != OPEN or not self._backlog:  # else that comes first
            self._reach_eof()

    def _reach_eof(self) -> None:
        if self.state == ENDING:
            return  # a peer that closed only its half can still read an answer
        if self.state == OPEN:
            self._set_closed(ABNORMAL_CLOSURE, None)
        self._move(DONE)

    def abort(self, code: int = ABNORMAL_CLOSURE, reason: str | None = None) -> None:
        """Give up at once, without a Close on the wire.

        :param code: what to report, unless the peer's Close is known already.
        :param reason: the text to report with it.
        """
        if self._ending is not None:
            code, reason, _, _ = self._ending
            self._ending = None
        if self.state <= ENDING:
            self._set_closed(code, reason)
        self._move(DONE)

    def _process(self, chunks: list[Chunk]) -> None:
        for index, chunk in enumerate(chunks):
            if self.state == OPEN and self._full:
                self._backlog.extend(chunks[index:])
                self.dirty = True
                return
            if self.state == OPEN or self.state == CLOSING:
                self._handlers[chunk.opcode](self, chunk)

    @property
    def _full(self) -> bool:
        messages = self.messages
        return len(messages) >= self._max_queue or messages.bytes >= MAX_QUEUE_BYTES

    def _on_data(self, chunk: Chunk) -> None:
        if self.state == CLOSING:
            return  # section 1.4: data behind our Close is discarded
        opcode, payload, final, compressed, _ = chunk
        if opcode != CONTINUATION:
            self._text = opcode == TEXT
        if compressed:
            assert self._deflate is not None
            room = None if self._limit is None else self._limit - len(self._parts)
            try:
                payload = self._deflate.decompress(payload, final, room)
            except DeflateError as error:
                self.fail(error.code, str(error))
                return
        try:
            if final and not self._parts:
                self.messages.append(str(payload, 'utf-8') if self._text else payload)
                return
            if self._text:
                # Fails as soon as no continuation could make it valid (8.1).
                self._utf8.decode(payload, final)
            self._parts += payload
            if final:
                whole = bytes(self._parts)
                self._parts = bytearray()
                self.messages.append(whole.decode() if self._text else whole)
        except UnicodeDecodeError:
            self.fail(INVALID_PAYLOAD, 'invalid UTF-8')

    def _on_ping(self, chunk: Chunk) -> None:
        if self.state != OPEN:
            return
        if self.congested:
            # 5.5.3: the most recent ping may be answered for all of them, so
            # that a peer that pings and never reads costs one pong, not many.
            self._owed_pong = chunk.payload
        else:
            self.out.append(encode(PONG, chunk.payload, self._client))

    def _on_pong(self, chunk: Chunk) -> None:
        if self._ping is not None and chunk.payload == self._ping[0]:
            self.latency = self._now() - self._ping[1]
            self._ping = None

    def _on_close(self, chunk: Chunk) -> None:
        payload = chunk.payload
        code, reason = NO_STATUS, None
        if payload:
            code = int.from_bytes(payload[:2], 'big')
            if len(payload) < 2 or not sendable(code):
                self.fail(PROTOCOL_ERROR, 'invalid close code')
                return
            try:
                reason = payload[2:].decode()
            except UnicodeDecodeError:
                self.fail(INVALID_PAYLOAD, 'invalid UTF-8 in a close reason')
                return
        if self.state == CLOSING:
            self.half_close = not self._client  # 7.1.1: the server closes TCP first
            self._move(ENDED)
        else:
            # 5.5.1: the code is echoed
            self._end(code, reason, payload[:2], False)

    def _on_failure(self, chunk: Chunk) -> None:
        self.fail(chunk.code, chunk.payload.decode())

    _handlers = {
        CONTINUATION: _on_data,
        TEXT: _on_data,
        BINARY: _on_data,
        CLOSE: _on_close,
        PING: _on_ping,
        PONG: _on_pong,
        FAILURE: _on_failure,
    }

    # -- out --------------------------------------------------------------

    def send(self, opcode: int, payload: bytes | bytearray | memoryview) -> None:
        """Put a message into ``out``.

        :param opcode: TEXT or BINARY.
        :param payload: its bytes; valid UTF-8 for TEXT.
        :raises ConnectionClosed: when our Close is out or TCP is gone.
        """
        if self.state > ENDING:
            raise ConnectionClosed(self.close_code, self.close_reason)
        deflate = self._deflate
        if deflate is not None and len(payload) >= deflate.threshold:
            self.out.append(encode(opcode, deflate.compress(payload), self._client, True))
        else:
            self.out.append(encode(opcode, payload, self._client))

    def close(self, payload: bytes, code: int, reason: str | None) -> None:
        """Start the closing handshake, or answer the peer's (section 7.1.2).

        :param payload: from ``close_payload(code, reason)``.
        :raises ConnectionClosed: when the connection is closed already.
        """
        if self.state > ENDING:
            raise ConnectionClosed(self.close_code, self.close_reason)
        if self._ending is not None:
            their_code, their_reason, _, failed = self._ending
            self._ending = (their_code, their_reason, payload, failed)
            self._finish_ending()
            return
        self._set_closed(code, reason)
        self.out.append(encode(CLOSE, payload, self._client))
        self.deadline = self._now() + self.close_timeout
        self._move(CLOSING)
        self._take_backlog()
        if self._eof:
            self._reach_eof()

    def drained(self) -> None:
        """Everything in ``out`` so far has been taken by TCP."""
        self.congested = False
        if self._owed_pong is not None and self.state == OPEN:
            self.out.append(encode(PONG, self._owed_pong, self._client))
        self._owed_pong = None

    def refuse(self, response: bytes) -> None:
        """Answer the opening handshake with an HTTP error and nothing else.

        :param response: the whole HTTP response.
        """
        self.out.append(response)
        self.half_close = True
        self.deadline = self._now() + self.close_timeout
        self._set_closed(ABNORMAL_CLOSURE, None)
        self._move(ENDED)

    # -- messages ---------------------------------------------------------

    def take(self) -> Message | None:
        """The oldest message, or None where there is none."""
        if not self.messages:
            return None
        self._answering = True
        message = self.messages.popleft()
        if self._backlog:
            self._take_backlog()
        return message

    def ask(self) -> None:
        """The application asks for a message and none is there: whatever it
        had to answer is answered, so a Close or a failure may have its turn."""
        self._answering = False
        if self._ending is not None:
            self._finish_ending()

    @property
    def paused(self) -> bool:
        """Whether to leave what the peer sends in TCP's hands for now."""
        if self.state == OPEN:
            return bool(self._backlog) or self._full
        return self.state == ENDING

    def _take_backlog(self) -> None:
        backlog = self._backlog
        while backlog and (self.state == CLOSING or (self.state == OPEN and not self._full)):
            chunk = backlog.popleft()
            self._handlers[chunk.opcode](self, chunk)
        if not backlog and self._eof and self.state == OPEN:
            self._reach_eof()

    # -- the end ----------------------------------------------------------

    def fail(self, code: int, reason: str) -> None:
        """_Fail the WebSocket Connection_ (section 7.1.7): Close, read no
        further, close TCP; after what came before it has been taken."""
        if self.state == CLOSING:
            self.half_close = True
            self._move(ENDED)
        elif self.state == OPEN:
            reason = reason.encode()[:123].decode(errors='ignore')
            self._end(code, reason, close_payload(code, reason), True)

    def _end(self, code: int, reason: str | None, payload: bytes, failed: bool) -> None:
        self._ending = (code, reason, payload, failed)
        self._move(ENDING)
        self.deadline = self._now() + self.close_timeout
        if not self.messages and not self._answering:
            self._finish_ending()

    def _finish_ending(self) -> None:
        assert self._ending is not None
        code, reason, payload, failed = self._ending
        self._ending = None
        self._set_closed(code, reason)
        self.out.append(encode(CLOSE, payload, self._client))
        self.half_close = failed or not self._client
        self.deadline = self._now() + self.close_timeout
        self._move(ENDED)

    def _set_closed(self, code: int, reason: str | None) -> None:
        self.close_code = code
        self.close_reason = reason

    def _move(self, state: int) -> None:
        if state > self.state:
            self.state = state
        self.dirty = True
        if state > ENDING:
            if state != CLOSING:
                self._backlog.clear()
            self._parts = bytearray()
            self._next_ping = self._pong_due = None

    @property
    def eof_seen(self) -> bool:
        """Whether the peer's half of TCP has ended."""
        return self._eof

    # -- time -------------------------------------------------------------

    def tick(self, now: float) -> None:
        """Do what is due: a ping, giving up on a silent peer, the end of a
        closing that took too long.

        :param now: the clock's time, in seconds.
        """
        if self.deadline is None or now < self.deadline:
            return
        if self.state == OPEN:
            self._keep_alive(now)
        elif self.state == ENDING:
            self._finish_ending()
        else:
            self._move(DONE)
        self.dirty = True

    def _keep_alive(self, now: float) -> None:
        assert self._ping_interval is not None
        if self._pong_due is not None and now >= self._pong_due:
            if self._heard:
                self._pong_due = None
            elif self.paused:
                # The silence is ours: its bytes wait in TCP until there is room.
                self._pong_due = now + (self._ping_timeout or 0)
            else:
                self.fail(INTERNAL_ERROR, 'keepalive ping timeout')
                return
        if self._next_ping is not None and now >= self._next_ping:
            self._next_ping = now + self._ping_interval
            if self._pong_due is None:
                self._send_ping(now)
        self.deadline = self._next_ping
        if self._pong_due is not None and self.deadline is not None:
            self.deadline = min(self.deadline, self._pong_due)

    def _send_ping(self, now: float) -> None:
        self._heard = False
        if self._ping_timeout is not None:
            self._pong_due = now + self._ping_timeout
        if not self.congested:
            self._ping = (os.urandom(4), now)
            self.out.append(encode(PING, self._ping[0], self._client))
