"""The profile threads: the thread that receives, and the one that watches
meanwhile. They meet at any moment; here, at those that matter."""

from __future__ import annotations

import errno
import fcntl
import gc
import os
import socket
import struct
import termios
import threading
import time

import pytest
from support.frames import BINARY, PING, PONG, TEXT
from support.peer import accepted, accepted_over, connected, tcp_pair

from simple_websocket import ConnectionClosed, broadcast
from simple_websocket.profiles import link as links
from simple_websocket.profiles import threads, watchman
from simple_websocket.profiles.watchman import Watchman

pytestmark = [pytest.mark.only('threads'), pytest.mark.only('default-codec')]
LARGE = b'x' * 16_000_000  # more than TCP takes of a peer that does not read


def unix_end(world, **options):
    """A connection that polls, and has a waker beside it."""
    return accepted_over(*world.socketpair(), **options)


def receiving(world, ws):
    """A thread that receives, and is in the kernel."""
    task = world.spawn(lambda: pytest.raises(ConnectionClosed, ws.receive).value.reason)
    world.wait_until(lambda: ws._link._blocked)
    return task


def is_looked_after(ws, peer):
    """A ping is answered, though nobody receives."""
    peer.send((PING, b'?'))
    peer.expect(PONG, b'?')
    assert ws.connected


# The watchman


def test_a_link_that_is_dropped_twice_takes_no_other_with_it(world):
    """An end that was interrupted is begun again, and its number may be in use."""
    gone, _ = accepted(world)
    gone._link.give_up()
    ws, peer = accepted(world)
    ws._link._watchman.drop(ws._link.wire.fd, gone._link)
    is_looked_after(ws, peer)
    ws._link.abandon()


def test_it_stays_for_a_link_that_comes_just_when_it_is_about_to_go(world):
    ws, peer = accepted(world)
    on_duty = ws._link._watchman
    assert not on_duty._retire()
    assert Watchman._current is on_duty
    is_looked_after(ws, peer)
    ws._link.abandon()


@pytest.mark.parametrize('step', ['on_ready', 'look_after', 'on_time', 'give_up'])
def test_a_link_that_raises_is_alone_in_that(world, monkeypatch, caplog, step):
    ws, peer = accepted(world)
    is_looked_after(ws, peer)
    odd, other = accepted(world, ping_interval=0.05 if step == 'on_time' else None)
    on_duty = odd._link._watchman

    def raise_(self, *_):
        if self is odd._link:
            raise RecursionError('a bug of ours')
        return genuine(self, *_)

    genuine = getattr(threads.ThreadLink, step)
    monkeypatch.setattr(threads.ThreadLink, step, raise_)
    if step == 'give_up':
        odd._link.abandon()
    other.send((PING, b'?'))
    world.wait_until(lambda: 'a bug of ours' in caplog.text)
    is_looked_after(ws, peer)
    assert Watchman._current is on_duty
    assert odd._link not in on_duty._links.values()
    monkeypatch.undo()
    odd._link.give_up()
    world.wait_until(lambda: odd._link.finished)
    other.close()
    ws._link.abandon()


@pytest.mark.parametrize('when', ['before it looks', 'when it watches'])
def test_a_descriptor_that_is_closed_from_outside_is_that_links_end_alone(world, when):
    """As by ``ws.sock.close()``.  The number may be in use again at once."""
    ws, peer = accepted(world)
    odd, other = connected(world)
    on_duty, number = odd._link._watchman, odd._link.wire.fd
    if when == 'when it watches':
        is_looked_after(odd, other)
    theirs, ours = tcp_pair(world)
    odd.sock.close()
    if when == 'before it looks':
        world.wait_until(lambda: odd._link not in on_duty._links.values() or odd._link._adopted)
    os.dup2(ours.fileno(), number)
    ours.close()
    again, third = accepted_over(theirs, world.closing(socket.socket(fileno=number)))
    is_looked_after(again, third)
    is_looked_after(ws, peer)
    assert Watchman._current is on_duty
    for one in (again, ws):
        one._link.abandon()


def test_an_interrupted_way_back_lets_the_next_one_receive(world, monkeypatch):
    """Ctrl-C, and Ctrl-C again behind it."""
    ws, peer = accepted(world)
    unblock = threads.ThreadLink._unblock

    def interrupted(self):
        monkeypatch.undo()
        unblock(self)
        raise KeyboardInterrupt

    monkeypatch.setattr(threads.ThreadLink, '_unblock', interrupted)
    with pytest.raises(KeyboardInterrupt):
        ws.receive(timeout=0.01)
    peer.send((TEXT, b'hello'))
    assert ws.receive(5) == 'hello'
    ws._link.abandon()


def test_links_that_are_made_meanwhile_disturb_nobody_who_gives_up(world, monkeypatch):
    ws, peer = accepted(world)
    poison = type(ws._link)._poison
    others = []

    def making_more(self):
        others.append(accepted(world))
        poison(self)

    monkeypatch.setattr(type(ws._link), '_poison', making_more)
    links.discard(ws._link.wire)
    monkeypatch.undo()
    assert not ws.connected
    peer.expect_eof()
    for other, _ in others:
        assert other.connected
        other._link.give_up()


def test_what_is_left_of_links_that_are_gone_is_bounded():
    class Gone:
        pass

    register = links._Register()
    kept = [Gone() for _ in range(10)]
    for one in kept:
        register.add(one)
    for _ in range(5 * register._MORE):
        register.add(Gone())
    assert list(register) and set(register) == set(kept)
    assert len(register._refs) <= 2 * (len(kept) + register._MORE)


def test_one_that_was_never_put_on_duty_goes_all_the_same(world, monkeypatch):
    """Ctrl-C may come when its thread has been started, and before it is known."""
    ws, peer = accepted(world)
    on_duty, fds = Watchman._current, world.fds()
    monkeypatch.setattr(watchman, 'LINGER', 0)
    unknown = Watchman()
    thread = threading.Thread(target=unknown._run, daemon=True)
    thread.start()
    thread.join(5)
    assert not thread.is_alive()
    assert Watchman._current is on_duty
    world.comes_down_to(world.fds, fds)
    is_looked_after(ws, peer)
    ws._link.abandon()


def test_it_looks_at_a_link_that_has_just_ended_and_does_nothing(world):
    ws, peer = accepted(world, ping_interval=60)
    ws._link.give_up()
    for step in (ws._link.on_time, ws._link.look_after, ws._link._come_out, ws._link.on_ready):
        step()
    assert ws._link not in ws._link._watchman._round.values()
    with pytest.raises(ConnectionClosed) as closed:
        ws.receive()
    assert closed.value.reason == 1006
    peer.expect_eof()


def test_it_leaves_the_socket_to_a_receiver_who_has_come_back(world):
    ws, peer = accepted(world)
    task = world.spawn(ws.receive)
    world.wait_until(lambda: ws._link._blocked)
    ws._link._adopt()
    ws._link.on_ready()
    assert not ws._link._adopted
    peer.send((TEXT, b'mine'))
    assert task.join() == 'mine'
    ws._link.abandon()


# Its rounds


def passed_over(world, ws):
    world.wait_until(lambda: ws._link.passed_over)
    assert ws._link not in ws._link._watchman._round.values()


def give_to_another(*links):
    """Put links on duty with a watchman who makes rounds only when we say so."""
    on_duty = Watchman()
    for link in links:
        link._watchman.drop(link.wire.fd, link)
        link._watchman = on_duty
        on_duty._links[link.wire.fd] = link
        on_duty.include(link)
    return on_duty


@pytest.mark.parametrize('end', [accepted, unix_end])
@pytest.mark.parametrize('timeout', [None, 60])
def test_its_rounds_pass_over_who_is_long_in_recv(world, end, timeout):
    ws, peer = end(world)
    task = world.spawn(ws.receive, timeout)
    passed_over(world, ws)
    assert not ws._link._adopted
    peer.send((PING, b'?'))
    peer.expect(PONG, b'?')
    passed_over(world, ws)
    assert not ws._link._adopted
    peer.send((TEXT, b'hello'))
    assert task.join() == 'hello'
    is_looked_after(ws, peer)
    passed_over(world, ws)
    assert ws._link._adopted
    peer.send((TEXT, b'again'))
    assert ws.receive() == 'again'
    ws._link.abandon()


def test_who_comes_out_has_a_whole_round_before_the_watchman_reads(world):
    ws, peer = accepted(world)
    link = ws._link
    on_duty = give_to_another(link)
    task = world.spawn(ws.receive)
    world.wait_until(lambda: link._blocked)
    for _ in range(2):
        link.look_after()
    assert link.passed_over and not link._adopted and not on_duty._round
    peer.send((TEXT, b'hello'))
    assert task.join() == 'hello'
    assert not link.passed_over and link in on_duty._round.values()
    link.look_after()
    assert not link._adopted
    link.look_after()
    assert link._adopted and link.passed_over and not on_duty._round
    link.give_up()
    on_duty._close()


def test_an_interrupted_receiver_is_looked_after(world, monkeypatch):
    """Even where Ctrl-C has kept it from saying that it comes out."""
    ws, peer = accepted(world)
    unblock, come_out = threads.ThreadLink._unblock, threads.ThreadLink._come_out
    calls = []

    def interrupted(self):
        calls.append('unblock')
        self.passed_over = True
        self._watchman._round.pop(self.wire.fd, None)
        unblock(self)
        raise KeyboardInterrupt

    def seen(self):
        calls.append('come_out')
        come_out(self)

    monkeypatch.setattr(threads.ThreadLink, '_unblock', interrupted)
    monkeypatch.setattr(threads.ThreadLink, '_come_out', seen)
    with pytest.raises(KeyboardInterrupt):
        ws.receive(timeout=0.01)
    assert calls == ['unblock', 'come_out']
    monkeypatch.undo()
    is_looked_after(ws, peer)
    ws._link.abandon()


def test_one_whose_number_is_in_use_again_is_in_nobodys_way(world):
    """The application has closed its socket, and it has not been noticed yet."""
    ws, _ = accepted(world)
    other, _ = accepted(world)
    link, old = ws._link, other._link
    on_duty = give_to_another(old, link)
    on_duty.drop(old.wire.fd, old)
    number, old.wire.fd = old.wire.fd, link.wire.fd
    for step in (old._come_out, old._stay):
        step()
        assert on_duty._round == {link.wire.fd: link}
    assert old.passed_over
    old.wire.fd = number
    for one in (link, old):
        one.give_up()
    on_duty._close()


def test_pings_go_out_of_those_that_are_passed_over(world):
    ws, peer = accepted(world, ping_interval=0.3)
    task = receiving(world, ws)
    passed_over(world, ws)
    for _ in range(2):
        peer.send((PONG, peer.expect(PING)))
        passed_over(world, ws)
    peer.close()
    assert task.join() == 1006


def test_the_deadlines_of_those_that_are_gone_do_not_pile_up(world):
    ws, peer = accepted(world, ping_interval=3600)
    on_duty = ws._link._watchman
    for _ in range(300):
        gone, other = accepted(world, ping_interval=3600)
        gone._link.give_up()
        other.close()
    on_duty._waker.wake()
    world.settles_to(lambda: len(on_duty._deadlines) + len(on_duty._expected) <= 110, True)
    assert (ws._link.due, ws._link.wire.fd) in on_duty._deadlines
    ws._link.abandon()


def test_a_later_deadline_is_looked_for_when_the_earlier_comes(world):
    ws, peer = accepted(world)
    link, now = ws._link, time.monotonic()
    link._guarded(lambda: link._arm(now + 3600))
    link._guarded(lambda: link._arm(now + 7200))
    assert link.due == now + 3600
    link.on_time()
    assert link.due == now + 7200
    link._guarded(lambda: link._arm(now + 1800))
    assert link.due == now + 1800
    ws._link.abandon()


def test_a_deadline_that_comes_up_just_before_it_waits_is_kept(world):
    """Nobody is woken who has not said yet until when he waits."""
    ws, _ = accepted(world)
    link = ws._link
    on_duty = give_to_another(link)
    on_duty.expect(link, time.monotonic())
    on_duty._wait(time.monotonic() + 3600)
    on_duty._keep_time(time.monotonic())
    assert link.due is None and not on_duty._expected and not on_duty._deadlines
    link.give_up()
    on_duty._close()


# Who waits, and what ends it


def test_a_receiver_is_released_when_a_send_fails_beside_it(world):
    for end in (accepted, unix_end):
        ws, peer = end(world, compression=None)
        task = receiving(world, ws)
        with pytest.raises(ConnectionClosed):
            ws.send(LARGE, timeout=0.05)
        assert task.join() == 1006
        world.settles_to(lambda ws=ws: ws._link.finished, True)
        assert ws._link._waiting == 0
        peer.close()


def test_the_last_one_to_leave_gives_the_descriptor_back(world, monkeypatch):
    ws, peer = accepted(world, compression=None)
    link = ws._link
    real = threads.wait_for
    waits = []

    def wait_for(fd, write, timeout, waker_fd=None):
        waits.append(fd)
        ready = real(fd, write, timeout, waker_fd)
        world.wait_until(lambda: not link._blocked)  # the receiver leaves first
        assert link.wire._tcp.fileno() == fd
        return ready

    monkeypatch.setattr(threads, 'wait_for', wait_for)
    task = receiving(world, ws)
    sender = world.spawn(lambda: pytest.raises(ConnectionClosed, ws.send, LARGE))
    world.wait_until(lambda: waits)
    link.give_up()
    assert task.join() == 1006
    assert sender.join().value.reason == 1006
    assert link.wire._tcp.fileno() == -1


def test_a_sender_does_not_begin_to_wait_on_what_has_just_ended(world, monkeypatch):
    ws, peer = accepted(world)
    ws._link.give_up()
    monkeypatch.setattr(threads, 'wait_for', None)  # its number is another's now
    assert ws._link._help_out(1, 5) is None


@pytest.mark.parametrize('call', ['send', 'broadcast'])
def test_a_broken_connection_is_told_to_sender_and_receiver(world, call):
    """The sender finds out first, and what TCP still has is the receiver's."""
    ws, peer = accepted(world)
    task = receiving(world, ws)

    def broken(*_):
        raise BrokenPipeError(errno.EPIPE, 'for the test')

    ws._link.wire.raw_send, ws._link.wire.fileno = broken, None
    if call == 'send':
        with pytest.raises(ConnectionClosed) as closed:
            ws.send('lost')
        assert closed.value.reason == 1006
    else:
        assert broadcast([ws], 'lost').closed == [ws]
        ws._link.give_up()
    assert task.join() == 1006
    peer.close()


def test_setting_the_event_of_a_connection_that_polls_is_harmless(world):
    ws, peer = unix_end(world)
    task = world.spawn(ws.receive)
    world.wait_until(lambda: ws._link._blocked)
    for _ in range(10):
        ws.event.set()
    peer.send((TEXT, b'hello'))
    assert task.join() == 'hello'
    ws._link.abandon()


def test_nothing_puts_off_the_release_of_a_receiver(world, monkeypatch):
    monkeypatch.setattr(threads, 'SILENCE', 60)
    ws, peer = accepted(world)
    task = receiving(world, ws)
    closing = world.spawn(ws.close, 4000)
    peer.expect_close(4000)
    world.wait_until(lambda: ws._link._release_at)
    release_at = ws._link._release_at
    ws._link._guarded(ws._link._notify)
    assert ws._link._release_at == release_at
    peer.send(peer.close_frame(4000))
    closing.join()
    assert task.join() == 4000
    peer.expect_eof()


# How much is read


@pytest.mark.parametrize('silence', [0, 60])
def test_what_follows_our_close_is_read_however_much_it_is(world, monkeypatch, silence):
    monkeypatch.setattr(links, 'READS', 1)
    monkeypatch.setattr(threads, 'SILENCE', silence)
    ws, peer = accepted(world)
    task = receiving(world, ws)
    closing = world.spawn(ws.close, 4000)
    peer.expect_close(4000)
    peer.send(*[(BINARY, bytes(100_000)) for _ in range(20)], peer.close_frame(4000))
    closing.join()
    assert task.join() == 4000
    # Behind that shutdown TCP does not tell the peer that there is room again.
    assert silence == 0 or not ws._link.wire.read_shut
    peer.expect_eof()


def test_nothing_is_read_while_paused_though_something_is_to_be_written(world):
    ws, peer = accepted(world, max_queue=2)
    link = ws._link
    peer.send(*[(TEXT, b'x')] * 10)
    world.wait_until(lambda: link._adopted and link.protocol.paused)
    link.offer(BINARY, LARGE, {}, True)
    assert link._want == (False, True)
    peer.send(*[(TEXT, b'more')] * 100)
    before = len(link.protocol._chunks)
    for _ in range(5):
        link.on_ready()
    assert len(link.protocol._chunks) == before
    link.give_up()


def pinged(world):
    """A connection with a thread in receive, whose peer has read a keepalive ping."""
    ws, peer = accepted(world, ping_interval=1000, ping_timeout=1000)
    link = ws._link
    receiver = world.spawn(ws.receive)
    world.wait_until(lambda: link._blocked)
    link._guarded(lambda: (link.protocol.tick(link.now() + 1000), link._after()))
    _, payload = peer.read()
    return ws, peer, receiver, payload


def test_a_peer_whose_answer_the_receiver_has_in_hand_is_not_given_up(world):
    """It has come, but who brings it waits for the lock."""
    ws, peer, receiver, payload = pinged(world)
    link = ws._link
    with link._lock:
        peer.send((PONG, payload), (TEXT, b'hello'))
        world.wait_until(lambda: not drained_of(link))  # it is in the receiver's hands
        link.now, now = (lambda: now() + 5000), link.now
        link._guarded(link._on_time)
        assert link._deadline is not None and ws.connected
    assert receiver.join() == 'hello'
    link._guarded(link._on_time)
    assert ws.connected
    link.give_up()


def drained_of(link):
    """Bytes that wait in the kernel."""
    return struct.unpack('i', fcntl.ioctl(link.wire.fd, termios.FIONREAD, bytes(4)))[0]


def test_a_peer_that_is_silent_is_given_up_all_the_same(world):
    ws, _, receiver, _ = pinged(world)
    link = ws._link
    link.now, now = (lambda: now() + 5000), link.now
    link._guarded(link._on_time)
    assert ws.connected
    link.now = lambda: now() + 5001
    link._guarded(link._on_time)
    assert not ws.connected and ws.close_reason == 1011
    link.give_up()
    with pytest.raises(ConnectionClosed):
        receiver.join()


def test_the_time_is_kept_while_links_come_and_go(world, monkeypatch):
    """The collector may run in the middle of it, and with it anybody."""
    ws, _ = accepted(world)
    watchman = Watchman()
    watchman._deadlines = [(float('inf'), 0)] * 1000
    tuples = [(number, None) for number in range(5000)]  # the interpreter keeps none in stock
    watchman._links = dict(tuples[:100])

    def come(phase, info):
        watchman._links[len(watchman._links) + 10_000] = None

    threshold = gc.get_threshold()
    gc.callbacks.append(come)
    gc.set_threshold(1)
    try:
        watchman._keep_time(0.0)
    finally:
        gc.set_threshold(*threshold)
        gc.callbacks.remove(come)
    assert watchman._deadlines == []
    watchman._close()
    ws._link.give_up()
