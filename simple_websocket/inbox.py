"""The queue of messages between a connection and who receives on it."""

from __future__ import annotations

from collections import deque

Message = str | bytes

#: Bytes of binary and characters of text in the receive queue from which
#: reading stops, however few messages they are.
MAX_QUEUE_SIZE = 1 << 20


class InputBuffer(deque[Message]):
    """The messages that were received and not yet taken, oldest first.

    :param max_messages: the number of them from which it is full.
    """

    __slots__ = ('_max_messages', '_size', 'full')

    def __init__(self, max_messages: int) -> None:
        super().__init__()
        self._max_messages = max_messages
        self._size = 0
        self.full = False  #: whether there is no room; what comes waits outside

    def append(self, message: Message) -> None:
        """Add a message behind the others."""
        super().append(message)
        self._size += len(message)
        if len(self) >= self._max_messages or self._size >= MAX_QUEUE_SIZE:
            self.full = True

    def appendleft(self, message: Message) -> None:
        """Put a message back, before the others."""
        super().appendleft(message)
        self._size += len(message)

    def pop(self, index: int = -1) -> Message:
        """Take the message at ``index`` out (the last one by default).

        :raises IndexError: when there is none.
        """
        message = self[index]
        del self[index]
        self._shrink(message)
        return message

    def popleft(self) -> Message:
        """Take the oldest message out.

        :raises IndexError: when there is none.
        """
        message = super().popleft()
        self._shrink(message)
        return message

    def _shrink(self, gone: Message) -> None:
        self._size -= len(gone)
        if self.full:
            self.full = len(self) >= self._max_messages or self._size >= MAX_QUEUE_SIZE

    def __repr__(self) -> str:
        return f'<{len(self)} messages>'
