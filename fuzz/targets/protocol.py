"""The protocol: any bytes in any split, between calls of an application, what
TCP does and time, in both roles.

An input: some bytes of options, then steps: what a peer sends, what the
application calls, whether TCP takes what is written, how much time passes. The
same steps are done by two links. One reads all that has come at once, the
other in small pieces; the two applications must see the same.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from functools import partial
from typing import Any

from fuzz.reader import Reader, cuts, frame
from simple_websocket import ConnectionClosed
from simple_websocket.close_codes import ABNORMAL_CLOSURE, NO_STATUS, close_payload, sendable
from simple_websocket.deflate import PerMessageDeflate
from simple_websocket.inbox import MAX_QUEUE_SIZE
from simple_websocket.protocol import CLOSING, DONE, ENDED, ENDING, OPEN, Protocol
from tests.support.frames import CLOSE, PING, PONG, TEXT, Frame, parse

#: What frames are made of, beside what the input says.
PAYLOADS = (
    b'', b'x', b'hello', 'grüße \U0001f600'.encode(), b'\xf0\x9f', b'\x98\x80', b'\xed\xa0\x80',
    b'\xff', bytes(125), bytes(126), bytes(300), b'\x03\xe8', b'\x03\xe8bye', b'\x03\xee',
    b'\x0f\xa0\xce', b'\xf2\x48\xcd\xc9\xc9\x07\x00',
)  # fmt: skip
SIZES = (None, 1, 4, 125, 300, 100_000)


def options(reader: Reader) -> dict[str, Any]:
    chosen: dict[str, Any] = {
        'client': bool(reader.byte() & 1),
        'max_message_size': reader.pick(SIZES),
        'max_queue': reader.pick((32, 1, 2)),
        'max_fragments': reader.pick((None, 1, 3)),
        'ping_interval': reader.pick((None, 1.0, 7.5)),
        'ping_timeout': reader.pick((None, 1.0, 20.0)),
        'close_timeout': reader.pick((5.0, 0.5, 0.0)),
        'way': 1 + reader.byte() % 255,
    }
    engine = reader.byte()
    chosen['compression'] = engine & 1
    chosen['takeover'] = bool(engine & 2)
    return chosen


class Link:
    """What moves the bytes, by the rules at the top of protocol.py."""

    def __init__(self, chosen: dict[str, Any], way: int) -> None:
        chosen = dict(chosen)
        del chosen['way']
        takeover, compression = chosen.pop('takeover'), chosen.pop('compression')
        self.client: bool = chosen['client']
        self.limit: int | None = chosen['max_message_size']
        self.max_queue: int = chosen['max_queue']
        self.compression = bool(compression)
        deflate = PerMessageDeflate(
            compress_takeover=takeover, decompress_takeover=takeover, mem_level=1, threshold=4
        )
        self.way = way
        self.time = 1000.0
        self.protocol = Protocol(
            now=lambda: self.time, deflate=deflate if compression else None, **chosen
        )
        self.arrived = b''  # in the kernel, not read
        self.fin = False
        self.full = False  # TCP takes nothing
        self.said: list[Frame] = []
        self.got: list[str | bytes] = []
        self.state = OPEN
        self.asked_closed = False

    def settle(self) -> None:
        """Read and write until nothing moves."""
        protocol = self.protocol
        self.write()
        while self.arrived and not protocol.paused and protocol.state != DONE:
            few = len(self.arrived) < 2000 or not self.way
            pieces = cuts(self.arrived, self.way if few else 255)
            self.arrived = b''
            for piece in pieces:
                if protocol.paused or protocol.state == DONE:
                    self.arrived += piece
                    continue
                self.feed(piece)
                self.write()
        if self.fin and not self.arrived and not protocol.paused and not protocol.eof_seen:
            self.guarded(protocol.eof)
        self.write()

    def feed(self, piece: bytes) -> None:
        protocol = self.protocol
        before = len(protocol.out), sum(map(len, protocol.out))
        self.guarded(lambda: protocol.feed(piece))
        frames, size = len(protocol.out) - before[0], sum(map(len, protocol.out)) - before[1]
        if protocol.congested:
            assert frames <= 1 and size <= 4 + 4 + 125, 'out grows although TCP takes nothing'
        assert size <= 3 * len(piece) + 200, 'more is answered than was asked'
        held = sum(len(chunk.payload) for chunk in protocol._chunks or ())
        assert held <= len(piece) + 125, 'more is kept than was read'

    def write(self) -> None:
        protocol = self.protocol
        if self.full:
            protocol.congested = protocol.congested or bool(protocol.out)
            return
        while True:
            for data in protocol.out:
                (one,) = parse(data, masked=self.client)
                self.heard(one)
            protocol.out.clear()
            if not protocol.congested:
                return
            self.guarded(protocol.drained)

    def heard(self, one: Frame) -> None:
        assert not self.said or self.said[-1].opcode != CLOSE, 'a frame behind the Close'
        if one.opcode == CLOSE and one.payload:
            assert sendable(int.from_bytes(one.payload[:2], 'big'))
            one.payload[2:].decode()
        assert one.fin and (one.rsv == 0 or (self.compression and one.opcode <= 2))
        if one.opcode == TEXT and not one.rsv:
            one.payload.decode()
        self.said.append(one)

    def guarded(self, call: Callable[[], Any]) -> Any:
        """Call the protocol; look whether what must always hold still does."""
        protocol = self.protocol
        try:
            result = call()
        except ConnectionClosed as error:
            assert protocol.state > ENDING
            assert (error.reason, error.message) == (
                protocol.close_code, protocol.close_reason
            )  # fmt: skip
            result = None
        assert self.state <= protocol.state <= DONE, 'a state that goes back'
        assert (self.state, protocol.state) not in ((ENDING, CLOSING), (CLOSING, ENDING))
        self.state = protocol.state
        queue = protocol.messages or ()
        assert len(queue) <= self.max_queue, 'the queue is not bounded'
        sizes = [len(message) for message in queue]
        assert sum(sizes[:-1]) < MAX_QUEUE_SIZE
        assert self.limit is None or len(protocol._parts or b'') <= self.limit
        if protocol.state in (ENDING, CLOSING, ENDED):
            assert protocol.deadline is not None, 'it may never end'
        if protocol.state > ENDING:
            code = protocol.close_code
            assert code in (NO_STATUS, ABNORMAL_CLOSURE) or sendable(code)
        return result

    def take(self) -> bool:
        """What `receive(0)` does."""
        message = self.guarded(self.protocol.take)
        if message is None:
            self.guarded(self.protocol.ask)
            message = self.guarded(self.protocol.take)
        if message is None:
            return False
        size = len(message.encode() if isinstance(message, str) else message)
        assert self.limit is None or size <= self.limit, 'a message over the limit'
        self.got.append(message)
        return True

    def wait(self, seconds: float) -> None:
        """Let time pass, tick by tick; each one must move the deadline."""
        end = self.time + seconds
        for _ in range(200):
            deadline = self.protocol.deadline
            if deadline is None or deadline > end:
                break
            self.time = max(deadline, self.time)
            self.guarded(lambda: self.protocol.tick(self.time))
            self.settle()
        else:
            raise AssertionError('a deadline that does not move')
        self.time = end
        self.guarded(lambda: self.protocol.tick(end))

    def end(self) -> None:
        """Whatever it is in, it ends in the time that it says."""
        self.full = False
        self.settle()
        if self.state <= ENDING:
            self.guarded(lambda: self.protocol.close(close_payload(1001, None), 1001, None))
            self.settle()
        self.wait(3 * self.protocol.close_timeout + 1)
        assert self.protocol.state == DONE, 'it does not end'
        while self.take():
            pass
        assert not self.protocol._chunks and not self.protocol._parts, 'memory is kept'
        assert [one.opcode for one in self.said].count(CLOSE) <= 1


class Peer:
    """What an input has a peer send, with a compressor where one was agreed."""

    def __init__(self, chosen: dict[str, Any]) -> None:
        self.masked = not chosen['client']
        self.deflater = zlib.compressobj(9, zlib.DEFLATED, -15, 1)
        self.takeover: bool = chosen['takeover']

    def frame(self, reader: Reader) -> bytes:
        head, payload = reader.byte(), reader.byte()
        body = PAYLOADS[payload & 15] if payload < 128 else reader.take(payload & 127)
        return frame(head & 15, body, self.masked, not head & 0x10, head >> 5)

    def message(self, reader: Reader) -> bytes:
        """A compressed message in one frame or in two, a ping between them."""
        choice = reader.byte()
        body = PAYLOADS[choice & 15] * (1, 2, 50, 500)[choice >> 4 & 3]
        data = self.deflater.compress(body) + self.deflater.flush(zlib.Z_SYNC_FLUSH)
        data = data[:-4] or b'\0'
        if not self.takeover:
            self.deflater = zlib.compressobj(9, zlib.DEFLATED, -15, 1)
        opcode = 1 + (choice >> 6 & 1)
        if choice < 128:
            return frame(opcode, data, self.masked, rsv=4)
        half = len(data) // 2
        first = frame(opcode, data[:half], self.masked, fin=False, rsv=4)
        return first + frame(PING, b'', self.masked) + frame(0, data[half:], self.masked)


def check(data: bytes) -> None:
    reader = Reader(data)
    chosen = options(reader)
    links = [Link(chosen, 0), Link(chosen, chosen['way'])]
    peer = Peer(chosen)
    # With a keepalive, bytes that are read later are life later.
    comparable = chosen['ping_interval'] is None
    while reader:
        action = step(reader, peer, links[0])
        for link in links:
            link.guarded(partial(action, link))
            link.settle()
        if action.__name__ == 'abort':
            comparable = False  # what the one has read, the other may have not
        if comparable:
            compare(*links)
    for link in links:
        link.end()


def step(reader: Reader, peer: Peer, first: Link) -> Callable[[Link], None]:
    """The next step, as a function of a link."""
    number = reader.byte() % len(STEPS)
    return STEPS[number](reader, peer, first)


def compare(one: Link, other: Link) -> None:
    a, b = one.protocol, other.protocol
    assert a.state == b.state, f'states {a.state} and {b.state}'
    assert [*map(told, one.said)] == [*map(told, other.said)], 'they say different things'
    assert one.got == other.got and list(a.messages or ())[:1] == list(b.messages or ())[:1]
    assert coarse(a.close_code) == coarse(b.close_code)
    assert a.half_close == b.half_close


def told(one: Frame) -> Frame:
    """A frame without what zlib and the split have a say in: the words of a
    failure, and whether invalid UTF-8 or the limit was met first."""
    if one.opcode == CLOSE and (code := int.from_bytes(one.payload[:2], 'big')) in (1007, 1009):
        return one._replace(payload=b'%d' % coarse(code))
    return one


def coarse(code: int) -> int:
    return 1007 if code == 1009 else code


# The steps: each reads what it needs and gives what is to be done.


def frames(reader: Reader, peer: Peer, first: Link) -> Callable[[Link], None]:
    return arrives(peer.frame(reader))


def raw(reader: Reader, peer: Peer, first: Link) -> Callable[[Link], None]:
    return arrives(reader.take(reader.byte()))


def compressed(reader: Reader, peer: Peer, first: Link) -> Callable[[Link], None]:
    return arrives(peer.message(reader))


def pong(reader: Reader, peer: Peer, first: Link) -> Callable[[Link], None]:
    def pong(link: Link) -> None:
        pings = [one for one in link.said if one.opcode == PING]
        if pings and not link.fin:
            link.arrived += frame(PONG, pings[-1].payload, peer.masked)

    return pong


def arrives(data: bytes) -> Callable[[Link], None]:
    def arrives(link: Link) -> None:
        if not link.fin:
            link.arrived += data

    return arrives


def fin(reader: Reader, peer: Peer, first: Link) -> Callable[[Link], None]:
    def fin(link: Link) -> None:
        link.fin = True

    return fin


def tcp(reader: Reader, peer: Peer, first: Link) -> Callable[[Link], None]:
    full = not first.full

    def tcp(link: Link) -> None:
        link.full = full

    return tcp


def take(reader: Reader, peer: Peer, first: Link) -> Callable[[Link], None]:
    def take(link: Link) -> None:
        link.take()

    return take


def send(reader: Reader, peer: Peer, first: Link) -> Callable[[Link], None]:
    choice = reader.byte()
    payload = PAYLOADS[choice & 15]
    opcode = 1 + (choice >> 4 & 1)
    if opcode == TEXT:
        payload = payload.decode(errors='replace').encode()

    def send(link: Link) -> None:
        link.protocol.send(opcode, payload)

    return send


def close(reader: Reader, peer: Peer, first: Link) -> Callable[[Link], None]:
    code = reader.pick((1000, 1001, 1011, 4000))
    reason = reader.pick((None, 'bye', '\xfc' * 61))

    def close(link: Link) -> None:
        link.protocol.close(close_payload(code, reason), code, reason)

    return close


def wait(reader: Reader, peer: Peer, first: Link) -> Callable[[Link], None]:
    seconds = reader.pick((0.0, 0.4, 1.0, 5.0, 30.0))

    def wait(link: Link) -> None:
        link.wait(seconds)

    return wait


def abort(reader: Reader, peer: Peer, first: Link) -> Callable[[Link], None]:
    def abort(link: Link) -> None:
        link.protocol.abort(ABNORMAL_CLOSURE, 'given up')

    return abort


STEPS = (
    frames, frames, frames, raw, compressed, take, take, send, close, wait, tcp, pong, fin, abort
)  # fmt: skip
