"""The same tests in every mode: see `support/world.py`."""

from __future__ import annotations

import pytest
from support import greenery, modes
from support import world as worlds
from support.peer import accepted, connected

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


def injected_classes(world):
    """What python-engineio injects: a bare thread class of the world, its event
    and its selector."""
    if world.name == 'gevent':
        import gevent
        import gevent.event
        import gevent.selectors

        class Thread(gevent.Greenlet):
            def __init__(self, target):
                super().__init__(target)

        return {
            'thread_class': Thread,
            'event_class': gevent.event.Event,
            'selector_class': gevent.selectors.DefaultSelector,
        }
    if world.name == 'eventlet':
        import eventlet
        import eventlet.green.selectors
        import eventlet.green.threading

        class Thread:
            def __init__(self, target):
                self._target = target

            def start(self):
                eventlet.spawn(self._target)

        return {
            'thread_class': Thread,
            'event_class': eventlet.green.threading.Event,
            'selector_class': eventlet.green.selectors.DefaultSelector,
        }
    import selectors
    import threading

    class Thread(threading.Thread):
        def __init__(self, target):
            super().__init__(target=target, daemon=True)

    return {
        'thread_class': Thread,
        'event_class': threading.Event,
        'selector_class': selectors.DefaultSelector,
    }


@pytest.fixture(params=['native', 'injected'])
def classes(request, world):
    """Options for a connection: none, or injected classes of this world."""
    return {} if request.param == 'native' else injected_classes(world)


@pytest.fixture(params=['server', 'client'])
def role(request):
    return request.param


@pytest.fixture
def end(world, role, classes):
    """Makes a connection and its scripted peer: `ws, peer = end(**options)`."""
    made = []

    def make(**options):
        opener = accepted if role == 'server' else connected
        ws, peer = opener(world, **{**classes, **options})
        made.append((ws, peer))
        return ws, peer

    yield make
    for ws, peer in made:
        peer.close()
        ws._link.abandon()
        world.settles_to(lambda ws=ws: ws._link.finished, True)
