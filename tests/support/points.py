"""Every point at which an exception can come out of nowhere, one after another.

In a hub these are the switches of a greenlet: `throw_at_switch`. In any
process they are also the points at which the interpreter runs a signal
handler, that is, between two bytecodes: `raise_at_bytecode`. The default is
what CPython really does, which looks for signals behind each call, at the
start of each function and at each jump back; `SWS_EVERY_POINT=1` takes every
single bytecode.

A scenario is run once for each point, until a run does not reach it.
"""

from __future__ import annotations

import dis
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import simple_websocket
from simple_websocket.profiles.originals import builtin

PACKAGE = str(Path(simple_websocket.__file__).parent)
_ident = builtin('threading', 'get_ident')
EVERY = bool(os.environ.get('SWS_EVERY_POINT'))


class Outcome:
    """What a call came to."""

    def __init__(self) -> None:
        self.hit = False  # whether it got as far as the point
        self.where = ''  # file, line and function of that point
        self.result: Any = None
        self.error: BaseException | None = None

    def __repr__(self) -> str:
        end = repr(self.error) if self.error is not None else f'gave {self.result!r:.80}'
        return f'{self.where or "not reached"}: {end}'


def _call(outcome: Outcome, fn: Callable[[], Any]) -> None:
    try:
        outcome.result = fn()
    except BaseException as error:
        outcome.error = error


def _where(frame: FrameType | None) -> str:
    while frame is not None and not frame.f_code.co_filename.startswith(PACKAGE):
        frame = frame.f_back
    if frame is None:
        return 'outside the package'
    name = Path(frame.f_code.co_filename).name
    return f'{name}:{frame.f_lineno} {frame.f_code.co_name}'


def throw_at_switch(
    world: Any, fn: Callable[[], Any], number: int, error: BaseException, late: bool
) -> Outcome:
    """Call `fn` in a greenlet of its own; throw when it has switched to the
    hub for the `number`-th time.

    :param late: not while it waits, but in place of what it waited for: the
                 exception comes out of the switch back.
    """
    import greenlet

    outcome = Outcome()
    victim: Any = None
    switches = 0

    def throw() -> None:
        if switches == number and not victim.dead:
            victim.throw(error)

    def trace(event: str, pair: tuple[Any, Any]) -> None:
        nonlocal switches
        origin, target = pair
        if origin is victim and target is not victim and not victim.dead:
            switches += 1
            if switches == number:
                outcome.hit = True
                outcome.where = _where(sys._getframe(1) if late else victim.gr_frame)
                if not late:
                    call_soon(world, throw)
        elif late and target is victim and event == 'switch' and switches == number:
            raise error

    def body() -> None:
        nonlocal victim
        victim = greenlet.getcurrent()
        before = greenlet.settrace(trace)
        try:
            _call(outcome, fn)
        finally:
            greenlet.settrace(before)

    world.spawn(body).join(10)
    return outcome


def call_soon(world: Any, fn: Callable[[], None]) -> None:
    """Have the hub call `fn` in its next turn."""
    if world.name == 'gevent':
        import gevent

        gevent.get_hub().loop.run_callback(fn)
    else:
        from eventlet import hubs

        hubs.get_hub().schedule_call_global(0, fn)


class Progress:
    """How far a traced call has got, for whoever waits until it waits."""

    def __init__(self) -> None:
        self.events = 0
        self.started = False
        self.done = False

    def stuck(self, sleep: Callable[[float], None]) -> None:
        """Return when the call does not get on any more: it waits."""
        seen = -1
        deadline = time.monotonic() + 5
        while not self.done and time.monotonic() < deadline:
            if self.started and seen == self.events:
                return
            seen = self.events
            sleep(0.002)


_POINTS: dict[CodeType, frozenset[int]] = {}


def _points(code: CodeType) -> frozenset[int]:
    """The offsets at which the interpreter has just looked for signals."""
    found = _POINTS.get(code)
    if found is None:
        offsets = set()
        previous = ''
        for one in dis.get_instructions(code):
            called = 'CALL' in previous and previous != 'PRECALL'
            back = 'JUMP_BACKWARD' in one.opname or one.opname == 'JUMP_ABSOLUTE'
            if EVERY or called or back:
                offsets.add(one.offset)
            if one.opname not in ('CACHE', 'EXTENDED_ARG'):
                previous = one.opname
        found = _POINTS[code] = frozenset(offsets)
    return found


def raise_at_bytecode(
    fn: Callable[[], Any],
    number: int,
    error: BaseException,
    progress: Progress,
    files: str | tuple[str, ...] = '.py',
) -> Outcome:
    """Call `fn` in this thread or greenlet; raise at the `number`-th point
    inside the package, as a signal handler does.

    :param files: the ends of the names of the files that count.
    """
    outcome = Outcome()
    seen = 0
    here = _current()

    def counts(code: CodeType) -> bool:
        return code.co_filename.startswith(PACKAGE) and code.co_filename.endswith(files)

    def reach(frame: FrameType) -> None:
        nonlocal seen
        if outcome.hit or _current() != here:
            return
        if _in_finaliser(frame):
            return  # of something else, and the interpreter keeps it to itself
        seen += 1
        if seen == number:
            outcome.hit = True
            outcome.where = _where(frame)
            raise error

    def on_bytecode(frame: FrameType, offset: int) -> None:
        progress.events += 1
        if offset in _points(frame.f_code):
            reach(frame)

    follow = _monitored if hasattr(sys, 'monitoring') else _traced
    progress.started = True
    with follow(counts, reach, on_bytecode):
        _call(outcome, fn)
    progress.done = True
    return outcome


Counts = Callable[[CodeType], bool]
OnStart = Callable[[FrameType], None]
OnBytecode = Callable[[FrameType, int], None]


@contextmanager
def _traced(counts: Counts, on_start: OnStart, on_bytecode: OnBytecode) -> Iterator[None]:
    """Call back from this thread at the start of each function that counts, and
    before each of its bytecodes."""

    def local(frame: FrameType, event: str, argument: Any) -> Any:
        if event == 'opcode':
            on_bytecode(frame, frame.f_lasti)
        return local

    def begin(frame: FrameType, event: str, argument: Any) -> Any:
        if not counts(frame.f_code):
            return None
        on_start(frame)
        frame.f_trace_lines = False
        frame.f_trace_opcodes = True
        return local

    before = sys.gettrace()
    sys.settrace(begin)
    try:
        yield
    finally:
        sys.settrace(before)


@contextmanager
def _monitored(counts: Counts, on_start: OnStart, on_bytecode: OnBytecode) -> Iterator[None]:
    """The same from Python 3.12 on, where a trace function is told of a function's
    bytecodes only if its last call was traced too; from all threads."""
    monitoring: Any = sys.monitoring  # type: ignore[attr-defined,unused-ignore]
    events, tool = monitoring.events, monitoring.DEBUGGER_ID

    def start(code: CodeType, offset: int) -> Any:
        if not counts(code):
            return monitoring.DISABLE
        return on_start(sys._getframe(1))

    def bytecode(code: CodeType, offset: int) -> Any:
        if not counts(code):
            return monitoring.DISABLE
        return on_bytecode(sys._getframe(1), offset)

    monitoring.use_tool_id(tool, 'points')
    try:
        monitoring.register_callback(tool, events.PY_START, start)
        monitoring.register_callback(tool, events.PY_RESUME, start)
        monitoring.register_callback(tool, events.INSTRUCTION, bytecode)
        monitoring.restart_events()
        monitoring.set_events(tool, events.PY_START | events.PY_RESUME | events.INSTRUCTION)
        yield
    finally:
        monitoring.set_events(tool, 0)
        for event in (events.PY_START, events.PY_RESUME, events.INSTRUCTION):
            monitoring.register_callback(tool, event, None)
        monitoring.free_tool_id(tool)


def _in_finaliser(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_name == '__del__':
            return True
        frame = frame.f_back
    return False


def _current() -> Any:
    """The running thread and its greenlet."""
    greenlet = sys.modules.get('greenlet')
    return _ident(), greenlet and greenlet.getcurrent()
