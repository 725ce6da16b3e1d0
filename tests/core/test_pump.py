"""The calls of the hot path, in Python and compiled: the same bytes, the same results."""

from __future__ import annotations

import errno
import gc
import signal
import socket
import threading
from types import SimpleNamespace

import pytest
from support.frames import BINARY, PING, TEXT, Frame, wire

from simple_websocket import codec as codecs
from simple_websocket.profiles import pump
from simple_websocket.profiles.wire import Wire

PYTHON = SimpleNamespace(wait_and_take=pump.python_wait_and_take, put=pump.python_put)
CALLS = {'python': PYTHON}
if codecs.NAME == 'compiled':
    from simple_websocket.profiles import _pump

    CALLS['compiled'] = _pump

#: Around the bounds of what is copied, received in one read, and written without the GIL.
SIZES = (0, 1, 125, 126, 511, 512, 1023, 1024, 1025, 32768, 65521, 65536, 70000)


@pytest.fixture(params=CALLS.values(), ids=CALLS)
def calls(request):
    return request.param


@pytest.fixture
def sockets():
    """A wire and the socket of its peer."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(5)
    with ours, theirs:
        yield Wire(ours), theirs


def decoder(client=False, **options):
    return codecs.Decoder(client, **options)


def whole(came, of):
    """The message that came, in whatever form."""
    if isinstance(came, bytearray):
        came = of.feed(came)
    if isinstance(came, list):
        assert came[-1].final
        payload = b''.join(chunk.payload for chunk in came)
        return payload.decode() if came[0].opcode == TEXT else payload
    return came


def take(calls, ours, of, size=1 << 16):
    """What comes to a thread that waits."""
    arrived = []
    calls.wait_and_take(ours, of, size, arrived)
    assert len(arrived) == 1
    return arrived[0]


def read_all(theirs, size):
    data = b''
    while len(data) < size:
        data += theirs.recv(1 << 20)
    return data


@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('opcode', [TEXT, BINARY])
def test_a_message_is_taken_whatever_its_size(calls, sockets, opcode, size):
    ours, theirs = sockets
    theirs.sendall(wire([Frame(opcode, b'x' * size)], True))
    of, got = decoder(), []
    while not got or (isinstance(got[-1], list) and not any(c.final for c in got[-1])):
        came = take(calls, ours, of)
        got.append(of.feed(came) if isinstance(came, bytearray) else came)
    expected = 'x' * size if opcode == TEXT else b'x' * size
    if isinstance(got[0], list):
        assert whole([chunk for some in got for chunk in some], of) == expected
    else:
        assert got == [expected]
        assert type(got[0]) is type(expected)


def test_the_end_is_no_message_and_an_empty_message_is_not_the_end(calls, sockets):
    ours, theirs = sockets
    theirs.sendall(wire([Frame(BINARY, b'')], True))
    of = decoder()
    empty = take(calls, ours, of)
    assert not pump.at_end(empty)
    assert whole(empty, of) == b''
    theirs.shutdown(socket.SHUT_WR)
    assert pump.at_end(take(calls, ours, decoder()))


def test_what_nobody_may_decode_yet_comes_as_bytes(calls, sockets):
    ours, theirs = sockets
    frame = wire([Frame(TEXT, b'later')], True)
    theirs.sendall(frame)
    assert take(calls, ours, None) == bytearray(frame)


def test_a_message_and_more_comes_as_chunks_or_bytes(calls, sockets):
    ours, theirs = sockets
    theirs.sendall(wire([Frame(TEXT, b'one'), Frame(PING, b'two')], True))
    of = decoder()
    came = take(calls, ours, of)
    chunks = of.feed(came) if isinstance(came, bytearray) else came
    assert [(chunk.opcode, chunk.payload) for chunk in chunks] == [(TEXT, b'one'), (PING, b'two')]


def test_no_more_is_taken_than_was_asked_for(calls, sockets):
    ours, theirs = sockets
    theirs.sendall(wire([Frame(BINARY, b'x' * 3000)], True))
    came = take(calls, ours, None, 2000)
    assert bytes(came) == wire([Frame(BINARY, b'x' * 3000)], True)[:2000]


@pytest.mark.parametrize('masked', [False, True])
@pytest.mark.parametrize('size', SIZES)
@pytest.mark.parametrize('kind', [bytes, bytearray, str])
def test_a_message_leaves_as_one_frame(calls, sockets, kind, size, masked):
    ours, theirs = sockets
    payload = 'x' * size if kind is str else kind(b'x' * size)
    opcode = TEXT if kind is str else BINARY
    assert calls.put(ours, opcode, payload, masked) is None
    header = (2 if size < 126 else 4 if size < 65536 else 10) + 4 * masked
    of = decoder(client=not masked)
    got = of.feed(read_all(theirs, header + size))
    assert whole(got, of) == ('x' * size if kind is str else b'x' * size)


@pytest.mark.parametrize('masked', [False, True])
def test_what_tcp_does_not_take_comes_back(calls, sockets, masked):
    ours, theirs = sockets
    payload = bytes(range(256)) * 20_000
    left = calls.put(ours, BINARY, payload, masked)
    assert 0 < len(left) < len(payload)
    size = 10 + 4 * masked + len(payload)
    got = read_all(theirs, size - len(left))
    assert len(got) == size - len(left)
    # And the next frame not at all, once nothing fits any more.
    while len(more := calls.put(ours, BINARY, bytes(1 << 20), masked) or b'') < 1 << 20:
        assert more
    of = decoder(client=not masked)
    assert whole(of.feed(got + left), of) == payload


def test_text_with_lone_surrogates_is_an_error_and_sends_nothing(calls, sockets):
    ours, theirs = sockets
    with pytest.raises(UnicodeEncodeError):
        calls.put(ours, TEXT, '\ud800', False)
    theirs.setblocking(False)
    with pytest.raises(BlockingIOError):
        theirs.recv(1)


def test_a_closed_socket_is_an_error_whoever_has_its_number_now(calls, sockets):
    ours, _ = sockets
    number = ours.fd
    ours.sock.close()
    stranger, peer = socket.socketpair()
    with stranger, peer:
        assert number in (stranger.fileno(), peer.fileno())
        for call in (
            lambda: calls.wait_and_take(ours, decoder(), 100, []),
            lambda: calls.put(ours, TEXT, 'x', False),
        ):
            with pytest.raises(OSError) as failed:
                call()
            assert failed.value.errno == errno.EBADF


def test_a_broken_connection_is_an_error(calls, sockets):
    ours, theirs = sockets
    theirs.close()
    with pytest.raises(OSError, match='Broken pipe'):
        calls.put(ours, TEXT, 'x', False)


def test_a_signal_while_a_thread_waits_runs_its_handler_and_loses_nothing(calls, sockets):
    ours, theirs = sockets
    frame = wire([Frame(TEXT, b'behind the signal')], True)
    main = threading.get_ident()
    arrived, of = [], decoder()
    # The handler is what sends: the wait goes on behind it.
    before = signal.signal(signal.SIGUSR2, lambda *_: theirs.sendall(frame))
    knock = threading.Timer(0.05, signal.pthread_kill, (main, signal.SIGUSR2))
    knock.start()
    try:
        calls.wait_and_take(ours, of, 1000, arrived)
    finally:
        knock.join()
        signal.signal(signal.SIGUSR2, before)
    assert whole(arrived[0], of) == 'behind the signal'


def test_a_handler_that_raises_ends_the_wait(calls, sockets):
    ours, _ = sockets
    main = threading.get_ident()

    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGUSR2, interrupt)
    knock = threading.Timer(0.05, signal.pthread_kill, (main, signal.SIGUSR2))
    arrived = []
    try:
        with pytest.raises(KeyboardInterrupt):
            knock.start()
            calls.wait_and_take(ours, decoder(), 1000, arrived)
    finally:
        knock.join()
        signal.signal(signal.SIGUSR2, before)
    assert arrived == []


class Nested:
    """Garbage whose finaliser takes from another connection meanwhile."""

    def __init__(self, take):
        self.take, self.itself = take, self

    def __del__(self):
        self.take()


def test_the_collector_may_read_elsewhere_while_chunks_are_made(calls, sockets):
    """Both receive to one room, if it is free."""
    ours, theirs = sockets
    other, peer = socket.socketpair()
    with other, peer:
        peer.sendall(wire([Frame(BINARY, b'o' * 3000)], True))
        came = []
        second = Wire(other)
        theirs.sendall(wire([Frame(BINARY, bytes([n]) * 30) for n in range(200)], True))
        gc.collect()
        before = gc.get_threshold()
        gc.set_threshold(1)
        try:
            Nested(lambda: came.append(take(calls, second, decoder())))
            of = decoder()
            took = take(calls, ours, of)
        finally:
            gc.set_threshold(*before)
        gc.collect()
        chunks = of.feed(took) if isinstance(took, bytearray) else took
        assert [chunk.payload for chunk in chunks] == [bytes([n]) * 30 for n in range(200)]
        assert whole(came[0], decoder()) == b'o' * 3000


@pytest.mark.parametrize('method', ['recv', 'send'])
def test_a_socket_class_with_methods_of_its_own_has_them_called(calls, method):
    called = []

    class Own(socket.socket):
        pass

    def own(self, *args):
        called.append(method)
        return getattr(super(Own, self), method)(*args)

    setattr(Own, method, own)
    ours, theirs = socket.socketpair()
    with theirs, Own(fileno=ours.detach()) as sock:
        link = Wire(sock)
        theirs.sendall(wire([Frame(TEXT, b'hi')], True))
        take(calls, link, decoder())
        calls.put(link, TEXT, 'yes', False)
        assert theirs.recv(100) == b'\x81\x03yes'
    assert called == [method]
