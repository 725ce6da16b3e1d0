"""Tests are coroutines, each in an event loop of its own, which must be left
clean: no task, no open transport, nothing in the log that says trouble."""

from __future__ import annotations

import asyncio
import gc
import inspect
import logging

import pytest
from support import modes

MODE = modes.current()
if MODE.loop == 'uvloop':
    import uvloop

    run = uvloop.run
else:
    run = asyncio.run


def limit(config):
    """Seconds that a test may take: less than pytest gives it, to say more."""
    return float(config.getini('timeout')) / 3


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem):
    if not inspect.iscoroutinefunction(pyfuncitem.obj):
        return None
    names = pyfuncitem._fixtureinfo.argnames
    arguments = {name: pyfuncitem.funcargs[name] for name in names}

    async def main():
        assert type(asyncio.get_running_loop()).__module__.startswith(MODE.loop)
        await asyncio.wait_for(pyfuncitem.obj(**arguments), limit(pyfuncitem.config))
        left = asyncio.all_tasks() - {asyncio.current_task()}
        if left:  # those of a server may need a few steps
            _, left = await asyncio.wait(left, timeout=2)
        assert not left, f'left running: {left}'

    run(main())
    gc.collect()  # an unclosed transport warns when it goes, and so fails the test
    return True


@pytest.fixture(autouse=True)
def nothing_complains(caplog):
    """No server and no event loop has logged an error, unless the test looks
    at the log itself and clears it."""
    caplog.set_level(logging.INFO)
    yield
    loud = [r.getMessage() for r in caplog.get_records('call') if r.levelno >= logging.WARNING]
    # In debug mode, asyncio finds some of our messages rather large, and tells
    # of every client that refuses a certificate.
    debug = ('Executing ', 'Error on transport creation for incoming connection')
    assert not [line for line in loud if not line.startswith(debug)]


@pytest.fixture(params=['server', 'client'])
def role(request):
    return request.param
