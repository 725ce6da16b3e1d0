"""The harness itself, in each mode: a test can trust what it stands on."""

from __future__ import annotations

import importlib
import threading
import time

import pytest
from support import greenery, modes
from support import world as worlds

pytestmark = pytest.mark.only('default-codec')

MODE = modes.current()


@pytest.fixture
def other():
    """A world whose clean-up a test may look at."""
    return worlds.make(MODE)


def test_a_task_gives_its_result(world):
    assert world.spawn(lambda a, b: a + b, 2, 3).join() == 5


def test_join_raises_what_the_task_raised(world):
    def fail():
        raise LookupError('lost')

    with pytest.raises(LookupError, match='lost'):
        world.spawn(fail).join()


def test_join_gives_up_on_a_task_that_hangs(world):
    event = world.Event()
    task = world.spawn(event.wait)
    with pytest.raises(TimeoutError):
        task.join(timeout=0.05)
    event.set()
    task.join()


def test_tasks_pass_messages_over_sockets_of_their_world(world):
    listener, port = world.listen()

    def serve():
        connection = world.closing(listener.accept()[0])
        connection.sendall(connection.recv(100).upper())

    task = world.spawn(serve)
    client = world.connect(port)
    client.sendall(b'hello')
    assert client.recv(100) == b'HELLO'
    task.join()


def test_queues_and_events_join_tasks(world):
    requests, done = world.Queue(), world.Event()

    def work():
        assert requests.get() == 'one'
        done.set()

    task = world.spawn(work)
    requests.put('one')
    assert done.wait(5)
    task.join()


def test_the_ticker_ticks_while_a_socket_waits(world):
    one, two = world.socketpair()
    one.settimeout(0.2)
    with world.ticker() as ticker:
        with pytest.raises(TimeoutError):
            one.recv(1)
    assert ticker.ticks >= 10
    assert ticker.longest < 0.15


@pytest.mark.only('green')
def test_the_ticker_shows_a_frozen_hub(world):
    sleep = world.original('time', 'sleep')
    with world.ticker() as ticker:
        sleep(0.2)
    assert ticker.ticks <= 2
    assert ticker.longest >= 0.19


def test_a_real_thread_runs_while_the_hub_does(world):
    ident = world.original('_thread', 'get_ident')
    sleep = world.original('time', 'sleep')

    def work():
        sleep(0.1)
        return ident(), threading.get_native_id(), world.thread_ids()

    with world.ticker() as ticker:
        other, native, during = world.real_thread(work).join()
    assert other != ident()
    # By its number: a count changes with the threads of earlier tests, too.
    assert native in during
    assert ticker.ticks > 3
    world.wait_until(lambda: native not in world.thread_ids())


def test_a_real_thread_passes_its_exception_on(world):
    with pytest.raises(ZeroDivisionError):
        world.real_thread(lambda: 1 / 0).join()


def test_open_sockets_are_counted(world):
    one, two = world.socketpair()
    numbers = {one.fileno(), two.fileno()}
    assert numbers <= world.fd_numbers()
    one.close()
    two.close()
    world.wait_until(lambda: not numbers & world.fd_numbers())


def test_settles_to_says_what_it_saw(world):
    with pytest.raises(AssertionError, match='1 after 0 s, not 2'):
        world.settles_to(lambda: 1, 2, timeout=0)


@pytest.mark.only('green')
def test_a_killed_task_ends_without_an_error(world):
    seen = []

    def wait():
        try:
            world.Event().wait()
        finally:
            seen.append('cleaned up')

    task = world.spawn(wait)
    world.sleep(0)
    world.kill(task)
    assert task.join() is None
    assert task.killed and seen == ['cleaned up']


@pytest.mark.only('green')
def test_a_task_may_be_killed_before_it_ran(world):
    task = world.spawn(pytest.fail)
    world.kill(task)
    task.join()
    assert task.killed


@pytest.mark.only('green')
def test_a_timeout_ends_a_wait(world):
    with pytest.raises(world.Timeout):
        with world.Timeout(0.02):
            world.Event().wait()


def test_a_task_left_running_is_a_complaint_and_is_ended(other):
    one, two = other.socketpair()
    task = other.spawn(one.recv, 1)
    assert other.finish() == [f'{task!r} was left running']
    assert task.done


def test_a_failure_that_nobody_saw_is_a_complaint(other):
    other.spawn(lambda: 1 / 0)
    (complaint,) = other.finish()
    assert 'ZeroDivisionError' in complaint


@pytest.mark.only('green')
def test_a_hanging_test_is_ended_while_the_hub_waits(world, capfd):
    # Something to wait for that never runs: the alarm would end it instead.
    sleeper = world.spawn(world.sleep, 60)
    world.sleep(0)
    with pytest.raises(pytest.fail.Exception, match='Timeout'):
        greenery.set_alarm(MODE, 0.1)
        world.Event().wait()
    world.kill(sleeper)
    world.sleep(0.01)
    assert 'hub' in capfd.readouterr().err


@pytest.mark.only('eventlet')
def test_a_wait_that_nobody_can_end_is_ended(world):
    with pytest.raises(pytest.fail.Exception, match='Timeout'):
        greenery.set_alarm(MODE, 0.1)
        world.Event().wait()
    world.sleep(0.01)


@pytest.mark.only('gevent')
def test_a_wait_that_nobody_can_end_is_a_loop_exit(world):
    with pytest.raises(importlib.import_module('gevent.exceptions').LoopExit):
        world.Event().wait()
    world.sleep(0.01)


@pytest.mark.only('green')
def test_a_task_that_freezes_the_hub_is_ended_with_its_test(world):
    sleep = world.original('time', 'sleep')
    frozen = world.spawn(sleep, 5)
    started = time.monotonic()
    with pytest.raises(pytest.fail.Exception, match='Timeout'):
        greenery.set_alarm(MODE, 0.1)
        world.sleep(1)
        world.sleep(1)
    with pytest.raises(pytest.fail.Exception, match='Timeout'):
        frozen.join()
    assert time.monotonic() - started < 2
