"""Faults that come over the wire: docs/faults.rst, table B."""

from __future__ import annotations

import contextlib
import socket
import time
import tracemalloc

import pytest
from support.faults import (
    CLOSES,
    COMPRESSED,
    CORRUPT,
    INVALID_UTF8,
    TALE,
    TEXT_OF_ALL_LENGTHS,
    VIOLATIONS,
    ZIPPED,
    bomb,
    compressing,
)
from support.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT, Frame, fragments, wire
from support.peer import accepted, reset_at_close

from simple_websocket import ConnectionClosed, codec

MIB = 1 << 20
#: A frame costs the pure Python codec some forty times as much: it gets less.
FAST = codec.NAME == 'compiled'
MILLION = 1_000_000 if FAST else 100_000


def ended(ws):
    """What `receive` raises, behind all messages."""
    with pytest.raises(ConnectionClosed) as closed:
        while ws.receive(20) is not None:
            pass
    return closed.value


def put(peer, *frames):
    peer.send(wire(frames, peer.client))


def check_failure(ws, peer, frames, code):
    """_Fail the WebSocket Connection_: Close, read no further, close TCP, raise."""
    put(peer, *frames, Frame(TEXT, b'not read'), Frame(PING, b'not answered'))
    error = ended(ws)
    assert (error.reason, ws.close_reason, ws.connected) == (code, code, False)
    with pytest.raises(ConnectionClosed) as closed:
        ws.send('too late')
    assert closed.value.reason == code
    peer.expect_close(code)
    peer.expect_eof()


@pytest.fixture
def zipped(world, role, classes):
    """Like `end`, for connections that have negotiated compression."""
    made = []

    def make(**options):
        made.append(compressing(world, role, **classes, **options))
        return made[-1]

    yield make
    for ws, peer in made:
        peer.close()
        ws._link.abandon()
        world.settles_to(lambda ws=ws: ws._link.finished, True)


def neighbour(world):
    """A connection that echoes, beside the one that a test is about."""
    ws, peer = accepted(world)

    def echo():
        for message in ws:
            ws.send(message)

    return peer, world.spawn(echo)


def serve_neighbour(peer, rounds=20):
    """Echoes come back, each of them within the five seconds of a peer."""
    for number in range(rounds):
        peer.send((TEXT, b'%d' % number))
        peer.expect(TEXT, b'%d' % number)


def dismiss(peer, task):
    peer.send(peer.close_frame(1000))
    peer.expect_close(1000)
    peer.expect_eof()
    peer.close()
    task.join()


class Memory:
    """What is allocated in a block, at its highest."""

    def __enter__(self):
        tracemalloc.start()
        self._before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        return self

    def __exit__(self, *_):
        self.peak = tracemalloc.get_traced_memory()[1] - self._before
        tracemalloc.stop()


# B1


@pytest.mark.parametrize('frames', VIOLATIONS.values(), ids=VIOLATIONS)
def test_a_violation_fails_the_connection(end, frames):
    ws, peer = end()
    check_failure(ws, peer, frames, 1002)


@pytest.mark.parametrize('what', ['a reserved opcode', 'a wrong mask', 'a length of 2 ** 63'])
def test_a_violation_fails_a_connection_that_nobody_receives_on(end, what):
    ws, peer = end()
    frames = VIOLATIONS[what]
    put(peer, *frames)
    peer.expect_close(1002)
    peer.expect_eof()
    assert not ws.connected and ws.close_reason == 1002


def test_rsv1_on_a_continuation_is_a_violation_with_compression_too(zipped):
    ws, peer = zipped()
    frames = fragments(BINARY, ZIPPED[:9], ZIPPED[9:], compressed=True)
    check_failure(ws, peer, [frames[0], frames[1]._replace(rsv=4)], 1002)


# B2


@pytest.mark.parametrize('before', [0, 1], ids=['the first frame', 'a later fragment'])
def test_a_header_over_the_limit_fails_before_the_payload(end, before):
    ws, peer = end(max_message_size=1000)
    start = [Frame(BINARY, bytes(500), False)] * before
    size = 1001 - 500 * before
    # Of the payload nothing ever comes.
    put(peer, *start, Frame(CONTINUATION if before else BINARY, length=size))
    peer.expect_close(1009)
    peer.expect_eof()
    assert ended(ws).reason == 1009


# B3, B8


@pytest.mark.parametrize(('frames', 'messages'), COMPRESSED.values(), ids=COMPRESSED)
def test_a_compressed_message_in_any_form_is_read(zipped, frames, messages):
    ws, peer = zipped()
    put(peer, *frames, *frames)
    assert [ws.receive(5) for _ in messages * 2] == messages * 2
    for frame in frames * 2:
        if frame.opcode == PING:
            peer.expect(PONG, frame.payload)
    assert ws.connected


def test_control_frames_between_fragments_leave_the_message_intact(end):
    ws, peer = end()
    first, second, third = fragments(TEXT, b'\xe2', b'\x82', b'\xac')
    put(peer, first, Frame(PING, b'1'), second, Frame(PONG, b'x'), Frame(PING, b'2'), third)
    assert ws.receive(5) == '\u20ac'
    peer.expect(PONG, b'1')
    peer.expect(PONG, b'2')


@pytest.mark.parametrize('frames', CORRUPT.values(), ids=CORRUPT)
def test_corrupt_compressed_data_fails_the_connection(zipped, frames):
    ws, peer = zipped()
    check_failure(ws, peer, frames, 1007)


# B4


def test_a_ping_flood_from_a_peer_that_never_reads_takes_no_memory(end, world):
    ws, peer = end()
    for sock, option in ((peer.sock, socket.SO_RCVBUF), (ws.sock, socket.SO_SNDBUF)):
        sock.setsockopt(socket.SOL_SOCKET, option, 4096)
    flood = peer.frame(PING, bytes(125)) * 1000
    receiver = world.spawn(ws.receive)
    with Memory() as memory:
        for _ in range(60 if FAST else 10):  # 8 MB
            peer.send(flood)
        peer.send((PING, b'the last'), (TEXT, b'heard all the same'))
        assert receiver.join(20) == 'heard all the same'
    assert memory.peak < MIB
    pongs = 0
    while (got := peer.read()) == (PONG, bytes(125)):
        pongs += 1
    assert got == (PONG, b'the last')
    assert pongs < 5000  # others were answered by a later one (5.5.3)


# B5


def test_a_million_empty_messages_leave_others_served(world):
    ws, peer = accepted(world)
    other, echo = neighbour(world)
    # A window full of messages this small takes seconds to receive.
    peer.sock.settimeout(40)
    count = MILLION // 100
    flood = peer.frame(TEXT) * count

    def receive(times):
        for _ in range(times * count):
            assert ws.receive(20) == ''

    def send(times):
        for _ in range(times):
            peer.send(flood)

    for times in (1, 100):
        tasks = [world.spawn(receive, times), world.spawn(send, times)]
        if times == 1:
            with Memory() as memory:  # which slows everything down
                for task in tasks:
                    task.join(20)
        else:
            serve_neighbour(other)
            assert not tasks[0].done
            for task in tasks:
                task.join(40)
    # Those of one read, decoded.
    assert memory.peak < 4 * MIB
    dismiss(other, echo)
    ws._link.abandon()


def test_a_million_empty_messages_that_nobody_receives_wait_in_tcp(end, world):
    ws, peer = end()
    flood = peer.frame(TEXT) * 10_000
    sent = 0
    peer.sock.settimeout(0.3)
    with Memory() as memory, pytest.raises((TimeoutError, socket.timeout)):
        while True:
            peer.send(flood)
            sent += 1
            assert sent < 10_000, 'six hundred megabytes went somewhere'
    assert memory.peak < 4 * MIB
    assert len(ws.input_buffer) <= 32
    assert ws.receive(0) == ''


def test_a_fin_that_never_comes_ends_at_the_limits(end, world):
    other, echo = neighbour(world)
    for fragment, options in [
        # 131,072 of them by default.
        (Frame(CONTINUATION, b'', False), {} if FAST else {'max_fragments': 10_000}),
        (Frame(CONTINUATION, b'', False), {'max_fragments': 1000}),
        (Frame(CONTINUATION, bytes(1000), False), {'max_message_size': MIB}),
    ]:
        ws, peer = end(**options)
        many = wire([fragment], peer.client) * 1000

        def flood(peer=peer, many=many):
            put(peer, Frame(BINARY, b'x', False))
            for _ in range(2000):
                try:
                    peer.send(many)
                except OSError:
                    break

        receiver = world.spawn(ended, ws)
        # Measuring slows down what is slow already.
        with Memory() if FAST else contextlib.nullcontext() as memory:
            flooding = world.spawn(flood)
            while not receiver.done:
                serve_neighbour(other, 1)
                world.sleep(0.01)
        assert memory is None or memory.peak < 4 * MIB
        assert receiver.join().reason == 1009
        peer.expect_close(1009)
        with contextlib.suppress(OSError):
            peer.sock.shutdown(socket.SHUT_RDWR)
        flooding.join()
    dismiss(other, echo)


def test_a_mebibyte_in_one_byte_fragments(world):
    size = MIB if FAST else MIB // 4
    rest = wire([Frame(CONTINUATION, b'x', False)], True) * (size // 64)
    # By default it is 131,072 fragments at most.
    for most, code in ((None, None), (131_072, 1009)):
        ws, peer = accepted(world, max_fragments=most)
        other, echo = neighbour(world)

        def send(peer=peer):
            put(peer, Frame(BINARY, b'', False))
            for _ in range(64):
                peer.send(rest)
            put(peer, Frame(CONTINUATION))

        sending = world.spawn(send)
        if code is None:
            receiving = world.spawn(ws.receive, 40)
            serve_neighbour(other)
            assert receiving.join(40) == b'x' * size
            sending.join()
        else:
            assert ended(ws).reason == code
            peer.expect_close(code)
            peer.sock.shutdown(socket.SHUT_RDWR)
            with contextlib.suppress(OSError):
                sending.join()
        dismiss(other, echo)
        ws._link.abandon()


# B6


def test_one_byte_a_segment_gives_the_same(zipped):
    ws, peer = zipped()
    peer.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    frames = [
        *fragments(TEXT, *(b'%c' % byte for byte in TEXT_OF_ALL_LENGTHS.encode())),
        Frame(PING, b'ping'),
        *fragments(BINARY, ZIPPED[:20], ZIPPED[20:], compressed=True),
        Frame(BINARY, bytes(300)),
        Frame(CLOSE, b'\x0f\xa0bye'),
    ]
    data = wire(frames, peer.client)
    for at in range(len(data)):
        peer.send(data[at : at + 1])
    assert [ws.receive(5) for _ in range(3)] == [TEXT_OF_ALL_LENGTHS, TALE, bytes(300)]
    assert (ended(ws).reason, ws.close_message) == (4000, 'bye')
    peer.expect(PONG, b'ping')
    peer.expect_close(4000)


# B7


@pytest.mark.parametrize('before', [0, 1], ids=['at once', 'over context takeover'])
@pytest.mark.parametrize('pieces', [1, 40], ids=['single', 'fragmented'])
def test_a_deflate_bomb_is_stopped_in_bounded_memory(zipped, world, pieces, before):
    ws, peer = zipped(max_message_size=MIB)
    frames = [Frame(BINARY, ZIPPED, rsv=4)] * before + bomb(100 * MIB, pieces)
    data = wire(frames, peer.client)
    with Memory() as memory:
        sending = world.spawn(peer.send, data)
        assert [ws.receive(5) for _ in range(before)] == [TALE] * before
        assert ended(ws).reason == 1009
        sending.join()
    assert memory.peak < 3 * MIB + 4 * len(data)
    peer.expect_close(1009)
    peer.expect_eof()


# B9


@pytest.mark.parametrize('frames', INVALID_UTF8.values(), ids=INVALID_UTF8)
def test_invalid_utf8_fails_as_soon_as_it_is_there(end, frames):
    ws, peer = end()
    put(peer, *frames)  # and no more
    peer.expect_close(1007)
    peer.expect_eof()
    assert ended(ws).reason == 1007


# B10


@pytest.mark.parametrize(('payload', 'code', 'answer'), CLOSES.values(), ids=CLOSES)
def test_a_close_is_echoed_or_is_a_violation(end, payload, code, answer):
    ws, peer = end()
    put(peer, Frame(CLOSE, payload))
    assert ended(ws).reason == code
    if isinstance(answer, bytes):
        peer.expect(CLOSE, answer)
    else:
        peer.expect_close(answer)


# B12


def test_what_follows_a_close_is_discarded(end):
    ws, peer = end()
    late = [Frame(TEXT, b'late'), Frame(PING, b'late'), Frame(CLOSE, b'\x0f\xa1'), Frame(3)]
    put(peer, Frame(TEXT, b'in time'), Frame(CLOSE, b'\x0f\xa0'), *late)
    assert ws.receive(5) == 'in time'
    assert ended(ws).reason == 4000
    peer.expect_close(4000)
    if peer.client:
        peer.expect_eof()  # 7.1.1: the server ends TCP first


@pytest.mark.parametrize('said', ['data', 'pings', 'half a frame', 'nothing'])
def test_a_peer_that_does_not_answer_our_close_is_left_in_time(end, world, said):
    ws, peer = end(close_timeout=0.3)
    data = {
        'data': peer.frame(BINARY, bytes(1000)),
        'pings': peer.frame(PING, b'x'),
        'half a frame': peer.frame(BINARY, bytes(1000))[:-1],
        'nothing': b'',
    }[said]

    def stream():
        while data:
            try:
                peer.send(data)
            except OSError:
                break
            if said == 'half a frame':
                break
            world.sleep(0)

    started = time.monotonic()
    task = world.spawn(stream)
    ws.close(4000)
    world.settles_to(lambda: ws._link.finished, True)
    assert 0.29 < time.monotonic() - started < 3
    task.join()
    assert ended(ws).reason == 4000


# B13


@pytest.mark.parametrize('waiting', [True, False], ids=['in receive', 'nobody receives'])
@pytest.mark.parametrize('way', ['FIN', 'RST', 'half a close'])
@pytest.mark.parametrize('at', [0, 1, 4, 50], ids=['between', 'header', 'mask', 'payload'])
def test_the_end_of_tcp_anywhere_is_1006(end, world, at, way, waiting):
    ws, peer = end()
    task = world.spawn(ended, ws) if waiting else None
    peer.send((TEXT, b'whole'), peer.frame(BINARY, bytes(100))[:at])
    if way == 'RST':
        world.settles_to(lambda: waiting or len(ws.input_buffer), True)
        reset_at_close(peer.sock)
    if way == 'half a close':
        peer.sock.shutdown(socket.SHUT_WR)
    else:
        peer.close()
    error = ended(ws) if task is None else task.join()
    assert (error.reason, error.message) == (1006, None)
    assert (ws.close_reason, ws.connected) == (1006, False)


# B14


def test_a_silent_peer_is_left_after_interval_and_timeout(end, world):
    started = time.monotonic()  # no later than the first interval
    ws, peer = end(ping_interval=0.2, ping_timeout=0.3)
    assert ended(ws).reason == 1011
    assert 0.49 < time.monotonic() - started < 3


# B15


def test_a_slow_reader_makes_send_wait_and_gets_all_of_it(end, world):
    ws, peer = end(compression=None)
    data = bytes(16 * MIB)
    task = world.spawn(ws.send, data)
    world.sleep(0.2)
    assert not task.done
    assert peer.expect(BINARY) == data
    task.join()


def test_a_send_that_runs_out_of_time_fails_that_connection_alone(end, world):
    slow, its_peer = end(compression=None)
    good, peer = end()
    task = world.spawn(slow.send, bytes(16 * MIB), 0.3)
    for number in range(10):
        good.send(f'{number}')
        peer.expect(TEXT, b'%d' % number)
        assert good.receive(0.02) is None
    with pytest.raises(ConnectionClosed) as closed:
        task.join()
    assert closed.value.reason == 1006 and not slow.connected
    good.send('still here')
    peer.expect(TEXT, b'still here')
    peer.send((TEXT, b'so am I'))
    assert good.receive(5) == 'so am I'
