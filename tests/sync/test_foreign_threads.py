"""OS threads that are not the hub's: what they wait on is real."""

from __future__ import annotations

import contextlib
import gc
import os
import signal
import subprocess
import sys
import weakref
from _queue import Empty, SimpleQueue

import pytest
from support.frames import TEXT, frame
from support.peer import accepted, environ_for

from simple_websocket import ConnectionClosed, Server, broadcast, protocol


@pytest.mark.only('green')
def test_an_os_thread_that_waits_for_the_peer_makes_no_hub_of_its_own(end, world):
    # In a patched process the locks of `threading` itself are green ones, and
    # the first contended one would make a hub, and two descriptors with it.
    ws, peer = end(compression=None)
    before = world.fd_numbers()  # those of earlier tests may end meanwhile
    closers = [world.real_thread(ws.send, b'x' * 16_000_000) for _ in range(3)]
    world.sleep(0.02)
    assert not any(task.done for task in closers)
    new = world.fd_numbers() - before
    for _ in closers:
        assert len(peer.read()[1]) == 16_000_000
    for task in closers:
        task.join()
    assert not new


@pytest.mark.only('green')
def test_the_locks_between_os_threads_are_real(world):
    from simple_websocket.profiles.originals import RealEvent, original

    for name in ('RLock', 'allocate_lock'):
        lock = original('_thread', name)()
        assert type(lock).__module__ == '_thread'
    event = RealEvent()
    assert not event.wait(0)
    world.real_thread(event.set).join()
    assert event.wait(5)


def test_calls_of_an_os_thread_behind_the_end_are_told_of_it(end, world):
    """The last connection of a hub takes the ways into it along."""
    ws, peer = end()
    peer.send((TEXT, b'before'), peer.close_frame(4001))
    world.wait_until(lambda: len(ws.input_buffer))
    assert ws.receive(5) == 'before'
    with pytest.raises(ConnectionClosed):
        ws.receive(5)
    peer.expect_close(4001)
    peer.close()
    world.wait_until(lambda: ws._link.finished)

    def told(call, *args):
        with pytest.raises(ConnectionClosed) as closed:
            call(*args)
        return closed.value.reason

    for call, *args in ((ws.receive,), (ws.receive, 0), (ws.send, 'late'), (ws.close,)):
        assert world.real_thread(told, call, *args).join() == 4001
    assert world.real_thread(ws._link.join, 5).join()


@pytest.mark.only('green')
def test_a_call_of_an_os_thread_in_the_last_step_is_told_of_the_end(world):
    """The step has finished the link, and is not over."""
    ws, peer = accepted(world)
    link = ws._link
    peer.close()
    world.wait_until(lambda: link.finished)
    link._inside = True
    for call, *args in ((ws.send, 'late'), (ws.close,)):
        with pytest.raises(ConnectionClosed):
            world.real_thread(call, *args).join()
    result = world.real_thread(broadcast, [ws], 'late').join()
    assert result.closed == [ws]
    link._inside = False


@pytest.mark.only('green')
def test_a_call_of_an_os_thread_waits_for_an_end_that_is_about_to_come(world, monkeypatch):
    """The way into the hub is closed a moment before the link is finished."""
    ws, peer = accepted(world)
    refused = []

    def closed(self, function):
        refused.append(function)
        return False

    monkeypatch.setattr(type(ws._link), '_call_home', closed)
    late = world.real_thread(lambda: pytest.raises(ConnectionClosed, ws.receive).value.reason)
    world.wait_until(lambda: refused)
    peer.send(peer.close_frame(4001))
    peer.expect_close(4001)
    peer.close()
    assert late.join() == 4001


class Alarm(Exception):
    pass


class Elsewhere:
    """A connection in the hub of another OS thread, which a test may keep busy."""

    def __init__(self, world):
        self.world = world
        self._made, self._orders = SimpleQueue(), SimpleQueue()
        self._thread = world.real_thread(self._live)
        self.ws, self.peer = self._made.get(timeout=5)

    def _live(self):
        self._made.put(accepted(self.world))
        while True:
            with contextlib.suppress(Empty):
                order = self._orders.get_nowait()
                if order == 'end':
                    return
                self._made.put(order)
                self._orders.get()  # the hub stands still, until there is another one
            self.world.sleep(0.001)

    def order(self, what):
        self._orders.put(what)
        if what == 'be busy':
            assert self._made.get(timeout=5) == what

    def end(self):
        thread, self._thread = self._thread, None
        if thread is not None:
            self._orders.put('end')
            thread.join()


@contextlib.contextmanager
def called_again(world, function):
    """Without the collector, behind the second of two calls in this thread's hub, which
    the first has made; gives the descriptors that there were before."""
    world.spawn(function).join()
    gc.collect()
    gc.disable()
    try:
        before = world.fds()
        world.spawn(function).join()
        yield before
    finally:
        gc.enable()


@pytest.fixture
def elsewhere(world):
    made = Elsewhere(world)
    yield made
    made.end()  # else its sockets would be closed by another thread than its hub's


@pytest.mark.only('green')
@pytest.mark.only('default-codec')
def test_an_interrupted_receive_elsewhere_loses_nothing(elsewhere):  # invariant 3
    ws, peer = elsewhere.ws, elsewhere.peer

    def raise_(*_):
        raise Alarm

    before = signal.signal(signal.SIGALRM, raise_)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(Alarm):
            ws.receive()
    finally:
        signal.signal(signal.SIGALRM, before)
    peer.send((TEXT, b'one'), (TEXT, b'two'))
    assert [ws.receive(5), ws.receive(5)] == ['one', 'two']
    ws._link.give_up()
    elsewhere.end()


@pytest.mark.only('green')
@pytest.mark.only('default-codec')
def test_a_hub_that_is_busy_costs_no_more_than_the_timeout(elsewhere):  # invariant 4
    ws, peer = elsewhere.ws, elsewhere.peer
    peer.send((TEXT, b'one'))
    elsewhere.world.wait_until(lambda: len(ws.input_buffer))
    elsewhere.order('be busy')
    assert ws.receive(timeout=0.05) is None
    elsewhere.order('go on')
    assert ws.receive(5) == 'one'
    elsewhere.order('be busy')
    assert ws._link.join(0.05) is False
    with pytest.raises(ConnectionClosed) as closed:
        ws.send('late', timeout=0.05)
    assert closed.value.reason == 1006
    elsewhere.order('go on')
    elsewhere.world.wait_until(lambda: ws._link.finished)
    assert ws.close_reason == 1006
    elsewhere.end()


@pytest.mark.only('green')
@pytest.mark.only('default-codec')
@pytest.mark.parametrize('call', ['send', 'receive', 'close'])
def test_a_hub_whose_thread_has_ended_ends_its_connections(elsewhere, world, call):
    """Whoever comes next may have the ident that this thread had."""
    ws = elsewhere.ws
    home, get_ident = ws._link._home, world.original('threading', 'get_ident')
    elsewhere.end()

    def attempt():
        if get_ident() != home:
            return False
        with pytest.raises(ConnectionClosed) as closed:
            getattr(ws, call)(*(('x',) if call == 'send' else ()))
        assert closed.value.reason == 1006
        return True

    assert any(world.real_thread(attempt).join() for _ in range(100))
    assert ws._link.finished and not ws.connected


@pytest.mark.only('green')
@pytest.mark.only('default-codec')
@pytest.mark.parametrize('timer', ['armed', 'has fired'])
def test_a_thread_takes_the_connections_of_its_hub_along(world, monkeypatch, timer):
    """Nobody would read there any more: the peer is told, and nothing is left."""
    made, seen = [], []
    monkeypatch.setattr(protocol, 'TCP_LOOK_INTERVAL', 0.01)
    abort = protocol.Protocol.abort

    def note(self, *arguments):
        seen.append(made[1]._link.finished)  # other threads act upon it
        abort(self, *arguments)

    def live():
        theirs, ours = world.original('socket', 'socketpair')()
        interval = 25 if timer == 'armed' else None
        ws = Server.accept(
            environ_for(ours), profile=world.name, ping_interval=interval, max_queue=1
        )
        made[:] = theirs, ws
        if not interval:
            theirs.sendall(3 * frame(TEXT, b'x', masked=True))
            world.wait_until(lambda: ws._link.protocol.paused)
            assert [ws.receive(5) for _ in range(3)] == ['x'] * 3
            world.wait_until(lambda: ws._link.protocol.deadline is None)
        monkeypatch.setattr(protocol.Protocol, 'abort', note)

    world.real_thread(live).join()
    theirs, ws = made
    assert ws._link.finished and seen == [False]
    assert (ws.connected, ws.close_reason) == (False, 1006)
    with pytest.raises(ConnectionClosed):
        ws.send('x')
    theirs.settimeout(5)
    assert theirs.recv(1000).startswith(b'HTTP/1.1 101')
    assert theirs.recv(1000) == b''
    theirs.close()
    link = weakref.ref(ws._link)
    made.clear()
    del ws
    gc.collect()
    assert link() is None


@pytest.mark.only('green')
@pytest.mark.only('default-codec')
def test_a_call_that_raises_in_the_hub_leaves_it_its_ears(elsewhere, world, capfd):
    """An exception of a signal handler, for one."""
    ws, peer = elsewhere.ws, elsewhere.peer

    def fail():
        raise Alarm

    ws._link._call_home(fail)
    ws._link._call_home(lambda: None)
    ws.send('heard')
    peer.expect(TEXT, b'heard')
    ws._link.give_up()
    elsewhere.end()


@pytest.mark.only('green')
@pytest.mark.only('default-codec')
def test_calls_that_are_given_up_keep_no_descriptor(elsewhere, world):
    ws = elsewhere.ws

    def give_up():
        for _ in range(20):
            with contextlib.suppress(Alarm), world.Timeout(0.001, Alarm()):
                ws.receive()

    with called_again(world, give_up) as before:
        world.settles_to(lambda: world.fds() < before + 5, True)  # of 20
    ws._link.give_up()
    elsewhere.end()


@pytest.mark.only('green')
@pytest.mark.only('default-codec')
def test_who_calls_from_a_hub_waits_in_it(elsewhere, world):
    """The other hub is busy; it may be with a call into this one."""
    ws, peer = elsewhere.ws, elsewhere.peer
    elsewhere.order('be busy')
    begun = world.Event()

    def send():
        begun.set()
        ws.send('across')

    sending = world.spawn(send)
    assert begun.wait(5)
    world.sleep(0.01)  # the others here go on meanwhile
    assert not sending.done
    elsewhere.order('go on')
    sending.join()
    peer.expect(TEXT, b'across')
    receiving = world.spawn(ws.receive)
    peer.send((TEXT, b'back'))
    assert receiving.join() == 'back'
    elsewhere.end()


@pytest.mark.only('green')
def test_a_message_that_nobody_is_there_to_take_is_given_back():
    """The caller has left when it had been fetched."""
    from simple_websocket.profiles.errand import Errand

    given = []
    errand = Errand(lambda: 'a message', given.append)
    errand.run()
    errand.leave()
    errand.recall()
    assert given == ['a message']
    other = Errand(lambda: given.append('run'), given.append)
    other.leave()
    other.run()
    other.recall()
    assert given == ['a message']


@pytest.mark.only('green')
@pytest.mark.only('default-codec')
def test_not_to_wait_gives_the_hub_the_time_to_look(end, world):
    """With a timeout of 0 as well, what is there comes, and what TCP takes goes."""
    ws, peer = end(compression=None)
    for number in range(20):
        peer.send((TEXT, b'%d' % number))
        world.wait_until(lambda: len(ws.input_buffer))
        assert world.real_thread(ws.receive, 0).join() == str(number)
        world.real_thread(ws.send, f'echo {number}', 0).join()
        peer.expect(TEXT, b'echo %d' % number)
    assert ws.connected


@pytest.mark.only('green')
@pytest.mark.only('default-codec')
def test_what_is_raised_across_keeps_no_descriptor(elsewhere, world):
    ws = elsewhere.ws

    def send():
        for _ in range(20):
            with pytest.raises(ValueError):
                ws.send('\ud800')

    with called_again(world, send) as before:
        assert world.fds() < before + 5  # of 20
    ws._link.give_up()
    elsewhere.end()


@pytest.mark.only('gevent')
@pytest.mark.only('default-codec')
def test_what_waits_can_be_taken_when_the_hub_is_destroyed():
    """In a process of its own: what is destroyed there, gevent does not let go of."""
    script = """
import os, sys, threading, gevent, gevent.socket as sockets
from support.frames import TEXT, frame
from support.peer import environ_for
from simple_websocket import Server

def live():
    theirs, ours = sockets.socketpair()
    made.append(Server.accept(environ_for(ours), max_queue=2))
    theirs.sendall(frame(TEXT, b'x', True) * 5)
    while len(made[0].input_buffer) < 2:
        gevent.sleep(0)
    gevent.get_hub().destroy(destroy_loop=True)

made = []
thread = threading.Thread(target=live)
thread.start()
thread.join()
ws = made[0]
ws.event.set()
print(ws.input_buffer.pop(0), ws.input_buffer.pop(0), flush=True)
os._exit(0)"""
    done = subprocess.run(
        [sys.executable, '-c', script],
        env={**os.environ, 'PYTHONPATH': os.pathsep.join(sys.path)},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.stdout == 'x x\n', done.stderr
