"""Tests inside greenlets, and how a test that hangs there is ended.

An exception raised by a signal handler belongs to whichever greenlet happens
to run, and while everybody waits that is the hub: gevent would print it and go
on, eventlet would lose its hub. So the timeout goes from here to the greenlet
of the test, wherever the signal found the process.

gevent and eventlet are imported when called: their presence is the mode's
choice.
"""

from __future__ import annotations

import gc
import signal
import sys
import traceback
from collections.abc import Callable
from typing import Any

import pytest

from .modes import Mode

# The greenlet in which the test runs, None while it is the main one.
_test_greenlet: Any = None


def call(mode: Mode, fn: Callable[..., Any], *args: Any) -> Any:
    """Return `fn(*args)`, run in a greenlet of its own."""
    global _test_greenlet
    outcome: list[tuple[Any, BaseException | None]] = []

    def body() -> None:
        try:
            outcome.append((fn(*args), None))
        except BaseException as error:
            outcome.append((None, error))

    if mode.world == 'gevent':
        import gevent

        task = gevent.spawn(body)
        wait = task.join
    else:
        import eventlet

        task = eventlet.spawn(body)
        wait = task.wait
    _test_greenlet = task
    try:
        while not outcome:
            try:
                wait()
            except BaseException as error:
                # What comes out here was meant for the test: Ctrl-C, gevent's
                # LoopExit, the alarm by way of eventlet's hub.
                _throw(mode, task, error)
    finally:
        _test_greenlet = None
    value, error = outcome[0]
    if error is not None:
        raise error
    return value


def set_alarm(mode: Mode, seconds: float) -> None:
    """Fail the running test after `seconds`, unless `cancel_alarm` is called."""

    def ring(signum: int, frame: Any) -> None:
        _dump(frame)
        _interrupt(mode, pytest.fail.Exception(f'Timeout (>{seconds} s)'))

    signal.signal(signal.SIGALRM, ring)
    signal.setitimer(signal.ITIMER_REAL, seconds)


def cancel_alarm() -> None:
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, signal.SIG_DFL)


def _interrupt(mode: Mode, error: BaseException) -> None:
    import greenlet

    here = greenlet.getcurrent()
    main = here
    while main.parent is not None:
        main = main.parent
    target = _test_greenlet or main
    if here is target:
        raise error
    if here is _hub(mode) and mode.world == 'eventlet':
        # The poll would go on waiting. So the error comes out in the main
        # greenlet, and the next wait makes a new hub greenlet.
        raise error
    _throw(mode, target, error)
    if here is not _hub(mode):
        # A task that does not let the hub run.
        raise error


def _hub(mode: Mode) -> Any:
    if mode.world == 'gevent':
        import gevent

        return gevent.get_hub()
    from eventlet import hubs

    return hubs.get_hub().greenlet


def _throw(mode: Mode, target: Any, error: BaseException) -> None:
    """Have the hub throw `error` into a greenlet."""
    if mode.world == 'gevent':
        _hub(mode).loop.run_callback(target.throw, error)
    else:
        from eventlet import hubs

        hubs.get_hub().schedule_call_global(0, target.throw, error)


def _dump(frame: Any) -> None:
    print('~~~ where the signal came in ~~~', file=sys.stderr)
    traceback.print_stack(frame, file=sys.stderr)
    dump_greenlets()


def dump_greenlets() -> None:
    """Print where every greenlet of this process waits."""
    import greenlet

    for number, found in enumerate(
        g for g in gc.get_objects() if isinstance(g, greenlet.greenlet)
    ):
        if found.gr_frame is not None:
            print(f'~~~ greenlet {number}: {found!r} ~~~', file=sys.stderr)
            traceback.print_stack(found.gr_frame, file=sys.stderr)
