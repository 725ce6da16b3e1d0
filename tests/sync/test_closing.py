"""Closing: a handshake with truthful codes, and everything ends in time."""

from __future__ import annotations

import gc
import select
import socket
import warnings

import pytest
from support.frames import BINARY, CLOSE, PING, TEXT
from support.peer import accepted, both_ends, connected, is_receiving

from simple_websocket import ConnectionClosed, protocol


def closed_with(ws, timeout=5):
    with pytest.raises(ConnectionClosed) as closed:
        while ws.receive(timeout) is not None:
            pass
    return closed.value.reason


def test_our_close_is_answered_and_reported_with_our_code(end, world):
    ws, peer = end()
    task = world.spawn(ws.close, 4321, 'that was it')
    assert peer.expect_close(4321) == 'that was it'
    peer.send(peer.close_frame(4321))
    task.join()
    assert (ws.close_reason, ws.close_message) == (4321, 'that was it')
    assert not ws.connected
    assert closed_with(ws) == 4321


def test_the_server_ends_tcp_first(world, classes):
    ws, peer = accepted(world, **classes)
    task = world.spawn(ws.close)
    peer.expect_close(1000)
    peer.send(peer.close_frame(1000))
    peer.expect_eof()
    task.join()
    peer.close()
    world.settles_to(lambda: ws._link.finished, True)


@pytest.mark.parametrize(
    ('made', 'last'), [(accepted, ['with more', 'end']), (connected, ['at once'])]
)
def test_the_last_close_leaves_in_one_packet_with_the_end_of_tcp(world, classes, made, last):
    ws, peer = made(world, **classes)
    wire, calls = ws._link.wire, []
    send, kind = wire.raw_send, wire._kind

    def note_send(data, flags):
        calls.append('with more' if flags & socket.MSG_MORE else 'at once')
        return send(data, flags)

    class Noted(kind):
        def shutdown(self, how):
            calls.extend(['end'] * (how == socket.SHUT_WR))
            return kind.shutdown(self, how)

    wire.raw_send, wire._kind = note_send, Noted
    peer.send(peer.close_frame(1000))
    assert closed_with(ws) == 1000
    assert calls == last
    peer.expect_close(1000)
    if made is accepted:
        peer.expect_eof()
    peer.close()
    world.settles_to(lambda: ws._link.finished, True)


def test_the_client_waits_for_the_server_to_end_tcp(world, classes):
    ws, peer = connected(world, **classes)
    task = world.spawn(ws.close)
    peer.expect_close(1000)
    peer.send(peer.close_frame(1000))
    task.join()
    peer.sock.settimeout(0.05)
    with pytest.raises((TimeoutError, socket.timeout)):
        peer.sock.recv(1)
    peer.close()
    world.settles_to(lambda: ws._link.finished, True)


@pytest.mark.parametrize(('code', 'reported'), [(1000, 1000), (4999, 4999), (None, 1005)])
def test_the_peers_close_is_echoed_by_both_roles(end, code, reported):  # A9
    ws, peer = end()
    peer.send(peer.close_frame(code, '' if code is None else 'bye'))
    assert closed_with(ws) == reported
    assert ws.close_message == (None if code is None else 'bye')
    peer.expect_close(code)


def test_messages_before_the_close_come_first_and_may_be_answered(end):
    ws, peer = end()
    peer.send((TEXT, b'one'), (TEXT, b'two'), peer.close_frame(1000))
    for text in ('one', 'two'):
        assert ws.receive(5) == text
        ws.send(text.upper())
    assert closed_with(ws) == 1000
    peer.expect(TEXT, b'ONE')
    peer.expect(TEXT, b'TWO')
    peer.expect_close(1000)


def test_messages_before_a_violation_come_first_and_may_be_answered(end):
    ws, peer = end()
    peer.send((TEXT, b'one'), (0x3, b''))
    assert ws.receive(5) == 'one'
    ws.send('ONE')
    assert closed_with(ws) == 1002
    peer.expect(TEXT, b'ONE')
    peer.expect_close(1002)


def test_a_close_that_nobody_asks_for_is_answered_within_close_timeout(end, world):
    ws, peer = end(close_timeout=0.2)
    peer.send((TEXT, b'never taken'), peer.close_frame(1000))
    peer.expect_close(1000)
    assert ws.receive(0) == 'never taken'
    assert closed_with(ws) == 1000


def test_close_releases_a_receiver_at_once_though_the_peer_is_silent(end, world):  # A5
    ws, peer = end(close_timeout=1)
    task = world.spawn(closed_with, ws, None)
    world.wait_until(lambda: is_receiving(ws))
    closer = world.spawn(ws.close, 4000)
    assert task.join(timeout=0.7) == 4000
    closer.join()


def test_a_receiver_that_was_released_leaves_the_handshake_to_finish(end, world):
    ws, peer = end(close_timeout=4)
    task = world.spawn(closed_with, ws, None)
    world.wait_until(lambda: is_receiving(ws))
    closer = world.spawn(ws.close, 4000)
    assert task.join() == 4000
    peer.expect_close(4000)
    peer.send((TEXT, b'still talking'), peer.close_frame(4000))
    closer.join(timeout=2)


def test_a_silent_peer_is_left_within_close_timeout_and_nothing_leaks(  # A6
    world, role, classes
):
    baseline = world.fds()
    ws, peer = (accepted if role == 'server' else connected)(
        world, close_timeout=0.2, **classes
    )
    ws.close()
    peer.expect_close(1000)
    peer.expect_eof()
    assert closed_with(ws) == 1000
    peer.close()
    del peer, ws
    world._sockets.clear()
    gc.collect()
    world.settles_to(lambda: world.fds() <= baseline, True)


@pytest.mark.parametrize('late', [(TEXT, b'late'), (PING, b'late'), (0x3, b'bad')])
def test_what_comes_after_our_close_changes_nothing(end, world, late):  # A4
    ws, peer = end()
    task = world.spawn(ws.close, 4001)
    peer.expect_close(4001)
    peer.send(late)
    assert not ws.connected
    with pytest.raises(ConnectionClosed):
        ws.send('x')
    if late[0] != 0x3:
        peer.send(peer.close_frame(4001))
    task.join()
    assert not ws.connected and closed_with(ws) == 4001


def test_both_may_close_at_once(end, world):
    ws, peer = end()
    task = world.spawn(ws.close, 4001)
    peer.send(peer.close_frame(4002))
    peer.expect(CLOSE)
    task.join()
    assert ws.close_reason in (4001, 4002)  # whose came first
    if peer.client:
        peer.expect_eof()


def test_close_on_a_closed_connection_raises(end):
    ws, peer = end()
    peer.send(peer.close_frame(1001, 'going'))
    assert closed_with(ws) == 1001
    for call in (ws.close, lambda: ws.send('x'), ws.receive):
        with pytest.raises(ConnectionClosed) as closed:
            call()
        assert (closed.value.reason, closed.value.message) == (1001, 'going')
        assert str(closed.value) == 'Connection closed: 1001 going'


def test_closing_from_many_places_sends_one_close(end, world):
    ws, peer = end()
    outcomes = []

    def closer():
        try:
            ws.close(4000)
            outcomes.append('closed')
        except ConnectionClosed:
            outcomes.append('was closed')

    tasks = [world.spawn(closer) for _ in range(5)]
    peer.expect_close(4000)
    peer.send(peer.close_frame(4000))
    for task in tasks:
        task.join()
    assert sorted(outcomes) == ['closed'] + ['was closed'] * 4
    if peer.client:
        peer.expect_eof()


@pytest.mark.parametrize(
    ('reason', 'message', 'error'),
    [
        (999, None, ValueError),
        (1005, None, ValueError),
        (1006, None, ValueError),
        (1015, None, ValueError),
        (2999, None, ValueError),
        (5000, None, ValueError),
        (1000, 'x' * 124, ValueError),
        (1000, 'ä' * 62, ValueError),
        ('1000', None, TypeError),
        (1000, b'bytes', TypeError),
    ],
)
def test_a_close_that_must_not_be_sent_is_an_error_and_sends_nothing(
    end, reason, message, error
):
    ws, peer = end()
    with pytest.raises(error):
        ws.close(reason, message)
    ws.send('alive')
    peer.expect(TEXT, b'alive')


def test_the_end_without_a_close_is_1006(end):  # A10
    ws, peer = end()
    peer.send((TEXT, b'last words'))
    peer.close()
    assert ws.receive(5) == 'last words'
    assert closed_with(ws) == 1006
    assert ws.close_reason == 1006 and not ws.connected


def test_the_end_in_the_middle_of_a_frame_is_1006(end):
    ws, peer = end()
    peer.send(peer.frame(BINARY, b'0123456789')[:-3])
    peer.close()
    assert closed_with(ws) == 1006


def test_a_reset_is_1006(end):
    ws, peer = end()
    peer.reset()
    assert closed_with(ws) == 1006


def is_reset(error):
    return isinstance(error.__cause__, ConnectionResetError | BrokenPipeError)


@pytest.mark.parametrize('waiting', [True, False], ids=['in receive', 'nobody receives'])
def test_what_tcp_broke_with_is_the_cause(end, world, waiting):
    ws, peer = end()

    def receive():
        with pytest.raises(ConnectionClosed) as closed:
            ws.receive(None if waiting else 5)
        return closed.value

    task = world.spawn(receive) if waiting else None
    if task:
        world.wait_until(lambda: is_receiving(ws))
    peer.reset()
    if not waiting:
        world.settles_to(lambda: ws.connected, False)
    assert is_reset(task.join() if task else receive())
    for again in (receive, lambda: pytest.raises(ConnectionClosed, ws.send, 'x').value):
        assert is_reset(again())


@pytest.mark.parametrize('goodbye', [False, True], ids=['no Close', 'a Close'])
def test_a_reset_is_noticed_while_the_queue_is_full(end, world, monkeypatch, goodbye):
    """Nothing is read then, and nobody receives or sends; what is there already is
    not lost."""
    monkeypatch.setattr(protocol, 'TCP_LOOK_INTERVAL', 0.05)
    ws, peer = end(max_queue=2)
    for number in range(5):
        peer.send((TEXT, b'%d' % number))
    world.wait_until(lambda: ws._link.protocol.paused)
    world.settles_to(lambda: ws._link.protocol._look is None, False)
    assert ws.connected
    more = [b'%d' % number + bytes(1000) for number in range(50)]
    last = [peer.close_frame(4000)] if goodbye else []
    peer.send(*((BINARY, message) for message in more), *last)
    peer.reset()
    world.settles_to(lambda: ws.connected, False)
    received = []
    with pytest.raises(ConnectionClosed) as closed:
        while True:
            received.append(ws.receive(5))
    assert received == ['0', '1', '2', '3', '4', *more]
    assert closed.value.reason == (4000 if goodbye else 1006)
    assert goodbye or isinstance(closed.value.__cause__, ConnectionResetError)


def test_an_end_that_is_none_of_tcps_has_no_cause(end, world):
    ws, peer = end()
    peer.close()
    with pytest.raises(ConnectionClosed) as closed:
        ws.receive(5)
    assert (closed.value.reason, closed.value.__cause__) == (1006, None)


def test_half_a_close_of_tcp_is_1006(end):
    ws, peer = end()
    peer.sock.shutdown(socket.SHUT_WR)
    assert closed_with(ws) == 1006


def test_a_sender_learns_that_the_peer_has_gone(end, world):
    ws, peer = end()
    peer.close()

    def push():
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                ws.send(b'x' * 1000)
                world.sleep(0.001)
        return closed.value.reason

    assert world.spawn(push).join() == 1006
    assert not ws.connected


def test_a_sender_learns_the_code_of_a_peer_that_said_goodbye(end, world):
    ws, peer = end()
    peer.send(peer.close_frame(4123))
    peer.expect_close(4123)
    peer.close()
    with pytest.raises(ConnectionClosed) as closed:
        ws.send('x')
    assert closed.value.reason == 4123


def test_connected_turns_false_though_nobody_receives(end, world):
    ws, peer = end()
    peer.send(peer.close_frame(1001))
    world.settles_to(lambda: ws.connected, False)
    peer.expect_close(1001)
    assert ws.close_reason == 1001


def test_a_silent_peer_is_noticed_by_the_keepalive(end):  # A14, B14
    ws, peer = end(ping_interval=0.1, ping_timeout=0.2)
    peer.expect(PING)
    assert closed_with(ws) == 1011
    while (got := peer.read())[0] == PING:
        pass
    assert got[0] == CLOSE and got[1][:2] == (1011).to_bytes(2, 'big')


def test_the_keepalive_works_while_nobody_receives(end, world):
    ws, peer = end(ping_interval=0.05, ping_timeout=0.1)
    world.settles_to(lambda: ws.connected, False)
    assert ws.close_reason == 1011


def test_anything_that_arrives_is_a_sign_of_life(end, world):
    ws, peer = end(ping_interval=0.2, ping_timeout=0.4)
    for _ in range(15):
        peer.send((TEXT, b'no pong, but I am here'))
        assert ws.receive(5)
        world.sleep(0.05)
    assert ws.connected


def test_pongs_keep_the_connection_and_give_the_latency(end, world):
    ws, peer = end(ping_interval=0.05, ping_timeout=5)
    task = world.spawn(closed_with, ws, None)
    assert ws.latency is None
    for _ in range(4):
        payload = peer.expect(PING)
        peer.send((0xA, payload))
    world.wait_until(lambda: ws.latency is not None)
    assert 0 <= ws.latency < 1
    peer.send(peer.close_frame(1000))
    assert task.join() == 1000


def test_leaving_the_block_closes(end, world):
    ws, peer = end()

    def handler():
        with ws as same:
            assert same is ws
            ws.send('hello')

    task = world.spawn(handler)
    peer.expect(TEXT, b'hello')
    peer.expect_close(1000)
    peer.send(peer.close_frame(1000))
    task.join()


def test_an_exception_in_the_block_closes_with_1011_and_goes_on(end):
    ws, peer = end()
    with pytest.raises(LookupError), ws:
        raise LookupError('a bug of the application')
    peer.expect_close(1011)
    assert not ws.connected


def test_a_connection_that_is_closed_in_its_block_is_left_alone(end):
    ws, peer = end()
    peer.send(peer.close_frame(4000))
    with pytest.raises(ConnectionClosed), ws:
        ws.receive(5)
    peer.expect_close(4000)


def test_an_unclosed_connection_is_closed_by_the_garbage_collector(world, role, classes):  # D8
    baseline = world.fds()
    ws, peer = (accepted if role == 'server' else connected)(world, **classes)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter('always')
        del ws
        gc.collect()
    assert [w for w in caught if w.category is ResourceWarning]
    peer.expect_eof()
    peer.close()
    del peer
    world._sockets.clear()
    gc.collect()
    world.settles_to(lambda: world.fds() <= baseline, True)


def test_two_hundred_connections_leave_nothing_behind(world, classes):
    def once():
        with both_ends(world, classes, classes) as (server, client):
            client.send('echo')
            server.send(server.receive(5))
            assert client.receive(5) == 'echo'

    once()
    world._sockets.clear()
    gc.collect()
    fds, threads = world.fds(), world.os_threads()
    for _ in range(200):
        once()
        world._sockets.clear()
        world._tasks[:] = [task for task in world._tasks if not task.done]
    gc.collect()
    world.settles_to(lambda: world.fds() <= fds, True)
    world.settles_to(lambda: world.os_threads() <= threads, True)


def test_thread_and_join_tell_the_end(end, world):
    ws, peer = end()
    if not hasattr(ws.thread, 'join'):
        return
    task = world.spawn(ws.thread.join, 5)
    peer.send(peer.close_frame(1000))
    assert closed_with(ws) == 1000
    peer.expect_close(1000)
    peer.close()
    task.join()


@pytest.mark.only('threads')
def test_what_comes_while_a_released_receiver_is_on_its_way_back_is_read(world, monkeypatch):
    """Its recv has returned, and the watchman still leaves the socket to it."""
    ws, peer = accepted(world)
    link = ws._link
    seen, block = world.Event(), link.wire.raw_recv

    before = type(link).on_ready

    def on_ready(link):
        before(link)
        if link._blocked and select.select([link.wire.fd], [], [], 0)[0]:
            seen.set()

    def raw_recv(size, *flags):
        data = block(size, *flags)
        if not data and not flags:
            peer.expect_close(4000)
            seen.clear()
            peer.send(peer.close_frame(4000))
            assert seen.wait(5)
        return data

    monkeypatch.setattr(type(link), 'on_ready', on_ready)
    monkeypatch.setattr(link.wire, 'raw_recv', raw_recv)
    monkeypatch.setattr(link.wire, 'fileno', None)
    receiver = world.spawn(closed_with, ws, None)
    world.settles_to(lambda: link._blocked, True)
    world.spawn(ws.close, 4000).join(3)
    assert receiver.join() == 4000


@pytest.mark.only('threads')
def test_a_flood_before_the_answer_to_our_close_is_read_to_its_end(world):
    """An edge tells of the first packet; it has to be read until nothing is left."""
    ws, peer = accepted(world)
    receiver = world.spawn(closed_with, ws, None)
    world.settles_to(lambda: ws._link._blocked, True)
    closer = world.spawn(ws.close)
    peer.expect_close(1000)
    assert receiver.join() == 1000
    with ws._link._lock:
        peer.send(*[peer.frame(BINARY, bytes(50_000))] * 4, peer.close_frame(1000))
    closer.join(3)


def test_the_end_of_the_connection_is_told_before_what_is_wrong_with_a_message(end):
    ws, peer = end()
    ws._link.give_up()
    with pytest.raises(ConnectionClosed):
        ws.send('\ud800')


@pytest.mark.only('green')
def test_a_close_that_another_one_reads_ends_the_wait_for_it(world, classes):
    """By ``receive(timeout=0)``, before the hub looks, of a peer that keeps TCP open."""
    ws, peer = accepted(world, close_timeout=60, **classes)
    closing = world.spawn(ws.close)
    peer.expect_close(1000)
    peer.send(peer.close_frame(1000))
    poll = world.original('select', 'poll')()
    poll.register(ws._link.wire.fd, select.POLLIN)
    assert poll.poll(5000)
    with pytest.raises(ConnectionClosed):
        ws.receive(timeout=0)
    closing.join(5)
    ws._link.abandon()
