"""The same tests in every mode: see `support/world.py`."""

from __future__ import annotations

import pytest
from support import greenery, modes
from support import world as worlds

MODE = modes.current()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_protocol(item, nextitem):
    # Unpatched, a test runs in a greenlet with its fixtures, as an application
    # would: code in the main greenlet is not in anybody's hub.
    if not MODE.green or MODE.patched:
        return None
    runner = item.config.pluginmanager.get_plugin('runner')
    return greenery.call(MODE, runner.pytest_runtest_protocol, item, nextitem)


@pytest.fixture(scope='session', autouse=True)
def warm():
    """Start the hub and what goes with it: what that opens is part of no test."""
    world = worlds.make(MODE)
    listener, port = world.listen()
    world.connect(port)
    listener.accept()[0].close()
    world.finish()


@pytest.fixture
def world():
    """Where this test runs, see `support.world.World`.

    A test that leaves a task running, or whose task failed unseen, fails.
    """
    world = worlds.make(MODE)
    yield world
    complaints = world.finish()
    if complaints:
        pytest.fail('; '.join(complaints), pytrace=False)
