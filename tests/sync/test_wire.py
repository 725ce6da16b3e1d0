"""The end of a stream that was shut for reading: nothing before it is missed."""

from __future__ import annotations

import os

import pytest
from support.frames import TEXT
from support.peer import Peer, environ_for, switching, tcp_pair
from sync.test_tls import context

from simple_websocket import Client, Server
from simple_websocket.profiles.wire import Wire

pytestmark = pytest.mark.only('default-codec')


def tls_pair(world, **options):
    """A server's and a client's end of one connection."""
    theirs, ours = tcp_pair(world)
    task = world.spawn(
        lambda: context(world, False).wrap_socket(theirs, server_hostname='localhost')
    )
    tls = context(world, True).wrap_socket(ours, server_side=True, **options)
    return world.closing(tls), world.closing(task.join())


@pytest.mark.parametrize('name', ['recv', 'discard'])
def test_bytes_that_come_between_an_empty_look_and_the_end_are_read(world, name):
    # recv gives b'' for nothing there as well as for the end, once the socket
    # is shut for reading: which it was is asked afterwards.
    theirs, ours = tcp_pair(world)
    asked = []

    class Late(Wire):
        def ended(self):
            if not asked:
                asked.append(True)
                theirs.sendall(b'goodbye')
                theirs.close()
                world.wait_until(super().ended)
            return super().ended()

    wire = Late(ours)
    wire.shutdown_read()
    assert getattr(wire, name)(100) == b'goodbye'
    assert getattr(wire, name)(100) == b''
    wire.close()


def test_the_end_of_a_unix_socket_is_seen_in_another_way(world):
    """There is no TCP to ask; as for any socket where the system tells nothing of it."""
    theirs, ours = world.socketpair()
    wire = Wire(ours)
    wire.shutdown_read()
    assert wire.recv(100) is None
    theirs.close()
    world.wait_until(wire.ended)
    assert wire.recv(100) == b''
    wire.close()


def test_tls_that_ends_without_saying_so_has_just_ended(world):
    """Also where the socket is made to complain of it."""
    ours, theirs = tls_pair(world, suppress_ragged_eofs=False)
    wire = Wire(ours)
    wire.send(b'x')
    theirs.recv(1)  # and the session's tickets: what is unread makes a reset of the end
    os.close(theirs.detach())
    world.wait_until(lambda: wire.recv(100) is not None)
    assert wire.recv(100) == b''
    wire.close()


class Foreign:
    """A TLS socket that is none of the standard library's, nor made of one."""

    def __init__(self, tls):
        self.tls = tls
        self.family = tls.family
        self.said_goodbye = False

    def fileno(self):
        return self.tls.fileno()

    def do_handshake(self):
        self.tls.do_handshake()

    def setblocking(self, flag):
        self.tls.setblocking(flag)

    def settimeout(self, timeout):
        self.tls.settimeout(timeout)

    def setsockopt(self, *option):
        self.tls.setsockopt(*option)

    def recv(self, size, flags=0):
        return self.tls.recv(size)

    def send(self, data):
        return self.tls.send(data)

    def unwrap(self):
        self.said_goodbye = True

    def shutdown(self, how):
        self.tls.shutdown(how)

    def detach(self):
        return self.tls.detach()

    def close(self):
        self.tls.close()


def test_a_tls_socket_of_another_make_will_do(world):
    ours, theirs = tls_pair(world)
    foreign = Foreign(ours)
    ws = Server.accept(environ_for(foreign), profile=world.name)
    peer = Peer(theirs, client=True)
    peer.head()
    peer.send((TEXT, b'hello'))
    assert ws.receive(5) == 'hello'
    ws.send('there')
    peer.expect(TEXT, b'there')
    closing = world.spawn(ws.close, 4000)
    peer.expect_close(4000)
    peer.send(peer.close_frame(4000))
    closing.join()
    peer.expect_eof()
    assert foreign.said_goodbye
    peer.close()
    world.settles_to(lambda: ws._link.finished, True)


class Plain:
    """A socket that is none of the standard library's, nor made of one."""

    def __init__(self, sock):
        for name in ('close', 'detach', 'fileno', 'setblocking', 'setsockopt'):
            setattr(self, name, getattr(sock, name))
        self.sock = sock
        self.family = sock.family

    def recv(self, *args):
        return self.sock.recv(*args)

    def send(self, *args):
        return self.sock.send(*args)

    def shutdown(self, how):
        self.sock.shutdown(how)

    def settimeout(self, timeout):
        self.sock.settimeout(timeout)

    def detach(self):
        return self.sock.detach()


def test_a_socket_of_another_make_will_do(world):
    theirs, ours = tcp_pair(world)
    ws = Server.accept(environ_for(Plain(ours)), profile=world.name)
    peer = Peer(theirs, client=True)
    peer.head()
    peer.send((TEXT, b'hello'))
    assert ws.receive(5) == 'hello'
    ws.send('there')
    peer.expect(TEXT, b'there')
    closing = world.spawn(ws.close, 4000)
    peer.expect_close(4000)
    peer.send(peer.close_frame(4000))
    closing.join()
    peer.expect_eof()


@pytest.mark.parametrize('profile', ['threads', 'gevent', 'eventlet'])
def test_a_timeout_of_the_callers_socket_holds_up_nobody(world, profile):
    """CPython waits for it whatever the flags of a recv say."""
    if profile != world.name:
        return
    listener, port = world.listen()
    sock = world.original('socket', 'create_connection')(('127.0.0.1', port), 30)
    theirs = world.closing(listener.accept()[0])
    began = world.original('time', 'monotonic')()
    with pytest.raises(TimeoutError):
        Client.connect('ws://localhost', sock=sock, open_timeout=0.05, profile=profile)
    assert world.original('time', 'monotonic')() - began < 20
    theirs.close()
    sock = world.original('socket', 'create_connection')(('127.0.0.1', port), 30)
    theirs = world.closing(listener.accept()[0])
    task = world.spawn(lambda: theirs.sendall(switching(Peer(theirs, client=False).head())))
    ws = Client.connect('ws://localhost', sock=sock, profile=profile)
    task.join()
    assert ws.receive(timeout=0) is None and ws.connected
    if profile == 'threads':
        sock.settimeout(30)  # as others tell their clients how long to wait
        ws._link._guarded(ws._link._on_readable)
        assert sock.gettimeout() is None
    ws._link.give_up()
