"""What needs a process of its own: imports, exit, fork."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap

import pytest

TESTS = os.path.join(os.path.dirname(__file__), os.pardir)
SERVER = f'''
import contextlib, socket, sys, threading
sys.path.insert(0, {TESTS!r})
from support.peer import Peer, switching

def serve(listener, then):
    peer = Peer(listener.accept()[0], client=False)
    peer.send(switching(peer.head()))
    with contextlib.suppress(EOFError, OSError):
        then(peer)

def start(then):
    listener = socket.create_server(('127.0.0.1', 0))
    threading.Thread(target=serve, args=(listener, then), daemon=True).start()
    return 'ws://127.0.0.1:%d' % listener.getsockname()[1]
'''


def run(code, timeout=20):
    """Run code in a fresh interpreter; returns what it printed."""
    done = subprocess.run(
        [sys.executable, '-X', 'faulthandler', '-c', SERVER + textwrap.dedent(code)],
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == '', done.stderr
    return done.stdout


@pytest.mark.parametrize('name', ['gevent', 'eventlet', 'greenlet'])
def test_importing_and_using_it_imports_no_green_library(name):
    out = run(
        f'''
        import simple_websocket
        ws = simple_websocket.Client.connect(start(lambda peer: peer.send((1, b'hello'))))
        assert ws.receive(5) == 'hello'
        print({name!r} in sys.modules)
        ws._link.abandon()
        '''
    )
    assert out == 'False\n'


@pytest.mark.parametrize('waiting', [False, True])
def test_an_open_connection_does_not_keep_the_process_from_exiting(waiting):  # A7
    run(
        f'''
        import time
        from simple_websocket import Client
        ws = Client.connect(start(lambda peer: time.sleep(60)), ping_interval=5)
        if {waiting}:
            threading.Thread(target=ws.receive, daemon=True).start()
        sys.excepthook = sys.__excepthook__
        import warnings; warnings.simplefilter('ignore')
        '''
    )


@pytest.mark.parametrize('library', ['', 'gevent', 'eventlet'])
def test_who_closes_when_the_program_is_at_its_end_does_not_wait(library):
    patch = {
        '': '',
        'gevent': 'from gevent import monkey; monkey.patch_all()',
        'eventlet': 'import eventlet; eventlet.monkey_patch()',
    }
    run(
        f'''
        import warnings; warnings.simplefilter('ignore')
        {patch[library]}
        from simple_websocket import Client

        class Owner:
            def __init__(self):
                self.ws = Client.connect(start(lambda peer: peer.expect_close(4000)))

            def __del__(self):
                self.ws.close(4000)

        owner = Owner()
        '''
    )


@pytest.mark.parametrize('library', ['gevent', 'eventlet'])
def test_patching_after_the_import_is_noticed(library):
    patch = {
        'gevent': 'from gevent import monkey; monkey.patch_all()',
        'eventlet': 'import eventlet; eventlet.monkey_patch()',
    }[library]
    out = run(
        f'''
        import warnings; warnings.simplefilter('ignore')
        import simple_websocket
        {patch}
        import socket, threading
        def then(peer):
            peer.send((1, b'hello'))
            peer.expect(8)
        listener = socket.create_server(('127.0.0.1', 0))
        threading.Thread(target=serve, args=(listener, then), daemon=True).start()
        ws = simple_websocket.Client.connect('ws://127.0.0.1:%d' % listener.getsockname()[1])
        assert ws.receive(5) == 'hello'
        print(type(ws._link).__name__)
        try:
            ws._close(None, None, wait=False)
        finally:
            pass
        '''
    )
    assert out.lower() == f'{library}link\n'


def test_a_client_between_two_hubs_runs_in_the_one_that_it_is_called_in():
    out = run(
        '''
        import warnings; warnings.simplefilter('ignore')
        import eventlet, gevent, greenlet
        from simple_websocket import Client
        gevent.sleep(0), eventlet.sleep(0)
        def connect():
            ws = Client.connect(start(lambda peer: peer.expect_eof()))
            print(type(ws._link).__name__)
            ws._link.give_up()
        def in_a_greenlet_of_its_own():
            greenlet.greenlet(connect).switch()
        gevent.spawn(connect).join()
        eventlet.spawn(connect).wait()
        gevent.spawn(in_a_greenlet_of_its_own).join()
        in_a_greenlet_of_its_own()  # which no hub knows
        connect()
        '''
    )
    assert out.split() == ['GeventLink', 'EventletLink', 'GeventLink', 'ThreadLink', 'GeventLink']


def test_the_first_accept_may_be_in_a_green_thread_of_eventlet():
    run(
        '''
        import warnings; warnings.simplefilter('ignore')
        import eventlet
        def job():
            from simple_websocket import get_profile
            event = get_profile('eventlet').event_class()
            assert not event.wait(0.01)
            event.set()
            assert event.wait(1) and event.is_set()
            event.clear()
            assert not event.is_set()
        eventlet.spawn(job).wait()
        '''
    )


@pytest.mark.parametrize('library', ['gevent', 'eventlet'])
@pytest.mark.parametrize('waiting', [False, True])
def test_nor_does_one_in_a_hub(library, waiting):  # A7, D5
    out = run(
        f'''
        import warnings; warnings.simplefilter('ignore')
        import time, {library}
        from simple_websocket import Client
        url = start(lambda peer: time.sleep(60))
        ws = Client.connect(url, ping_interval=5, profile={library!r})
        if {waiting}:
            {library}.spawn(ws.receive)
            {library}.sleep(0.01)
        print(type(ws._link).__name__)
        '''
    )
    assert out.lower() == f'{library}link\n'


def test_an_exit_in_the_middle_of_everything():  # D5
    """Receivers, a sender that waits, a closing, an injected reader."""
    out = run(
        '''
        import time
        import warnings; warnings.simplefilter('ignore')
        from simple_websocket import Client, ConnectionClosed
        def job(method, *args):
            try:
                method(*args)
            except ConnectionClosed:
                pass
        def background(method, *args):
            threading.Thread(target=job, args=(method, *args), daemon=True).start()
        class Daemon(threading.Thread):
            def __init__(self, target):
                super().__init__(target=target, daemon=True)
        silence = threading.Event()
        held = [
            Client.connect(start(lambda peer: silence.wait()), ping_interval=1, **how)
            for how in [{}, {}, {}, {'thread_class': Daemon}]
        ]
        background(held[0].receive)
        background(held[1].send, bytes(16_000_000))
        background(held[2].close)
        background(held[3].receive)
        time.sleep(0.1)
        print('leaving')
        sys.exit(0)
        '''
    )
    assert out == 'leaving\n'


@pytest.mark.parametrize('profile', ['threads', 'gevent', 'eventlet'])
def test_a_forked_child_leaves_the_connection_alone(profile):  # D5
    library = profile.replace('threads', 'threading')
    out = run(
        f'''
        import os, warnings
        warnings.simplefilter('ignore')
        import {library}
        from simple_websocket import Client, ConnectionClosed
        done = threading.Event()
        def then(peer):
            assert peer.expect(1) == b'from the parent'
            peer.expect_close(1000)
            peer.send(peer.close_frame(1000))
            done.set()
        ended = Client.connect(start(lambda peer: peer.expect_eof()), profile={profile!r})
        ended._link.give_up()
        ws = Client.connect(start(then), profile={profile!r})
        child = os.fork()
        if child == 0:
            try:
                assert not ws.connected
                for call in (ws.receive, ws.close, lambda: ws.send('from the child')):
                    try:
                        call()
                    except ConnectionClosed as error:
                        assert error.reason == 1006
                    else:
                        os._exit(3)
                del ws
                import gc; gc.collect()
                os._exit(0)
            except BaseException:
                import traceback; traceback.print_exc()
                os._exit(4)
        _, status = os.waitpid(child, 0)
        assert status == 0, status
        assert ws.connected
        ws.send('from the parent')
        ws.close()
        assert done.wait(5)
        print('intact')
        '''
    )
    assert out == 'intact\n'


def test_a_forked_child_leaves_those_of_asyncio_and_all_others_alone():  # D5
    out = run(
        '''
        import asyncio, gc, os, warnings
        warnings.simplefilter('ignore')
        from simple_websocket import AioClient, Client, ConnectionClosed
        def then(peer):
            assert peer.expect(1) == b'from the parent'
            peer.expect_close(1000)
            peer.send(peer.close_frame(1000))
        async def main():
            aio = [await AioClient.connect(start(then)) for _ in range(2)]
            sync = Client.connect(start(then))
            numbers = [ws.sock.fileno() for ws in (*aio, sync)]
            child = os.fork()
            if child == 0:
                try:
                    assert not any(ws.connected for ws in (*aio, sync))
                    for number in numbers:
                        try:
                            os.fstat(number)
                        except OSError:
                            continue
                        os._exit(3)
                    os._exit(0)
                except BaseException:
                    import traceback; traceback.print_exc()
                    os._exit(4)
            _, status = os.waitpid(child, 0)
            assert status == 0, status
            for ws in aio:
                await ws.send('from the parent')
                await ws.close()
            sync.send('from the parent')
            sync.close()
            print('intact')
        asyncio.run(main())
        '''
    )
    assert out == 'intact\n'


@pytest.mark.parametrize('profile', ['threads', 'gevent', 'eventlet'])
def test_a_child_can_connect_by_itself(profile):
    # Which monkey-patching would do.
    as_a_child = 'gevent.reinit()' if profile == 'gevent' else ''
    out = run(
        f'''
        import os, warnings
        warnings.simplefilter('ignore')
        import {profile.replace('threads', 'threading')}
        from simple_websocket import Client
        over = threading.Event()
        def later(peer):
            assert over.wait(5)
            peer.send((1, b'to the parent'))
            peer.expect(8)
        url = start(later)
        first = Client.connect(url, profile={profile!r})
        assert first.receive(0.01) is None
        child = os.fork()
        if child == 0:
            {as_a_child}
            other = start(lambda peer: peer.send((1, b'to the child')))
            ws = Client.connect(other, profile={profile!r})
            assert ws.receive(5) == 'to the child'
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7
        over.set()
        assert first.receive(5) == 'to the parent'
        print('both')
        '''
    )
    assert out == 'both\n'


def test_a_wall_clock_that_jumps_has_no_effect():  # A14, D7
    run(
        '''
        import time, warnings
        warnings.simplefilter('ignore')
        real = time.time
        from simple_websocket import Client
        ws = Client.connect(start(lambda peer: threading.Event().wait(30)), ping_interval=30)
        time.time = lambda: real() + 3600
        assert ws.receive(0.3) is None
        assert ws.connected
        '''
    )


def test_ctrl_c_in_receive_leaves_the_connection_usable():
    out = run(
        '''
        import signal
        from simple_websocket import Client
        # Who runs the tests in the background may have it ignored.
        signal.signal(signal.SIGINT, signal.default_int_handler)
        interrupted = threading.Event()
        def then(peer):
            interrupted.wait()
            peer.send((1, b'after'))
            peer.expect(8)
        ws = Client.connect(start(then))
        main = threading.main_thread().ident
        def press(patience=0.2):
            # Ctrl-C just before recv() is seen just behind it: press again.
            while not interrupted.wait(patience):
                signal.pthread_kill(main, signal.SIGINT)
                patience = 2
        threading.Thread(target=press, daemon=True).start()
        try:
            ws.receive()
        except KeyboardInterrupt:
            interrupted.set()
            print('interrupted')
        assert ws.receive(5) == 'after'
        print(ws.connected)
        ws._link.abandon()
        '''
    )
    assert out == 'interrupted\nTrue\n'


@pytest.mark.parametrize('name', ['AioClient', 'AioServer', 'aiows', 'asgi'])
def test_asyncio_is_imported_only_when_it_is_asked_for(name):
    """The modules, too, are there without an import of their own, as in 1.x."""
    out = run(
        f'''
        import simple_websocket
        print('asyncio' in sys.modules)
        simple_websocket.{name}
        print('asyncio' in sys.modules)
        '''
    )
    assert out == 'False\nTrue\n'
