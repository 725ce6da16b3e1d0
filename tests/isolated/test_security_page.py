"""The security page: every claim names its test, and that test exists."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / 'docs' / 'security.rst'
TEXT = PAGE.read_text(encoding='utf-8')
NAMED = sorted(set(re.findall(r'``(tests/[\w/]+\.py::[\w:]+)``', TEXT)))

#: Sections whose claims are each tested.
CLAIMS = (
    'What is bounded by what',
    'Origins',
    'TLS',
    'Masks and keys',
    'Requests that are no WebSocket',
    'What breaks the protocol',
)


def sections():
    """The text of each section, by its title."""
    parts = re.split(r'^(.+)\n[-=]+\n', TEXT, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def functions_of(path):
    """The names of a file's test functions, with their class before them."""
    found = set()
    for node in ast.parse(path.read_text(encoding='utf-8')).body:
        inner = node.body if isinstance(node, ast.ClassDef) else [node]
        prefix = f'{node.name}::' if isinstance(node, ast.ClassDef) else ''
        found |= {
            prefix + one.name
            for one in inner
            if isinstance(one, (ast.FunctionDef, ast.AsyncFunctionDef))
            and one.name.startswith('test_')
        }
    return found


@pytest.mark.parametrize('name', NAMED)
def test_a_test_that_the_page_names_exists(name):
    file, _, function = name.partition('::')
    assert function in functions_of(ROOT / file)


@pytest.mark.parametrize('title', CLAIMS)
def test_a_section_with_claims_names_tests(title):
    assert re.search(r'``tests/', sections()[title])


def test_every_row_of_what_is_bounded_names_a_test():
    rows = sections()['What is bounded by what'].split('   * - ')[2:]
    assert len(rows) > 10
    for row in rows:
        assert re.search(r'``tests/\S+::test_', row), row


def test_no_name_is_written_in_another_way():
    assert len(re.findall(r'\btests/', TEXT)) == len(re.findall(r'``tests/[\w/]+\.py::', TEXT))


def test_it_says_how_to_report_and_so_does_the_file_for_it():
    for text in (sections()['To report a vulnerability'], (ROOT / 'SECURITY.md').read_text()):
        flat = ' '.join(text.split())
        assert 'private security advisory on the project\'s repository page' in flat
        assert '://' not in flat and '@' not in flat  # no address that could go stale


def test_the_defaults_it_calls_off_are_off():
    import inspect

    from simple_websocket import Server

    text = sections()['Off by default']
    for name in ('max_message_size', 'ping_interval', 'origins'):
        assert f'``{name}``' in text
        assert inspect.signature(Server).parameters[name].default is None
    for method in (Server.send, Server.receive):
        assert f'``{method.__name__}(timeout=)``' in text
        assert inspect.signature(method).parameters['timeout'].default is None


def test_the_defaults_it_gives_are_those_of_the_options():
    from simple_websocket import inbox, protocol
    from simple_websocket.options import Options

    text = sections()['What is bounded by what']
    options = Options()
    assert f'``max_fragments``, {options.max_fragments} by default' in text
    assert f'``max_queue`` messages, {options.max_queue} by default' in text
    assert f'``close_timeout``, {options.close_timeout:g} seconds' in text
    assert f'``open_timeout``, {options.open_timeout:g} seconds' in text
    assert f'about {protocol.MANY_FRAMES} frames' in text
    assert inbox.MAX_QUEUE_SIZE == 1 << 20 and 'or 1 MiB' in text
