"""What the races of every mode have in common: a plan, a peer, a verdict.

A round is planned from a seed, so that what failed can be run again: who
sends what and when, who receives how, who closes, who is killed. Its peer is
one OS thread with a poll of its own, under whatever backend; it judges every
byte with `Strict` and answers like a WebSocket, slow or silent where the plan
says so.

`SWS_RACES` is the number of rounds, `SWS_RACES_SEED` their seed. A seed gives
the same plan again, not the same luck of the scheduler: run it a few times.
"""

from __future__ import annotations

import os
import random
import select
import socket
import struct
import time
from collections.abc import Callable
from typing import Any

from .frames import BINARY, CLOSE, PING, PONG, TEXT, frame
from .peer import reset_at_close, switching
from .strict import Strict

ROUNDS = int(os.environ.get('SWS_RACES', 200))
SEED = os.environ.get('SWS_RACES_SEED') or str(random.SystemRandom().getrandbits(32))
#: Seconds that a round may take before every stack is printed.
LIMIT = 20.0


def message(who: str, number: int, size: int) -> bytes:
    """A message that says whose it is, and whose every byte is known."""
    return b'%s %d ' % (who.encode(), number) + bytes([97 + number % 26]) * size


def parsed(payload: bytes) -> tuple[str, int]:
    """Whose message it is and which; fails on a byte that is wrong."""
    who, number, rest = payload.split(b' ', 2)
    assert rest == rest[:1] * len(rest), 'pieces of two messages'
    assert not rest or rest[0] == 97 + int(number) % 26, 'the end of another message'
    return who.decode(), int(number)


class Plan:
    """One round: what will be done, all of it drawn before it begins."""

    def __init__(self, number: int, mode: str, kills: bool = True) -> None:
        self.name = f'SWS_RACES_SEED={SEED}, round {number}'
        self.rng = rng = random.Random(f'{SEED} {mode} {number}')
        self.client = rng.random() < 0.5  # our end is the client
        self.deflate = rng.random() < 0.3
        self.tcp = rng.random() < 0.6
        self.injected = rng.random() < 0.15
        self.max_queue = rng.choice((1, 2, 32))
        self.ping_interval = rng.choice((None, None, 0.003, 0.02))
        # A peer that answers no Close, ever; one that reads in sips.
        self.silent = rng.random() < 0.1
        self.sips = rng.random() < 0.2
        self.close_timeout = 0.2 if self.silent else 10.0
        self.senders = [self._sender(f's{n}') for n in range(rng.randrange(1, 5))]
        self.receivers = rng.choice((1, 1, 1, 2))
        self.ours = self.theirs = None  # when and how either end ends it
        end = rng.choice(('ours', 'theirs', 'both', 'rst', 'fin'))
        if end in ('ours', 'both'):
            count = rng.choice((1, 1, 2, 3))
            self.ours = [(self._moment(), 4000 + n) for n in range(count)]
        if end == 'both':
            self.theirs = (self._moment(), 'close')
        elif end != 'ours':
            self.theirs = (self._moment(), 'close' if end == 'theirs' else end)
        self.kills = [self._moment() for _ in range(rng.choice((0, 0, 1, 3)))] if kills else []
        self.their_messages = rng.choice((0, 3, 30))
        self.their_pings = rng.choice((0, 2, 20))
        self.their_size = rng.choice((0, 100, 30_000))
        #: Nothing but the closing handshake ends it, so nothing may get lost.
        self.polite = not (
            self.silent or self.kills or end in ('rst', 'fin') or self._hasty
        )

    def _moment(self) -> float:
        return self.rng.choice((0.0, 0.001, 0.005)) * self.rng.random() * 2

    _hasty = False

    def _sender(self, who: str) -> dict[str, Any]:
        rng = self.rng
        timeout = 0.0005 if rng.random() < 0.05 else None
        self._hasty = self._hasty or timeout is not None
        size = rng.choice((0, 10, 1000, 100_000, 300_000))
        sizes = [int(size * rng.random()) for _ in range(3 if size > 10_000 else 12)]
        return {
            'who': who,
            'sizes': sizes,
            'timeout': timeout,
            'foreign': rng.random() < 0.3,  # on an OS thread, whatever the mode
            'pause': rng.choice((None, 0.0, 0.0003)),
        }

    def options(self) -> dict[str, Any]:
        return {
            'compression': self.deflate or None,
            'max_queue': self.max_queue,
            'ping_interval': self.ping_interval,
            'ping_timeout': 10,
            'close_timeout': self.close_timeout,
        }

    def __repr__(self) -> str:
        said = {name: value for name, value in vars(self).items() if name not in ('rng', 'name')}
        return f'{self.name}: {said}'


class RacingPeer:
    """The other end, on a plain socket, to be run on an OS thread of its own.

    :param sock: a plain, connected socket; it is closed when `run` returns.
    :param original: gives `module.name` as it was before anything was patched.
    :param stopped: ends `run` early when it becomes true.
    """

    def __init__(
        self,
        plan: Plan,
        sock: Any,
        original: Callable[[str, str], Any],
        stopped: Callable[[], bool] = lambda: False,
    ) -> None:
        self.plan = plan
        self.sock = sock
        self._poll = original('select', 'poll')
        self._sleep = original('time', 'sleep')
        self._stopped = stopped
        self._rng = random.Random(plan.rng.random())
        self.client = not plan.client
        self.heard: Strict | None = None  # None before the handshake is over
        self._head = b''
        self._out = bytearray()
        self.messages = 0  # said, Close or not
        self._pings: list[bytes] = []
        self.said_close = False
        self.reset = False  # the connection broke instead of ending
        self.killed = False  # by us
        self.late = False  # `stopped` ended it
        self._script = self._write_script()

    def _write_script(self) -> list[tuple[str, bytes]]:
        plan, rng = self.plan, self._rng
        steps: list[tuple[str, bytes]] = []
        for number in range(plan.their_messages):
            size = int(plan.their_size * rng.random())
            steps.append(('message', message('p', number, size)))
        for number in range(plan.their_pings):
            ping = b'ping %d' % number
            steps.insert(rng.randrange(len(steps) + 1), ('ping', ping))
        # The insertion may have changed the order of pings, never of messages.
        return steps

    def run(self) -> None:
        """Play until the connection is over."""
        self.sock.setblocking(False)
        began = time.monotonic()
        try:
            while self._turn(time.monotonic() - began):
                pass
        except (ConnectionResetError, BrokenPipeError):
            self.reset = True
        finally:
            self.sock.close()

    def _turn(self, now: float) -> bool:
        """One look at the socket; False when it is over."""
        if self._stopped():
            self.late = True
            return False
        if self.heard is not None and not self.said_close:
            self._play(now)
        if self.killed:
            return False
        if self._ended_by_server():
            self.sock.shutdown(socket.SHUT_WR)
        poll = self._poll()
        poll.register(self.sock.fileno(), select.POLLIN | (select.POLLOUT if self._out else 0))
        playing = not self.said_close and (self._script or self.plan.theirs)
        if not poll.poll(1 if playing else 50):
            return True
        if self._out:
            try:
                del self._out[: self.sock.send(self._out[:65536])]
            except BlockingIOError:
                pass
        return self._read()

    def _ended_by_server(self) -> bool:
        """Whether we are a server whose turn it is to close TCP (7.1.1)."""
        closes = self.said_close and self.heard is not None and self.heard.close is not None
        return closes and not self.client and not self._out

    def _read(self) -> bool:
        try:
            data = self.sock.recv(self._rng.choice((1, 100, 5000)) if self.plan.sips else 1 << 18)
        except BlockingIOError:
            return True
        if self.plan.sips:
            self._sleep(0.0002)
        if not data:
            return False
        if self.heard is None:
            data = self._shake_hands(data)
        if self.heard is not None:
            for opcode, payload in self.heard.feed(data):
                self._answer(opcode, payload)
        return True

    def _shake_hands(self, data: bytes) -> bytes:
        self._head += data
        head, end, rest = self._head.partition(b'\r\n\r\n')
        if not end:
            return b''
        extension = b'permessage-deflate'
        if self.client:
            assert head.startswith(b'HTTP/1.1 101 '), head
        else:
            offered = extension in head
            accepted = b'Sec-WebSocket-Extensions: %s; server_max_window_bits=12' % extension
            answer = [accepted] if offered else []
            self._out += switching(head, *answer)
        self.heard = Strict(masked=not self.client, deflate=extension in head)
        return rest

    def _play(self, now: float) -> None:
        """Say what comes next, and end it when its time has come."""
        if self.plan.theirs is not None:
            moment, how = self.plan.theirs
            opened = not self._out or self.client  # else our 101 is still to be written
            if now >= moment and (not self._script if how == 'close' else opened):
                if how == 'close':
                    self._say(CLOSE, struct.pack('!H', 4999))
                elif how == 'rst':
                    # A Unix socket has no RST: there it is an end like the other.
                    reset_at_close(self.sock)
                    self.killed = True
                else:
                    self.killed = True
                return
        if self._script and len(self._out) < 100_000:
            kind, payload = self._script.pop(0)
            self._say(PING if kind == 'ping' else BINARY, payload)

    def _say(self, opcode: int, payload: bytes) -> None:
        if self.said_close:
            return
        self._out += frame(opcode, payload, self.client)
        if opcode == CLOSE:
            self.said_close = True
        elif opcode == PING:
            self._pings.append(payload)
        elif opcode in (TEXT, BINARY):
            self.messages += 1

    def _answer(self, opcode: int, payload: bytes) -> None:
        if opcode == PING:
            if not self.plan.silent:
                self._say(PONG, payload)
        elif opcode == PONG:
            # The most recent of several may be answered for all of them.
            assert payload in self._pings, f'a pong to nothing: {payload!r}'
            del self._pings[: self._pings.index(payload) + 1]
        elif opcode == CLOSE and not self.plan.silent:
            self._say(CLOSE, payload)


def judge(
    plan: Plan,
    peer: RacingPeer,
    sent: dict[str, list[int]],
    received: list[list[bytes]],
    code: int,
) -> None:
    """Compare what our end did with what the peer has seen.

    :param sent: per sender, the numbers that `send` took without an error.
    :param received: per receiver, the messages in the order they came.
    :param code: our end's `close_reason`.
    """
    heard = peer.heard
    assert heard is not None, 'no handshake'
    assert not peer.late, 'the connection did not end'
    _judge_sent(plan, peer, sent)
    numbers = []
    for messages in received:
        mine = [parsed(one) for one in messages]
        assert mine == sorted(mine), 'a receiver got messages out of order'
        numbers += mine
    numbers.sort()
    assert numbers == [('p', n) for n in range(len(numbers))], 'a message was lost or doubled'
    assert len(numbers) <= peer.messages
    if code == 4999:
        assert peer.said_close and len(numbers) == peer.messages, 'lost before the Close'
    ours = {close for _, close in plan.ours or ()}
    if plan.polite:
        assert not peer.reset, 'a polite end was a reset'
        assert not heard.torn, 'half a frame at a polite end'
        assert heard.close is not None, 'no Close at a polite end'
        assert code in ours | {4999}, code
    else:
        assert code in ours | {4999, 1006}, code


def _judge_sent(plan: Plan, peer: RacingPeer, sent: dict[str, list[int]]) -> None:
    assert peer.heard is not None
    arrived: dict[str, list[int]] = {}
    for payload in peer.heard.messages:
        who, number = parsed(payload)
        arrived.setdefault(who, []).append(number)
    for who, numbers in arrived.items():
        assert numbers == sorted(set(numbers)), f'{who} out of order, or twice: {numbers}'
    if peer.heard.close is not None:
        # Whoever hears the Close has heard all that went before it.
        for who, numbers in sent.items():
            assert set(numbers) <= set(arrived.get(who, ())), f'{who} lost a message'
