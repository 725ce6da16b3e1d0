"""A hub, what it calls itself, and the threads that are not its own."""

from __future__ import annotations

import gc
import os
import weakref

import pytest
from support.frames import BINARY, TEXT
from support.peer import accepted, is_receiving
from support.points import call_soon

from simple_websocket import ConnectionClosed, broadcast, get_profile
from simple_websocket.profiles.link import TURN

pytestmark = [pytest.mark.only('green'), pytest.mark.only('default-codec')]
LARGE = b'x' * 16_000_000  # more than TCP takes of a peer that does not read


def in_the_hub(world, function):
    """Call a function in the hub itself, which cannot wait; returns its result."""
    outcome = []

    def run():
        try:
            outcome.append(('result', function()))
        except BaseException as error:
            outcome.append(('error', error))

    call_soon(world, run)
    ((kind, value),) = world.wait_until(lambda: outcome)
    if kind == 'error':
        raise value
    return value


# What a callback of the hub may do with a connection


def test_it_receives_what_is_there_and_does_not_wait(world):
    ws, peer = accepted(world, max_queue=2 * TURN)
    peer.send(*[(TEXT, b'%d' % number) for number in range(TURN + 5)])
    world.wait_until(lambda: len(ws.input_buffer) == TURN + 5)
    got = in_the_hub(world, lambda: [ws.receive() for _ in range(TURN + 6)])
    assert got == [str(number) for number in range(TURN + 5)] + [None]
    ws._link.abandon()


def test_it_may_look_where_nothing_has_come(world):
    ws, peer = accepted(world)
    receiving = world.spawn(ws.receive)
    world.wait_until(lambda: ws._link._receiver is not None)
    in_the_hub(world, ws._link._on_readable)
    assert not receiving.done
    peer.send((TEXT, b'now'))
    assert receiving.join() == 'now'
    ws._link.abandon()


def test_it_sends_what_tcp_takes_and_leaves_the_rest_to_the_hub(world):
    ws, peer = accepted(world, compression=None)
    with world.ticker() as ticker:
        in_the_hub(world, lambda: ws.send(LARGE))
        assert ws._link._unsent
        reading = world.spawn(peer.expect, BINARY, LARGE)
        reading.join()
    assert ticker.ticks
    ws._link.abandon()


def test_it_begins_a_close_that_ends_by_itself(world):
    ws, peer = accepted(world)
    in_the_hub(world, lambda: ws.close(4000))
    peer.expect_close(4000)
    peer.send(peer.close_frame(4000))
    peer.expect_eof()
    peer.close()
    world.settles_to(lambda: ws._link.finished, True)


# What other OS threads may do with it, see also test_profiles.py


def test_another_os_thread_receives(world, classes):
    ws, peer = accepted(world, **classes)
    task = world.real_thread(lambda: [ws.receive(), ws.receive(5), ws.receive(0.01)])
    peer.send((TEXT, b'one'))
    world.sleep(0.02)
    peer.send((TEXT, b'two'))
    assert task.join() == ['one', 'two', None]
    ws._link.abandon()


def test_another_os_thread_wakes_waits_and_gives_up(world):
    bystander, _ = accepted(world)
    ws, peer = accepted(world)
    receiving = world.spawn(lambda: pytest.raises(ConnectionClosed, ws.receive).value.reason)
    world.wait_until(lambda: is_receiving(ws))
    world.real_thread(ws.event.set).join()
    world.real_thread(ws.thread.join, 0.01).join()
    assert ws.connected and not receiving.done
    world.real_thread(ws._link.give_up).join()
    world.real_thread(ws.thread.join, 5).join()
    assert receiving.join() == 1006 and not ws.thread.is_alive()
    peer.expect_eof()
    bystander._link.abandon()


def test_a_broadcast_of_another_os_thread_waits_there(world):
    ws, peer = accepted(world, compression=None)
    broadcast([ws], LARGE)
    task = world.real_thread(lambda: broadcast([ws], 'behind', slow='wait', timeout=20))
    with world.ticker() as ticker:
        peer.expect(BINARY, LARGE)
        peer.expect(TEXT, b'behind')
    assert task.join().sent == [ws] and ticker.ticks
    ws._link.abandon()


def test_waiting_for_the_end_takes_no_longer_than_it_may(world):
    ws, peer = accepted(world)
    with world.ticker() as ticker:
        ws.thread.join(0.05)
    assert ws.thread.is_alive() and ticker.ticks
    ws._link.abandon()


@pytest.mark.only('gevent')
def test_a_reader_that_is_killed_fails_the_connection(world):
    """Nobody would notice anything any more."""
    import gevent

    class Thread(gevent.Greenlet):
        def __init__(self, target):
            super().__init__(target)

    ws, peer = accepted(world, thread_class=Thread)
    receiving = world.spawn(lambda: pytest.raises(ConnectionClosed, ws.receive).value.reason)
    world.wait_until(lambda: is_receiving(ws))
    ws.thread.kill()
    assert receiving.join() == 1006
    peer.expect_eof()


def test_who_is_killed_by_another_that_waited_for_the_end_is_not_resumed(world):
    """Anything may have changed behind each switch."""
    import greenlet

    ws, peer = accepted(world)
    order = []

    def first():
        ws.thread.join()
        order.append('first')
        call_soon(world, greenlet.getcurrent().switch)
        tasks[1].greenlet.throw(greenlet.GreenletExit)

    tasks = [world.spawn(first), world.spawn(ws.thread.join)]
    world.wait_until(lambda: len(ws._link._closers or ()) == 2)
    peer.send(peer.close_frame(1000))
    with pytest.raises(ConnectionClosed):
        ws.receive()
    peer.close()
    for task in tasks:
        task.join()
    assert order == ['first'] and tasks[1].killed and ws._link._closers == []


@pytest.mark.only('eventlet')
def test_the_profile_of_eventlet_has_a_thread_and_an_event(world):
    """As the standard library's, which eventlet's own are not everywhere."""
    profile = get_profile('eventlet')
    event, started = profile.event_class(), profile.event_class()

    def run():
        started.set()
        event.wait()

    thread = profile.thread_class(target=run)
    thread.start()
    assert started.wait(5)
    thread.join(0.01)
    assert not event.is_set() and not event.wait(0.01)
    event.set()
    event.set()
    thread.join(5)
    assert event.is_set() and event.wait()
    event.clear()
    event.clear()
    assert not event.is_set()


@pytest.mark.only('eventlet')
def test_calls_of_other_os_threads_are_carried_however_many_there_are(world):
    """More than wake-ups fit into what tells the hub of them."""
    from simple_websocket.profiles.eventlet import _Mailbox

    ws, peer = accepted(world)
    box = ws._link._mailbox
    assert _Mailbox.of(ws._link._hub) is box
    done = []
    os.eventfd_write(box._waker.fd, 2**64 - 2)
    for number in range(3):
        box.post(lambda number=number: done.append(number))
    world.wait_until(lambda: done == [0, 1, 2])
    world.real_thread(ws.send, 'from afar').join()
    peer.expect(TEXT, b'from afar')
    ws._link.abandon()


@pytest.mark.only('eventlet')
def test_what_was_posted_when_the_last_connection_went_is_done_all_the_same(world):
    from simple_websocket.profiles.eventlet import _Mailbox

    ws, _ = accepted(world)
    box, hub, user = ws._link._mailbox, ws._link._hub, id(ws._link)
    world.wait_until(lambda: box._users == {user})
    done = []
    box.post(lambda: done.append(True))
    ws._link.give_up()
    world.wait_until(lambda: done)
    another, peer = accepted(world)
    assert _Mailbox._boxes[hub] is another._link._mailbox is not box
    box.drop(user)  # an end that was interrupted is begun again
    assert _Mailbox._boxes[hub] is another._link._mailbox
    world.real_thread(another.send, 'from afar').join()
    peer.expect(TEXT, b'from afar')
    another._link.abandon()


@pytest.mark.only('eventlet')
def test_who_takes_the_number_of_the_mailbox_harms_no_connection(world):
    """Somebody has closed a descriptor that was not his, and it is in use again."""
    from eventlet import hubs

    ws, peer = accepted(world)
    hubs.notify_opened(ws._link._mailbox._waker.fd)
    world.sleep(0.01)  # the hub tells the old listener
    peer.send((TEXT, b'hello'))
    assert ws.receive(5) == 'hello'
    ws.send('there')
    peer.expect(TEXT, b'there')
    ws._link.give_up()
    peer.expect_eof()


@pytest.mark.only('eventlet')
def test_an_end_that_was_interrupted_behind_the_hub_is_begun_again(world):
    """The hub has forgotten its listeners, and nobody else knows of that."""
    ws, peer = accepted(world)
    link = ws._link
    for ear in (link._readers._ear, link._mailbox._ear):
        link._hub.remove(ear._handle)
    link.give_up()
    assert link.finished and not link._mailbox._users
    peer.expect_eof()


# What ends by an exception that nobody catches: a hub has it come out of its switch


def spawn_bare(world, function):
    """A greenlet as the library makes it where nothing is to look after it."""
    if world.name == 'gevent':
        import gevent

        gevent.spawn_raw(function)
    else:
        import eventlet

        eventlet.spawn(function)


def test_who_dies_of_the_end_keeps_nobody_from_being_told(world, capfd):
    ws, peer = accepted(world, compression=None)
    for _ in range(4):
        spawn_bare(world, lambda: ws.send(LARGE))
    receiver = world.spawn(ws.receive)
    world.wait_until(lambda: len(ws._link._senders or ()) == 4 and ws._link._receiver)
    peer.close()
    with pytest.raises(ConnectionClosed):
        receiver.join()
    world.settles_to(lambda: list(ws._link._senders or ()), [])


def test_who_dies_when_it_has_sent_does_not_hold_up_the_next(world, capfd):
    ws, peer = accepted(world, compression=None)
    sent = []

    def send(number):
        ws.send(LARGE)
        sent.append(number)
        raise RuntimeError(f'{number} is done')

    for number in range(3):
        spawn_bare(world, lambda number=number: send(number))
    world.wait_until(lambda: len(ws._link._senders or ()) == 3)
    for _ in range(3):
        assert peer.read() == (BINARY, LARGE)
    world.wait_until(lambda: sent == [0, 1, 2])
    task = world.spawn(ws.send, LARGE)
    assert peer.read() == (BINARY, LARGE)
    task.join()
    ws._link.abandon()


def test_who_was_seen_waiting_by_the_collector_is_let_go_of(world):
    """It looks into no tuple again that had a suspended greenlet in it."""
    import greenlet

    ws, peer = accepted(world, compression=None)
    link = ws._link

    def send():
        with pytest.raises(ConnectionClosed) as closed:
            ws.send(LARGE)
        greenlet.getcurrent().ended_by = closed.value  # with the frames of its wait

    task = world.spawn(send)
    world.wait_until(lambda: link._senders)
    gc.collect()
    peer.close()
    task.join()
    world._tasks.clear()
    seen = weakref.ref(link)
    ws = task = send = link = None

    def let_go():
        gc.collect()
        return seen() is None

    world.wait_until(let_go)


def test_a_handler_that_dies_behind_a_message_leaves_the_others_their_ears(world, capfd):
    ws, peer = accepted(world)
    other, another = accepted(world)

    def receive():
        raise RuntimeError(ws.receive())

    spawn_bare(world, receive)
    world.wait_until(lambda: ws._link._receiver)
    peer.send((TEXT, b'one'))
    world.wait_until(lambda: ws._link._receiver is None)
    for connection, end in ((ws, peer), (other, another)):
        receiver = world.spawn(connection.receive)
        end.send((TEXT, b'two'))
        assert receiver.join() == 'two'
        connection._link.abandon()


def test_a_thread_that_takes_what_an_end_has_left_gives_nobody_way(world):
    ws, peer = accepted(world, max_queue=3 * TURN)
    peer.send(*[(TEXT, b'%d' % number) for number in range(2 * TURN)])
    world.wait_until(lambda: len(ws.input_buffer) == 2 * TURN)
    peer.close()
    world.wait_until(lambda: ws._link.finished)

    def take():
        return [ws.receive() for _ in range(2 * TURN)]

    assert world.real_thread(take).join() == [str(number) for number in range(2 * TURN)]
