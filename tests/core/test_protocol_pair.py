"""Two protocols joined by a fake link: whatever the two applications do and
however the bytes arrive, messages come whole and in order, each end says Close
once at most, and everything ends in time."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.frames import BINARY, CLOSE, TEXT, parse
from support.lab import Clock, quick

from simple_websocket import ConnectionClosed
from simple_websocket.close_codes import close_payload
from simple_websocket.deflate import PerMessageDeflate
from simple_websocket.protocol import DONE, ENDED, ENDING, OPEN, Protocol


class Side:
    """One end and its TCP: what a link does, in the fewest words."""

    def __init__(self, client, clock, room, **options):
        self.protocol = Protocol(client, clock, **options)
        self.client = client
        self.room = room  # bytes that TCP takes before somebody reads
        self.unsent = b''
        self.wire = b''  # written, not yet read by the other side
        self.written = b''
        self.fin = self.gone = False
        self.sent = []
        self.got = []
        self.closed = None

    def write(self):
        """Write what TCP takes."""
        protocol = self.protocol
        while not self.fin:
            if not self.unsent:
                self.unsent = b''.join(protocol.out)
                protocol.out.clear()
            if not self.unsent and protocol.congested:
                protocol.drained()
                continue
            part = self.unsent[: self.room - len(self.wire)]
            if not part:
                protocol.congested = bool(self.unsent)
                break
            self.wire += part
            self.written += part
            self.unsent = self.unsent[len(part) :]
        if protocol.state == DONE:
            self.fin = self.gone = True
        elif protocol.state == ENDED and not self.unsent:
            self.fin = self.fin or protocol.half_close
            if protocol.eof_seen:
                self.fin = self.gone = True

    def read_from(self, other, size):
        """Read some of what the other side wrote; whether anything happened."""
        protocol = self.protocol
        if protocol.paused or self.gone:
            return False
        data, other.wire = other.wire[:size], other.wire[size:]
        if data:
            protocol.feed(data)
        elif other.fin and not protocol.eof_seen:
            protocol.eof()
        else:
            return False
        return True

    def send(self, message):
        text = isinstance(message, str)
        try:
            self.protocol.send(TEXT if text else BINARY, message.encode() if text else message)
        except ConnectionClosed:
            assert self.protocol.state > ENDING
        else:
            self.sent.append(message)

    def receive(self):
        """`receive(timeout=0)`."""
        message = self.protocol.take()
        if message is None:
            self.protocol.ask()
            message = self.protocol.take()
        if message is not None:
            self.got.append(message)
        elif self.protocol.state > ENDING:
            self.closed = self.protocol.close_code
        return message

    def close(self, code):
        try:
            self.protocol.close(close_payload(code, None), code, None)
        except ConnectionClosed:
            assert self.protocol.state > ENDING


class Pair:
    def __init__(self, room=1 << 16, compression=False, **options):
        self.clock = Clock()
        self.server, self.client = self.sides = [
            Side(
                client,
                self.clock,
                room,
                deflate=PerMessageDeflate() if compression else None,
                **options,
            )
            for client in (False, True)
        ]

    def move(self, size=1 << 16):
        """Move bytes, `size` at a time, until nothing moves any more."""
        moved = True
        while moved:
            moved = False
            for side, other in (self.sides, self.sides[::-1]):
                other.write()
                moved |= side.read_from(other, size)
                side.write()

    def pass_time(self, seconds):
        end = self.clock.time + seconds
        while True:
            due = [s.protocol.deadline for s in self.sides if s.protocol.deadline is not None]
            if not due or min(due) > end:
                break
            self.clock.time = max(min(due), self.clock.time)
            for side in self.sides:
                side.protocol.tick(self.clock.time)
            self.move()
        self.clock.time = end


messages = st.text(max_size=200) | st.binary(max_size=200)
steps = st.lists(
    st.tuples(st.integers(0, 1), st.just('send'), messages)
    | st.tuples(st.integers(0, 1), st.just('receive'), st.integers(1, 5))
    | st.tuples(st.integers(0, 1), st.just('close'), st.sampled_from([1000, 1001, 4000]))
    | st.tuples(st.just(0), st.just('move'), st.integers(1, 500))
    | st.tuples(st.just(0), st.just('pass'), st.integers(1, 3)),
    max_size=25,
)


@quick
@given(
    steps=steps,
    room=st.sampled_from([1, 50, 65536]),
    compression=st.booleans(),
    max_queue=st.sampled_from([1, 3, 32]),
    ping_interval=st.sampled_from([None, 2]),
)
def test_whatever_two_applications_do_the_connection_keeps_its_word(
    steps, room, compression, max_queue, ping_interval
):
    pair = Pair(
        room,
        compression,
        max_queue=max_queue,
        max_fragments=10,
        close_timeout=4,
        ping_interval=ping_interval,
    )
    closers = set()
    for number, verb, what in steps:
        side = pair.sides[number]
        if verb == 'send':
            side.send(what)
        elif verb == 'receive':
            for _ in range(what):
                side.receive()
        elif verb == 'close':
            if side.protocol.state == OPEN:
                closers.add(side)
            side.close(what)
        elif verb == 'move':
            pair.move(what)
        else:
            pair.pass_time(what)
    # Both applications receive until the end; who has not closed does it then.
    pair.move()
    for side in pair.sides:
        while side.receive() is not None:
            pair.move()
    pair.server.close(1000)
    pair.move()
    for side in pair.sides:
        while side.receive() is not None:
            pair.move()
    pair.pass_time(8)

    for side, other in (pair.sides, pair.sides[::-1]):
        assert side.gone
        assert side.closed is not None
        frames = parse(side.written, masked=side.client)
        closes = [frame.opcode == CLOSE for frame in frames]
        assert not any(closes[:-1]), 'something behind a Close'
        assert side.got == other.sent[: len(side.got)], 'not the messages, or not their order'
        if not (closers or side.closed == 1006):
            assert side.got == other.sent


@pytest.mark.parametrize('first', [0, 1], ids=['server', 'client'])
@pytest.mark.parametrize('size', [1, 1 << 16])
def test_one_end_closes_and_both_know_why(first, size):
    pair = Pair()
    one, other = pair.sides[first], pair.sides[1 - first]
    one.send('a')
    one.close(4321)
    pair.move(size)
    assert (other.receive(), other.receive(), other.closed) == ('a', None, 4321)
    pair.move(size)
    assert one.receive() is None
    assert one.closed == 4321
    assert one.gone and other.gone


@pytest.mark.parametrize('first', [0, 1], ids=['server', 'client'])
def test_the_server_ends_tcp_first(first):
    pair = Pair()
    pair.sides[first].close(1000)
    ended = []
    while len(ended) < 2:
        for side, other in (pair.sides, pair.sides[::-1]):
            side.receive()
            side.write()
            if side.fin and side not in ended:
                ended.append(side)
            other.read_from(side, 1)
    assert ended == [pair.server, pair.client]


def test_large_messages_pass_in_both_directions_through_a_narrow_pipe():
    pair = Pair(room=1000)
    payload = bytes(range(256)) * 400
    for side in pair.sides:
        for _ in range(5):
            side.send(payload)
    for _ in range(3):
        pair.move(700)
    for side in pair.sides:
        while side.receive() is not None:
            pass
        assert side.got == [payload] * 5


def test_an_echo_to_a_peer_that_closed_its_half_leaves_whole():
    pair = Pair(room=1000)
    payload = bytes(100_000)
    server, client = pair.sides
    client.send(payload)
    client.close(1000)
    while server.protocol.state == OPEN:
        client.write()
        server.read_from(client, 1000)
    client.write()
    client.fin = True  # a client that hangs up without waiting for the answer
    server.protocol.eof()
    assert server.receive() == payload
    server.send(payload)
    assert server.receive() is None
    while not server.gone:
        server.write()
        client.wire, server.wire = b'', b''
        assert server.protocol.state == ENDED
    assert [frame.opcode for frame in parse(server.written, False)] == [BINARY, CLOSE]


def test_keepalive_keeps_two_silent_ends_connected_and_measures_latency():
    pair = Pair(ping_interval=5, ping_timeout=3)
    pair.pass_time(100)
    for side in pair.sides:
        assert side.protocol.state == OPEN
        assert side.protocol.latency == 0


def test_an_end_whose_peer_has_vanished_lets_go():
    pair = Pair(ping_interval=5, ping_timeout=3, close_timeout=2)
    pair.move = lambda: None
    pair.pass_time(8)
    for side in pair.sides:
        assert side.receive() is None
        assert side.closed == 1011
    pair.pass_time(2)
    assert all(side.protocol.state == DONE for side in pair.sides)
