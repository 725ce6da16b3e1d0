"""What a connection must look like from outside, in the plainest words: what
the application is given, what the peer hears, how it ends.

`Model` knows no bytes and no frames: it is told what has arrived, `Event` by
`Event`, and what the application and time do. It says what must then be in
`queue`, what must have been said (`wire`), in which `state` the connection is
and, once it is closed, what it `reports`. It is told of keepalive failures and
does not predict pings: `tests/core/test_protocol_model.py` judges those.
"""

from __future__ import annotations

from collections import deque
from typing import NamedTuple

from support.frames import CLOSE, PONG

OPEN, ENDING, CLOSING, ENDED, DONE = 'open', 'ending', 'closing', 'ended', 'done'
ORDER = (OPEN, ENDING, CLOSING, ENDED, DONE)

ANYTHING = '...'  # the words of a failure are the protocol's own matter


class Closed(Exception):
    """A call on a connection that is closed."""


class Event(NamedTuple):
    """Something has arrived: some of a message, a control frame, a violation."""

    kind: str  # data, ping, pong, close, broken
    payload: bytes = b''
    begins: str = ''  # text or binary, where a message begins
    last: bool = False
    code: int = 0  # what is wrong with it
    reason: str | None = None


def viable(text: bytes, last: bool) -> bool:
    """Whether it is UTF-8, or could become it if it goes on (RFC 3629)."""
    at = 0
    while at < len(text):
        first = text[at]
        low, high, size = 0x80, 0xBF, 0
        if first < 0x80:
            at += 1
            continue
        if 0xC2 <= first <= 0xDF:
            size = 1
        elif 0xE0 <= first <= 0xEF:
            size = 2
            low = 0xA0 if first == 0xE0 else low
            high = 0x9F if first == 0xED else high
        elif 0xF0 <= first <= 0xF4:
            size = 3
            low = 0x90 if first == 0xF0 else low
            high = 0x8F if first == 0xF4 else high
        else:
            return False
        for byte in text[at + 1 : at + 1 + size]:
            if not low <= byte <= high:
                return False
            low, high = 0x80, 0xBF
        if at + 1 + size > len(text):
            return not last
        at += 1 + size
    return True


class Model:
    def __init__(self, client: bool, max_queue: int, close_timeout: float) -> None:
        self.client = client
        self.max_queue = max_queue
        self.close_timeout = close_timeout
        self.now = 1000.0
        self.state = OPEN
        self.queue: deque[str | bytes] = deque()
        self.line: deque[Event] = deque()  # arrived, waiting for room
        self.wire: list[tuple[int, bytes | int]] = []  # a failure's Close by its code
        self.report: tuple[int, str | None] | None = None
        self.deadline: float | None = None  # of the closing
        self.half_close = False
        self.congested = False
        self.eof = False
        self._deaf = False  # behind a violation nothing is understood
        self._listening = True
        self._answering = False
        self._text = False
        self._whole = b''
        self._owed: bytes | None = None
        # (reported, said) of the peer's Close or our failure, while messages
        # before it may still be answered; a failure is said in our words.
        self._ending: tuple[tuple[int, str | None], bytes | int] | None = None

    # -- what arrives -------------------------------------------------------

    def arrive(self, events: list[Event]) -> None:
        if self.state not in (OPEN, CLOSING):
            return
        for event in events:
            if not self._deaf:
                self.line.append(event)
                self._deaf = event.kind == 'broken'
        self._advance()

    def fin(self) -> None:
        if not self.eof:
            self.eof = True
            if not self.line:
                self._gone()

    def _gone(self) -> None:
        if self.state == OPEN:
            self.report = 1006, None
            self.state = DONE
            self._ignore()
        elif self.state == CLOSING:
            self.state = ENDED

    def _advance(self) -> None:
        while self.line:
            full = len(self.queue) >= self.max_queue
            if full and self._listening and self.line[0].kind == 'data':
                return
            event = self.line.popleft()
            getattr(self, f'_{event.kind}')(event)

    def _make_room(self) -> None:
        self._advance()
        if not self.line and self.eof:
            self._gone()

    def _data(self, event: Event) -> None:
        if not self._listening:
            return
        if event.begins:
            self._text = event.begins == 'text'
        self._whole += event.payload
        if event.code:
            self.fail(event.code)
        elif self._text and not viable(self._whole, event.last):
            self.fail(1007)
        elif event.last:
            self.queue.append(self._whole.decode() if self._text else self._whole)
            self._whole = b''

    def _ping(self, event: Event) -> None:
        if self.state == OPEN and self.congested:
            self._owed = event.payload
        elif self.state == OPEN:
            self.wire.append((PONG, event.payload))

    def _pong(self, event: Event) -> None:
        pass

    def _close(self, event: Event) -> None:
        code = event.code or 1005
        if self.state == OPEN:
            self._end((code, event.reason), event.payload[:2])
        elif self.state == CLOSING:
            self.half_close = not self.client
            self.state = ENDED
        elif self.state == DONE and self._listening:
            self.report = code, event.reason
            self._ignore()

    def _broken(self, event: Event) -> None:
        self.fail(event.code)

    def _ignore(self) -> None:
        self._listening = False
        self._whole = b''

    # -- how it ends --------------------------------------------------------

    def fail(self, code: int) -> None:
        if self.state == OPEN:
            self._end((code, ANYTHING), code)
        elif self.state == CLOSING:
            self.half_close = True
            self.state = ENDED
        self._ignore()

    def _end(self, report: tuple[int, str | None], said: bytes | int) -> None:
        self._ending = report, said
        self._ignore()
        self.state = ENDING
        self.deadline = self.now + self.close_timeout / 2
        if not self.queue and not self._answering:
            self._finish()

    def _finish(self) -> None:
        assert self._ending is not None
        self.report, said = self._ending
        self._ending = None
        self._say_close(said)
        self.half_close = isinstance(said, int) or not self.client
        self.state = ENDED

    def _say_close(self, said: bytes | int) -> None:
        self.wire.append((CLOSE, said))
        self.deadline = self.now + self.close_timeout

    # -- the application ----------------------------------------------------

    def receive(self) -> str | bytes | None:
        """`receive(timeout=0)`."""
        if not self.queue:
            if self.line:
                self._make_room()
            if not self.queue:
                self._answering = False
                if self._ending is not None:
                    self._finish()
                return None
        self._answering = True
        message = self.queue.popleft()
        if self.line:
            self._make_room()
        return message

    def send(self, opcode: int, payload: bytes) -> None:
        self._refuse_when_closed()
        self._answering = False
        self.wire.append((opcode, payload))

    def close(self, code: int, reason: str, payload: bytes) -> None:
        self._refuse_when_closed()
        if self._ending is not None:
            report, said = self._ending
            self._ending = report, said if isinstance(said, int) else payload
            self._finish()
            return
        self.report = code, reason or None
        self._ignore()
        self._say_close(payload)
        self.state = CLOSING
        self._make_room()

    def _refuse_when_closed(self) -> None:
        if self.state not in (OPEN, ENDING):
            raise Closed

    # -- TCP and time -------------------------------------------------------

    def abort(self, code: int) -> None:
        if self._ending is not None:
            self.report = self._ending[0]
            self._ending = None
        elif self.state == OPEN:
            self.report = code, None
        self.state = DONE

    def drained(self) -> None:
        self.congested = False
        if self.state == OPEN and self._owed is not None:
            self.wire.append((PONG, self._owed))
        self._owed = None

    def tick(self) -> None:
        if self.deadline is None or self.now < self.deadline:
            return
        if self.state == ENDING:
            self._finish()
        elif self.state in (CLOSING, ENDED):
            self.state = DONE

    @property
    def paused(self) -> bool:
        """Whether what the peer sends is left to TCP."""
        if self.state == OPEN:
            return bool(self.line)
        return self.state == ENDING or (self.state == ENDED and self.eof)
