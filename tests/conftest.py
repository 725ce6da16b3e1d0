"""What holds in every mode: the process is what the mode says, nobody imports
a backend that was not asked for, and a test that hangs says where."""

from __future__ import annotations

import faulthandler
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import signal
import sys

import hypothesis
import pytest

pytest.register_assert_rewrite('support')

from support import greenery, modes  # noqa: E402

MODE = modes.current()
LIBRARIES = ('wsproto', 'h11', 'gevent', 'eventlet', 'greenlet')

# Every mode runs the same examples, and none of them has a core for itself.
hypothesis.settings.register_profile('suite', deadline=None, print_blob=True)
# Mutation testing runs them many times over in one process, and compares.
hypothesis.settings.register_profile(
    'mutation',
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=[hypothesis.HealthCheck.differing_executors],
)
hypothesis.settings.load_profile('mutation' if 'MUTANT_UNDER_TEST' in os.environ else 'suite')


def pytest_configure(config):
    # The matrix asks so before it ends a mode that got stuck where no timeout
    # reaches it. Output is captured later, but not this copy.
    faulthandler.register(signal.SIGUSR1, file=os.dup(2), all_threads=True)
    _check_mode()


def pytest_report_header(config):
    versions = []
    for name in LIBRARIES:
        try:
            versions.append(f'{name} {importlib.metadata.version(name)}')
        except importlib.metadata.PackageNotFoundError:
            versions.append(f'no {name}')
    from simple_websocket import codec

    python = f'{platform.python_implementation()} {platform.python_version()}'
    return f'mode: {MODE.name}, codec: {codec.NAME}, {python}, {", ".join(versions)}'


def _check_mode():
    if MODE.world == 'gevent':
        import gevent.monkey

        patched = gevent.monkey.is_module_patched('socket')
    elif MODE.world == 'eventlet':
        import eventlet.patcher

        patched = bool(eventlet.patcher.is_monkey_patched('socket'))
    else:
        patched = False
    if patched is not MODE.patched:
        raise pytest.UsageError(f'mode {MODE.name}, but patched is {patched}')
    if present := _foreign():
        raise pytest.UsageError(f'mode {MODE.name}, but imported: {present}')
    if MODE.venv == 'bare':
        for name in MODE.foreign:
            if importlib.util.find_spec(name):
                raise pytest.UsageError(f'mode {MODE.name}, but {name} is installed')


def _foreign():
    return [name for name in MODE.foreign if name in sys.modules]


@pytest.fixture(autouse=True)
def nobody_imports_a_foreign_backend():
    before = _foreign()
    yield
    # The test that did it fails, those after it are not to blame.
    new = [name for name in _foreign() if name not in before]
    assert not new, f'imported in mode {MODE.name}: {new}'


def pytest_collection_modifyitems(config, items):
    """Leave out what does not apply to this mode: nothing is ever skipped."""
    known = frozenset().union(*(mode.tags for mode in modes.MODES))
    browser = shutil.which('chromium') or os.environ.get('SWS_REQUIRE_BROWSER')
    kept, left_out, no_browser = [], [], []
    for item in items:
        # Any of what a mark names will do, and every mark has to be content.
        wanted = [
            [frozenset(tag.split()) for tag in mark.args] for mark in item.iter_markers('only')
        ]
        for tags in (tags for mark in wanted for tags in mark):
            if tags - known:
                raise pytest.UsageError(f'{item.nodeid}: no mode has {set(tags - known)}')
        if not all(any(tags <= MODE.tags for tags in mark) for mark in wanted):
            left_out.append(item)
        elif not browser and item.get_closest_marker('browser'):
            no_browser.append(item)
        else:
            kept.append(item)
    items[:] = kept
    if left_out or no_browser:
        config.hook.pytest_deselected(items=left_out + no_browser)
    config.stash[NO_BROWSER] = len(no_browser)


NO_BROWSER = pytest.StashKey[int]()


def pytest_terminal_summary(terminalreporter, config):
    if number := config.stash.get(NO_BROWSER, 0):
        terminalreporter.write_line(
            f'no chromium on this machine: {number} browser tests left out', yellow=True
        )


@pytest.hookimpl(tryfirst=True)
def pytest_timeout_set_timer(item, settings):
    if not MODE.green:
        return None
    greenery.set_alarm(MODE, settings.timeout)
    return True


@pytest.hookimpl(tryfirst=True)
def pytest_timeout_cancel_timer(item):
    if not MODE.green:
        return None
    greenery.cancel_alarm()
    return True
