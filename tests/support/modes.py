"""The modes that the tests run in: one process each, see `tests/matrix.py`.

A mode says which directory of tests runs, in which environment, under which
launcher, and what kind of world (threads, gevent, eventlet; patched or not)
the process then is. `tests/conftest.py` checks that it really is.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

VARIABLE = 'SWS_MODE'


@dataclass(frozen=True)
class Mode:
    name: str
    tests: str
    venv: str = 'full'
    launch: tuple[str, ...] = ('-m', 'pytest')
    world: str = 'threads'
    patched: bool = False
    # Modules that nobody may have imported in this process.
    foreign: tuple[str, ...] = ()
    # The codec that is forced; without one it is the fastest that is there.
    codec: str = ''
    # Whose event loop the tests of asyncio have.
    loop: str = 'asyncio'
    # Seconds of wall clock, after which the process is ended.
    bound: float = 420

    @property
    def green(self) -> bool:
        return self.world != 'threads'

    @property
    def tags(self) -> frozenset[str]:
        """What `pytest.mark.only` may name."""
        tags = {self.name, self.world}
        if self.codec != 'wsproto':
            # What no codec has a part in is not run again on the reference.
            tags.add('default-codec')
        if self.loop == 'asyncio':
            tags.add('asyncio-loop')
        if self.green:
            tags |= {'green', 'patched' if self.patched else 'unpatched'}
        return frozenset(tags)


CODEC_VARIABLE = 'SIMPLE_WEBSOCKET_CODEC'
_EVENTLET_RUNNER = 'tests/eventlet_runner.py'

# In the order in which they are started: the long ones first, and beside those that
# mostly wait (live, isolated) those that compute.
MODES = (
    Mode('live', 'tests/live', bound=300),
    Mode('isolated', 'tests/isolated'),
    # The protocol's tests, once for each codec.  A mode that names none runs with the
    # compiled one, where it could be built.
    Mode(
        'core',
        'tests/core',
        'bare',
        foreign=('gevent', 'eventlet', 'greenlet'),
        codec='wsproto',
    ),
    Mode(
        'core-compiled',
        'tests/core',
        'bare',
        foreign=('gevent', 'eventlet', 'greenlet'),
        codec='compiled',
    ),
    # Against other implementations; one of them needs node.
    Mode('interop', 'tests/interop', foreign=('gevent', 'eventlet'), bound=300),
    # Autobahn, where there is the Python 2.7 that it needs.
    Mode(
        'conformance-compiled',
        'tests/conformance',
        foreign=('gevent', 'eventlet'),
        codec='compiled',
    ),
    Mode(
        'threads',
        'tests/sync',
        foreign=('gevent', 'eventlet'),
    ),
    Mode(
        'threads-bare',
        'tests/sync',
        'bare',
        foreign=('gevent', 'eventlet', 'greenlet'),
    ),
    Mode(
        'threads-wsproto',
        'tests/sync',
        foreign=('gevent', 'eventlet'),
        codec='wsproto',
    ),
    Mode(
        'gevent',
        'tests/sync',
        world='gevent',
        foreign=('eventlet',),
    ),
    Mode(
        'gevent-wsproto',
        'tests/sync',
        world='gevent',
        foreign=('eventlet',),
        codec='wsproto',
    ),
    Mode(
        'gevent-patched',
        'tests/sync',
        launch=('-m', 'pytest_gevent'),
        world='gevent',
        patched=True,
        foreign=('eventlet',),
    ),
    Mode(
        'eventlet',
        'tests/sync',
        launch=(_EVENTLET_RUNNER,),
        world='eventlet',
        foreign=('gevent',),
    ),
    Mode(
        'eventlet-patched',
        'tests/sync',
        launch=(_EVENTLET_RUNNER, '--patch'),
        world='eventlet',
        patched=True,
        foreign=('gevent',),
    ),
    Mode(
        'eventlet-wsproto',
        'tests/sync',
        launch=(_EVENTLET_RUNNER,),
        world='eventlet',
        foreign=('gevent',),
        codec='wsproto',
    ),
    Mode(
        'conformance-wsproto',
        'tests/conformance',
        foreign=('gevent', 'eventlet'),
        codec='wsproto',
    ),
    Mode('aio', 'tests/aio', foreign=('gevent', 'eventlet')),
    Mode('aio-wsproto', 'tests/aio', foreign=('gevent', 'eventlet'), codec='wsproto'),
    Mode('aio-uvloop', 'tests/aio', foreign=('gevent', 'eventlet'), loop='uvloop'),
    Mode('live-eventlet-gunicorn', 'tests/live_eventlet_gunicorn', 'eventlet-gunicorn'),
)

BY_NAME = {mode.name: mode for mode in MODES}


def current() -> Mode:
    """The mode of this process; a plain `pytest` is the mode `threads`."""
    name = os.environ.get(VARIABLE, 'threads')
    try:
        return BY_NAME[name]
    except KeyError:
        raise LookupError(f'{VARIABLE}={name}: not one of {", ".join(BY_NAME)}') from None
