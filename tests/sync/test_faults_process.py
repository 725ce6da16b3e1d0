"""Faults from inside the process: docs/faults.rst, table D."""

from __future__ import annotations

import contextlib
import errno
import gc
import os
import resource
import time
import tracemalloc

import pytest
from support.frames import BINARY, CLOSE, PING, PONG, TEXT
from support.peer import Peer, accepted, environ_for, switching, tcp_pair

from simple_websocket import Client, ConnectionClosed, Server
from simple_websocket.profiles import link as links
from simple_websocket.profiles import watchman

pytestmark = pytest.mark.only('default-codec')


def ended(ws):
    with pytest.raises(ConnectionClosed) as closed:
        while ws.receive(10) is not None:
            pass
    return closed.value.reason


def connections():
    """The links of this process that have a descriptor."""
    return sum(not link.finished for link in list(links._live))


def collect(world):
    """Let go of what the test's own tools still hold, and of earlier tests'."""
    world._sockets.clear()
    world._tasks[:] = [task for task in world._tasks if not task.done]
    gc.collect()
    world.settles_to(connections, 0, 20)
    world.sleep(0.02)


# D2


def test_senders_while_closing_put_nothing_behind_the_close(end, world):
    ws, peer = end()
    sent = []

    def sender(number):
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                ws.send(b'%d' % number * 500)
                sent.append(number)
                world.sleep(0)
        return closed.value.reason

    tasks = [world.spawn(sender, number) for number in range(4)]
    closer = world.spawn(lambda: (world.wait_until(lambda: len(sent) > 20), ws.close(4000)))
    frames = 0
    while (got := peer.read())[0] == BINARY:
        assert len(got[1]) == 500 and len(set(got[1])) == 1
        frames += 1
    assert got == (CLOSE, (4000).to_bytes(2, 'big'))
    peer.send(peer.close_frame(4000))
    closer.join()
    assert [task.join() for task in tasks] == [4000] * 4
    assert frames == len(sent)
    if peer.client:
        peer.expect_eof()
    else:
        assert peer.buffer == b''


def test_closing_from_os_threads_sends_one_close(end, world):
    ws, peer = end()
    outcomes = []

    def closer():
        try:
            ws.close(4000)
            outcomes.append('closed')
        except ConnectionClosed:
            outcomes.append('was closed')

    tasks = [world.real_thread(closer) for _ in range(4)]
    peer.expect_close(4000)
    peer.send(peer.close_frame(4000))
    for task in tasks:
        task.join()
    assert sorted(outcomes) == ['closed'] + ['was closed'] * 3
    with pytest.raises(ConnectionClosed):
        ws.close(4001)
    if peer.client:
        peer.expect_eof()


# D6


def free():
    """How many descriptors can be opened."""
    taken = []
    with contextlib.suppress(OSError):
        while True:
            taken.append(os.dup(0))
    for fd in taken:
        os.close(fd)
    return len(taken)


@contextlib.contextmanager
def room_for(world, descriptors):
    """A process that can open so many more."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    gc.disable()
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(512, soft), hard))
    taken = []
    try:
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.dup(0))
        for _ in range(descriptors):
            os.close(taken.pop())
        yield
    finally:
        gc.enable()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for fd in taken:
            os.close(fd)


def no_watchman(world):
    """Wait until the thread that is shared has gone, so that it has to start."""
    gc.collect()
    world.settles_to(lambda: watchman.Watchman._current, None)


def opened(world, role, sock, **options):
    """A connection on a socket that is there, without its peer's help."""
    if role == 'server':
        return Server.accept(environ_for(sock), **options)
    return Client.connect('ws://a.example/', sock=sock, **options)


def answer(theirs):
    peer = Peer(theirs, client=False)
    with contextlib.suppress(EOFError, OSError):
        peer.send(switching(peer.head()))


def is_gone(world, theirs, task, before):
    """The peer can tell, and no descriptor is left."""
    if task is not None:
        task.join()
    theirs.settimeout(5)
    while theirs.recv(4096):
        pass
    theirs.close()
    collect(world)
    world.comes_down_to(world.fds, before)


@pytest.mark.parametrize('left', range(6))
def test_out_of_descriptors_is_a_clean_error(world, role, classes, left):
    works(world, role, classes)  # and whatever it needs has been imported
    collect(world)
    no_watchman(world)
    before = world.fds()
    theirs, ours = tcp_pair(world)
    refused = None
    with room_for(world, left):
        task = world.spawn(answer, theirs) if role == 'client' else None
        try:
            ws = opened(world, role, ours, **classes)
        except OSError as error:
            refused = error.errno
            assert free() < 5
        else:
            # It works, or fails in the way of a broken connection.
            with contextlib.suppress(ConnectionClosed):
                assert ws.receive(0.05) is None
            ws._link.abandon()
            world.settles_to(lambda: ws._link.finished, True)
            ws = None
    assert refused in (None, errno.EMFILE)
    if task is not None:
        task.join()
    # It is gone either way, and the peer can tell.
    theirs.settimeout(5)
    while theirs.recv(4096):
        pass
    theirs.close()
    ours = theirs = None
    collect(world)
    no_watchman(world)
    world.comes_down_to(world.fds, before)
    works(world, role, classes)


def works(world, role, classes):
    theirs, ours = tcp_pair(world)
    task = world.spawn(answer, theirs) if role == 'client' else None
    ws = opened(world, role, ours, **classes)
    if task is not None:
        task.join()
    ws.send('works')
    theirs.close()
    ws._link.abandon()
    world.settles_to(lambda: ws._link.finished, True)


def test_no_descriptor_for_a_client_is_an_oserror(world, classes):
    collect(world)
    _, port = world.listen()
    with room_for(world, 0), pytest.raises(OSError) as failed:
        Client.connect(f'ws://127.0.0.1:{port}', open_timeout=2, **classes)
    assert failed.value.errno == errno.EMFILE


def refuse(*_):
    raise RuntimeError("can't start new thread")


def test_a_thread_that_can_not_be_started_is_a_clean_error(world, role, monkeypatch):
    """The one of a class that was injected."""

    class Thread:
        def __init__(self, target):
            pass

        start = refuse

    collect(world)
    no_watchman(world)
    before = world.fds()
    theirs, ours = tcp_pair(world)
    task = world.spawn(answer, theirs) if role == 'client' else None
    with pytest.raises(RuntimeError, match="can't start new thread"):
        opened(world, role, ours, thread_class=Thread)
    ours = None
    is_gone(world, theirs, task, before)
    works(world, role, {})


@pytest.mark.only('threads')
@pytest.mark.parametrize('kind', ['TCP', 'Unix'])  # which has a waker
def test_a_watchman_that_can_not_be_started_is_a_clean_error(world, role, kind, monkeypatch):
    collect(world)
    no_watchman(world)
    before = world.fds()
    theirs, ours = tcp_pair(world) if kind == 'TCP' else world.socketpair()
    task = world.spawn(answer, theirs) if role == 'client' else None
    original = watchman.original

    def without_threads(module, name):
        return refuse if name == 'start_new_thread' else original(module, name)

    with monkeypatch.context() as patch:
        patch.setattr(watchman, 'original', without_threads)
        with pytest.raises(RuntimeError, match="can't start new thread"):
            opened(world, role, ours)
    ours = None
    is_gone(world, theirs, task, before)
    works(world, role, {})


def resident():
    """Bytes of memory that this process has."""
    with open('/proc/self/statm') as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


def pair(world):
    """Two ends of TCP that nobody but the test closes: there are thousands."""
    one, two = tcp_pair(world)
    world._sockets.clear()
    return one, two


def connect(world, **options):
    """A client, and its peer's socket."""
    listener, port = world.listen()

    def serve():
        sock, _ = listener.accept()
        sock.sendall(switching(Peer(sock, client=False).head()))
        return sock

    task = world.spawn(serve)
    ws = Client.connect(f'ws://127.0.0.1:{port}', **options)
    theirs = task.join()
    listener.close()
    world._sockets.clear()
    world._tasks.clear()
    theirs.settimeout(None)
    return theirs, ws


def one_life(world, number, classes):
    """A connection that ends in one of the ways of being killed; a client's, too."""
    if number % 32 >= 8:  # TCP has not ports enough for all of them
        theirs, ours = world.socket.socketpair()
        ws = Server.accept(environ_for(ours), **classes)
        theirs.recv(4096)
    elif number % 32 < 4:
        theirs, ours = pair(world)
        ws = Server.accept(environ_for(ours), **classes)
        theirs.recv(4096)
    else:
        theirs, ws = connect(world, **classes)
    way = number % 4
    if way == 0:  # the peer goes away
        theirs.close()
        assert ended(ws) == 1006
    elif way == 1:  # in the middle of a frame
        theirs.sendall(b'\x82\xfe\x10' if type(ws) is Server else b'\x82\x7e\x10')
        theirs.close()
        assert ended(ws) == 1006
    elif way == 2:  # nobody holds the connection any more
        if type(ws) is Server:
            ws.environ.clear()  # else it is a cycle, and for the garbage collector
        ws = None
        theirs.settimeout(10)
        assert theirs.recv(100) == b''
        theirs.close()
    else:  # its handler is killed, or ends without a word
        task = world.spawn(lambda ws: ended(ws), ws)
        if world.green:
            world.sleep(0)
            world.kill(task)
            ws._link.abandon()
            theirs.close()
        else:
            theirs.close()
            assert task.join(10) == 1006
        world._tasks.clear()


@pytest.mark.timeout(240)
def test_five_thousand_connections_that_are_killed_leave_nothing(world, classes):
    for number in range(400):
        one_life(world, number, classes)
    collect(world)
    fds, threads, memory = world.fds(), world.os_threads(), resident()
    for number in range(5000):
        one_life(world, number, classes)
    collect(world)
    world.settles_to(lambda: world.fds() <= fds, True)
    world.settles_to(lambda: world.os_threads() <= threads, True)
    assert resident() - memory < 6 << 20


def test_a_thousand_idle_connections_cost_little_each(world, record_property, classes):
    count = 200 if classes else 1000
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 8192)), hard))
    try:
        pairs = [pair(world) for _ in range(count)]
        fds, memory = world.fds(), resident()
        tracemalloc.start()
        connections = [Server.accept(environ_for(ours), **classes) for _, ours in pairs]
        world.sleep(0)
        each = tracemalloc.get_traced_memory()[0] / count
        tracemalloc.stop()
        # Of this, what an earlier test has given back is no part.
        record_property('resident bytes an idle connection', (resident() - memory) // count)
        record_property('allocated bytes an idle connection', round(each))
        print(f'{each / 1024:.1f} KiB for an idle connection')
        assert 1024 < each < 24 * 1024
        # One socket each was there before; an injected reader has two more.
        assert (world.fds() - fds) / count < 3.1
        for number, (ws, (theirs, _)) in enumerate(zip(connections, pairs, strict=True)):
            peer = Peer(theirs, client=True)
            peer.head()
            peer.send((TEXT, b'%d' % number))
            assert ws.receive(5) == f'{number}'
            ws.send(f'{number}')
            peer.expect(TEXT, b'%d' % number)
        for theirs, _ in pairs:
            theirs.close()
        for ws in connections:
            assert ended(ws) == 1006
        before = fds - 2 * count
        del pairs, connections, ws, theirs, peer, _
        collect(world)
        world.settles_to(lambda: world.fds() <= before + 3, True, 20)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


# D7


@pytest.mark.parametrize('hour', [3600, -3600])
def test_a_wall_clock_that_jumps_an_hour_has_no_effect(end, world, monkeypatch, hour):
    ws, peer = end(ping_interval=0.3, ping_timeout=20)
    real = time.time
    monkeypatch.setattr(time, 'time', lambda: real() + hour)
    started = time.monotonic()
    assert ws.receive(0.2) is None
    assert 0.19 < time.monotonic() - started < 5
    payload = peer.expect(PING)  # when it is due, not an hour early or late
    assert 0.29 < time.monotonic() - started + 0.2 < 5
    peer.send((PONG, payload), (TEXT, b'in time'))
    assert ws.receive(5) == 'in time'
    assert 0 <= ws.latency < 5
    with pytest.raises(ConnectionClosed) as closed:
        ws.send(b'x' * 16_000_000, timeout=0.2)
    assert closed.value.reason == 1006 and time.monotonic() - started < 20


# D8


def test_collecting_a_connection_takes_no_lock(world, classes):
    """A finaliser runs anywhere, in whichever thread, also where locks are held."""
    ws, peer = accepted(world, **classes)
    link = ws._link
    locks = [lock for lock in (getattr(link, '_lock', None), watchman.Watchman._birth) if lock]
    box = [ws]
    del ws
    with contextlib.ExitStack() as held:
        for lock in locks:
            lock.acquire()
            held.callback(lock.release)
        task = world.real_thread(lambda: (box.clear(), gc.collect()))
        task.join()
    peer.expect_eof()
    world.settles_to(lambda: link.finished, True)


def test_a_connection_in_a_cycle_is_collected_too(world, classes):
    ws, peer = accepted(world, **classes)
    link = ws._link
    ws.itself = ws
    del ws
    gc.collect()
    world.settles_to(lambda: link.finished, True)
    peer.expect_eof()
