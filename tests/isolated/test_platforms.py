"""What other systems than Linux lack, taken away in a process of its own."""

from __future__ import annotations

import textwrap

from isolated.test_process import run

# BSD and macOS have neither epoll nor eventfd.
WITHOUT_EPOLL = '''
import os, select, selectors, time, warnings
warnings.simplefilter('ignore')
del select.epoll, os.eventfd
selectors.DefaultSelector = selectors.PollSelector

from simple_websocket import Client, ConnectionClosed

def wait_until(condition):
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.005)
'''


def test_named_threads_wait_for_real_in_a_process_that_gevent_has_patched():
    """gevent takes epoll out of ``select``, and the watchman has no hub."""
    out = run(
        '''
from gevent import monkey; monkey.patch_all()
from simple_websocket.profiles import watchman
print(type(watchman._make_poller()).__name__)
from gevent.selectors import GeventSelector
print(isinstance(watchman._Selector()._selector, GeventSelector))
'''
    )
    assert out == '_Epoll\nFalse\n'


def run_without_epoll(code):
    return run(WITHOUT_EPOLL + textwrap.dedent(code))


def test_without_epoll_pings_are_answered_while_nobody_receives():
    out = run_without_epoll(
        '''
        answered = threading.Event()
        def then(peer):
            for number in range(3):
                peer.send((9, b'%d' % number))
                peer.expect(10, b'%d' % number)
            answered.set()
            peer.send((1, b'hello'))
            peer.expect_close(1000)
            peer.send(peer.close_frame(1000))
        ws = Client.connect(start(then))
        assert answered.wait(10)
        assert ws.receive(10) == 'hello'
        ws.close()
        wait_until(lambda: ws._link.finished)
        print(ws.close_reason)
        '''
    )
    assert out == '1000\n'


def test_without_epoll_a_close_beside_a_receiver_hears_the_answer():
    out = run_without_epoll(
        '''
        def then(peer):
            peer.send((1, b'ready'))
            peer.expect_close(4000)
            peer.send((1, b'late'))
            time.sleep(0.1)
            peer.send(peer.close_frame(4000))
            peer.expect_eof()
        ws = Client.connect(start(then))
        assert ws.receive(10) == 'ready'
        reasons = []
        def receive():
            try:
                ws.receive()
            except ConnectionClosed as error:
                reasons.append(error.reason)
        receiver = threading.Thread(target=receive)
        receiver.start()
        wait_until(lambda: ws._link._blocked)
        before = time.monotonic()
        ws.close(4000)
        assert time.monotonic() - before < 4  # not only when the time ran out
        receiver.join(10)
        wait_until(lambda: ws._link.finished)
        print(reasons, ws.close_reason)
        '''
    )
    assert out == '[4000] 4000\n'


def test_without_epoll_what_tcp_did_not_take_is_written_when_it_does():
    out = run_without_epoll(
        '''
        from simple_websocket import broadcast
        size = 24_000_000
        read = threading.Event()
        def then(peer):
            read.wait()
            assert len(peer.expect(2)) == size
            peer.expect(1, b'behind')
            peer.send((1, b'thanks'))
            peer.expect_close(1000)
            peer.send(peer.close_frame(1000))
        ws = Client.connect(start(then), compression=None)
        broadcast([ws], bytes(size))
        assert ws._link._unsent
        read.set()
        ws.send('behind')
        assert ws.receive(10) == 'thanks'
        ws.close()
        wait_until(lambda: ws._link.finished)
        print(ws.close_reason)
        '''
    )
    assert out == '1000\n'


def test_without_epoll_the_one_thread_ends_behind_the_last_connection():
    out = run_without_epoll(
        '''
        fds = len(os.listdir('/dev/fd'))
        threads = len(os.listdir('/proc/self/task'))
        for _ in range(2):
            ws = Client.connect(start(lambda peer: peer.expect_eof()))
            ws._link.give_up()
            wait_until(lambda: len(os.listdir('/proc/self/task')) == threads)
        wait_until(lambda: len(os.listdir('/dev/fd')) <= fds + 2)  # the listeners
        print('quiet')
        '''
    )
    assert out == 'quiet\n'
