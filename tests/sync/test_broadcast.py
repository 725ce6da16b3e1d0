"""One message to many: framed once, no slow peer holds up the others."""

from __future__ import annotations

import errno
import importlib
import sys
from contextlib import suppress

import pytest
from support.frames import BINARY, PING, PONG, TEXT
from support.peer import accepted, connected, is_receiving

from simple_websocket import ConnectionClosed, Deflate, broadcast

broadcasting = importlib.import_module('simple_websocket.broadcast')  # not the function
SMALL_WINDOW = Deflate(server_no_context_takeover=True, threshold=0)
LARGE = b'x' * 24_000_000  # more than TCP's buffers, however they grow


def many(world, count, **options):
    return [accepted(world, **options) for _ in range(count)]


def congest(world, ws, peer):
    """Fill TCP's buffers: the peer doesn't read."""
    made = broadcast([ws], LARGE)
    assert made.sent == [ws]
    assert ws._link.protocol.congested
    return len(LARGE)


@pytest.mark.parametrize(
    ('data', 'opcode', 'payload'),
    [('größer', TEXT, 'größer'.encode()), (b'\x00\xff', BINARY, b'\x00\xff')]
    + [(bytearray(b'ab'), BINARY, b'ab'), (17, TEXT, b'17'), ('', TEXT, b'')],
)
def test_everybody_gets_the_message(world, classes, data, opcode, payload):
    pairs = many(world, 5, compression=None, **classes)
    result = broadcast((ws for ws, _ in pairs), data)
    assert result == ([ws for ws, _ in pairs], [], [])
    for ws, peer in pairs:
        peer.expect(opcode, payload)
        ws._link.abandon()


def test_clients_mask_it_each_with_a_key_of_its_own(world, classes):
    pairs = [connected(world, **classes) for _ in range(3)]
    broadcast([ws for ws, _ in pairs], 'to all servers')
    for ws, peer in pairs:
        peer.expect(TEXT, b'to all servers')  # which refuses what is not masked
        ws._link.abandon()


def test_a_frame_is_made_once_for_all_that_share_its_form(world, classes, monkeypatch):
    pairs = many(world, 4, compression=None, **classes)
    made = []

    def counted(make):
        return lambda *args: made.append(1) or make(*args)

    protocol = type(pairs[0][0]._link.protocol)
    monkeypatch.setattr(protocol, 'frame', counted(protocol.frame))
    module = sys.modules['simple_websocket.broadcast']
    monkeypatch.setattr(module, 'encode', counted(module.encode))
    broadcast([ws for ws, _ in pairs], 'once')
    assert len(made) == 1
    for ws, peer in pairs:
        peer.expect(TEXT, b'once')
        ws._link.abandon()


@pytest.mark.parametrize('size', [100, 20_000])
def test_frames_of_which_tcp_takes_a_part_arrive_whole(world, classes, size):
    ws, peer = accepted(world, compression=None, **classes)
    sent = 0
    while broadcast([ws], b'x' * size).sent:
        sent += 1
    assert sent > 1
    for _ in range(sent):
        assert peer.read() == (BINARY, b'x' * size)
    ws.send('on')
    peer.expect(TEXT, b'on')
    ws._link.abandon()


def test_who_compresses_alone_and_who_has_left_is_told_apart(world, classes):
    offer = {'request': {'sec_websocket_extensions': 'permessage-deflate'}}
    plain, gone = many(world, 2, compression=None, **classes)
    taking_over = accepted(world, compression=Deflate(threshold=0), **offer, **classes)
    fresh = [accepted(world, compression=SMALL_WINDOW, **offer, **classes) for _ in range(2)]
    gone[1].send(gone[1].close_frame(1000))
    with pytest.raises(ConnectionClosed):
        gone[0].receive(5)
    everybody = [plain, gone, taking_over, *fresh]
    for _ in range(2):  # a window would show in the second
        result = broadcast([ws for ws, _ in everybody], 'again and again')
        assert result.closed == [gone[0]]
        assert result.sent == [ws for ws, _ in everybody if ws is not gone[0]]
    plain[1].expect(TEXT, b'again and again')
    first = [peer.read() for _, peer in fresh]
    assert first[0] == first[1] == fresh[0][1].read()
    assert first[0][0] == TEXT | 0x40
    one, two = taking_over[1].read(), taking_over[1].read()
    assert one[0] == two[0] == TEXT | 0x40 and len(two[1]) < len(one[1])
    for ws, _ in [plain, taking_over, *fresh]:
        ws._link.abandon()


def test_a_slow_peer_is_skipped_and_the_others_served_at_once(world, classes):
    (slow, deaf), (ws, peer) = many(world, 2, compression=None, **classes)
    size = congest(world, slow, deaf)
    for _ in range(3):
        assert broadcast([slow, ws], 'news') == ([ws], [slow], [])
        peer.expect(TEXT, b'news')
    assert len(deaf.expect(BINARY)) == size  # whole, once it reads
    world.settles_to(lambda: slow._link.protocol.congested, False)
    assert broadcast([slow, ws], 'more') == ([slow, ws], [], [])
    deaf.expect(TEXT, b'more')
    for one in (slow, ws):
        one._link.abandon()


def test_a_slow_peer_is_closed_where_that_is_asked_for(world, classes):
    (slow, deaf), (ws, peer) = many(world, 2, compression=None, **classes)
    congest(world, slow, deaf)
    assert broadcast([slow, ws], 'news', slow='close') == ([ws], [], [slow])
    peer.expect(TEXT, b'news')
    assert not slow.connected and slow.close_reason == 1006
    with pytest.raises(ConnectionClosed):
        slow.receive(1)
    ws._link.abandon()


def test_a_slow_peer_is_waited_for_behind_the_others(world, classes):
    (slow, deaf), (ws, peer) = many(world, 2, compression=None, **classes)
    size = congest(world, slow, deaf)
    task = world.spawn(lambda: broadcast([slow, ws], 'news', slow='wait', timeout=20))
    peer.expect(TEXT, b'news')
    assert not task.done
    assert len(deaf.expect(BINARY)) == size
    deaf.expect(TEXT, b'news')
    assert task.join() == ([slow, ws], [], [])
    for one in (slow, ws):
        one._link.abandon()


def test_who_is_too_slow_to_be_waited_for_is_closed(world, classes):
    pairs = many(world, 3, compression=None, **classes)
    for ws, peer in pairs[:2]:
        congest(world, ws, peer)
    everybody = [ws for ws, _ in pairs]
    with world.ticker() as ticker:
        result = broadcast(everybody, 'news', slow='wait', timeout=0.2)
    assert result == (everybody[2:], [], everybody[:2])
    assert ticker.ticks
    assert [ws.close_reason for ws in everybody[:2]] == [1006, 1006]
    pairs[2][1].expect(TEXT, b'news')
    everybody[2]._link.abandon()


def test_any_os_thread_may_broadcast(world, classes):
    pairs = many(world, 3, compression=None, **classes)
    everybody = [ws for ws, _ in pairs]
    size = congest(world, everybody[0], pairs[0][1])
    with world.ticker():
        result = world.real_thread(lambda: broadcast(everybody, 'from afar')).join()
        assert result == (everybody[1:], everybody[:1], [])
        task = world.real_thread(lambda: broadcast(everybody, 'more', slow='wait', timeout=20))
        assert len(pairs[0][1].expect(BINARY)) == size
        assert task.join() == (everybody, [], [])
        result = world.real_thread(lambda: broadcast(everybody, LARGE)).join()
        assert result.sent == everybody
        result = world.real_thread(lambda: broadcast(everybody, 'on', slow='close')).join()
        assert result.closed == everybody


def test_who_turns_out_to_be_gone_is_closed(world, classes):
    (ws, peer), (gone, _) = many(world, 2, **classes)

    def broken(*_):
        raise BrokenPipeError(errno.EPIPE, 'for the test')

    gone._link.wire.raw_send, gone._link.wire.fileno = broken, None
    assert broadcast([gone, ws], 'news') == ([ws], [], [gone])
    assert gone.close_reason == 1006
    peer.expect(TEXT, b'news')
    ws._link.abandon()


def test_pongs_and_broadcasts_keep_out_of_each_others_frames(world, classes):
    ws, peer = accepted(world, compression=None, **classes)
    receiver = world.spawn(lambda: pytest.raises(ConnectionClosed, ws.receive))
    for number in range(20):
        peer.send((PING, b'%d' % number))
        broadcast([ws], f'message {number}')
    seen = [peer.read() for _ in range(40)]
    assert [data for opcode, data in seen if opcode == PONG] == [b'%d' % n for n in range(20)]
    assert [data for opcode, data in seen if opcode == TEXT] == [
        b'message %d' % n for n in range(20)
    ]
    peer.send(peer.close_frame(1000))
    receiver.join()


@pytest.mark.parametrize(
    ('arguments', 'error'),
    [
        ({'slow': 'never'}, ValueError),
        ({'slow': None}, ValueError),
        ({'timeout': 1}, ValueError),
        ({'slow': 'wait', 'timeout': 'soon'}, TypeError),
        ({'data': 'half \ud800'}, ValueError),
        ({'connections': [None]}, TypeError),
        ({'connections': 5}, TypeError),
    ],
)
def test_a_wrong_argument_sends_nothing(world, arguments, error):
    ws, peer = accepted(world, compression=None)
    if isinstance(arguments.get('connections'), list):
        arguments = {'connections': [ws, None]}
    with pytest.raises(error):
        broadcast(**{'connections': [ws], 'data': 'x', **arguments})
    ws.send('the first')
    peer.expect(TEXT, b'the first')
    ws._link.abandon()


def test_what_tcp_did_not_take_follows_while_somebody_receives(world, classes):
    ws, peer = accepted(world, compression=None, **classes)
    receiver = world.spawn(ws.receive)
    world.wait_until(lambda: is_receiving(ws))
    congest(world, ws, peer)
    assert peer.read() == (BINARY, LARGE)
    peer.send((PING, b'there?'))
    peer.expect(PONG, b'there?')
    assert broadcast([ws], 'again').sent == [ws]
    peer.expect(TEXT, b'again')
    peer.send((TEXT, b'done'))
    assert receiver.join() == 'done'
    ws._link.abandon()


def test_who_waits_is_told_when_a_part_can_not_follow(world, classes):
    """The broadcast finds out that TCP is broken, and not the waiting one."""
    ws, peer = accepted(world, compression=None, **classes)
    receiver = world.spawn(ws.receive)
    world.wait_until(lambda: is_receiving(ws))

    peer.reset()
    ws._link._unsent = b'the rest'  # as put_to_many() leaves it
    with suppress(ConnectionClosed):
        ws._link.go_on()
    with pytest.raises(ConnectionClosed):
        receiver.join()
    assert ws.close_reason == 1006


def test_nobody_is_told_nothing():
    assert broadcast([], 'hello?') == ([], [], [])


def test_who_is_lost_when_a_part_is_out_is_closed(world, classes):
    ws, peer = accepted(world, compression=None, **classes)

    def broken(*_):
        raise ConnectionResetError(errno.ECONNRESET, 'for the test')

    link = ws._link
    link._unsent = b'the rest'  # as put_to_many() leaves it
    link.wire.raw_send = broken
    with pytest.raises(ConnectionClosed):
        link.go_on()
    assert ws.close_reason == 1006


def test_a_frame_that_is_begun_and_left_by_ctrl_c_is_the_end(world, classes, monkeypatch):
    """Nobody would write the rest of it (invariant 2)."""
    ws, peer = accepted(world, compression=None, **classes)
    other, another = accepted(world, compression=None, **classes)

    def interrupted(*_):
        ws._link._unsent = b'the rest'  # as put_to_many() leaves it
        raise KeyboardInterrupt

    monkeypatch.setattr(broadcasting, 'put_to_many', interrupted)
    with pytest.raises(KeyboardInterrupt):
        broadcast([other, ws], 'hello')
    monkeypatch.undo()
    assert not ws.connected and ws.close_reason == 1006
    peer.expect_eof()
    other.send('still here')
    another.expect(TEXT, b'still here')
    other._link.abandon()


@pytest.mark.only('green')
def test_who_waits_for_less_is_told_first(world):
    """A mark is taken when a message is offered, which may be before another sender's."""
    ws, peer = accepted(world, compression=None)
    mark = ws._link.offer(BINARY, LARGE, {}, True)
    later = world.spawn(ws.send, LARGE)
    world.wait_until(lambda: ws._link._senders)
    waiter = world.spawn(ws._link.wait_until_sent, mark, None)
    world.wait_until(lambda: len(ws._link._senders) == 2)
    peer.expect(BINARY, LARGE)
    waiter.join()
    assert not later.done
    peer.expect(BINARY, LARGE)
    later.join()
    ws._link.abandon()


@pytest.mark.only('green')
def test_what_is_begun_goes_on_before_another_hub_is_asked(world, monkeypatch):
    """That may be busy for long."""
    order = []
    here, elsewhere = object(), object()
    monkeypatch.setattr(broadcasting, 'put_to_many', lambda *args: [None, broadcasting.PARTLY])
    monkeypatch.setattr(
        broadcasting, '_offer_one', lambda ws, *args: order.append(ws) or broadcasting.SENT
    )
    marks = broadcasting._offer([elsewhere, here], BINARY, b'x', 'skip')
    assert order == [here, elsewhere] and marks == [0, 0]
