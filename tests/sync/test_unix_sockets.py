"""Unix sockets, as between a reverse proxy and its server: they know no
half-close for reading that the peer would not notice."""

from __future__ import annotations

import pytest
from support.frames import TEXT
from support.peer import Peer, environ_for, is_receiving

from simple_websocket import ConnectionClosed, Server

pytestmark = pytest.mark.only('default-codec')


@pytest.fixture
def unix_end(world, classes):
    ours, theirs = world.socketpair()
    ws = Server(environ_for(ours), **classes)
    peer = Peer(theirs, client=True)
    peer.head()
    return ws, peer


def test_a_close_beside_a_waiting_receiver_lets_the_peer_answer(unix_end, world):
    ws, peer = unix_end
    receiver = world.spawn(ws.receive)
    peer.send((TEXT, b'one'))
    assert receiver.join() == 'one'
    receiver = world.spawn(ws.receive)
    world.wait_until(lambda: is_receiving(ws))
    closer = world.spawn(ws.close, 4000)
    peer.expect_close(4000)
    with pytest.raises(ConnectionClosed) as closed:
        receiver.join()
    assert closed.value.reason == 4000
    peer.send(peer.close_frame(4000))
    peer.expect_eof()
    closer.join()
    peer.close()
    world.settles_to(lambda: ws._link.finished, True)


def test_what_socketpair_gives_in_this_world_will_do(world):
    # A patched eventlet's has two layers of green socket.
    ours, theirs = world.socket.socketpair()
    ws = Server(environ_for(world.closing(ours)))
    peer = Peer(world.closing(theirs), client=True)
    peer.head()
    peer.send((TEXT, b'in'))
    assert ws.receive(5) == 'in'
    ws.send('out')
    peer.expect(TEXT, b'out')
    peer.close()
    with pytest.raises(ConnectionClosed):
        ws.receive(5)
