"""What programs that were written for 1.x do, and 1.x took."""

from __future__ import annotations

import ctypes
import ssl
import threading

import pytest
from support.frames import BINARY, CLOSE, PING, PONG, TEXT
from support.peer import accepted, connected, environ_for, is_receiving, tcp_pair

from simple_websocket import Client, Server
from simple_websocket.profiles import threads


class OldServer(Server):
    """With the constructor that one of 1.x has."""

    def __init__(
        self,
        environ,
        subprotocols=None,
        receive_bytes=4096,
        ping_interval=None,
        max_message_size=None,
        thread_class=None,
        event_class=None,
        selector_class=None,
    ):
        super().__init__(
            environ, subprotocols, receive_bytes, ping_interval, max_message_size,
            thread_class, event_class, selector_class,
        )  # fmt: skip


class OldClient(Client):
    """The same."""

    def __init__(
        self,
        url,
        subprotocols=None,
        headers=None,
        receive_bytes=4096,
        ping_interval=None,
        max_message_size=None,
        ssl_context=None,
        thread_class=None,
        event_class=None,
    ):
        super().__init__(
            url, subprotocols, headers, receive_bytes, ping_interval, max_message_size,
            ssl_context, thread_class, event_class,
        )  # fmt: skip


class LooseServer(Server):
    def __init__(self, environ, **options):
        super().__init__(environ, **options)


class LooseClient(Client):
    def __init__(self, url, **options):
        super().__init__(url, **options)


@pytest.mark.parametrize('kind', [OldServer, LooseServer, OldClient, LooseClient])
def test_a_subclass_may_have_a_constructor_of_its_own(world, monkeypatch, kind):
    if issubclass(kind, Server):
        _, ours = tcp_pair(world)
        ws = kind.accept(environ_for(ours), max_message_size=5)
    else:
        monkeypatch.setattr('support.peer.Client', kind)
        ws, _ = connected(world, max_message_size=5)
    assert type(ws) is kind and ws._options.max_message_size == 5
    ws._link.abandon()


@pytest.mark.only('threads')
@pytest.mark.only('default-codec')
@pytest.mark.parametrize('timeout', [None, 30])
def test_who_is_on_the_way_into_the_wait_is_given_it_too(world, monkeypatch, timeout):
    ws, peer = accepted(world)
    get_ident, going = threads.get_ident, []

    def meanwhile():
        """Called under the lock, behind the last look at the queue."""
        if not going:
            going.append(world.spawn(lambda: (ws.input_buffer.append('x'), ws.event.set())))
            world.wait_until(lambda: ws.input_buffer)
        return get_ident()

    monkeypatch.setattr(threads, 'get_ident', meanwhile)
    ws._link._adopted = True  # the long way
    receiver = world.spawn(ws.receive, timeout)
    peer.expect(PING, b'')
    peer.send((PONG, b''))
    assert receiver.join() == 'x'
    ws._link.abandon()


@pytest.mark.only('threads')
def test_who_waits_is_woken_when_tcp_takes_more(world):
    """A ping has to wait for what is half written."""
    ws, peer = accepted(world, compression=None)
    receiver = world.spawn(ws.receive)
    world.wait_until(lambda: ws._link._blocked)
    sender = world.spawn(ws.send, b'x' * 16_000_000)
    world.wait_until(lambda: ws._link.protocol.congested)
    ws.input_buffer.append('from within')
    ws.event.set()
    peer.expect(BINARY)
    peer.send((PONG, peer.expect(PING)))
    assert receiver.join() == 'from within'
    sender.join()
    ws._link.abandon()


def answer_pings_of(ws, peer):
    """In recv, a thread comes back with bytes only: it asks for a pong."""
    if getattr(ws._link, '_waker', True) is None:
        peer.expect(PING, b'')
        peer.send((PONG, b''))


def test_who_waits_is_given_what_the_application_puts_into_the_buffer(end, world):
    ws, peer = end()
    receiver = world.spawn(ws.receive)
    world.wait_until(lambda: is_receiving(ws))
    ws.input_buffer.append('from within')
    ws.event.set()
    answer_pings_of(ws, peer)
    assert receiver.join() == 'from within'
    peer.send((TEXT, b'from without'))
    assert ws.receive(5) == 'from without'


def test_what_is_in_the_buffer_comes_before_what_the_peer_sends_then(end, world):
    ws, peer = end()
    receiver = world.spawn(ws.receive)
    world.wait_until(lambda: is_receiving(ws))
    ws.input_buffer.append('first')
    peer.send((TEXT, b'second'))
    assert receiver.join() == 'first'
    assert ws.receive(5) == 'second'


TAKE = {
    'pop(0)': lambda buffer: [buffer.pop(0)],
    'popleft': lambda buffer: [buffer.popleft()],
    'clear': lambda buffer: [list(buffer), buffer.clear()][0],
    'del': lambda buffer: [buffer[0], buffer.__delitem__(0)][:1],
}


@pytest.mark.parametrize('way', TAKE)
def test_who_takes_from_the_buffer_only_gets_everything(end, world, way):
    ws, peer = end(max_queue=4)
    peer.send(*[(TEXT, b'%d' % number) for number in range(50)], (PING, b'behind'))
    taken = []
    while len(taken) < 50:
        world.wait_until(lambda: ws.input_buffer)
        taken += TAKE[way](ws.input_buffer)
    assert taken == [str(number) for number in range(50)]
    peer.expect(PONG, b'behind')
    peer.send((CLOSE, (1000).to_bytes(2, 'big')))
    peer.expect(CLOSE)
    world.wait_until(lambda: not ws.connected)


def test_the_buffer_makes_room_from_another_thread_too(end, world):
    ws, peer = end(max_queue=2)
    peer.send(*[(TEXT, b'%d' % number) for number in range(5)])
    world.wait_until(lambda: len(ws.input_buffer) == 2)
    assert world.real_thread(ws.input_buffer.pop, 0).join() == '0'
    world.wait_until(lambda: len(ws.input_buffer) == 2)
    assert [ws.receive(5) for _ in range(4)] == ['1', '2', '3', '4']


def test_a_buffer_whose_connection_is_gone_can_still_be_emptied(end, world):
    ws, peer = end(max_queue=2)
    peer.send(*[(TEXT, b'%d' % number) for number in range(5)])
    world.wait_until(lambda: len(ws.input_buffer) == 2)
    ws._link.give_up()
    taken = []
    while ws.input_buffer:
        taken.append(ws.input_buffer.pop(0))
    assert taken == [str(number) for number in range(5)]


def test_a_number_that_has_a_buffer_is_sent_as_a_number(end):
    ws, peer = end()
    number = ctypes.c_int(5)  # NumPy's are alike
    assert memoryview(number).ndim == 0
    ws.send(number)
    peer.expect(TEXT, str(number).encode())


@pytest.mark.only('default-codec')
def test_the_choice_of_a_subprotocol_may_look_at_the_connection(world, classes):
    seen = []

    class Curious(Server):
        def choose_subprotocol(self, request):
            seen.extend([self.sock.getpeername(), self.environ, request.extra_headers])
            return None

    theirs, ours = tcp_pair(world)
    environ = environ_for(ours, cookie='a=1', sec_websocket_protocol='x')
    ws = Curious.accept(environ, **classes)
    assert seen == [theirs.getsockname(), environ, [(b'cookie', b'a=1')]]
    ws._link.abandon()


@pytest.mark.only('threads')
@pytest.mark.only('default-codec')
def test_the_thread_of_a_reader_lets_the_program_end(world):
    """Also where the application's class does not say so."""
    ws, _ = accepted(world, thread_class=threading.Thread)
    assert ws.thread.daemon
    ws._link.abandon()

    class Fixed:
        daemon = property(lambda self: False)

        def __init__(self, target):
            self.start = lambda: threading.Thread(target=target, daemon=True).start()

    ws, peer = accepted(world, thread_class=Fixed)
    peer.send((TEXT, b'hello'))
    assert ws.receive(5) == 'hello'
    ws._link.abandon()


@pytest.mark.only('default-codec')
def test_a_context_of_before_the_patching_is_one(world):
    made = world.original('ssl', 'SSLContext')(ssl.PROTOCOL_TLS_CLIENT)
    with pytest.raises(OSError):  # there is nobody
        Client.connect('wss://127.0.0.1:1', ssl_context=made)
    with pytest.raises(TypeError, match=r'ssl_context must be an ssl.SSLContext, not 5'):
        Client.connect('wss://127.0.0.1:1', ssl_context=5)


class Point(ctypes.Structure):
    _fields_ = (('x', ctypes.c_uint8), ('y', ctypes.c_uint8))


def test_a_structure_and_a_view_without_dimensions_are_binary(end):
    ws, peer = end()
    for data in (Point(1, 2), memoryview(Point(1, 2))):
        ws.send(data)
        peer.expect(BINARY, b'\x01\x02')
    ws.send(memoryview(b'a').cast('B', shape=[]))
    peer.expect(BINARY, b'a')


def test_no_thread_of_ours_is_among_those_that_a_program_counts(world):
    theirs, ours = world.socketpair()
    before = threading.enumerate()
    ws = Server.accept(environ_for(ours))
    assert threading.enumerate() == before
    ws._link.give_up()
    assert threading.enumerate() == before


def test_a_program_may_ask_whether_the_pong_has_come(end):
    ws, peer = end()
    assert ws.pong_received is True
    ws._link.give_up()
    assert ws.pong_received is False


def test_the_event_is_set_when_the_peer_closes_while_a_message_is_answered(end, world):
    ws, peer = end()
    if ws.event.__class__.__module__ != 'simple_websocket.connection':
        return  # of the injected class, which receive() clears
    peer.send((TEXT, b'a question'))
    assert ws.receive(5) == 'a question'
    peer.send((CLOSE, (1000).to_bytes(2, 'big')))
    world.wait_until(ws.event.is_set, 4)
    assert ws.connected
