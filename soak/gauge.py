"""What a server process holds, counted from the inside.

A leak shows here long before it hurts: a descriptor, a thread, a greenlet, an
entry in a hub, a connection's state that did not go when its peer did.
"""

from __future__ import annotations

import ctypes
import gc
import os
import resource
import sys

#: What must be the same before and after; memory is judged by a tolerance.
COUNTED = ('fds', 'threads', 'tasks', 'watchers', 'connections', 'protocols')


def gauge() -> dict[str, int]:
    """Count what this process holds.

    :returns: ``fds``, ``threads`` (of the OS, without gevent's own pool),
              ``tasks`` (greenlets, or asyncio tasks), ``watchers`` (what a hub
              or a loop waits for), ``connections`` whose descriptor is open,
              ``protocols`` (connections whose state is in memory) and ``rss``
              in bytes, once what is free was given back.
    """
    gc.collect()
    _give_back()
    from simple_websocket.profiles import link
    from simple_websocket.protocol import Protocol

    objects = gc.get_objects()
    return {
        'fds': len(os.listdir('/proc/self/fd')) - 1,  # one is of the listing
        'threads': len(os.listdir('/proc/self/task')) - _pool(),
        'tasks': _tasks(objects),
        'watchers': _watchers(),
        'connections': sum(not one.finished for one in list(link._live)),
        'protocols': sum(type(one) is Protocol for one in objects),
        'rss': rss(),
    }


def rss(pid: int | str = 'self') -> int:
    """Resident memory of a process, in bytes."""
    with open(f'/proc/{pid}/statm') as statm:
        return int(statm.read().split()[1]) * resource.getpagesize()


def cpu(pid: int) -> float:
    """Seconds of CPU that a process has taken."""
    with open(f'/proc/{pid}/stat') as stat:
        fields = stat.read().rpartition(')')[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf('SC_CLK_TCK')


def _give_back() -> None:
    # glibc keeps what was freed, in an arena a thread: that is no leak.
    trim = getattr(ctypes.CDLL(None), 'malloc_trim', None)
    if trim is not None:
        trim(0)


def _pool() -> int:
    if 'gevent' not in sys.modules:
        return 0
    import gevent

    return gevent.get_hub().threadpool.size


def _tasks(objects: list[object]) -> int:
    if 'aiohttp' in sys.modules:
        import asyncio

        return len(asyncio.all_tasks())
    if 'greenlet' not in sys.modules:
        return 0
    import greenlet

    alive = sum(isinstance(one, greenlet.greenlet) and not one.dead for one in objects)
    return alive - 2 * _pool()  # each of its threads has a hub and a main greenlet


def _watchers() -> int:
    if 'gevent' in sys.modules:
        import gevent

        return gevent.get_hub().loop.activecnt
    if 'eventlet' in sys.modules:
        import eventlet.hubs

        hub = eventlet.hubs.get_hub()
        return len(hub.get_readers()) + len(hub.get_writers())
    if 'aiohttp' in sys.modules:
        import asyncio

        loop = asyncio.get_running_loop()
        return len(loop._selector.get_map())
    from simple_websocket.profiles.watchman import Watchman

    return len(Watchman._current._links) if Watchman._current else 0
