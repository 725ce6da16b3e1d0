"""The protocol against a model: whatever peer, application, TCP and time do,
and in whatever order, it is what `support/model.py` says.

The examples are the same every time. `make fuzz` runs it with others, and with
more of them: SWS_MODEL_EXAMPLES says how many.
"""

from __future__ import annotations

import os
import zlib

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)
from support.frames import BINARY, CLOSE, PING, PONG, TEXT, Frame, parse
from support.lab import Clock, deflated
from support.model import ANYTHING, DONE, ENDING, OPEN, ORDER, Closed, Event, Model, viable

from simple_websocket import ConnectionClosed
from simple_websocket.close_codes import close_payload
from simple_websocket.deflate import PerMessageDeflate
from simple_websocket.protocol import Protocol

EXAMPLES = int(os.environ.get('SWS_MODEL_EXAMPLES', '0'))
PROFILE = settings(
    derandomize=not EXAMPLES,
    max_examples=EXAMPLES or 250,
    stateful_step_count=60 if EXAMPLES else 40,
    deadline=None,
    database=None,
)

LIMIT = 40
FRAGMENTS = 3
INTERVAL, TIMEOUT, CLOSE_TIMEOUT = 10.0, 4.0, 3.0

payloads = st.sampled_from([
    b'', b'a', b'hello', 'grüße \U0001f600'.encode(), b'x' * LIMIT, b'x' * (LIMIT + 1),
    b'\xed\xa0\x80', b'\xed\xa0', b'ab\xff', b'\xf0\x9f\x98', b'\xc3', bytes(7),
])  # fmt: skip
VIOLATIONS = (
    Frame(3), Frame(0xB), Frame(TEXT, b'x', rsv=1), Frame(PING, fin=False),
    Frame(PING, bytes(126)), Frame(BINARY, b'x', flip_mask=True),
    Frame(BINARY, length=1 << 63, form=64), Frame(BINARY, b'x', form=16),
)  # fmt: skip
CLOSES = (
    Event('close'),
    Event('close', b'\x03\xe8', code=1000),
    Event('close', b'\x0f\xa0bye', code=4000, reason='bye'),
    Event('broken', b'\x03\xed', code=1002),
    Event('broken', b'\x03', code=1002),
    Event('broken', b'\x03\xe8\xff', code=1007),
)


class Conversation(RuleBasedStateMachine):
    """A protocol, its link, its peer and its application."""

    client: bool

    @initialize(
        max_queue=st.sampled_from([1, 2, 32]),
        limited=st.booleans(),
        compression=st.booleans(),
        keepalive=st.booleans(),
        patience=st.integers(0, 20),
    )
    def begin(self, max_queue, limited, compression, keepalive, patience):
        self.patience = patience  # steps before anything ends
        self.clock = Clock()
        self.limit = LIMIT if limited else None
        self.max_fragments = FRAGMENTS if limited else None
        self.compression = compression
        self.protocol = Protocol(
            self.client,
            self.clock,
            max_message_size=self.limit,
            max_queue=max_queue,
            max_fragments=self.max_fragments,
            deflate=PerMessageDeflate(threshold=4) if compression else None,
            ping_interval=INTERVAL if keepalive else None,
            ping_timeout=TIMEOUT,
            close_timeout=CLOSE_TIMEOUT,
        )
        self.keepalive = keepalive
        self.model = Model(self.client, max_queue, CLOSE_TIMEOUT)
        # What the peer has sent and we have not read: bytes, and what they mean.
        self.flight: list[tuple[bytes, list[Event]]] = []
        self.finished = False  # the peer sends no more
        self.full = False  # TCP takes no more of ours
        self.said: list[Frame] = []
        self.pings: list[float] = []
        self.inflater = zlib.decompressobj(-15)
        self.heard_at = self.quiet_since = self.clock.time

    # -- the peer -----------------------------------------------------------

    def put(self, frame: Frame, meaning: list[Event], cut: int = 0) -> None:
        """Have a frame on its way; its bytes may come in two pieces."""
        data = frame.raw(masked=not self.client)
        head = len(data) - len(frame.payload)
        cut = min(cut, len(data) - 1)
        if not cut or not meaning or meaning[0].kind == 'broken' or meaning[0].code:
            self.flight.append((data, meaning))
            return
        (event,) = meaning
        early: list[Event] = []
        if event.kind == 'data' and cut > head:
            part = event.payload[: cut - head] if not frame.rsv else b''
            early = [event._replace(payload=part, last=False)]
            event = event._replace(payload=event.payload[len(part) :], begins='')
        self.flight += [(data[:cut], early), (data[cut:], [event])]

    @precondition(lambda self: not self.finished)
    @rule(
        text=st.booleans(),
        parts=st.lists(payloads, min_size=1, max_size=FRAGMENTS + 1),
        ping=st.sampled_from([None, b'', b'between']),
        cut=st.integers(0, 12),
    )
    def peer_sends_a_message(self, text, parts, ping, cut):
        if self.patience >= 0 and not self.fits(parts, text):
            parts = [b'ok', 'grü'.encode()]
        size = 0
        kind = 'text' if text else 'binary'
        for number, payload in enumerate(parts):
            size += len(payload)
            last = number == len(parts) - 1
            opcode = 0 if number else TEXT if text else BINARY
            event = Event('data', payload, '' if number else kind, last)
            too_big = self.limit is not None and size > self.limit
            if too_big or (self.max_fragments and number >= self.max_fragments):
                event = Event('broken', code=1009)
            self.put(Frame(opcode, payload, last), [event], cut)
            if ping is not None and not last:
                self.put(Frame(PING, ping), [Event('ping', ping)], cut)

    def fits(self, parts, text):
        """Whether such a message is right."""
        whole = b''.join(parts)
        few = len(whole) <= LIMIT and len(parts) <= FRAGMENTS
        return (few or self.limit is None) and (not text or viable(whole, True))

    @precondition(lambda self: not self.finished and self.compression)
    @rule(text=st.booleans(), payload=payloads, times=st.sampled_from([1, 2, 100]))
    def peer_sends_a_compressed_message(self, text, payload, times):
        payload *= times if self.patience < 0 else 1
        payload = b'ok' if self.patience >= 0 and not self.fits([payload], text) else payload
        # What is both too big and invalid may be called either.
        text = text and viable(payload, True)
        wrong = 1009 if self.limit is not None and len(payload) > self.limit else 0
        kind = 'text' if text else 'binary'
        event = Event('data', b'' if wrong else payload, kind, True, wrong)
        self.put(Frame(TEXT if text else BINARY, deflated(payload) or b'\0', rsv=4), [event])

    @precondition(lambda self: not self.finished)
    @rule(payload=st.sampled_from([b'', b'1', b'22']), ping=st.booleans(), cut=st.integers(0, 9))
    def peer_sends_a_ping_or_a_pong(self, payload, ping, cut):
        event = Event('ping' if ping else 'pong', payload)
        self.put(Frame(PING if ping else PONG, payload), [event], cut)

    @precondition(lambda self: not self.finished and self.patience < 0)
    @rule(
        event=st.sampled_from(CLOSES),
        cut=st.integers(0, 9),
        more=st.sampled_from(['nothing', 'fin', 'something']),
    )
    def peer_closes(self, event, cut, more):
        self.put(Frame(CLOSE, event.payload), [event], cut)
        if more == 'nothing':
            self.finished = True
        elif more == 'fin':
            self.peer_ends_tcp()

    @precondition(lambda self: not self.finished and self.patience < 0)
    @rule(frame=st.sampled_from(VIOLATIONS))
    def peer_violates_the_protocol(self, frame):
        self.put(frame, [Event('broken', code=1002)])
        self.finished = True  # nothing behind it is understood

    @precondition(lambda self: not self.finished and self.patience < 0)
    @rule()
    def peer_ends_tcp(self):
        self.finished = True
        self.flight.append((b'', []))

    @precondition(lambda self: self.flight and not self.protocol.paused)
    @rule(pieces=st.sampled_from([1, 2, 5, 1000, 1000]))
    def bytes_arrive(self, pieces):
        protocol, model = self.protocol, self.model
        if model.state == DONE:
            self.flight.clear()
            return
        now, self.flight = self.flight[:pieces], self.flight[pieces:]
        data = b''.join(data for data, _ in now)
        if data:
            self.heard_at = self.quiet_since = self.clock.time
            protocol.feed(data)
            model.arrive([event for _, events in now for event in events])
        if now[-1][0] == b'':
            if protocol.paused:
                self.flight.append((b'', []))  # behind what we have left there
            else:
                protocol.eof()
                model.fin()
        self.write()

    # -- the application ----------------------------------------------------

    @rule()
    def application_receives(self):
        expected = self.model.receive()
        message = self.protocol.take()
        if message is None:
            self.protocol.ask()
            message = self.protocol.take()
            if expected is None and message is not None:
                expected = self.model.receive()  # it came while we asked
        assert message == expected and type(message) is type(expected)
        self.write()

    @rule(opcode=st.sampled_from([TEXT, BINARY]), payload=payloads)
    def application_sends(self, opcode, payload):
        opcode = opcode if viable(payload, True) else BINARY
        self.both(
            lambda: self.protocol.send(opcode, payload), lambda: self.model.send(opcode, payload)
        )

    @precondition(lambda self: self.patience < 0)
    @rule(code=st.sampled_from([1000, 1001, 4999]), reason=st.sampled_from(['', 'bye']))
    def application_closes(self, code, reason):
        payload = close_payload(code, reason)
        self.both(
            lambda: self.protocol.close(payload, code, reason or None),
            lambda: self.model.close(code, reason, payload),
        )

    def both(self, call, expected):
        try:
            expected()
        except Closed:
            with pytest.raises(ConnectionClosed) as caught:
                call()
            assert caught.value.reason == self.model.report[0]
        else:
            call()
        self.write()

    # -- TCP and time -------------------------------------------------------

    @rule()
    def tcp_takes_nothing_or_all(self):
        self.full = not self.full
        self.write()

    def write(self) -> None:
        """What a link does with `out`; the model is told what becomes of it."""
        protocol = self.protocol
        self.patience -= 1
        if self.full:
            if protocol.out:
                protocol.congested = self.model.congested = True
            return
        while protocol.out or protocol.congested:
            frames = parse(b''.join(protocol.out), masked=self.client)
            protocol.out.clear()
            self.said += frames
            if protocol.congested:
                protocol.drained()
                self.model.drained()

    @precondition(lambda self: self.model.state != DONE and self.patience < -6)
    @rule(code=st.sampled_from([1006, 1011]))
    def tcp_is_lost(self, code):
        self.protocol.abort(code)
        self.model.abort(code)
        self.finished = True
        self.flight.clear()

    @rule(seconds=st.sampled_from([0.5, 2.0, 5.0, 30.0]))
    def time_passes(self, seconds):
        if self.patience >= 0:
            seconds = min(seconds, 2.0)  # nobody is silent for long
        end = self.clock.time + seconds
        while (due := self.protocol.deadline) is not None and due <= end:
            self.tick(max(due, self.clock.time))
        self.tick(end)

    def tick(self, now: float) -> None:
        protocol, model = self.protocol, self.model
        if protocol.paused or self.full:
            self.quiet_since = now  # who does not read or write cannot complain
        self.clock.time = model.now = now
        before = len(protocol.out)
        model.tick()
        protocol.tick(now)
        if model.state == OPEN and protocol._ending is not None or self.failed_by(1011):
            assert now - self.heard_at >= TIMEOUT, 'somebody was there'
            model.fail(1011)
        new = parse(b''.join(protocol.out[before:]), masked=self.client)
        if any(frame.opcode == PING for frame in new):
            assert not self.pings or now - self.pings[-1] >= INTERVAL, 'too many pings'
            assert not self.full or not before, 'pings pile up'
            self.pings.append(now)
        if self.keepalive and model.state == OPEN:
            assert now <= self.quiet_since + INTERVAL + TIMEOUT, 'nobody is there'
        self.write()

    def failed_by(self, code: int) -> bool:
        """Whether the protocol has just failed, and the model not yet."""
        protocol = self.protocol
        return self.model.state == OPEN and protocol.state != 0 and protocol.close_code == code

    # -- what must hold -----------------------------------------------------

    @invariant()
    def it_is_what_the_model_says(self):
        protocol, model = self.protocol, self.model
        assert ORDER[protocol.state] == model.state
        assert list(protocol.messages or ()) == list(model.queue)
        assert protocol.paused == model.paused
        if model.state not in (OPEN, ENDING):
            code, reason = model.report
            assert protocol.close_code == code
            if reason is not ANYTHING:
                assert protocol.close_reason == reason
        if model.state == 'ended':
            assert protocol.half_close == model.half_close
        if model.state != OPEN:
            assert protocol.deadline == (None if model.state == DONE else model.deadline)

    @invariant()
    def the_peer_hears_what_the_model_says(self):
        waiting = parse(b''.join(self.protocol.out), masked=self.client)
        heard = [frame for frame in self.said + waiting if frame.opcode != PING]
        assert len(heard) == len(self.model.wire)
        inflater = self.inflater.copy()
        for frame, (opcode, payload) in zip(heard, self.model.wire, strict=True):
            assert frame.opcode == opcode and frame.fin
            data = frame.payload
            if frame.rsv:
                assert self.compression and opcode <= BINARY
                data = inflater.decompress(data + b'\0\0\xff\xff')
            if isinstance(payload, int):
                assert int.from_bytes(data[:2], 'big') == payload
            else:
                assert data == payload
        closes = [index for index, frame in enumerate(self.said) if frame.opcode == CLOSE]
        assert closes in ([], [len(self.said) - 1]), 'something behind the Close'

    def teardown(self):
        """It ends in time, whatever it was in the middle of."""
        if not hasattr(self, 'protocol'):
            return
        self.patience = -1
        self.full = False
        self.write()
        for _ in range(200):  # first, all is read and taken
            if self.flight and not self.protocol.paused:
                self.bytes_arrive(1000)
            elif self.model.queue or self.model.state == ENDING:
                self.application_receives()
            else:
                break
            self.it_is_what_the_model_says()
        if self.model.state in (OPEN, ENDING):
            self.application_closes(1001, '')
        self.time_passes(3 * CLOSE_TIMEOUT)
        self.it_is_what_the_model_says()
        self.the_peer_hears_what_the_model_says()
        assert self.model.state == DONE
        while self.model.queue:
            self.application_receives()
        assert not self.protocol.messages and not self.protocol._parts


class ServerConversation(Conversation):
    client = False


class ClientConversation(Conversation):
    client = True


TestServer = pytest.mark.timeout(600)(ServerConversation.TestCase)
TestServer.settings = PROFILE
TestClient = pytest.mark.timeout(600)(ClientConversation.TestCase)
TestClient.settings = PROFILE


@pytest.mark.parametrize(
    ('data', 'last', 'expected'),
    [
        (b'', True, True),
        ('grüße \U0001f600 \ud7ff\ue000'.encode(), True, True),
        (b'\xf0\x9f\x98', False, True),
        (b'\xf0\x9f\x98', True, False),
        (b'\xed\xa0', False, False),
        (b'\xe0\x80', False, False),
        (b'\xf4\x90', False, False),
        (b'\xc0', False, False),
        (b'\xf5', False, False),
        (b'\x80', False, False),
        (b'a\xc3b', False, False),
    ],
)
def test_the_model_knows_utf8(data, last, expected):
    assert viable(data, last) is expected
