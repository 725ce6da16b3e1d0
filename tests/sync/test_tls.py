"""TLS: nothing stays behind OpenSSL, nothing freezes, two threads never meet in it."""

from __future__ import annotations

import os
import socket
import ssl

import pytest
import trustme
from support.frames import BINARY, PING, TEXT, fragments, wire
from support.peer import Peer, environ_for, is_receiving, switching

from simple_websocket import Client, ConnectionClosed, Server, broadcast

CA = trustme.CA()
CERT = CA.issue_cert('localhost', '127.0.0.1')


def context(world, server):
    made = world.ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    if server:
        CERT.configure_cert(made)
    else:
        CA.configure_trust(made)
    return made


@pytest.fixture
def tls_end(world, role, classes):
    """`ws, peer = tls_end(**options)`: like `end`, over TLS."""
    made = []

    def make_server(**options):
        listener, port = world.listen()

        def dial():
            raw = world.connect(port)
            return Peer(
                world.closing(
                    context(world, False).wrap_socket(raw, server_hostname='localhost')
                ),
                client=True,
            )

        task = world.spawn(dial)
        sock = world.closing(listener.accept()[0])
        sock.settimeout(5)
        tls = world.closing(context(world, True).wrap_socket(sock, server_side=True))
        peer = task.join()
        ws = Server.accept(environ_for(tls), **classes, **options)
        peer.head()
        return ws, peer

    def make_client(**options):
        listener, port = world.listen()

        def serve():
            sock = world.closing(listener.accept()[0])
            tls = context(world, True).wrap_socket(sock, server_side=True)
            peer = Peer(world.closing(tls), client=False)
            peer.send(switching(peer.head()))
            return peer

        task = world.spawn(serve)
        options.setdefault('ssl_context', context(world, False))
        ws = Client.connect(f'wss://127.0.0.1:{port}', **classes, **options)
        return ws, task.join()

    def make(**options):
        ws, peer = (make_server if role == 'server' else make_client)(**options)
        made.append((ws, peer))
        return ws, peer

    yield make
    for ws, peer in made:
        peer.close()
        ws._link.abandon()
        world.settles_to(lambda ws=ws: ws._link.finished, True)


def test_a_message_that_openssl_holds_back_arrives_at_once(tls_end):  # A3
    ws, peer = tls_end(ping_interval=30)
    for size in (12_000, 100, 16_384, 16_385, 70_000, 300_000):
        peer.send((BINARY, bytes(size)))
        assert len(ws.receive(timeout=5)) == size


def test_many_messages_in_one_record_arrive_at_once(tls_end):
    ws, peer = tls_end(max_queue=3)
    peer.send(*[(TEXT, b'%d' % number) for number in range(500)])
    assert [ws.receive(5) for _ in range(500)] == [str(number) for number in range(500)]


def test_sixteen_mebibytes_over_tls_in_both_directions(tls_end, world):
    ws, peer = tls_end(compression=None)
    data = bytes(range(256)) * 65536
    task = world.spawn(ws.send, data)
    assert peer.expect(BINARY) == data
    task.join()
    sender = world.spawn(peer.send, (BINARY, data))
    assert ws.receive(20) == data
    sender.join(20)


def test_both_ends_send_before_they_read_over_tls(tls_end, world):
    """Who receives here makes room for what the peer sends, however much of ours it has
    not read yet."""
    ws, peer = tls_end(compression=None)
    data = bytes(range(256)) * 65536
    receiver = world.spawn(ws.receive)
    sender = world.spawn(ws.send, data)
    peer.send((BINARY, data))
    assert peer.expect(BINARY) == data
    assert receiver.join(20) == data
    sender.join(20)


@pytest.mark.parametrize('count', [10_000, 18_000])
def test_of_a_record_of_tiny_frames_nothing_is_left_in_openssl(tls_end, world, count):
    """Such frames are read in small bites, and a poll tells of none that is there."""
    ws, peer = tls_end(compression=None, max_fragments=None)
    receiver = world.spawn(ws.receive)
    peer.send(wire(fragments(TEXT, *[b'x'] * count), peer.client))
    assert receiver.join() == 'x' * count


def test_senders_and_a_receiver_at_once_over_tls(tls_end, world):  # invariant 9
    ws, peer = tls_end(compression=None)

    def sender(number):
        for _ in range(20):
            ws.send(bytes([number]) * 30_000)

    def receiver():
        return [ws.receive(20) for _ in range(60)]

    def talk():
        for number in range(60):
            peer.send((BINARY, b'%02d' % number * 10_000))

    tasks = [world.spawn(sender, number) for number in range(4)]
    got, talking = world.spawn(receiver), world.spawn(talk)
    for _ in range(80):
        payload = peer.expect(BINARY)
        assert len(payload) == 30_000 and len(set(payload)) == 1
    for task in [*tasks, talking]:
        task.join(20)
    assert got.join(20) == [b'%02d' % number * 10_000 for number in range(60)]


def test_closing_over_tls(tls_end, world):
    ws, peer = tls_end()
    task = world.spawn(ws.close, 4000)
    peer.expect_close(4000)
    peer.send(peer.close_frame(4000))
    task.join()
    if peer.client:
        peer.expect_eof()


@pytest.mark.only('gevent')
def test_gevent_may_wonder_about_its_socket_behind_the_close_notify(tls_end):
    """On some versions of CPython its unwrap() gets the socket back from OpenSSL, and
    asserts that it is its own, which a host's has not any more."""
    ws, peer = tls_end()
    wire = ws._link.wire

    def wondering(sock):
        raise AssertionError

    wire._unwrap = wondering
    wire.shutdown_write()
    assert wire._unwrap is None
    peer.expect_eof()
    ws._link.give_up()


def test_a_receiver_is_released_by_a_close_over_tls(tls_end, world):  # A5
    ws, peer = tls_end(close_timeout=3)
    receiver = world.spawn(lambda: pytest.raises(ConnectionClosed, ws.receive))
    world.wait_until(lambda: is_receiving(ws))
    closer = world.spawn(ws.close, 4000)
    assert receiver.join(2).value.reason == 4000
    peer.expect_close(4000)
    peer.send(peer.close_frame(4000))
    closer.join(2)


def test_the_end_of_tcp_without_close_notify_is_1006(tls_end):  # B13
    ws, peer = tls_end()
    beneath = socket.socket(fileno=os.dup(peer.sock.fileno()))
    beneath.shutdown(socket.SHUT_RDWR)
    beneath.close()
    for _ in range(2):
        with pytest.raises(ConnectionClosed) as closed:
            ws.receive(5)
        assert (closed.value.reason, closed.value.__cause__) == (1006, None)


def test_the_keepalive_over_tls(tls_end, world):
    ws, peer = tls_end(ping_interval=0.05, ping_timeout=2)
    task = world.spawn(lambda: pytest.raises(ConnectionClosed, ws.receive))
    for _ in range(3):
        payload = peer.expect(PING)
        peer.send((0xA, payload))
    peer.send(peer.close_frame(1000))
    task.join()


def test_the_default_context_verifies(world, classes):
    listener, port = world.listen()

    def serve():
        tls = context(world, True).wrap_socket(
            listener.accept()[0], server_side=True, do_handshake_on_connect=False
        )
        with pytest.raises(OSError):  # the client hangs up
            world.closing(tls).do_handshake()

    task = world.spawn(serve)
    with pytest.raises(ssl.SSLCertVerificationError):
        Client.connect(f'wss://127.0.0.1:{port}', **classes)
    task.join()


def test_the_name_to_verify_can_be_given(world, classes):
    listener, port = world.listen()

    def serve():
        sock = world.closing(listener.accept()[0])
        peer = Peer(
            world.closing(context(world, True).wrap_socket(sock, server_side=True)), False
        )
        peer.send(switching(peer.head()))
        return peer

    task = world.spawn(serve)
    ws = Client.connect(
        f'wss://127.0.0.1:{port}',
        ssl_context=context(world, False),
        server_hostname='localhost',
        **classes,
    )
    assert ws.sock.getpeercert()['subjectAltName']
    task.join()
    ws._link.abandon()


def test_a_tls_handshake_that_hangs_freezes_nobody_and_ends(world, classes):
    listener, port = world.listen()
    with world.ticker() as ticker, pytest.raises(TimeoutError):
        Client.connect(
            f'wss://127.0.0.1:{port}',
            ssl_context=context(world, False),
            open_timeout=0.3,
            **classes,
        )
    assert ticker.ticks > 10


def test_a_broadcast_goes_through_openssl(tls_end):
    ws, peer = tls_end()
    assert broadcast([ws], 'news') == ([ws], [], [])
    peer.expect(TEXT, b'news')


def test_tls_of_the_callers_is_with_whom_the_url_says(world):
    """It is used as it is: there is none within it."""
    with world.socket.socket() as raw:
        made = context(world, False)
        sock = made.wrap_socket(raw, server_hostname='proxy', do_handshake_on_connect=False)
        with pytest.raises(ValueError, match='sock does TLS with proxy, and not with bank'):
            Client.connect('wss://bank', sock=sock)
    for options in ({'ssl_context': made}, {'server_hostname': 'bank'}):
        with world.socket.socket() as raw:
            sock = made.wrap_socket(raw, server_hostname='bank', do_handshake_on_connect=False)
            with pytest.raises(ValueError, match='sock does TLS already'):
                Client.connect('wss://bank', sock=sock, **options)
