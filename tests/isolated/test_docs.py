"""Every code block of README.md and docs/ runs.

What a block is, is told by its language and its first line:

* python that begins with `# name.py` is that file. The commands of its page
  run it; a file that no command runs is a defect.
* any other python is a snippet. The snippets of a page are one program, in
  their order, with an echo server at port 8000.
* console: each `$ command` is run among the files of its page. One that starts
  a server must answer a client, log nothing bad and stop when it is told to;
  one that runs a `*client*.py` must end well and print what the page says.
  Commands that would install or build are checked against what they name.
* nginx must say what an upgrade needs; text is for people.

Port 8000 stands for a free one.
"""

from __future__ import annotations

import configparser
import contextlib
import dataclasses
import inspect
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import simple_websocket
from simple_websocket import Client, websocket_app
from simple_websocket.options import Options

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.rst'))]

#: Seconds that anything may take.
LIMIT = 20

LANGUAGES = {'python', 'console', 'nginx', 'text'}

#: Programs that are modules of this Python too.
MODULES = {'flask', 'gunicorn', 'uvicorn', 'hypercorn'}


@dataclasses.dataclass(frozen=True)
class Block:
    page: Path
    line: int
    language: str
    text: str

    @property
    def file(self) -> str | None:
        match = re.match(r'# (\w+\.py)\n', self.text)
        return match[1] if self.language == 'python' and match else None

    @property
    def id(self) -> str:
        return f'{self.page.name}:{self.line}'


def blocks_of(page: Path) -> list[Block]:
    markdown = page.suffix == '.md'
    opening = re.compile(r'```(\w*)$' if markdown else r'( *)\.\. code-block:: *(\w*)$')
    blocks, lines = [], page.read_text(encoding='utf-8').splitlines()
    number = 0
    while number < len(lines):
        match = opening.match(lines[number])
        number += 1
        if match is None:
            continue
        begin, end = number, number
        if markdown:
            while lines[end] != '```':
                end += 1
            body, language = lines[begin:end], match[1]
            number = end + 1
        else:
            indent, language = len(match[1]), match[2]
            while end < len(lines) and (not lines[end].strip() or _indent(lines[end]) > indent):
                end += 1
            while not lines[begin].strip():
                begin += 1
            width = _indent(lines[begin])
            body, number = [line[width:] for line in lines[begin:end]], end
        text = '\n'.join(body).rstrip() + '\n'
        blocks.append(Block(page, begin + 1, language, text))
    return blocks


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


BLOCKS = [block for page in PAGES for block in blocks_of(page)]


@dataclasses.dataclass(frozen=True)
class Command:
    block: Block
    words: tuple[str, ...]
    output: str

    @property
    def files(self) -> set[str]:
        """The page's files that it runs."""
        names = [word.split(':')[0] for word in self.words[1:]]
        known = {block.file for block in BLOCKS if block.page == self.block.page}
        return {name for word in names for name in (word, f'{word}.py') if name in known}


def commands_of(block: Block) -> list[Command]:
    commands: list[Command] = []
    for line in block.text.splitlines():
        if line.startswith('$ '):
            commands.append(Command(block, tuple(shlex.split(line[2:])), ''))
        else:
            last = commands.pop()
            commands.append(dataclasses.replace(last, output=f'{last.output}{line}\n'))
    return commands


COMMANDS = [
    command for block in BLOCKS if block.language == 'console' for command in commands_of(block)
]


def by_kind(kind: str) -> pytest.MarkDecorator:
    found = [command for command in COMMANDS if kind_of(command) == kind]
    ids = [f'{command.block.id} {shlex.join(command.words)}' for command in found]
    return pytest.mark.parametrize('command', found, ids=ids)


def kind_of(command: Command) -> str:
    program = command.words[0]
    if program in ('make', 'pip'):
        return program
    if program == 'python':
        return 'client' if 'client' in command.words[1] else 'server'
    return 'server' if program in MODULES else 'unknown'


# -- running ----------------------------------------------------------------


@pytest.fixture
def port() -> int:
    with socket.socket() as sock:
        sock.bind(('127.0.0.1', 0))
        return sock.getsockname()[1]


def write_files(page: Path, where: Path, port: int) -> None:
    for block in BLOCKS:
        if block.page == page and block.file:
            (where / block.file).write_text(at(port, block.text), encoding='utf-8')


def at(port: int, text: str) -> str:
    return re.sub(r'\b8000\b', str(port), text)


def environment(where: Path) -> dict[str, str]:
    env = {
        name: value
        for name, value in os.environ.items()
        if not name.lower().endswith('_proxy') and name != 'SWS_MODE'
    }
    env['PYTHONPATH'] = os.pathsep.join((str(ROOT), str(where)))
    env['PYTHONUNBUFFERED'] = '1'
    env['HOME'] = str(where)
    return env


def arguments(command: Command, port: int) -> list[str]:
    program, *rest = (at(port, word) for word in command.words)
    if program in MODULES:
        return [sys.executable, '-m', program, *rest]
    assert program == 'python'
    return [sys.executable, *rest]


@contextlib.contextmanager
def running(command: Command, where: Path, port: int):
    """A server while it runs; afterwards its log must be clean."""
    log = where / 'log'
    with log.open('wb') as output:
        process = subprocess.Popen(
            arguments(command, port),
            cwd=where,
            env=environment(where),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )
    try:
        await_port(process, port, log)
        yield
        complain(log)
        process.send_signal(signal.SIGTERM)
        process.wait(LIMIT)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait(LIMIT)
    complain(log)


def await_port(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    for _ in range(LIMIT * 20):
        with contextlib.suppress(OSError), socket.create_connection(('127.0.0.1', port), LIMIT):
            return
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(0.05)
            break
    raise AssertionError(f'nobody listens:\n{log.read_text()}')


def complain(log: Path) -> None:
    text = log.read_text(encoding='utf-8')
    assert not re.search(r'Traceback|\bERROR\b|CRITICAL|[Bb]ad [Rr]equest', text), text


@contextlib.contextmanager
def echo_server(port: int):
    from werkzeug.serving import make_server

    @websocket_app
    def app(ws):
        for message in ws:
            ws.send(message)

    server = make_server('127.0.0.1', port, app, threaded=True)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join(LIMIT)
        server.server_close()


def run(arguments: list[str], where: Path) -> str:
    done = subprocess.run(
        arguments,
        cwd=where,
        env=environment(where),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    # eventlet says at each import that it is in maintenance.
    noise = [line for line in done.stderr.splitlines() if line and 'ventlet' not in line]
    assert not any('Warning' in line or 'Traceback' in line for line in noise), done.stderr
    return done.stdout


# -- what servers must be able to do ------------------------------------------


def talk_echo(port: int, path: str = '/echo', expected: str = '{}', **options) -> None:
    with Client.connect(
        f'ws://127.0.0.1:{port}{path}', open_timeout=LIMIT, **options
    ) as ws:
        for message in ('hello', 'ü' * 1000):
            ws.send(message)
            assert ws.receive(LIMIT) == expected.format(message)
    assert ws.close_reason == 1000


def talk_clock(port: int) -> None:
    ws = Client.connect(f'ws://127.0.0.1:{port}/clock', open_timeout=LIMIT)
    assert re.fullmatch(r'\d\d:\d\d:\d\d', ws.receive(LIMIT))
    ws.close()


def talk_clock_stop(port: int) -> None:
    with Client.connect(f'ws://127.0.0.1:{port}/clock', open_timeout=LIMIT) as ws:
        assert ws.receive(LIMIT)
        ws.send('stop')
        for _ in ws:
            pass
    assert (ws.close_reason, ws.close_message) == (4000, 'stopped as you wished')


def talk_room(port: int) -> None:
    url = f'ws://127.0.0.1:{port}/room'
    with Client.connect(url) as one, Client.connect(url) as two:
        two.send('I am here')
        assert two.receive(LIMIT) == 'I am here'
        one.send('hello, all')
        assert one.receive(LIMIT) in ('I am here', 'hello, all')
        assert two.receive(LIMIT) == 'hello, all'


def talk_careful(port: int) -> None:
    talk_echo(port, '/echo?token=secret', 'alice: {}')
    good = {'Origin': 'https://example.com'}
    talk_echo(port, '/echo?token=secret', 'alice: {}', headers=good)
    for path, headers, status in (
        ('/echo', {}, 401),
        ('/echo?token=secret', {'Origin': 'https://example.org'}, 403),
    ):
        with pytest.raises(simple_websocket.ConnectionError) as refused:
            Client.connect(f'ws://127.0.0.1:{port}{path}', headers=headers)
        assert refused.value.status_code == status


def talk_socketio(port: int) -> None:
    import socketio

    for transports in (['websocket'], None):
        with socketio.SimpleClient() as client:
            client.connect(f'http://127.0.0.1:{port}', transports=transports)
            assert client.call('echo', 'hello', timeout=LIMIT) == 'hello'
            assert client.transport == 'websocket'


TALKS = {
    ('flask.rst', 'clock'): talk_clock_stop,
    ('gevent.rst', 'clock.py'): talk_clock,
    ('flask.rst', 'room'): talk_room,
    ('security.rst', 'careful_echo'): talk_careful,
    ('gevent.rst', 'socketio_gevent.py'): talk_socketio,
    ('gevent.rst', 'socketio_direct.py'): talk_socketio,
    ('eventlet.rst', 'socketio_eventlet.py'): talk_socketio,
    ('flask.rst', 'socketio_threads'): talk_socketio,
}


# -- the tests ------------------------------------------------------------------


@by_kind('server')
def test_a_command_starts_a_server_that_talks_and_logs_nothing_bad(command, port, tmp_path):
    write_files(command.block.page, tmp_path, port)
    talks = [TALKS.get((command.block.page.name, word), None) for word in command.words]
    talk = next((talk for talk in talks if talk), talk_echo)
    with running(command, tmp_path, port):
        talk(port)


#: The servers of clients that need another than the echo server: files of their page.
SERVERS = {('eventlet.rst', 'socketio_client.py'): 'socketio_eventlet.py'}


@by_kind('client')
def test_a_program_prints_what_its_page_says(command, port, tmp_path):
    write_files(command.block.page, tmp_path, port)
    name = SERVERS.get((command.block.page.name, command.words[1]))
    server = dataclasses.replace(command, words=('python', name or ''))
    with running(server, tmp_path, port) if name else echo_server(port):
        assert run(arguments(command, port), tmp_path) == at(port, command.output)


@by_kind('pip')
def test_what_pip_is_told_to_install_exists(command):
    assert command.words[1] == 'install'
    setup = configparser.ConfigParser()
    setup.read(ROOT / 'setup.cfg', encoding='utf-8')
    for word in command.words[2:]:
        if word.startswith('.'):  # the clone
            extras = re.fullmatch(r'\.(?:\[([\w,]+)\])?', word).group(1) or ''
            assert set(filter(None, extras.split(','))) <= set(setup['options.extras_require'])
            continue
        pattern = r'([\w-]+)(?:\[([\w,]+)\])?(?:>=(\d+))?'
        name, extras, least = re.fullmatch(pattern, word).groups('')
        if name == setup['metadata']['name']:
            # Without it pip may take 1.x, on which the pages' programs fail.
            assert least == setup['metadata']['version'].split('.')[0]
            assert set(filter(None, extras.split(','))) <= set(setup['options.extras_require'])
        else:
            required = f'{name}[{extras}]' if extras else name
            assert required in (ROOT / 'requirements' / 'full.txt').read_text()


@by_kind('make')
def test_make_has_the_verb(command):
    _, *targets = command.words
    done = subprocess.run(
        ['make', '--dry-run', *targets], cwd=ROOT, capture_output=True, text=True, timeout=LIMIT
    )
    assert targets and done.returncode == 0, done.stderr


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_the_snippets_of_a_page_are_a_program_that_runs(page, port, tmp_path):
    snippets = [b for b in BLOCKS if b.page == page and b.language == 'python' and not b.file]
    lines: list[str] = []
    for block in snippets:
        # A traceback then has the lines of the page.
        lines += [''] * (block.line - 1 - len(lines))
        lines += block.text.splitlines()
    program = tmp_path / f'{page.stem}_snippets.py'
    program.write_text(at(port, '\n'.join(lines)) + '\n', encoding='utf-8')
    with echo_server(port):
        run([sys.executable, '-W', 'error::ResourceWarning', program.name], tmp_path)


@pytest.mark.parametrize('page', PAGES, ids=lambda page: page.name)
def test_every_file_of_a_page_is_used_by_a_command_of_it(page):
    files = {b.file for b in BLOCKS if b.page == page and b.file}
    used = {name for c in COMMANDS if c.block.page == page for name in c.files}
    text = '\n'.join(b.text for b in BLOCKS if b.page == page)
    used |= {name for name in files if f'from {name[:-3]} import' in text}
    assert used == files


def test_nginx_passes_the_upgrade_on():
    (block,) = (block for block in BLOCKS if block.language == 'nginx')
    assert block.text.count('{') == block.text.count('}') == 1
    inside = block.text[block.text.index('{') + 1 : block.text.index('}')]
    lines = [line.strip() for line in inside.splitlines() if line.strip()]
    assert all(line.endswith(';') for line in lines)
    for needed in ('proxy_http_version 1.1', 'proxy_set_header Upgrade $http_upgrade'):
        assert f'{needed};' in lines


def test_there_are_no_blocks_of_another_kind():
    assert {block.language for block in BLOCKS} <= LANGUAGES
    assert {kind_of(command) for command in COMMANDS} <= {'server', 'client', 'make', 'pip'}
    for page in PAGES:
        if page.suffix == '.rst':
            text = page.read_text(encoding='utf-8')
            # A paragraph that ends so opens a literal block, which nobody runs.
            assert not re.search(r'^(?!\.\. ).*::$', text, re.MULTILINE)


def test_the_table_of_options_is_complete_and_has_the_defaults():
    table = {}
    text = (ROOT / 'docs' / 'api.rst').read_text(encoding='utf-8')
    for row in re.finditer(
        r'   \* - ``(\w+)``\n     - (\w+)\n     -.*\n     - ``(.+)``\n', text
    ):
        table[row[1]] = (row[2], eval(row[3]))
    defaults = {field.name: field.default for field in dataclasses.fields(Options)}
    roles = {'server': simple_websocket.Server, 'client': simple_websocket.Client}
    for kind in roles.values():
        for name, parameter in inspect.signature(kind).parameters.items():
            if name not in ('environ', 'url', 'options'):
                defaults.setdefault(name, parameter.default)
    assert {name: default for name, (_, default) in table.items()} == defaults
    for name, (role, _) in table.items():
        for other, kind in roles.items():
            if role in roles and role != other:
                assert name not in inspect.signature(kind).parameters
