"""Exceptions thrown into a wait: nothing is lost, nothing is torn."""

from __future__ import annotations

import os
import socket
from contextlib import suppress

import pytest
from support.frames import TEXT
from support.peer import accepted, is_receiving

from simple_websocket import ConnectionClosed

pytestmark = pytest.mark.only('default-codec')
LARGE = b'x' * 16_000_000  # more than TCP takes of a peer that does not read


@pytest.mark.only('green')
def test_a_killed_receiver_loses_nothing(end, world):  # invariant 3
    ws, peer = end()
    task = world.spawn(ws.receive)
    world.wait_until(lambda: is_receiving(ws))
    world.kill(task)
    peer.send((TEXT, b'for the next'))
    assert ws.receive(5) == 'for the next'
    assert ws.connected


@pytest.mark.only('green')
def test_a_timeout_of_the_library_loses_nothing(end, world):
    ws, peer = end()
    for number in range(20):
        with pytest.raises(world.Timeout), world.Timeout(0.005):
            ws.receive()
        peer.send((TEXT, b'%d' % number))
        assert ws.receive(5) == str(number)
    assert ws.connected


@pytest.mark.only('green')
def test_a_message_that_races_with_a_kill_is_received_once(end, world):
    ws, peer = end()
    got = []

    def receiver():
        while True:
            got.append(ws.receive())

    for number in range(30):
        task = world.spawn(receiver)
        world.sleep(0)
        peer.send((TEXT, b'%d' % number))
        world.sleep(0)
        world.kill(task)
    expected = [str(number) for number in range(30)]
    while len(got) < 30:
        got.append(ws.receive(5))
    assert got == expected


def slow(ws, world):
    """Start to send what the peer does not read."""
    task = world.spawn(ws.send, b'x' * 16_000_000)
    world.sleep(0.1)
    assert not task.done
    return task


@pytest.mark.only('green')
def test_a_killed_sender_fails_the_connection(end, world):  # invariant 2
    ws, peer = end(compression=None)
    world.kill(slow(ws, world))
    with pytest.raises(ConnectionClosed) as closed:
        ws.send('must not follow half a frame')
    assert closed.value.reason == 1006 and not ws.connected
    with pytest.raises((EOFError, ConnectionResetError)):
        peer.read()


@pytest.mark.only('green')
def test_a_timeout_in_a_send_fails_the_connection(end, world):
    ws, peer = end(compression=None)
    with pytest.raises(world.Timeout), world.Timeout(0.1):
        ws.send(b'x' * 16_000_000)
    assert not ws.connected
    with pytest.raises(ConnectionClosed) as closed:
        ws.receive()
    assert closed.value.reason == 1006


def test_a_send_that_takes_too_long_fails_that_connection(end, world):  # B15
    ws, peer = end(compression=None)
    with pytest.raises(ConnectionClosed) as closed:
        ws.send(b'x' * 16_000_000, timeout=0.1)
    assert closed.value.reason == 1006
    assert isinstance(closed.value.__cause__, TimeoutError)
    assert not ws.connected
    with pytest.raises((EOFError, ConnectionResetError)):
        peer.read()


def test_a_send_in_time_is_just_a_send(end):
    ws, peer = end()
    ws.send('quick', timeout=5)
    peer.expect(TEXT, b'quick')
    assert ws.connected


def test_others_waiting_to_send_learn_that_the_connection_failed(end, world):
    ws, peer = end(compression=None)
    tasks = [slow(ws, world), world.spawn(ws.send, 'queued behind')]
    with pytest.raises(ConnectionClosed):
        ws.send('x', timeout=0.1)
    for task in tasks:
        with pytest.raises(ConnectionClosed) as closed:
            task.join()
        assert closed.value.reason == 1006


def test_a_connection_that_closes_frees_a_waiting_sender(end, world):
    ws, peer = end(compression=None, close_timeout=0.3)
    task = slow(ws, world)
    ws.close()
    with pytest.raises(ConnectionClosed):
        task.join()


@pytest.mark.only('green')
def test_a_killed_closer_leaves_the_closing_to_finish(end, world):
    ws, peer = end(close_timeout=2)
    task = world.spawn(ws.close, 4000)
    world.sleep(0.02)
    world.kill(task)
    assert not ws.connected
    peer.expect_close(4000)
    peer.send(peer.close_frame(4000))
    if peer.client:
        peer.expect_eof()
    peer.close()
    world.settles_to(lambda: ws._link.finished, True)


@pytest.mark.only('green')
def test_a_sender_that_is_killed_when_its_message_is_out_harms_nobody(world):
    """What is unsent then is another's."""
    ws, peer = accepted(world, compression=None)
    link = ws._link
    first = world.spawn(ws.send, LARGE)
    world.wait_until(lambda: link._senders)
    mark = link._senders[0][0]
    second = world.spawn(ws.send, LARGE)
    world.wait_until(lambda: len(link._senders) == 2)
    got = bytearray()
    while link._sent < mark:  # the hub does not run meanwhile
        got += drained(world, peer.sock)
        link._guarded(link._write_more)
    assert link._unsent
    world.kill(first)
    rest = world.spawn(peer_reads, peer.sock, 2 * (len(LARGE) + 10) - len(got))
    second.join()
    rest.join()
    assert ws.connected
    ws._link.abandon()


def drained(world, sock):
    """What there is to be read in a socket, which is not waited for."""
    with world.original('socket', 'socket')(fileno=os.dup(sock.fileno())) as tcp:
        data = b''
        with suppress(BlockingIOError):
            while part := tcp.recv(1 << 20, socket.MSG_DONTWAIT):
                data += part
        return data


def peer_reads(sock, size):
    while size > 0:
        size -= len(sock.recv(1 << 16))
