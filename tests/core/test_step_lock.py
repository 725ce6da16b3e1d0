"""The lock around a link's steps: both kinds of it."""

from __future__ import annotations

import signal
import threading
import time
from _thread import RLock

import pytest

from simple_websocket.profiles import express

KINDS = {'RLock': RLock, 'new_lock': express.new_lock}
pytestmark = pytest.mark.parametrize('kind', KINDS.values(), ids=KINDS)

LIMIT = 10


def in_threads(count, work):
    """Run it in that many threads; raise what one of them raised."""
    errors = []

    def run(number):
        try:
            work(number)
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=run, args=(n,), daemon=True) for n in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LIMIT)
        assert not thread.is_alive()
    if errors:
        raise errors[0]


def take_and_give_back(lock):
    with lock:
        pass


def test_one_thread_at_a_time_has_it(kind):
    lock = kind()
    inside = most = turns = 0

    def work(number):
        nonlocal inside, most, turns
        for _ in range(500):
            with lock, lock:
                inside += 1
                most = max(most, inside)
                before, turns = turns, turns + 1
                sum(range(50))  # long enough to be switched away in
                assert turns == before + 1
                inside -= 1

    in_threads(8, work)
    assert (most, turns, inside) == (1, 4000, 0)


def test_who_waits_gets_it_when_the_last_of_the_owners_steps_ends(kind):
    lock = kind()
    order = []
    asked = threading.Event()

    def wait():
        asked.set()
        with lock:
            order.append('waiter')

    with lock:
        thread = threading.Thread(target=wait, daemon=True)
        with lock:
            thread.start()
            assert asked.wait(LIMIT)
        order.append('owner')
    thread.join(LIMIT)
    assert order == ['owner', 'waiter']


def test_who_does_not_have_it_cannot_give_it_back(kind):
    lock = kind()
    with pytest.raises(RuntimeError):
        lock.release()

    def release(number):
        with pytest.raises(RuntimeError):
            lock.release()

    with lock:
        in_threads(1, release)
    with lock:
        pass


def test_a_condition_lets_go_of_all_its_steps_and_takes_them_again(kind):
    lock = kind()
    condition = threading.Condition(lock)
    ready = False

    def tell(number):
        nonlocal ready
        with lock:
            ready = True
            condition.notify_all()

    thread = threading.Thread(target=tell, args=(0,), daemon=True)
    with lock, lock:
        thread.start()
        assert condition.wait_for(lambda: ready, LIMIT)
        lock.release()
        lock.acquire()
    with pytest.raises(RuntimeError):
        lock.release()
    thread.join(LIMIT)


def test_a_condition_of_somebody_else_is_refused(kind):
    with pytest.raises(RuntimeError):
        threading.Condition(kind()).notify_all()


def test_a_signal_handler_that_raises_ends_the_wait(kind):
    lock = kind()
    held, raised = threading.Event(), threading.Event()
    waiting = False

    def hold():
        with lock:
            held.set()
            # Python does not see one that comes just before it waits in the kernel.
            for _ in range(100):
                signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)
                if raised.wait(LIMIT / 100):
                    return

    def interrupt(*_):
        nonlocal waiting
        if waiting:
            waiting = False
            raised.set()
            raise InterruptedError

    before = signal.signal(signal.SIGUSR1, interrupt)
    thread = threading.Thread(target=hold, daemon=True)
    try:
        thread.start()
        assert held.wait(LIMIT)
        with pytest.raises(InterruptedError):
            waiting = True
            lock.acquire()
        assert raised.is_set()
    finally:
        waiting = False
        thread.join(LIMIT)
        signal.signal(signal.SIGUSR1, before)
    in_threads(2, lambda number: take_and_give_back(lock))  # nothing of the wait is left


def test_an_interruption_on_the_way_back_from_a_condition_keeps_the_lock(kind):
    """Two of them: the second comes while the lock is taken anew."""
    lock = kind()
    condition = threading.Condition(lock)
    main, waiting, over = threading.main_thread().ident, threading.Event(), threading.Event()

    def disturb():
        waiting.wait(LIMIT)
        with lock:  # not before the other waits
            condition.notify_all()
            for _ in range(20):
                signal.pthread_kill(main, signal.SIGALRM)
                over.wait(0.01)

    def interrupt(*_):
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    thread = threading.Thread(target=disturb)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt), lock:
            waiting.set()
            condition.wait(LIMIT)
        take_and_give_back(lock)  # nobody has it
    finally:
        over.set()
        thread.join(LIMIT)
        signal.signal(signal.SIGALRM, before)


def test_nobody_waits_for_ever_for_who_lets_go_of_the_gil_inside(kind):
    """As a send does: who has had the lock would take it again and again."""
    lock, turns, over = kind(), [0] * 12, threading.Event()

    def work(number):
        while not over.is_set():
            with lock:
                time.sleep(0)
                turns[number] += 1
                if turns[number] >= 2000:
                    over.set()

    in_threads(len(turns), work)
    assert min(turns) > 20
