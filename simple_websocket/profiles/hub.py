"""What gevent and eventlet have in common: a hub that calls back.

There is no greenlet of our own.  The path of one message, call by call, where
``express`` has made it short:

* the hub's poll returns, then the one that all links of the hub share, which calls
  ``_on_readable`` of those that have something (``readers.py``);
* that calls recv, makes the message of what came, and switches to the greenlet
  that waits in ``receive``, which returns it;
* ``send`` makes a frame and calls send;
* the next ``receive`` switches to the hub, which goes on after its recv.

So a message costs one recv, one switch to and fro, one send, and its share of the
two polls.
Whatever is not a message in one piece (many at once, some of one, a ping, a
Close, TLS) goes the way that this file describes, through ``BlockingLink``,
``Link`` and the queue of the protocol.

A hub belongs to an OS thread.  Calls from any other are carried over: they
run in a greenlet of the hub's thread while the caller waits (``errand.py``).

Inside means: between two switches.  A signal handler can interrupt us there
and call ``send`` itself; then the frame is put behind ours by whoever it
interrupted.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

from ..close_codes import ABNORMAL_CLOSURE
from ..errors import ConnectionClosed, SimpleWebsocketError
from ..inbox import Message
from ..protocol import ENDED, ENDING, Protocol
from . import express
from .blocking import BlockingLink
from .errand import Busy, Errand, presence, tell_of_ends
from .link import TURN, Payload, live_links
from .originals import builtin, original
from .readers import Ear, Readers
from .wire import Wire

#: No thread has this ident.
NOBODY = 0


# Not plain tuples: the collector gives up on one that it has seen with a suspended
# greenlet in it, and whatever that greenlet holds in the end is never let go of.


class _Sender(NamedTuple):
    """Who waits until it is sent."""

    mark: int  #: what ``_sent`` has to reach
    greenlet: Any


class _Closer(NamedTuple):
    """Who waits for the end."""

    greenlet: Any
    whole: bool  #: for that of TCP, too


@express.hub
class HubLink(BlockingLink):
    """A link whose greenlets wait in a hub; a backend adds the methods
    that are abstract here and those of ``Link``."""

    __slots__ = (
        '_armed',
        '_closers',
        '_get_ident',
        '_hub',
        '_is_there',
        '_readers',
        '_reading',
        '_receiver',
        '_senders',
        '_taken',
        '_writing',
    )

    def __init__(
        self,
        wire: Wire,
        protocol: Protocol,
        now: Callable[[], float],
        hub: Any,
        ear: type[Ear],
    ) -> None:
        super().__init__(wire, protocol, now)
        self._hub = hub
        self._readers = Readers.of(hub, ear)
        self._get_ident: Callable[[], int] = builtin('threading', 'get_ident')
        self._home = self._get_ident()
        self._is_there = presence()
        self._receiver: Any = None
        # None until there was one: most connections are idle.
        self._senders: list[_Sender] | None = None
        self._closers: list[_Closer] | None = None
        self._reading = False
        self._writing = False
        self._armed: float | None = None
        self._taken = 0  # messages since the receiver last waited

    # -- what a hub adds --------------------------------------------------

    @abstractmethod
    def _current(self) -> Any:
        """The running greenlet, or None where it is the hub, which can't wait."""

    @abstractmethod
    def _pause(self, timeout: float | None) -> None:
        """Switch to the hub until it switches back, an exception, or ``timeout``."""

    @abstractmethod
    def _soon(self, function: Callable[[], None]) -> None:
        """Have the hub call ``function`` in its next turn; from its own thread."""

    @abstractmethod
    def _call_home(self, function: Callable[[], None]) -> bool:
        """Have the hub itself call ``function``; from any thread.

        :returns: False where the way there is closed, since the link is finished.
        """

    @abstractmethod
    def _spawn(self, function: Callable[[], None]) -> None:
        """Run ``function`` in a new greenlet of the hub."""

    @abstractmethod
    def _start_writing(self) -> None:
        """Have the hub call ``_on_writable``."""

    @abstractmethod
    def _stop_writing(self) -> None:
        """Stop that."""

    # -- link -------------------------------------------------------------

    def start(self) -> None:
        self._guarded(self._settle)

    def _watch(self, read: bool, write: bool) -> None:
        try:
            if read != self._reading:
                self._reading = read
                (self._start_reading if read else self._stop_reading)()
            if write != self._writing:
                self._writing = write
                (self._start_writing if write else self._stop_writing)()
        except OSError:  # somebody else has closed our descriptor
            self.protocol.abort()

    def _start_reading(self) -> None:
        stolen_from = self._readers.add(self.wire.fd, self)
        if stolen_from is not None:
            stolen_from.on_stolen()

    def _stop_reading(self) -> None:
        self._readers.remove(self.wire.fd, self)

    def raise_soon(self, error: BaseException) -> None:
        """Have the hub see an exception that came out of ``_on_readable``."""

        def call() -> None:
            raise error

        self._soon(call)

    def on_stolen(self) -> None:
        """Somebody else closed our descriptor and its number is in use again; called
        in any greenlet of the hub."""
        self._soon(self._end_stolen)

    def _end_stolen(self) -> None:
        self._guarded(self._poison)
        self._switch_out()

    def _release(self) -> None:
        self._reading = False  # ``drop`` removes it for good; ``_watch`` need not
        self._readers.drop(self.wire.fd, self)
        self._watch(False, False)
        self._arm(None)

    def _guarded(self, step: Callable[[], Any]) -> bool:
        if self._inside:
            self._defer(step)
            return False
        self._run_step(step)
        return True

    def _on_readable(self, *_: Any) -> None:
        self._step_of_hub(super()._on_readable)

    def _on_writable(self, *_: Any) -> None:
        self._step_of_hub(super()._on_writable)

    def _step_of_hub(self, step: Callable[[], None]) -> None:
        """What a hub calls.  It calls nothing again that has raised."""
        try:
            self._guarded(step)
            self._switch_out()
        except BaseException as error:
            self.raise_soon(error)

    def _on_time(self) -> None:
        """A timer has fired.  Clocks differ by a grain: when it was early, the
        same deadline is armed again."""
        self._armed = None
        self._guarded(super()._on_deadline)
        if not self.finished:
            self._arm(self.protocol.deadline)
        self._switch_out()

    def _kick(self) -> None:
        """Have the hub call ``_switch_out`` soon: waiters are resumed by the
        hub only, never by another greenlet, which would not come back."""
        if self._receiver is not None or self._senders or self._closers:
            self._soon(self._switch_out)

    def _poison(self) -> None:
        super()._poison()
        self._kick()

    def _finish(self) -> None:
        super()._finish()
        self._kick()  # nothing else will

    def _notify(self) -> None:
        """Nothing: waiters are resumed when the step is over."""

    def _settle_and_tell(self) -> None:
        super()._settle_and_tell()
        self._kick()

    def _switch_out(self) -> None:
        """Resume whoever has what it waits for, from the hub: who is resumed comes
        back when it waits again.  Anything may have changed after each switch, so
        look afresh before the next."""
        while self._senders:
            taken = (one for one in self._senders if self.finished or one.mark <= self._sent)
            sender = next(taken, None)
            if sender is None:
                break
            self._senders.remove(sender)
            self._resume(sender.greenlet)
        if self._closers and self.protocol.state >= ENDED:
            waiting = [one for one in self._closers if self.finished or not one.whole]
            for one in waiting:
                if one in self._closers:  # pragma: no branch (coverage is not back yet)
                    self._closers.remove(one)
                    self._resume(one.greenlet)
        if self._receiver is not None and self._ready():
            greenlet, self._receiver = self._receiver, None
            self._resume(greenlet)

    def _resume(self, greenlet: Any) -> None:
        """Switch to who waits.  Should it end by an exception, that comes out here: it
        is the hub's to tell, and those behind it are still to be resumed."""
        try:
            greenlet.switch(None)
        except BaseException as error:
            self.raise_soon(error)

    def receive(self, timeout: float | None) -> Message | None:
        if self._get_ident() != self._home and not self.finished:
            message: Message | None
            try:
                message = self._from_outside(
                    lambda: self.receive(timeout), timeout, self._give_back
                )
            except Busy:
                message = None
            return message
        protocol = self.protocol
        if self._taken >= TURN:
            self._give_way()
        before = self._receiver  # who waits already, if somebody does
        try:
            if self._handed is not None:
                self._guarded(self._reclaim)
            if protocol.messages:
                message = protocol.take()
                self._taken += 1
            else:
                message = self._wait_for_message(timeout)
            if protocol.dirty or protocol.out or not self._reading:
                self._make_room()
            return message
        except SimpleWebsocketError:
            raise
        except BaseException:
            if self._receiver is before and self._handed is None:
                # It came outside the wait: a message may have been on its way out.
                self._guarded(self._poison)
            raise
        finally:
            self._receiver = before

    def _give_way(self) -> None:
        """Let the others run: a peer that sends faster than the application
        receives would keep it from ever waiting."""
        self._taken = 0
        if self._get_ident() == self._home and self._current() is not None:
            self._pause(0)

    def _ask(self) -> None:
        self.protocol.ask()
        if self.protocol.dirty:
            self._settle_and_tell()

    def _make_room(self) -> None:
        if not self.finished:
            self._guarded(self._after if self.protocol.paused else self._catch_up)
            self._kick()

    def make_room(self) -> None:
        if self._get_ident() != self._home and not self.finished:
            with suppress(Exception):  # the hub may be gone, and nobody reads then
                self._call_home(self.make_room)
            return
        super().make_room()
        self._kick()

    def _catch_up(self) -> None:
        """There is room again: what TLS holds would make nothing readable."""
        if self.wire.tls:
            self._read_all()
        self.protocol.dirty = True
        self._settle()

    def _wait_for_message(self, timeout: float | None) -> Message | None:
        if self._receiver is not None:
            raise self._second_receiver()
        self._taken = 0
        protocol = self.protocol
        current = self._current()
        deadline = None if timeout is None else self.now() + timeout
        if timeout is not None and timeout <= 0:
            # Not waiting still means to look at what is there.
            self._guarded(super()._on_readable)
            self._kick()  # others may be waiting for what came
        message: Message | None
        while True:
            if not protocol.messages:
                self._guarded(self._ask)
            if protocol.messages or protocol.state > ENDING:
                break
            left = None if deadline is None else deadline - self.now()
            if current is None or (left is not None and left <= 0):
                return None
            self._receiver = current
            self._pause(left)
            self._receiver = None
            if self._handed is not None:
                message, self._handed = self._handed, None
                return message
        message = protocol.take()
        if message is None:
            raise self._closed()
        return message

    def wake(self) -> None:
        if self._get_ident() == self._home:
            self._kick()
        else:
            with suppress(Exception):  # the hub may be gone
                self._call_home(self._kick)

    def send(self, opcode: int, payload: Payload, timeout: float | None) -> None:
        if self._get_ident() != self._home and not self.finished:
            self._outside_in_time(lambda: self.send(opcode, payload, timeout), timeout)
            return
        if self._inside:
            self._put_off(opcode, payload)
            return
        mark = self._run_step(lambda: self._begin_to_send(opcode, payload))
        if mark:
            self.wait_until_sent(mark, timeout)
        elif self.finished:
            raise self._closed()

    def _send_rest(self, timeout: float | None) -> None:
        mark = self._unsent_mark()
        self._guarded(self._write_more)
        self._kick()
        self.wait_until_sent(mark, timeout)

    def go_on(self) -> int:
        try:
            return super().go_on()
        finally:
            self._kick()  # others may have put something behind it

    def _put_off(self, opcode: int, payload: Payload) -> None:
        """Send behind the step that this call came in the middle of: it is a signal
        handler's or, once the link is finished, another thread's."""
        if self.finished:
            raise self._closed()
        self._defer(lambda: self._put(opcode, payload))

    def offer(
        self, opcode: int, payload: bytes, made: dict[Any, bytes], insist: bool
    ) -> int | None:
        if self._get_ident() != self._home and not self.finished:
            mark: int | None = self._from_outside(
                lambda: self.offer(opcode, payload, made, insist)
            )
            return mark
        if self._inside:
            self._put_off(opcode, payload)
            return 0
        return self._run_step(lambda: self._offer(opcode, payload, made, insist))

    def wait_until_sent(self, mark: int, timeout: float | None) -> None:
        if self._get_ident() != self._home and not self.finished:
            self._outside_in_time(lambda: self.wait_until_sent(mark, timeout), timeout)
            return
        current = self._current()
        if current is None:
            return
        deadline = None if timeout is None else self.now() + timeout
        entry = _Sender(mark, current)
        self._senders = self._senders or []
        late = False
        try:
            while True:  # see blocking.py
                if self._sent >= mark or self.finished:
                    break
                left = None if deadline is None else deadline - self.now()
                if left is not None and left <= 0:
                    self._guarded(self._poison)
                    late = True
                    break
                if entry not in self._senders:
                    self._senders.append(entry)
                self._pause(left)
        except BaseException:
            if self._sent < mark:
                self._guarded(self._poison)
            raise
        finally:
            if self._senders and entry in self._senders:
                self._senders.remove(entry)
        if self._sent < mark:
            if late:
                raise self._not_taken(timeout)
            raise self._closed()

    def close(self, payload: bytes, code: int, reason: str | None, wait: bool = True) -> None:
        if self._get_ident() != self._home and not self.finished:
            self._from_outside(lambda: self.close(payload, code, reason, wait))
            return
        if self.finished:
            raise self._closed()
        done = self._guarded(lambda: self._begin_close(payload, code, reason))
        self._kick()
        if wait and done:
            self._wait_for_end(None, whole=False)

    def join(self, timeout: float | None) -> bool:
        if self._get_ident() != self._home and not self.finished:
            with suppress(Busy):
                joined: bool = self._from_outside(lambda: self.join(timeout), timeout)
                return joined
            return False
        self._wait_for_end(timeout, whole=True)
        return self.finished

    def _wait_for_end(self, timeout: float | None, whole: bool) -> None:
        """Wait until the closing handshake is over or, with ``whole``, TCP is."""
        current = self._current()
        deadline = None if timeout is None else self.now() + timeout
        entry = _Closer(current, whole)
        while current is not None and not self.finished and not self._inside:
            if not whole and self.protocol.state >= ENDED:
                return
            left = None if deadline is None else deadline - self.now()
            if left is not None and left <= 0:
                return
            try:
                if self._closers is None:
                    self._closers = []
                self._closers.append(entry)
                self._pause(left)
            finally:
                if self._closers and entry in self._closers:
                    self._closers.remove(entry)

    def _from_outside(
        self,
        function: Callable[[], Any],
        timeout: float | None = None,
        give_back: Callable[[Any], None] = lambda result: None,
    ) -> Any:
        """Call a method in the hub's thread and bring back what it gives.

        :param timeout: seconds that the hub has for it.
        :param give_back: see ``Errand``.
        :raises Busy: when they are over.
        """
        if self._is_there() is None:
            self._end_alone()
            raise self._closed()
        errand = Errand(function, give_back)
        if not self._call_home(lambda: self._spawn(errand.run)):
            while not self.finished:  # it is about to be
                original('time', 'sleep')(0.001)
            return function()
        try:
            if not errand.wait(timeout, self._is_there):
                if self._is_there() is None:
                    self._end_alone()
                    raise self._closed()
                raise Busy(f'the hub had no time for it in {timeout} s')
            return errand.result()
        except BaseException:
            errand.leave()
            if self._is_there() is None or not self._call_home(errand.recall):
                errand.return_what_came()
            raise

    def _outside_in_time(self, function: Callable[[], None], timeout: float | None) -> None:
        """Something to be sent: the connection fails if the hub is too busy for it."""
        try:
            self._from_outside(function, timeout)
        except Busy as busy:
            self.abandon()
            raise ConnectionClosed(ABNORMAL_CLOSURE) from TimeoutError(str(busy))

    def end_with(self, here: Any) -> None:
        """End if it is our thread that ends: nobody would ever read here."""
        if self._is_there() is here:
            self._home = NOBODY  # another thread may be given its ident
            self._end_alone()

    def _end_alone(self) -> None:
        """The hub's thread has ended, or is about to: nobody else touches this link any
        more."""
        if self.finished:
            return
        self.protocol.abort()
        self.finished = True  # from here on other threads look at the protocol
        with suppress(Exception):  # the thread may have taken the watchers along
            self._release()
        self.wire.let_go()

    def _give_back(self, message: Message) -> None:
        self.protocol.input_buffer().appendleft(message)
        if self._get_ident() == self._home:
            self._kick()

    def abandon(self) -> None:
        with suppress(Exception):  # the hub may be gone; so is the process then
            self._call_home(self.give_up)

    def give_up(self) -> None:
        if self._get_ident() != self._home and not self.finished:
            self._from_outside(self.give_up)
            return
        super().give_up()


def _end_links_of(here: Any) -> None:
    for link in live_links():
        if isinstance(link, HubLink):
            with suppress(Exception):  # it may be half made, and the others must end, too
                link.end_with(here)


tell_of_ends(_end_links_of)
