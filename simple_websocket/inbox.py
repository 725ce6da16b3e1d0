"""Messages on their way from a connection to who receives on it: put together,
and then in a queue."""

from __future__ import annotations

import codecs
import io
from collections import deque
from collections.abc import Callable, Iterator
from functools import wraps
from typing import Any

Message = str | bytes

#: Bytes of binary and characters of text in the receive queue from which
#: reading stops, however few messages they are.
MAX_QUEUE_SIZE = 1 << 20

#: Parts of a text are joined, until they have so many characters.
_SMALL = 1 << 10


class Parts:
    """A message of which not all has come.

    Text is decoded as it comes, so that it fails as soon as no continuation could
    make it valid (RFC 6455 section 8.1).

    ``len()`` says how many bytes have come.

    :param text: whether it is a text.
    """

    __slots__ = ('_binary', '_cut', '_size', '_texts')

    def __init__(self, text: bool) -> None:
        self._binary = None if text else io.BytesIO()
        self._texts = ['']
        self._cut = b''  # the beginning of a character
        self._size = 0

    def __len__(self) -> int:
        return self._size

    def add(self, payload: bytes, final: bool = False) -> None:
        """Take the next part.

        :param final: whether it is the last.
        :raises UnicodeDecodeError: when a text cannot be valid any more.
        """
        self._size += len(payload)
        if self._binary is not None:
            self._binary.write(payload)
            return
        data = self._cut + payload
        text, used = codecs.utf_8_decode(data, 'strict', final)
        self._cut = data[used:]
        # Python waits for the third byte before it tells a surrogate.
        if b'\xed\xa0' <= self._cut < b'\xee':
            codecs.utf_8_decode(self._cut, 'strict', True)
        # A peer may send a byte at a time, and a str for each takes fifty.
        if len(self._texts[-1]) < _SMALL:
            self._texts[-1] += text
        else:
            self._texts.append(text)

    def whole(self, payload: bytes) -> Message:
        """Take the last part.

        :returns: the message.
        :raises UnicodeDecodeError: when a text is not valid.
        """
        self.add(payload, True)
        if self._binary is not None:
            return self._binary.getvalue()
        return ''.join(self._texts)


def _counted(name: str) -> Any:
    """A method of deque, with the books made anew after it."""
    change = getattr(deque, name)

    @wraps(change)
    def method(buffer: InputBuffer, *args: Any) -> Any:
        try:
            return change(buffer, *args)
        finally:
            buffer._count()

    return method


class InputBuffer(deque[Message]):
    """The messages that were received and not yet taken, oldest first.

    It belongs to the application as well, which may do with it what can be done
    with a deque; what it iterates over is what was there when it began.

    :param max_messages: the number of them from which it is full.
    """

    __slots__ = ('_max_messages', '_size', 'full', 'on_room')

    def __init__(self, max_messages: int) -> None:
        super().__init__()
        self._max_messages = max_messages
        self._size = 0
        self.full = False  #: whether there is no room; what comes waits outside
        self.on_room: Callable[[], None] | None = None  #: told when the application makes some

    def append(self, message: Message) -> None:
        """Add a message after the others."""
        super().append(message)
        self._size += len(message)
        if not self.full and self._is_full():
            self._fill()

    def pop(self, index: int = -1) -> Message:
        """Take the message at ``index`` out (the last one by default).

        :raises IndexError: when there is none.
        """
        message = self[index]
        super().__delitem__(index)
        self._shrink(message)
        return message

    def popleft(self) -> Message:
        """Take the oldest message out.

        :raises IndexError: when there is none.
        """
        message = super().popleft()
        self._shrink(message)
        return message

    def take(self) -> Message:
        """``popleft()`` for the protocol, which makes use of the room itself."""
        message = super().popleft()
        self._size -= len(message)
        if not self:
            self._size = 0
            self.full = False
        elif self.full and not self._is_full():
            self.full = False
        return message

    def _shrink(self, gone: Message) -> None:
        self._size -= len(gone)
        self._look()

    def _is_full(self) -> bool:
        if len(self) >= self._max_messages:
            return True
        if self._size >= MAX_QUEUE_SIZE:
            # To be sure: the application may take messages out in a thread of its own
            # while another is put in, and the books are not kept in one step.
            self._size = sum(map(len, self.copy()))
        return self._size >= MAX_QUEUE_SIZE

    def _fill(self) -> None:
        # In this order: who takes a message out meanwhile sees that it was full.
        self.full = True
        if not self._is_full():
            self.full = False

    def _look(self) -> None:
        """After a change that the application has made."""
        if not self.full:
            if self._is_full():
                self._fill()
        elif not self._is_full():
            self.full = False
            if self.on_room is not None:
                self.on_room()

    def __iter__(self) -> Iterator[Message]:
        return iter(self.copy())

    # All else that changes a deque is rare.

    appendleft, clear, remove = map(_counted, ('appendleft', 'clear', 'remove'))
    extend, extendleft, insert = map(_counted, ('extend', 'extendleft', 'insert'))
    __iadd__, __imul__ = map(_counted, ('__iadd__', '__imul__'))
    __delitem__, __setitem__ = map(_counted, ('__delitem__', '__setitem__'))

    def _count(self) -> None:
        self._size = sum(map(len, self))
        self._look()

    # For a copy, deque itself would call our constructor with the messages.

    def copy(self) -> deque[Message]:  # type: ignore[override]
        """The messages, in a deque of their own."""
        copied: deque[Message] = deque()
        # In one step of C: another thread may change it.
        any(map(copied.extend, map(deque.__iter__, (self,))))
        return copied

    __copy__ = copy  # type: ignore[assignment]

    def __add__(self, other: deque[Message]) -> deque[Message]:  # type: ignore[override]
        return self.copy() + other

    def __repr__(self) -> str:
        return f'<{len(self)} messages>'
