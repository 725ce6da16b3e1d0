"""The layers: imports point downward only, and nothing grows too large.

Asserted from the syntax tree, so imports inside functions count too; those for
type checking alone do not.
"""

from __future__ import annotations

import ast
import os
import pathlib
import re
import subprocess
import sys

import pytest

import simple_websocket

PACKAGE = pathlib.Path(simple_websocket.__file__).parent

#: From the bottom to the top: a module imports from layers below its own.
#: What a line has in one tuple knows nothing of each other.
LAYERS = (
    ('aiotime', 'authority', 'errors', 'hosts'),
    ('codec', 'close_codes', 'deflate', 'handshake', 'inbox', 'keepalive'),
    ('client_handshake', 'environ', 'protocol'),
    ('options',),
    ('profiles',),
    ('connection', 'dial'),
    ('aiodial', 'asgi', 'takeover'),
    ('ws', 'aiows'),
    ('broadcast', 'wsgi'),
    ('__init__',),
)
RANK = {name: rank for rank, layer in enumerate(LAYERS) for name in layer}

#: DESIGN's column "never sees".
NEVER = {
    'errors': ('socket', 'threading', 'time', 'asyncio', 'select', 'ssl', 'wsproto', 'h11'),
    'codec': ('socket', 'threading', 'time', 'asyncio', 'select', 'selectors', 'ssl', 'h11'),
    'deflate': ('socket', 'threading', 'time', 'asyncio', 'select', 'ssl', 'wsproto', 'h11'),
    'handshake': ('socket', 'threading', 'time', 'asyncio', 'select', 'ssl', 'wsproto', 'h11'),
    'environ': ('socket', 'threading', 'time', 'asyncio', 'select', 'ssl', 'wsproto', 'h11'),
    'client_handshake': ('socket', 'threading', 'time', 'asyncio', 'select', 'ssl', 'wsproto'),
    'protocol': (
        'socket', 'threading', 'time', 'asyncio', 'select', 'selectors', 'ssl', 'wsproto', 'h11',
    ),
    'ws': ('wsproto', 'h11', 'select', 'selectors', 'threading', 'asyncio'),
}  # fmt: skip

MAX_LINES = 620
MAX_FUNCTION_LINES = 65

FILES = sorted(PACKAGE.rglob('*.py'))
COMPILED = sorted(PACKAGE.rglob('*.pyx'))
each_file = pytest.mark.parametrize(
    'path', FILES, ids=[str(path.relative_to(PACKAGE)) for path in FILES]
)


def module_of(path):
    """The module of the table that a file belongs to."""
    first = path.relative_to(PACKAGE).parts[0]
    return first.removesuffix('.py')


def imports(path):
    """Absolute names of all modules that a file imports, with line numbers."""
    found = []
    package = ['simple_websocket', *path.relative_to(PACKAGE).parts[:-1]]

    def visit(node):
        if isinstance(node, ast.If) and ast.unparse(node.test) == 'TYPE_CHECKING':
            for other in node.orelse:
                visit(other)
            return
        if isinstance(node, ast.Import):
            found.extend((alias.name, node.lineno) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else []
            name = '.'.join([*base, *([node.module] if node.module else [])])
            if name == 'simple_websocket':
                found.extend((f'{name}.{alias.name}', node.lineno) for alias in node.names)
            else:
                found.append((name, node.lineno))
        for child in ast.iter_child_nodes(node):
            visit(child)

    visit(ast.parse(path.read_text(), str(path)))
    return found


def compiled_imports(path):
    """What a Cython file imports of the package, by module names."""
    package = ['simple_websocket', *path.relative_to(PACKAGE).parts[:-1]]
    found = re.findall(r'^from (\.+)(\w*) c?import', path.read_text(), re.MULTILINE)
    return ['.'.join([*package[: len(package) - len(dots) + 1], name]) for dots, name in found]


def inner(name):
    """The module of the table that an imported name is part of, or None."""
    parts = name.split('.')
    if parts[0] != 'simple_websocket':
        return None
    module = parts[1] if len(parts) > 1 else '__init__'
    return {'_codec': 'codec'}.get(module, module)  # its compiled half


def test_every_module_has_a_layer():
    assert {module_of(path) for path in FILES} == set(RANK)


@each_file
def test_imports_point_downward(path):
    own = module_of(path)
    wrong = []
    for name, line in imports(path):
        target = inner(name)
        within = own == target and own in ('profiles', 'codec')
        if target is not None and not within and not RANK[target] < RANK[own]:
            wrong.append(f'{path.name}:{line} {own} imports {target}')
    assert not wrong


@pytest.mark.parametrize('path', COMPILED, ids=lambda path: path.name)
def test_compiled_imports_point_downward(path):
    own = inner('.'.join(['simple_websocket', *path.relative_to(PACKAGE).with_suffix('').parts]))
    targets = {inner(name) for name in compiled_imports(path)}
    assert targets
    assert all(target == own or RANK[target] < RANK[own] for target in targets)


@each_file
def test_a_module_does_not_see_what_is_not_its_matter(path):
    never = NEVER.get(module_of(path), ())
    assert not [(name, line) for name, line in imports(path) if name.split('.')[0] in never]


@each_file
def test_green_libraries_are_imported_by_the_profiles_alone(path):
    green = ('gevent', 'eventlet', 'greenlet')
    found = [(name, line) for name, line in imports(path) if name.split('.')[0] in green]
    assert not found or module_of(path) == 'profiles'


@each_file
def test_a_file_can_be_read_in_one_go(path):
    assert len(path.read_text().splitlines()) <= MAX_LINES


@each_file
def test_a_function_can_be_read_in_one_look(path):
    long = [
        f'{path.name}:{node.lineno} {node.name}: {node.end_lineno - node.lineno + 1} lines'
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
        and node.end_lineno - node.lineno + 1 > MAX_FUNCTION_LINES
    ]
    assert not long


def imported_by(script):
    """The top-level modules that a script imports into a fresh interpreter."""
    environ = {**os.environ, 'PYTHONPATH': str(PACKAGE.parent)}
    done = subprocess.run(
        [sys.executable, '-c', f'import sys\n{script}\nprint(*sys.modules)'],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    return {name.split('.')[0] for name in done.stdout.split()}


def test_importing_the_package_imports_no_backend_and_no_asyncio():
    found = imported_by('import simple_websocket')
    assert not found & {'gevent', 'eventlet', 'greenlet', 'asyncio', 'aiohttp'}
    assert 'simple_websocket' in found


@pytest.mark.parametrize('module', ['ws', 'aiows', 'asgi', 'errors'])
def test_importing_a_module_of_the_contract_imports_no_backend(module):
    found = imported_by(f'import simple_websocket.{module}')
    assert not found & {'gevent', 'eventlet', 'greenlet', 'aiohttp'}


def test_the_protocol_can_be_had_without_sockets_threads_or_asyncio():
    # The package's own __init__ brings them, so it is left out; what wsproto
    # brings is forgotten.
    script = f"""
import types, wsproto.frame_protocol, wsproto.extensions
package = sys.modules['simple_websocket'] = types.ModuleType('simple_websocket')
package.__path__ = [{str(PACKAGE)!r}]
for name in ('socket', 'threading', 'asyncio', 'select', 'selectors', 'ssl'):
    sys.modules.pop(name, None)
import simple_websocket.protocol"""
    found = imported_by(script)
    assert not found & {'socket', 'threading', 'asyncio', 'select', 'selectors', 'ssl'}


def test_the_public_names_are_there():
    for name in simple_websocket.__all__:
        assert hasattr(simple_websocket, name)
    assert {
        'Server', 'Client', 'AioServer', 'AioClient',
        'ConnectionError', 'ConnectionClosed', 'SimpleWebsocketError',
    } <= set(simple_websocket.__all__)  # fmt: skip
