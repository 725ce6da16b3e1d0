"""Every example runs, does what its docstring says, and ends quietly.

The other end is the `websockets` package, which shares no code with ours.
"""

from __future__ import annotations

import ast
import contextlib
import http.client
import re
import socket
import time

import pytest
from support.example import EXAMPLES, Program, free_port, running
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

CHAT = ('chat/app.py', 'chat/serve.py')
FILES = sorted(path.name for path in EXAMPLES.glob('*.py'))

# What servers say in normal use, on standard error.
NORMAL = re.compile(
    r'^$'
    r'|^WARNING: This is a development server'
    r'|^ \* |^Press CTRL\+C to quit'
    r'|^INFO: '
    r'|^\[.*\] \[\d+\] \[INFO\] '
    # What becomes of a thread whose connection outlives --graceful-timeout.
    r'|\[ERROR\] Worker \(pid:\d+\) was sent SIGKILL! Perhaps out of memory\?$'
    r'|^\(\d+\) (wsgi|accepted|exited)'
    r'|^wsgi exiting'
    # An access log; a response is never sent for an upgrade.
    r'|"GET \S+ HTTP/1\.[01]" '
)


@contextlib.contextmanager
def serving(name: str, **environ: str):
    port = free_port()
    with running(name, PORT=str(port), **environ) as program:
        program.wait_for_port(port)
        yield program, port


def check_quiet(program: Program) -> None:
    unusual = [line for line in program.stderr.splitlines() if not NORMAL.search(line)]
    assert not unusual, program.stderr


def check_clean_end(program: Program) -> None:
    started = time.monotonic()
    status = program.interrupt()
    assert status == 0, (status, program.stderr)
    assert time.monotonic() - started < 6
    check_quiet(program)


ECHO = {
    'echo_flask_werkzeug.py': '/echo',
    'echo_flask_gunicorn.py': '/echo',
    'echo_flask_gevent.py': '/echo',
    'echo_flask_eventlet.py': '/echo',
    'echo_wsgi.py': '/echo',
    'echo_aiohttp.py': '/echo',
    'echo_asgi.py': '/',
}
CLIENTS = ('client.py', 'aio_client.py')
ALONE = ('gevent_unpatched.py', 'eventlet_unpatched.py')
OTHERS = ('injected_classes.py', 'push_only.py', 'auth_and_origin.py')


def test_no_example_is_without_a_test():
    assert sorted([*ECHO, *CLIENTS, *ALONE, *OTHERS]) == FILES


@pytest.mark.parametrize('name', FILES)
def test_an_example_has_15_to_30_lines(name):
    source = (EXAMPLES / name).read_text()
    first = ast.parse(source).body[0]
    code = '\n'.join(source.splitlines()[first.end_lineno :]).strip().splitlines()
    assert 15 <= len(code) <= 30


@pytest.mark.parametrize('name', [*FILES, *CHAT])
def test_an_example_says_what_it_is_and_how_to_run_it(name):
    docstring = ast.get_docstring(ast.parse((EXAMPLES / name).read_text()))
    assert docstring
    if name in FILES:
        assert 'pip install simple-websocket' in docstring
        assert f'python {name}' in docstring


@pytest.mark.parametrize('name', [*FILES, 'chat/app.py'])
def test_an_example_is_listed_in_the_readme(name):
    assert f']({name})' in (EXAMPLES / 'README.md').read_text()


@pytest.mark.parametrize('name', ECHO)
def test_an_echo_server_echoes(name):
    with serving(name) as (program, port):
        url = f'ws://127.0.0.1:{port}{ECHO[name]}'
        large = 'ä' * 200_000
        with connect(url) as one, connect(url) as two:
            for message in ('hello', b'\x00\xff', '', large):
                one.send(message)
                two.send(message)
                assert one.recv(timeout=5) == message
                assert two.recv(timeout=5) == message
        assert one.close_code == two.close_code == 1000
        check_clean_end(program)


@pytest.mark.parametrize('name', ECHO)
def test_ctrl_c_with_an_open_connection(name):
    with serving(name) as (program, port):
        with connect(f'ws://127.0.0.1:{port}{ECHO[name]}') as ws:
            ws.send('hello')
            assert ws.recv(timeout=5) == 'hello'
            check_clean_end(program)
            with pytest.raises(ConnectionClosed):
                ws.recv(timeout=5)


@pytest.mark.parametrize('name', [name for name in ECHO if 'asgi' not in name])
def test_a_plain_request_for_the_endpoint_is_a_client_error(name):
    with serving(name) as (program, port):
        http_ = http.client.HTTPConnection('127.0.0.1', port, timeout=5)
        http_.request('GET', ECHO[name])
        assert 400 <= http_.getresponse().status < 500
        http_.close()
        check_clean_end(program)


def test_a_client_sends_lines_and_prints_the_answers():
    with serving('echo_wsgi.py') as (server, port):
        with running('client.py', f'ws://127.0.0.1:{port}/echo') as program:
            program.process.stdin.write('one\nzwölf\n')
            program.process.stdin.flush()
            program.wait_for(lambda: program.out == ['one\n', 'zwölf\n'], 'both came back')
            program.process.stdin.close()
            assert program.wait() == 0
            assert program.stdout == 'one\nzwölf\nclosed: 1000\n'
            assert program.stderr == ''
        check_clean_end(server)


def test_a_client_says_that_the_server_has_gone():
    with serving('echo_wsgi.py') as (server, port):
        with running('client.py', f'ws://127.0.0.1:{port}/echo') as program:
            program.process.stdin.write('one\n')
            program.process.stdin.flush()
            program.wait_for(lambda: program.out == ['one\n'], 'it came back')
            server.kill()
            program.wait_for(lambda: len(program.out) == 2, 'it says so')
            assert program.out[1] == 'closed: 1006\n'


def test_an_asyncio_client_prints_the_answers():
    with serving('echo_wsgi.py') as (server, port):
        url = f'ws://127.0.0.1:{port}/echo'
        with running('aio_client.py', url, 'one', 'zwölf') as program:
            assert program.wait() == 0, program.stderr
            assert program.stdout == 'one\nzwölf\n'
            assert program.stderr == ''
        check_clean_end(server)


@pytest.mark.parametrize('name', ALONE)
def test_a_server_and_ten_clients_share_a_hub(name):
    with running(name) as program:
        assert program.wait() == 0, program.stderr
        assert program.stdout.split() == [str(2 * n) for n in range(10)]
        assert program.stderr == ''


def test_the_injected_thread_class_runs_the_reader():
    with serving('injected_classes.py') as (program, port):
        with connect(f'ws://127.0.0.1:{port}/') as ws:
            ws.send('a letter')
            assert ws.recv(timeout=5) == 'the reader read a letter'
        check_clean_end(program)


def test_the_clock_ticks_and_notices_a_close():
    with serving('push_only.py') as (program, port):
        with connect(f'ws://127.0.0.1:{port}/') as ws:
            for _ in range(2):
                assert re.fullmatch(r'\d\d:\d\d:\d\d', ws.recv(timeout=5))
            ws.close(4321, 'seen enough')
        program.wait_for(lambda: program.out, 'it says who has gone')
        assert program.stdout == 'gone: 4321 seen enough\n'
        check_clean_end(program)


def test_the_clock_notices_a_peer_that_hangs_up():
    with serving('push_only.py') as (program, port):
        with connect(f'ws://127.0.0.1:{port}/') as ws:
            ws.recv(timeout=5)
            ws.socket.shutdown(socket.SHUT_RDWR)
            program.wait_for(lambda: program.out, 'it says who has gone')
            assert program.stdout == 'gone: 1006\n'
        check_clean_end(program)


def test_who_has_no_token_gets_401_and_a_foreign_page_403():
    with serving('auth_and_origin.py') as (program, port):
        url = f'ws://127.0.0.1:{port}/private'
        for origin in (None, f'http://127.0.0.1:{port}', 'https://app.example.com'):
            with connect(f'{url}?token=sesame', origin=origin) as ws:
                assert ws.recv(timeout=5) == 'welcome'
        for query, origin, status in (
            ('', None, 401),
            ('?token=guess', None, 401),
            ('?token=%FC', None, 401),
            ('?token=sesame', 'https://evil.example.com', 403),
            ('?token=sesame', 'null', 403),
        ):
            with pytest.raises(InvalidStatus) as refused:
                connect(f'{url}{query}', origin=origin)
            assert refused.value.response.status_code == status
        check_clean_end(program)
