"""An exception between two of our own steps, as a signal handler raises it."""

from __future__ import annotations

import _thread
import functools
import itertools
import signal

import pytest
from support.peer import TEXT, accepted

from simple_websocket import ConnectionClosed

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
