"""The fixture `world`: what a test of the blocking API needs, in every mode.

A test written against a `World` says `world.spawn`, `world.Event`,
`world.socketpair` and runs unchanged on threads, gevent and eventlet, patched
or not. Nothing here knows the package: its tests may not lean on it.

Tasks are for the backend's own concurrency; `real_thread` is an OS thread in
every mode. `Event` and `Queue` join tasks, not OS threads: those are waited
for with `join`, which lets the hub run.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import queue
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import ModuleType
from typing import Any

from .modes import Mode

LIMIT = 5.0

#: How much longer a wait may take than it says: where all runs slowly, measured
#: by coverage for one.
PATIENCE = float(os.environ.get('SWS_PATIENCE', 1))


class Task:
    """A function that runs on its own: a thread or a greenlet."""

    def __init__(self, fn: Callable[..., Any], args: tuple[Any, ...]) -> None:
        self.name = getattr(fn, '__qualname__', repr(fn))
        self.result: Any = None
        self.exception: BaseException | None = None
        self.killed = False
        self.done = False
        self.joined = False
        self._fn = fn
        self._args = args
        self._exit: type[BaseException] | tuple[()] = ()
        self._wait: Callable[[float], None]
        self.greenlet: Any = None

    def __repr__(self) -> str:
        return f'<{type(self).__name__} {self.name}>'

    def join(self, timeout: float = LIMIT) -> Any:
        """Wait for the end; return the result or raise the task's exception.

        Raises `TimeoutError` when the task is still running after `timeout`
        seconds. A killed task returns None.
        """
        self._wait(timeout * PATIENCE)
        if not self.done:
            raise TimeoutError(f'{self!r} still runs after {timeout} s')
        self.joined = True
        if self.exception is not None:
            raise self.exception
        return self.result

    def _run(self) -> None:
        try:
            self.result = self._fn(*self._args)
        except self._exit:
            self.killed = True
        except BaseException as error:
            self.exception = error
        finally:
            self.done = True
            # A result may live on; what the function was called with must not.
            del self._fn, self._args


class RealThread(Task):
    """A `Task` on an OS thread, whatever has been patched."""


class Ticker:
    """Counts in the hub (or a thread) while something else waits."""

    ticks = 0
    # The longest time between two ticks, in seconds.
    longest = 0.0


class World:
    """Threads, and the base of the green worlds."""

    name = 'threads'
    green = False
    # A context manager that raises in its block after some seconds.
    Timeout: Any = None

    def __init__(self, mode: Mode) -> None:
        self.mode = mode
        self.patched = mode.patched
        self._tasks: list[Task] = []
        self._sockets: list[Any] = []

    # What differs between the worlds.

    @property
    def socket(self) -> ModuleType:
        return socket

    @property
    def ssl(self) -> ModuleType:
        return importlib.import_module('ssl')

    def Event(self) -> Any:
        return threading.Event()

    def Queue(self) -> Any:
        return queue.Queue()

    def sleep(self, seconds: float) -> None:
        time.sleep(seconds)

    def original(self, module: str, name: str) -> Any:
        """`module.name` as it was before anything was patched."""
        return getattr(importlib.import_module(module), name)

    def kill(self, task: Task) -> None:
        """Throw `GreenletExit` into a task and wait for its end."""
        raise NotImplementedError('threads cannot be killed')

    def _start(self, task: Task) -> None:
        thread = threading.Thread(target=task._run, name=task.name, daemon=True)
        task._wait = thread.join
        thread.start()

    # What is the same in all of them.

    def spawn(self, fn: Callable[..., Any], *args: Any) -> Task:
        task = Task(fn, args)
        self._start(task)
        self._tasks.append(task)
        return task

    def real_thread(self, fn: Callable[..., Any], *args: Any) -> RealThread:
        task = RealThread(fn, args)

        def wait(timeout: float) -> None:
            deadline = time.monotonic() + timeout
            while not task.done and time.monotonic() < deadline:
                self.sleep(0.002)

        def run() -> None:
            # As `threading` does for its own: coverage follows threads by it.
            sys.settrace(threading.gettrace())
            task._run()

        task._wait = wait
        self.original('_thread', 'start_new_thread')(run, ())
        self._tasks.append(task)
        return task

    def closing(self, sock: Any) -> Any:
        """Close `sock` when the test is over; returns it."""
        self._sockets.append(sock)
        return sock

    def socketpair(self) -> tuple[Any, Any]:
        one, two = self.socket.socketpair()
        return self.closing(one), self.closing(two)

    def listen(self, backlog: int = 128) -> tuple[Any, int]:
        listener = self.closing(self.socket.socket())
        listener.bind(('127.0.0.1', 0))
        listener.listen(backlog)
        return listener, listener.getsockname()[1]

    def connect(self, port: int) -> Any:
        return self.closing(self.socket.create_connection(('127.0.0.1', port), LIMIT))

    @contextlib.contextmanager
    def ticker(self, every: float = 0.005) -> Iterator[Ticker]:
        """Tick in the same hub while the block runs.

        A hub that is frozen does not tick: see `.ticks` and `.longest`.
        """
        ticker = Ticker()
        stop = False

        def tick() -> None:
            last = time.monotonic()
            while not stop:
                self.sleep(every)
                now = time.monotonic()
                ticker.longest = max(ticker.longest, now - last)
                last = now
                ticker.ticks += 1

        task = self.spawn(tick)
        self.wait_until(lambda: ticker.ticks)
        ticker.ticks, ticker.longest = 0, 0.0
        try:
            yield ticker
        finally:
            # One more, so that a gap that is still open counts too.
            seen = ticker.ticks
            self.wait_until(lambda: ticker.ticks > seen)
            stop = True
            task.join()

    def wait_until(self, condition: Callable[[], Any], timeout: float = LIMIT) -> Any:
        """Poll until `condition()` is true, and return what it returned."""
        deadline = time.monotonic() + timeout * PATIENCE
        while not (value := condition()):
            if time.monotonic() > deadline:
                raise AssertionError(f'still {value!r} after {timeout} s')
            self.sleep(0.002)
        return value

    def settles_to(self, fn: Callable[[], Any], expected: Any, timeout: float = LIMIT) -> None:
        """Assert that `fn()` becomes `expected` within `timeout` seconds."""
        deadline = time.monotonic() + timeout * PATIENCE
        while (value := fn()) != expected:
            if time.monotonic() > deadline:
                raise AssertionError(f'{value!r} after {timeout} s, not {expected!r}')
            self.sleep(0.005)

    def comes_down_to(self, fn: Callable[[], Any], before: Any) -> None:
        """Assert that `fn()`, a number or a dict of them, is soon no more than before.

        Less is no leak: what ran earlier may have ended only now.
        """

        def no_more() -> bool:
            now = fn()
            if isinstance(now, dict):
                return all(now[name] <= before[name] for name in now)
            return now <= before

        try:
            self.settles_to(no_more, True)
        except AssertionError:
            raise AssertionError(f'{fn()!r} left, {before!r} before') from None

    def fds(self) -> int:
        """How many file descriptors are open in this process."""
        return len(self.fd_numbers())

    @staticmethod
    def fd_numbers() -> set[int]:
        """The file descriptors that are open in this process."""
        listed = {int(number) for number in os.listdir('/dev/fd')}
        # One of them was of the listing itself, and is closed again.
        return {number for number in listed if is_open(number)}

    def os_threads(self) -> int:
        """OS threads of this process, whoever started them (not gevent's own pool)."""
        return len(self.thread_ids())

    @staticmethod
    def thread_ids() -> set[int]:
        """The numbers the system gave to the OS threads of this process."""
        return {int(number) for number in os.listdir('/proc/self/task')}

    def finish(self) -> list[str]:
        """Clean up after a test; return what the test should have seen to."""
        deadline = time.monotonic() + 1
        while time.monotonic() < deadline and not all(t.done for t in self._tasks):
            self.sleep(0.005)
        left = [task for task in self._tasks if not task.done]
        complaints = [f'{task!r} was left running' for task in left]
        complaints += [
            f'{task!r} raised {task.exception!r}, and nobody joined it'
            for task in self._tasks
            if task.exception is not None and not task.joined
        ]
        for task in left:
            if self.green and not isinstance(task, RealThread):
                self.kill(task)
        for sock in self._sockets:
            # close() alone would not end a recv() in another thread.
            with contextlib.suppress(OSError, ValueError):
                sock.shutdown(socket.SHUT_RDWR)
            with contextlib.suppress(OSError):
                sock.close()
        for task in left:
            with contextlib.suppress(BaseException):
                task.join(1)
        return complaints


def is_open(fd: int) -> bool:
    try:
        os.fstat(fd)
    except OSError:
        return False
    return True


class Gevent(World):
    name = 'gevent'
    green = True

    def __init__(self, mode: Mode) -> None:
        super().__init__(mode)
        import gevent
        import gevent.event
        import gevent.monkey
        import gevent.queue
        import gevent.socket

        self._gevent = gevent
        self.Timeout = gevent.Timeout

    @property
    def socket(self) -> ModuleType:
        return self._gevent.socket

    @property
    def ssl(self) -> ModuleType:
        return importlib.import_module('gevent.ssl')

    def Event(self) -> Any:
        return self._gevent.event.Event()

    def Queue(self) -> Any:
        return self._gevent.queue.Queue()

    def sleep(self, seconds: float) -> None:
        self._gevent.sleep(seconds)

    def original(self, module: str, name: str) -> Any:
        return self._gevent.monkey.get_original(module, name)

    def os_threads(self) -> int:
        # The pool resolves names, and grows and shrinks as it likes.
        return super().os_threads() - self._gevent.get_hub().threadpool.size

    def kill(self, task: Task) -> None:
        self._gevent.kill(task.greenlet)
        # One that never ran has no outcome of its own.
        self._gevent.joinall([task.greenlet], timeout=LIMIT)
        if not task.done and task.greenlet.dead:
            task.killed = task.done = True

    def _start(self, task: Task) -> None:
        task._exit = self._gevent.GreenletExit
        task.greenlet = self._gevent.spawn(task._run)
        task._wait = task.greenlet.join


class Eventlet(World):
    name = 'eventlet'
    green = True

    def __init__(self, mode: Mode) -> None:
        super().__init__(mode)
        import eventlet
        import eventlet.green.socket
        import eventlet.green.threading
        import eventlet.patcher
        import eventlet.queue
        import greenlet

        self._eventlet = eventlet
        self._exit = greenlet.GreenletExit
        self.Timeout = eventlet.Timeout

    @property
    def socket(self) -> ModuleType:
        return self._eventlet.green.socket

    @property
    def ssl(self) -> ModuleType:
        return importlib.import_module('eventlet.green.ssl')

    def Event(self) -> Any:
        return self._eventlet.green.threading.Event()

    def Queue(self) -> Any:
        return self._eventlet.queue.Queue()

    def sleep(self, seconds: float) -> None:
        self._eventlet.sleep(seconds)

    def original(self, module: str, name: str) -> Any:
        return getattr(self._eventlet.patcher.original(module), name)

    def kill(self, task: Task) -> None:
        self._eventlet.kill(task.greenlet)
        with contextlib.suppress(TimeoutError):
            task._wait(LIMIT)
        if not task.done and task.greenlet.dead:
            task.killed = task.done = True

    def _start(self, task: Task) -> None:
        def wait(timeout: float) -> None:
            # GreenThread.wait() has no timeout of its own.
            deadline = time.monotonic() + timeout
            while not task.done and time.monotonic() < deadline:
                if task.greenlet.dead:
                    break
                self.sleep(0.002)

        task._exit = self._exit
        task._wait = wait
        task.greenlet = self._eventlet.spawn(task._run)


WORLDS = {kind.name: kind for kind in (World, Gevent, Eventlet)}


def make(mode: Mode) -> World:
    return WORLDS[mode.world](mode)
