"""An exception between two of our own steps, as a signal handler raises it."""

from __future__ import annotations

import _thread
import functools
import itertools
import signal
import threading

import pytest
from support.frames import BINARY, TEXT
from support.peer import Peer, accepted, environ_for, tcp_pair

from simple_websocket import ConnectionClosed, Server, broadcast
from simple_websocket.profiles import threads
from simple_websocket.profiles.originals import builtin
from simple_websocket.profiles.threads import ThreadLink
from simple_websocket.protocol import Protocol

pytestmark = pytest.mark.only('default-codec')


def test_an_interrupt_right_behind_a_write_sends_nothing_twice(world):
    ws, peer = accepted(world)
    wire = ws._link.wire
    send = wire.raw_send

    def interrupted(*args):
        send(*args)
        raise KeyboardInterrupt

    wire.raw_send, wire.fileno = interrupted, None
    with pytest.raises(KeyboardInterrupt):
        ws.send('hello')
    wire.raw_send = send
    assert not ws.connected
    with pytest.raises(ConnectionClosed) as closed:
        ws.send('again')
    assert closed.value.reason == 1006
    peer.expect(TEXT, b'hello')
    peer.expect_eof()


@pytest.mark.only('threads')
@pytest.mark.parametrize('calls', ['python', 'pump'])
def test_an_interrupt_that_comes_with_a_message_does_not_lose_it(world, calls):  # invariant 3
    """The signal is there when the kernel has given the bytes, and its handler
    raises as soon as the interpreter looks, which is behind recv()."""
    ws, peer = accepted(world)
    wire = ws._link.wire
    real, fileno = wire.raw_recv, wire.fileno
    # All of it in C, where no signal handler runs.
    signals = filter(None, map(_thread.interrupt_main, (signal.SIGINT,)))
    if calls == 'python':
        both = itertools.chain(map(real, (65536,)), signals)
        wire.raw_recv = functools.partial(next, map(b''.join, (both,)))
        wire.fileno = None
    else:
        # On the way into recv(), which finds the message there.
        wire.fileno = functools.partial(next, itertools.chain(signals, (wire.fd,)))
        peer.send((TEXT, b'together with Ctrl-C'))

    def send():
        world.settles_to(lambda: ws._link._blocked, True)
        peer.send((TEXT, b'together with Ctrl-C'))

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    task = world.spawn(send if calls == 'python' else int)
    try:
        with pytest.raises(KeyboardInterrupt):
            ws.receive()
    finally:
        signal.signal(signal.SIGINT, before)
        wire.raw_recv, wire.fileno = real, fileno
    task.join()
    assert ws.receive(5) == 'together with Ctrl-C'
    peer.send((TEXT, b'and on'))
    assert ws.receive(5) == 'and on'
    ws._link.abandon()


def interrupt(*_):
    raise KeyboardInterrupt


@pytest.mark.only('threads')
def test_an_interrupt_in_the_kernel_loses_nothing(world):  # invariant 3
    ws, peer = accepted(world)
    wire = ws._link.wire
    real = wire.raw_recv
    wire.raw_recv, wire.fileno = interrupt, None
    with pytest.raises(KeyboardInterrupt):
        ws.receive()
    wire.raw_recv = real
    peer.send((TEXT, b'still here'))
    assert ws.receive(5) == 'still here'
    ws._link.abandon()


@pytest.mark.only('default-codec')
@pytest.mark.parametrize('receive', [Server.receive, lambda ws: next(iter(ws))])
def test_ctrl_c_that_comes_with_a_message_leaves_it_to_the_next_receive(  # invariant 3
    world, receive
):
    """It comes on the way into recv(), and all from there to the caller is in C."""
    ws, peer = accepted(world)
    wire, fileno = ws._link.wire, ws._link.wire.fileno
    peer.send((TEXT, b'together with Ctrl-C'))
    interrupt_main = builtin('_thread', 'interrupt_main')  # eventlet's takes no signal
    signals = filter(None, map(interrupt_main, (signal.SIGINT,)))
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    wire.fileno = functools.partial(next, itertools.chain(signals, itertools.repeat(wire.fd)))
    try:
        with pytest.raises(KeyboardInterrupt):
            receive(ws)
    finally:
        signal.signal(signal.SIGINT, before)
        wire.fileno = fileno
    assert ws.connected
    assert receive(ws) == 'together with Ctrl-C'
    peer.send((TEXT, b'and on'))
    assert receive(ws) == 'and on'
    ws._link.abandon()


def is_failed(ws, peer, code=1006):
    """It ended without a Close."""
    for call in (ws.receive, lambda: ws.send('again')):
        with pytest.raises(ConnectionClosed) as closed:
            call()
        assert closed.value.reason == code
    peer.expect_eof()


@pytest.mark.parametrize('call', ['send', 'broadcast', 'close'])
def test_an_interrupt_in_a_write_fails_the_connection(world, classes, call):
    """Nobody knows how much of the frame is out."""
    ws, peer = accepted(world, compression=None, **classes)
    ws._link.wire.raw_send, ws._link.wire.fileno = interrupt, None
    with pytest.raises(KeyboardInterrupt):
        if call == 'close':
            ws.close(4000)
        elif call == 'send':
            ws.send('hello')
        else:
            broadcast([ws], 'hello')
    is_failed(ws, peer, 4000 if call == 'close' else 1006)


@pytest.mark.parametrize('method', ['frame', 'shared_frame', 'close'])
def test_an_interrupt_in_any_other_step_does_so_too(world, classes, method, monkeypatch):
    ws, peer = accepted(world, compression=None, **classes)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Protocol, method, interrupt)
        ws._link.protocol.plain_below = 0  # nothing goes another way
        if method == 'close':
            ws.close()
        elif method == 'frame':
            ws.send('hello')
        else:
            broadcast([ws], 'hello')
    is_failed(ws, peer)


def test_an_interrupt_while_a_message_is_handed_out_does_so_too(world, classes, monkeypatch):
    ws, peer = accepted(world, compression=None, **classes)
    take = Protocol.take

    def interrupted(self):
        message = take(self)
        if message is not None:
            raise KeyboardInterrupt
        return message

    with monkeypatch.context() as patch:
        patch.setattr(Protocol, 'take', interrupted)
        peer.send((TEXT, b'one'), (TEXT, b'two'))
        with pytest.raises(KeyboardInterrupt):
            ws.receive(5)
    assert not ws.connected and ws.close_reason == 1006
    assert ws.receive(0) == 'two'  # which had come before it failed
    is_failed(ws, peer)


def test_an_interrupt_right_behind_the_last_byte_does_no_harm(world, classes, monkeypatch):
    ws, peer = accepted(world, compression=None, **classes)
    link = type(ws._link)
    name = '_pause' if world.green and not classes else '_help_out'
    real = getattr(link, name)

    def interrupted(self, *arguments):
        given = real(self, *arguments)
        if not self._unsent:
            raise KeyboardInterrupt
        return given

    def read():
        world.wait_until(lambda: ws._link.protocol.congested)  # else nobody has to wait
        return peer.read()

    reading = world.spawn(read)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(link, name, interrupted)
        ws.send(b'x' * 24_000_000)
    assert reading.join() == (BINARY, b'x' * 24_000_000)
    ws.send('and on')
    peer.expect(TEXT, b'and on')
    ws._link.abandon()


class Lock:
    """A link's lock, at which Ctrl-C comes once in the thread that made this:
    just before it is taken, or just behind it."""

    def __init__(self, lock):
        self._lock = lock
        self._home = threading.get_ident()
        self.before = self.behind = False

    def __getattr__(self, name):
        return getattr(self._lock, name)

    def __enter__(self):
        if self.before and threading.get_ident() == self._home:
            self.before = False
            raise KeyboardInterrupt
        return self._lock.__enter__()

    def __exit__(self, *error):
        self._lock.__exit__(*error)
        if self.behind and threading.get_ident() == self._home:
            self.behind = False
            raise KeyboardInterrupt


@pytest.mark.only('threads')
def test_an_interrupt_behind_the_read_of_a_message_does_not_lose_it(world, monkeypatch):
    ws, peer = accepted(world)
    link = ws._link
    link._guarded(link._adopt)  # else nothing of what follows is in Python
    link._lock = lock = Lock(link._lock)
    real = type(link)._came

    def came(self, what):
        lock.behind = True
        return real(self, what)

    def send():
        world.settles_to(lambda: link._blocked, True)
        peer.send((TEXT, b'one'))

    task = world.spawn(send)
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(type(link), '_came', came)
        ws.receive()
    task.join()
    assert ws.receive(5) == 'one'
    peer.send((TEXT, b'two'))
    assert ws.receive(5) == 'two'
    ws._link.abandon()


@pytest.mark.only('threads')
def test_an_interrupt_on_the_way_out_of_a_wait_leaves_nobody_counted_in_it(world, monkeypatch):
    ws, peer = accepted(world, compression=None)
    link = ws._link
    link._lock = lock = Lock(link._lock)

    def wait_for(*_):
        assert link._waiting == 1
        lock.before = True

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(threads, 'wait_for', wait_for)
        ws.send(b'x' * 16_000_000)
    assert link._waiting == 0 and link.finished
    with pytest.raises(ConnectionClosed) as closed:
        ws.receive()
    assert closed.value.reason == 1006
    with pytest.raises(EOFError):
        peer.read()


@pytest.mark.only('green')
def test_an_interrupt_in_the_hub_fails_the_connection(world, monkeypatch):
    ws, peer = accepted(world)
    receiving = world.spawn(lambda: pytest.raises(ConnectionClosed, ws.receive).value.reason)
    world.wait_until(lambda: ws._link._receiver is not None)
    peer.send((TEXT, b'lost'), (TEXT, b'too'))
    raised = []
    with monkeypatch.context() as patch:
        for method in ('feed', 'take_in'):
            patch.setattr(Protocol, method, interrupt)
        # What the hub would see then, which it is told in a call of its own.
        patch.setattr(type(ws._link), 'raise_soon', lambda self, error: raised.append(error))
        ws._link._on_readable()  # as the hub would call it
    assert [type(error) for error in raised] == [KeyboardInterrupt]
    assert receiving.join() == 1006
    is_failed(ws, peer)


@pytest.mark.only('green')
@pytest.mark.parametrize('what', ['reading', 'writing'])
def test_an_interrupt_before_the_hub_watches_leaves_nothing_to_stop(world, monkeypatch, what):
    link = type(accepted(world)[0]._link)
    theirs, ours = tcp_pair(world)
    with monkeypatch.context() as patch:
        patch.setattr(link, f'_start_{what}', interrupt)
        with pytest.raises(KeyboardInterrupt):
            ws = Server.accept(environ_for(ours), compression=None)
            ws.send(b'x' * 16_000_000)
    assert ours.fileno() == -1
    with pytest.raises((EOFError, ConnectionResetError)):
        peer = Peer(theirs, client=True)
        peer.head()
        peer.read()


@pytest.mark.only('threads')
@pytest.mark.parametrize('calls', ['python', 'compiled'])
def test_bytes_that_no_memory_was_left_for_fail_the_connection(world, monkeypatch, calls):
    ws, peer = accepted(world)

    def exhausted(*_):
        raise MemoryError

    if calls == 'python':
        ws._link.wire.fileno = None
        monkeypatch.setattr('simple_websocket.profiles.threads.wait_and_take', exhausted)
    else:
        ws._link.wire.fileno = exhausted
    with pytest.raises(MemoryError):
        ws.receive()
    is_failed(ws, peer)


@pytest.mark.only('threads')
def test_two_interrupts_at_once_leave_nobody_counted_in_a_wait(world, monkeypatch):
    """The second comes before the first line of what tidies up behind the first."""
    ws, peer = accepted(world)
    leave = ThreadLink._leave_recv
    calls = []

    def leave_late(link):
        calls.append(link)
        if len(calls) == 1:
            raise KeyboardInterrupt
        leave(link)

    def raise_(*_):
        raise KeyboardInterrupt

    def kill():
        world.wait_until(lambda: ws._link._blocked)
        signal.pthread_kill(threading.main_thread().ident, signal.SIGALRM)

    before = signal.signal(signal.SIGALRM, raise_)
    try:
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            patch.setattr(ThreadLink, '_leave_recv', leave_late)
            killer = world.spawn(kill)
            ws.receive()
    finally:
        signal.signal(signal.SIGALRM, before)
    killer.join()
    assert len(calls) == 2
    assert (ws._link._blocked, ws._link._waiting, ws._link._receiving) == (False, 0, False)
    peer.send((TEXT, b'hello'))
    assert ws.receive(5) == 'hello'
    ws._link.abandon()
