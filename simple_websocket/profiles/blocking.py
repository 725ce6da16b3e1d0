"""A link for code that blocks: what threads and hubs have in common.

``Link`` reads and writes and never waits.  Here is what an application calls, the
*step* that all of it is made of, and what a signal handler may do in the middle of one.
The backends add how they wait (``hub.py``, ``locked.py``).

Who may call what: ``receive`` one caller at a time, a second one gets an error; ``send``
and ``close`` anyone, from any OS thread, at any time.

An exception may come out of nowhere between any two bytecodes (Ctrl-C), and everything
here is made for it.  A loop within a ``try`` has its condition inside: CPython 3.12 and
3.13 leave the jump back of ``while condition:`` out of the ``try``, and it is one of the
places where signals are looked for.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeVar

from ..errors import ConnectionClosed
from ..inbox import Message
from ..protocol import ENDING
from .link import Link, Payload
from .originals import builtin

_Result = TypeVar('_Result')


class BlockingLink(Link):
    """One open connection of ``Server`` or ``Client``."""

    __slots__ = ()

    # -- what a backend adds ---------------------------------------------

    @abstractmethod
    def receive(self, timeout: float | None) -> Message | None:
        """The next message; None when ``timeout`` seconds are over.

        :raises ConnectionClosed: after the last message.
        """

    @abstractmethod
    def send(self, opcode: int, payload: Payload, timeout: float | None) -> None:
        """Write a message and wait until TCP has taken all of it.

        :raises ConnectionClosed: when it can't be written, or was not in
                                  ``timeout`` seconds: then the connection has
                                  failed, since half a frame may be out.
        """

    @abstractmethod
    def _send_rest(self, timeout: float | None) -> None:
        """``send``, of which TCP has taken some: the rest is in ``_unsent``."""

    @abstractmethod
    def close(self, payload: bytes, code: int, reason: str | None, wait: bool = True) -> None:
        """Do the closing handshake.

        :param wait: whether to stay until it is over, ``close_timeout`` at most.
        :raises ConnectionClosed: when the connection is closed already.
        """

    @abstractmethod
    def join(self, timeout: float | None) -> bool:
        """Wait until TCP is closed; whether it is."""

    @abstractmethod
    def _guarded(self, step: Callable[[], Any]) -> bool:
        """Run a step with nobody else inside.

        :returns: False where it was put off, because it is a signal handler's that
                  has interrupted one: who waited now would wait inside that.
        """

    @abstractmethod
    def offer(
        self, opcode: int, payload: bytes, made: dict[Any, bytes], insist: bool
    ) -> int | None:
        """Begin to send a message, and do not wait.

        :param made: see ``Protocol.shared_frame``.
        :param insist: whether to put it behind what TCP has not taken yet.
        :returns: 0 when TCP has taken all of it, or it was put off behind the step
                  that this call interrupts; what to give to ``wait_until_sent``
                  while TCP has not; None when it was not begun, since something
                  is before it.
        :raises ConnectionClosed: when it can't be sent.
        """

    @abstractmethod
    def wait_until_sent(self, mark: int, timeout: float | None) -> None:
        """Wait until TCP has taken what ``offer`` began.

        :raises ConnectionClosed: as for ``send``.
        """

    # -- steps ------------------------------------------------------------

    def _run_step(self, step: Callable[[], _Result]) -> _Result:
        """Run a step: something that never waits, with nobody else inside.

        A ``ConnectionClosed`` or ``ValueError`` of its own says that it has written
        nothing.  Any other exception comes out of nowhere: half of the step may be
        done, so the connection fails.
        """
        self._inside = True
        try:
            result = step()  # a name: after the call we are still in the try
        except (ConnectionClosed, ValueError):
            raise
        except BaseException:
            self._poison()
            raise
        finally:
            if self._deferred:
                self._do_deferred()
            self._inside = False
        return result

    def _defer(self, step: Callable[[], Any]) -> None:
        """Put off what a signal handler wants in the middle of a step."""
        if self._deferred is None:
            self._deferred = []
        self._deferred.append(step)

    def _do_deferred(self) -> None:
        """At the end of a step: do what a signal handler wanted in its middle."""
        try:
            while True:
                if not self._deferred:
                    break
                with suppress(ConnectionClosed):
                    self._deferred.pop(0)()
        finally:
            self._inside = False

    def _put(self, opcode: int, payload: Payload) -> None:
        """Send from a signal handler that interrupted one of our own steps."""
        if self.protocol.state <= ENDING:
            self.protocol.send(opcode, payload)
            self._after()

    # -- send -------------------------------------------------------------

    def _begin_to_send(self, opcode: int, payload: Payload) -> int:
        """A step: write a message.

        :returns: what to give to ``wait_until_sent`` where TCP has not taken all of it;
                  else 0.
        """
        self._put_message(opcode, payload)
        if self.protocol.dirty:
            self._settle_and_tell()
        return self._unsent_mark() if self._unsent else 0

    def _settle_and_tell(self) -> None:
        """Settle, and have those who wait for what came of it look."""
        self._settle()
        self._notify()

    def _offer(
        self, opcode: int, payload: bytes, made: dict[Any, bytes], insist: bool
    ) -> int | None:
        """``offer``, with nobody else inside."""
        protocol = self.protocol
        if not insist and protocol.state <= ENDING and (self._unsent or protocol.out):
            return None
        protocol.out.append(protocol.shared_frame(opcode, payload, made))
        if not self._unsent:
            self._flush()
        if protocol.dirty:
            self._settle_and_tell()
        if self.finished:
            raise self._closed()
        return self._unsent_mark() if self._unsent else 0

    def go_on(self) -> int:
        """What ``offer`` returns, where ``put_to_many`` has begun to send.

        :raises ConnectionClosed: when it can't be sent.
        """
        self._guarded(self._write_more)
        if self.finished:
            raise self._closed()
        return self._unsent_mark() if self._unsent else 0

    def _write_more(self) -> None:
        self._flush()
        self._after()

    def fail_if_torn(self, ident: int) -> None:
        """Fail the connection where ``put_to_many``, called by the thread ``ident``, has
        begun a frame that nobody has come to go on with (invariant 2)."""
        if self._home in (None, ident):
            self._guarded(self._fail_if_torn)

    def _fail_if_torn(self) -> None:
        if self._unsent and not self.protocol.congested:
            self._poison()

    # -- receive ----------------------------------------------------------

    def interrupted(self) -> None:
        """``receive`` was interrupted.  A message that it had not picked up yet goes
        back to the queue.  One that it was about to return (``_handing``) may be
        lost, so the connection fails rather than going on without it."""
        if self._handing:
            self._handing = False
            self.give_up()
        elif self._handed is not None:
            if self._home is None or self._home == builtin('threading', 'get_ident')():
                self._guarded(self._reclaim)  # else whoever receives next does it

    def _reclaim(self) -> None:
        message, self._handed = self._handed, None
        if message is not None:
            self.protocol.input_buffer().appendleft(message)

    def make_room(self) -> None:
        """The application has taken messages out of the queue itself."""
        self._guarded(self._use_room)

    # -- the end ----------------------------------------------------------

    def give_up(self) -> None:
        """Fail the connection: 1006, and TCP is closed at once."""
        self._guarded(self._poison)


__all__ = ['BlockingLink']
