"""Messages: whole, in order, of the right kind, to and from any peer."""

from __future__ import annotations

import gc
import zlib

import pytest
from support.frames import BINARY, CLOSE, PING, PONG, TEXT, frame
from support.peer import (
    Peer,
    accepted,
    both_ends,
    connected,
    environ_for,
    is_receiving,
    tcp_pair,
)

from simple_websocket import ConnectionClosed, Deflate, Server, SimpleWebsocketError


@pytest.mark.parametrize(
    ('data', 'opcode', 'payload'),
    [
        ('text', TEXT, b'text'),
        ('', TEXT, b''),
        ('grün ✓', TEXT, 'grün ✓'.encode()),
        (b'bytes', BINARY, b'bytes'),
        (bytearray(b'mutable'), BINARY, b'mutable'),
        (memoryview(b'a view')[2:], BINARY, b'view'),
        (memoryview(b'abcdef')[::2], BINARY, b'ace'),
        (42, TEXT, b'42'),
        (None, TEXT, b'None'),
    ],
)
def test_the_type_of_what_is_sent_decides_the_kind_of_message(end, data, opcode, payload):
    ws, peer = end()
    ws.send(data)
    peer.expect(opcode, payload)


def test_text_without_a_utf8_form_is_an_error_and_sends_nothing(end):
    ws, peer = end()
    with pytest.raises(ValueError):
        ws.send('\ud800')
    ws.send('next')
    peer.expect(TEXT, b'next')


def test_what_the_peer_sends_is_received_in_order(end):
    ws, peer = end()
    peer.send((TEXT, b'one'), (BINARY, b'two'), (TEXT, 'drei ✓'.encode()))
    assert [ws.receive(5) for _ in range(3)] == ['one', b'two', 'drei ✓']


def test_receive_gives_none_when_the_time_is_over_and_loses_nothing(end):
    ws, peer = end()
    assert ws.receive(timeout=0) is None
    assert ws.receive(timeout=0.02) is None
    peer.send((TEXT, b'late'))
    assert ws.receive(timeout=5) == 'late'
    assert ws.connected


def test_receive_with_timeout_zero_sees_what_has_arrived(end, world):
    ws, peer = end()
    peer.send((TEXT, b'here'))
    assert world.wait_until(lambda: ws.receive(timeout=0)) == 'here'


def test_a_ping_is_answered_while_the_application_waits(end):
    ws, peer = end()
    peer.send((PING, b'are you there'))
    assert ws.receive(timeout=0.05) is None
    peer.expect(PONG, b'are you there')


def test_a_ping_is_answered_while_nobody_receives(end, world):
    ws, peer = end()
    peer.send((PING, b'busy?'))
    peer.expect(PONG, b'busy?')
    assert ws.connected


def test_frames_in_the_packet_of_the_response_are_delivered_at_once(world, classes):  # A8
    ws, peer = connected(world, leftover=frame(TEXT, b'first') + frame(TEXT, b'sec'), **classes)
    assert ws.receive(5) == 'first'
    assert ws.receive(5) == 'sec'


def test_frames_that_came_with_the_request_are_delivered_at_once(world, classes):
    theirs, ours = tcp_pair(world)
    environ = environ_for(ours)
    reader = ours.makefile('rb')
    theirs.sendall(b'GET / HTTP/1.1\r\n' + frame(TEXT, b'early', masked=True))
    assert reader.readline() == b'GET / HTTP/1.1\r\n'
    environ['wsgi.input'] = reader
    ws = Server.accept(environ, **classes)
    assert ws.receive(5) == 'early'


def test_sixteen_mebibytes_reach_a_slow_reader_whole(end, world):  # A1
    ws, peer = end(compression=None)
    data = bytes(range(256)) * 65536
    task = world.spawn(ws.send, data)
    assert peer.expect(BINARY) == data
    task.join()
    assert ws.connected


def test_sixteen_mebibytes_come_back(end, world):
    ws, peer = end(compression=None)
    data = bytes(range(256)) * 65536

    def echo():
        ws.send(ws.receive())

    task = world.spawn(echo)
    peer.send((BINARY, data))
    assert peer.expect(BINARY) == data
    task.join()


def test_many_senders_and_pongs_never_mix_their_frames(end, world):  # A2
    ws, peer = end()
    sizes = [10, 70_000, 300, 200_000]

    def sender(number):
        for turn in range(12):
            ws.send(bytes([number]) * sizes[(number + turn) % 4])

    def receiver():
        with pytest.raises(ConnectionClosed):
            ws.receive()

    tasks = [world.spawn(sender, number) for number in range(8)]
    tasks.append(world.spawn(receiver))
    for number in range(20):
        peer.send((PING, b'%d' % number))
    messages, pongs = 0, []
    while messages < 96:
        opcode, payload = peer.read()
        if opcode == PONG:
            pongs.append(payload)
        else:
            assert opcode == BINARY and len(set(payload)) == 1 and len(payload) in sizes
            messages += 1
    peer.send(peer.close_frame(1000))
    for task in tasks:
        task.join()
    # Those of a congested connection may be answered by the last one (5.5.3).
    assert pongs == sorted(pongs, key=int)
    rest = []
    while (got := peer.read())[0] != CLOSE:
        rest.append(got)
    assert [payload for _, payload in rest] == [] or rest[-1] == (PONG, b'19')


def test_sends_of_one_sender_keep_their_order(end, world):
    ws, peer = end()

    def sender():
        for number in range(300):
            ws.send(f'{number:05}' * 100)

    task = world.spawn(sender)
    for number in range(300):
        peer.expect(TEXT, (f'{number:05}' * 100).encode())
    task.join()


def test_a_second_receiver_gets_an_error_and_the_first_its_message(end, world):  # A21
    ws, peer = end()
    task = world.spawn(ws.receive)
    world.wait_until(lambda: is_receiving(ws))
    with pytest.raises(SimpleWebsocketError, match='one receiver'):
        ws.receive(timeout=1)
    peer.send((TEXT, b'for the first'))
    assert task.join() == 'for the first'


def test_a_receive_queue_that_is_full_slows_the_peer_down_and_loses_nothing(end, world):  # A20
    ws, peer = end(max_queue=4)
    chunk = b'x' * 100_000

    def flood():
        for number in range(200):
            peer.send((BINARY, b'%03d' % number + chunk))

    task = world.spawn(flood)
    world.sleep(0.3)
    assert not task.done, '20 MB went into a queue of 4 messages'
    assert len(ws.input_buffer) <= 4
    for number in range(200):
        assert ws.receive(5)[:3] == b'%03d' % number
    task.join()


def test_many_small_messages_in_one_packet_wait_their_turn(end):
    ws, peer = end(max_queue=2)
    peer.send(*[(TEXT, b'%d' % number) for number in range(1000)])
    assert [ws.receive(5) for _ in range(1000)] == [str(number) for number in range(1000)]


def test_a_full_queue_does_not_keep_the_connection_from_closing(end, world):
    ws, peer = end(max_queue=2, close_timeout=2)
    peer.send(*[(TEXT, b'%d' % number) for number in range(50)])
    world.wait_until(lambda: len(ws.input_buffer) == 2 or ws.receive(0) is None)
    task = world.spawn(ws.close)
    peer.expect_close(1000)
    peer.send(peer.close_frame(1000))
    task.join()
    assert not ws.connected


@pytest.mark.parametrize('size', [9, 1000])
def test_the_limit_counts_bytes_not_characters(end, size):  # A11
    ws, peer = end(max_message_size=8)
    peer.send((TEXT, 'ääää'.encode()), (TEXT, 'ä'.encode() * (size // 2) + b'x'))
    assert ws.receive(5) == 'ääää'
    with pytest.raises(ConnectionClosed) as closed:
        ws.receive(5)
    assert closed.value.reason == 1009
    peer.expect_close(1009)


def test_a_compressed_message_goes_both_ways(world, classes):  # A22
    with both_ends(world, classes, classes) as (server, client):
        text = 'the same words again and again ' * 500
        server.send(text)
        assert client.receive(5) == text
        client.send(text)
        assert server.receive(5) == text
        assert server._link.protocol._deflate is not None
        assert client._link.protocol._deflate is not None


def test_compression_saves_bytes_and_can_be_switched_off(world, classes):
    request = {'sec_websocket_extensions': 'permessage-deflate'}
    text = b'the same words again and again ' * 500
    ws, peer = accepted(world, request=request, **classes)
    ws.send(text)
    opcode, payload = peer.read()
    assert opcode == BINARY | 0x40 and len(payload) < 1000
    inflater = zlib.decompressobj(-15)
    assert inflater.decompress(payload + b'\0\0\xff\xff') == text
    ws.close_later = peer  # keeps both until the end of the test

    plain, other = accepted(world, request=request, compression=None, **classes)
    assert b'permessage-deflate' not in other.response
    plain.send(text)
    other.expect(BINARY, text)
    tuned, third = accepted(
        world, request=request, compression=Deflate(server_max_window_bits=9), **classes
    )
    assert b'server_max_window_bits=9' in third.response
    for one in (ws, plain, tuned):
        one._link.abandon()


def test_a_deflate_bomb_is_stopped_at_the_limit(world, classes):
    request = {'sec_websocket_extensions': 'permessage-deflate'}
    ws, peer = accepted(world, request=request, max_message_size=100_000, **classes)
    packer = zlib.compressobj(9, wbits=-15)
    bomb = packer.compress(bytes(50_000_000)) + packer.flush(zlib.Z_SYNC_FLUSH)
    peer.send(peer.frame(BINARY, bomb[:-4], rsv=4))
    with pytest.raises(ConnectionClosed) as closed:
        ws.receive(5)
    assert closed.value.reason == 1009
    peer.expect_close(1009)


def test_the_messages_can_be_iterated_over(end, world):
    ws, peer = end()
    peer.send((TEXT, b'a'), (BINARY, b'b'), peer.close_frame(1000))
    assert list(ws) == ['a', b'b']
    assert not ws.connected


def test_an_iteration_waits_for_messages_and_ends_with_the_connection(end, world):
    ws, peer = end()
    messages = iter(ws)
    assert iter(messages) is messages
    task = world.spawn(next, messages)
    peer.send((TEXT, b'a'))
    assert task.join() == 'a'
    peer.send(peer.close_frame(1000))
    assert [next(messages, 'over'), next(messages, 'over')] == ['over', 'over']


def test_an_iteration_takes_messages_in_its_connections_own_way(world, classes):
    class Shouting(Server):
        def receive(self, timeout=None):
            return super().receive(timeout).upper()

    theirs, ours = tcp_pair(world)
    ws = Shouting.accept(environ_for(ours), **classes)
    peer = Peer(theirs, client=True)
    peer.head()
    peer.send((TEXT, b'a'), (TEXT, b'b'), peer.close_frame(1000))
    messages = iter(ws)
    assert next(messages) == 'A'
    ws.receive = lambda: 'of the object'
    assert next(iter(ws)) == 'of the object'
    del ws.receive
    assert list(messages) == ['B']


def test_a_second_receiver_in_an_iteration_gets_an_error_that_is_no_end(end, world):
    ws, peer = end()
    task = world.spawn(next, iter(ws))
    world.wait_until(lambda: is_receiving(ws))
    with pytest.raises(SimpleWebsocketError, match='one receiver'):
        next(iter(ws))
    peer.send((TEXT, b'for the first'))
    assert task.join() == 'for the first'


def test_an_iteration_holds_its_connection(world, classes):
    ws, peer = accepted(world, **classes)
    messages = iter(ws)
    del ws
    gc.collect()
    peer.send((TEXT, b'still here'))
    assert next(messages) == 'still here'
    messages = None
    gc.collect()
    peer.expect_eof()


def test_the_input_buffer_shows_what_waits(end, world):
    ws, peer = end()
    assert not ws.input_buffer and len(ws.input_buffer) == 0
    peer.send((TEXT, b'a'), (TEXT, b'b'), (TEXT, b'c'))
    assert ws.receive(5) == 'a'
    world.wait_until(lambda: len(ws.input_buffer) == 2)
    assert list(ws.input_buffer) == ['b', 'c'] and ws.input_buffer
    assert ws.input_buffer.pop(0) == 'b'
    ws.input_buffer.append('d')
    assert [ws.receive(5), ws.receive(5)] == ['c', 'd']


def test_setting_the_event_wakes_a_receiver_harmlessly(end, world):
    ws, peer = end()
    task = world.spawn(ws.receive)
    for _ in range(5):
        world.sleep(0.01)
        ws.event.set()
    assert not task.done
    peer.send((TEXT, b'still here'))
    assert task.join() == 'still here'


def test_what_waits_behind_a_full_queue_has_its_turn_when_a_message_is_taken(end):
    """A pong, room for what comes then: the application may be busy for long."""
    ws, peer = end(max_queue=2)
    peer.send(*[(TEXT, b'%d' % number) for number in range(3)], (PING, b'one'))
    assert ws.receive(5) == '0'
    peer.expect(PONG, b'one')
    peer.send((PING, b'two'))
    peer.expect(PONG, b'two')
    peer.send(*[(TEXT, b'more')] * 4, (PING, b'three'), *[(TEXT, b'more')] * 9)
    assert [ws.receive(5) for _ in range(4)] == ['1', '2', 'more', 'more']
    peer.expect(PONG, b'three')
    ws._link.abandon()


@pytest.mark.only('threads')
def test_a_timeout_that_a_clients_socket_gets_is_no_disconnect(world):  # A13
    ws, peer = connected(world)
    ws.sock.settimeout(0.02)
    receiver = world.spawn(ws.receive)
    world.wait_until(lambda: is_receiving(ws))
    peer.send((TEXT, b'hello'))
    assert receiver.join() == 'hello'
    ws._link.abandon()


def test_a_timeout_of_the_hosts_socket_is_no_disconnect(world, classes):  # A13
    theirs, ours = tcp_pair(world)
    ours.settimeout(0.02)
    ws = Server.accept(environ_for(ours), **classes)
    world.sleep(0.1)
    assert ws.receive(timeout=0.05) is None
    theirs.sendall(frame(TEXT, b'patience', masked=True))
    assert ws.receive(5) == 'patience'
    assert ws.connected


def test_a_thousand_messages_back_and_forth(world, classes):
    with both_ends(world, classes, classes) as (server, client):

        def echo():
            for message in server:
                server.send(message)

        task = world.spawn(echo)
        for number in range(500):
            client.send(f'message {number}')
            assert client.receive(5) == f'message {number}'
        client.close()
        task.join()


@pytest.mark.only('green')
def test_a_flood_on_one_connection_lets_the_others_run(end, world):  # B5
    ws, peer = end()
    flood = peer.frame(TEXT, b'') * 30_000

    def receiver():
        for _ in range(30_000):
            ws.receive()

    with world.ticker() as ticker:
        tasks = [world.spawn(receiver), world.spawn(peer.send, flood)]
        for task in tasks:
            task.join(20)
    assert ticker.ticks > 5
