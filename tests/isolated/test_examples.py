"""Every example runs, does what its docstring says, and ends quietly.

The other end is the `websockets` package, which shares no code with ours.
"""

from __future__ import annotations

import ast
import contextlib
import http.client
import json
import random
import re
import socket
import string
import subprocess
import sys
import time

import pytest
from support.example import EXAMPLES, Program, free_port, running
from support.frames import TEXT
from support.peer import KEY, Peer
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
        assert re.search("pip install '?simple-websocket", docstring)
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
                assert ws.recv(timeout=5) is NotImplemented  # nothing more came


@pytest.mark.parametrize('name', ECHO)
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


def test_a_client_whose_input_ends_at_once_waits_for_the_answers():
    with serving('echo_wsgi.py') as (server, port):
        lines = ''.join(f'line {n}\n' for n in range(200))
        with running('client.py', f'ws://127.0.0.1:{port}/echo') as program:
            program.process.stdin.write(lines)
            program.process.stdin.close()
            assert program.wait() == 0
            assert program.stdout == f'{lines}closed: 1000\n'
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
                with connect(f'{url}{query}', origin=origin):
                    pass
            assert refused.value.response.status_code == status
        check_clean_end(program)


# -- the chat, without a browser; see test_chat_browser.py for one with it


@pytest.fixture(params=['gevent', 'threads', 'eventlet'])
def chat(request):
    with running('chat/app.py', request.param, '--port', '0') as program:
        found = program.wait_for(lambda: re.search(r':(\d+)/', program.stdout), 'says where')
        yield program, int(found.group(1))


@contextlib.contextmanager
def member(port: int, name: str, key: str | None = None, **options):
    with connect(f'ws://127.0.0.1:{port}/ws', **options) as ws:
        tell(ws, type='join', key=key or f'the key of {name}', name=name)
        assert hear(ws, 'welcome')['you'] == name
        yield ws


def tell(ws, **event) -> None:
    ws.send(json.dumps(event))


def hear(ws, kind: str) -> dict:
    """The next event of that kind; those before it are passed over."""
    while True:
        event = json.loads(ws.recv(timeout=5))
        if event['type'] == kind:
            return event


def test_ctrl_c_ends_the_chat_quietly_with_1001(chat):
    program, port = chat
    with member(port, 'Ada') as ada, member(port, 'Grace') as grace:
        started = time.monotonic()
        assert program.interrupt() == 0
        assert time.monotonic() - started < 3
        assert program.stderr == ''
        for ws in (ada, grace):
            with pytest.raises(ConnectionClosed) as closed:
                while True:
                    ws.recv(timeout=5)
            assert closed.value.rcvd.code == 1001


PRESS_CTRL_C_ELSEWHERE = """
import signal, sys, threading, time
import serve

waits = threading.Event()
main = threading.get_native_id()

class Profile:
    def __init__(self, name):
        self.wait_for = get_profile(name).wait

    def wait(self, *args):
        waits.set()
        return self.wait_for(*args)

def press():
    waits.wait()
    while open(f'/proc/self/task/{main}/stat').read().rpartition(')')[2].split()[0] != 'S':
        time.sleep(0.01)
    signal.pthread_kill(threading.get_ident(), signal.SIGINT)

get_profile, serve.get_profile = serve.get_profile, Profile
serve.BACKENDS[sys.argv[1]] = lambda app, address: (0, lambda: print('stopped'))
threading.Thread(target=press, daemon=True).start()
serve.until_ctrl_c(None, sys.argv[1], 0)
"""


@pytest.mark.parametrize('backend', ['threads', 'gevent', 'eventlet'])
def test_ctrl_c_ends_the_chats_wait_at_whatever_moment_it_comes(backend):
    """Also when no wait is interrupted by it: here another thread gets the signal;
    else it may come just before the wait begins."""
    ended = subprocess.run(
        [sys.executable, '-c', PRESS_CTRL_C_ELSEWHERE, backend],
        cwd=EXAMPLES / 'chat',
        timeout=20,
        capture_output=True,
        text=True,
    )
    assert (ended.returncode, ended.stderr) == (0, '')
    assert ended.stdout.endswith('stopped\n')


def test_the_chat_stops_while_nobody_is_there(chat):
    program, _ = chat
    assert program.interrupt() == 0
    assert program.stderr == ''
    assert re.fullmatch(r'Chat on \w+: http://127.0.0.1:\d+/ \(Ctrl-C ends it\)\n', program.stdout)


@pytest.mark.parametrize('when', ['first', 'joined'])
@pytest.mark.parametrize(
    ('message', 'code'),
    [
        ('', 1008),
        ('no JSON', 1008),
        ('[' * 4000, 1008),
        ('[1]', 1008),
        ('"say"', 1008),
        ('{"type": ["say"]}', 1008),
        ('{"type": "shout", "text": "hey"}', 1008),
        ('{"type": "say"}', 1008),
        ('{"type": "say", "text": 1}', 1008),
        ('{"type": "say", "text": "  "}', 1008),
        (json.dumps({'type': 'say', 'text': 501 * 'x'}), 1008),
        (b'{"type": "say", "text": "binary"}', 1008),
        (5000 * ' ', 1009),
    ],
    ids=lambda value: str(value)[:20],
)
def test_what_no_page_would_send_ends_the_connection(quiet_chat, message, code, when):
    with connect(f'ws://127.0.0.1:{quiet_chat}/ws') as ws:
        if when == 'joined':
            tell(ws, type='join', key='k', name='Eve')
            hear(ws, 'who')
        ws.send(message)
        with pytest.raises(ConnectionClosed) as closed:
            while True:
                ws.recv(timeout=5)
        assert closed.value.rcvd.code == code


@pytest.fixture(scope='module')
def quiet_chat():
    """The port of a chat that must not complain, whatever is done to it."""
    with running('chat/app.py', '--port', '0') as program:
        found = program.wait_for(lambda: re.search(r':(\d+)/', program.stdout), 'says where')
        yield int(found.group(1))
        assert program.interrupt() == 0
        assert program.stderr == ''


def test_pages_of_other_sites_are_refused(quiet_chat):
    with pytest.raises(InvalidStatus) as refused:
        with connect(f'ws://127.0.0.1:{quiet_chat}/ws', origin='https://evil.example.com'):
            pass
    assert refused.value.response.status_code == 403


def test_only_the_four_files_of_the_page_are_served(quiet_chat):
    for path, status in {
        '/': 200,
        '/chat.js': 200,
        '/chat.css': 200,
        '/icon.svg': 200,
        '/app.py': 404,
        '/../app.py': 404,
        '/static/chat.js': 404,
    }.items():
        page = http.client.HTTPConnection('127.0.0.1', quiet_chat, timeout=5)
        page.request('GET', path)
        response = page.getresponse()
        body = response.read()
        page.close()
        assert response.status == status, path
        assert b'://' not in body.replace(b'http://www.w3.org/2000/svg', b''), 'no other hosts'


def test_a_page_that_connects_again_takes_the_place_of_its_old_connection(chat):
    program, port = chat
    with member(port, 'Grace') as grace, member(port, 'Ada', key='k') as old:
        with member(port, 'Ada', key='k') as new:
            with pytest.raises(ConnectionClosed) as closed:
                while True:
                    old.recv(timeout=5)
            assert closed.value.rcvd.code == 4001
            lines = [hear(grace, 'line')['line'] for _ in range(3)]
            assert [line['kind'] for line in lines] == ['joined', 'joined', 'back']
            tell(new, type='say', text='here I am')
            assert hear(grace, 'line')['line']['text'] == 'here I am'
    assert program.interrupt() == 0
    assert program.stderr == ''


def test_a_member_who_does_not_read_keeps_nobody_waiting(chat):
    program, port = chat
    with socket.socket() as narrow, member(port, 'Ada') as ada:
        narrow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        narrow.connect(('127.0.0.1', port))
        sloth = Peer(narrow, client=True)
        sloth.send(
            b'GET /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n'
            b'Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %b\r\n\r\n' % KEY.encode()
        )
        assert b' 101 ' in sloth.head()
        hello = {'type': 'join', 'key': 'k', 'name': 'Sloth'}
        sloth.send((TEXT, json.dumps(hello).encode()))
        while 'Sloth' not in hear(ada, 'who')['names']:
            pass
        longest, deadline = 0.0, time.monotonic() + 40
        left = False
        while not left:
            assert time.monotonic() < deadline, 'the one who does not read was never sent away'
            started = time.monotonic()
            text = ''.join(random.choices(string.ascii_letters, k=500))
            tell(ada, type='say', text=text)
            while (line := hear(ada, 'line')['line'])['text'] != text:
                left = left or (line['kind'] == 'left' and line['name'] == 'Sloth')
            longest = max(longest, time.monotonic() - started)
        assert longest < 1
    assert program.interrupt() == 0
    assert program.stderr == ''
