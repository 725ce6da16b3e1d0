"""Profiles: which concurrency a connection runs on, as a value.

A ``Profile`` names the classes that stand for "a thread", "an event", "a
selector", and says how a connection waits.  It is chosen when a connection is
accepted or made, never at import, since monkey-patching may come later:

1. ``profile=``;
2. injected classes, honoured literally, the rest filled in from their family;
3. the socket's own world (a gevent socket, an eventlet green socket);
4. for a client: how the process is patched, else the hub that it is called in;
5. stdlib threads.

gevent and eventlet are imported here only, and only when the process has done
so already or when they are asked for by name.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

from ..protocol import Protocol
from .blocking import BlockingLink
from .wire import Wire


@dataclass(frozen=True)
class Profile:
    """One way to run concurrently.

    :param name: what to call it.
    :param thread_class: called with ``target=``; has ``start()``.
    :param event_class: has ``set()``, ``clear()``, ``wait(timeout)``.
    :param selector_class: has ``register``, ``select(timeout)``, ``close()``.
    :param wait: ``wait(fd, write, timeout) -> bool``: wait until a descriptor
                 is ready, in seconds; False when the time ran out.
    :param getaddrinfo: resolves a host name without freezing anybody.
    :param link: makes the link of a connection; None for a reader on
                 ``thread_class``, watching with ``selector_class``.
    :param opened: told the number of each descriptor that is made for a client.
    """

    name: str
    thread_class: Any
    event_class: Any
    selector_class: Any
    wait: Callable[[int, bool, float | None], bool]
    getaddrinfo: Callable[..., Any]
    link: Callable[[Wire, Protocol, Callable[[], float]], BlockingLink] | None = None
    opened: Callable[[int], None] = lambda fd: None

    def make_link(self, wire: Wire, protocol: Protocol, now: Callable[[], float]) -> BlockingLink:
        """Join a socket and a protocol in this profile's way."""
        if self.link is not None:
            return self.link(wire, protocol, now)
        from .injected import InjectedLink

        return InjectedLink(
            wire, protocol, now, self.thread_class, self.event_class, self.selector_class
        )


def _threads() -> Profile:
    from .originals import original
    from .threads import ThreadLink, wait_for

    return Profile(
        'threads',
        original('threading', 'Thread'),
        original('threading', 'Event'),
        original('selectors', 'DefaultSelector'),
        wait_for,
        original('socket', 'getaddrinfo'),
        ThreadLink,
    )


def _gevent() -> Profile:
    import gevent.event
    import gevent.selectors
    import gevent.socket

    from .gevent import GeventLink, Thread, wait_for

    return Profile(
        'gevent',
        Thread,
        gevent.event.Event,
        gevent.selectors.DefaultSelector,
        wait_for,
        gevent.socket.getaddrinfo,
        GeventLink,
    )


def _eventlet() -> Profile:
    import eventlet.green.selectors
    import eventlet.green.socket
    import eventlet.hubs

    from .eventlet import Event, EventletLink, Thread, wait_for

    return Profile(
        'eventlet',
        Thread,
        Event,
        eventlet.green.selectors.DefaultSelector,
        wait_for,
        eventlet.green.socket.getaddrinfo,
        EventletLink,
        eventlet.hubs.notify_opened,
    )


#: What makes each built-in profile, by its name.
BUILT_IN = {'threads': _threads, 'gevent': _gevent, 'eventlet': _eventlet}


def get_profile(name: str) -> Profile:
    """A built-in profile.

    :param name: ``"threads"``, ``"gevent"`` or ``"eventlet"``.
    :raises ValueError: for any other name.
    :raises ImportError: when that library is not installed.
    :raises RuntimeError: on Windows.
    """
    _check_name(name)
    # What the standard library's own classes are depends on the patching.
    return _built_in(name, _patched() if name == 'threads' else None)


def _check_name(name: str) -> None:
    if name not in BUILT_IN:
        raise ValueError(
            f'profile must be one of {", ".join(BUILT_IN)} or a Profile, not {name!r}'
        )


@cache
def _built_in(name: str, patched: str | None) -> Profile:
    if sys.platform == 'win32':  # it has neither poll nor MSG_DONTWAIT
        raise RuntimeError(
            'simple-websocket 2 needs a POSIX system; '
            "on Windows stay with 1.1: pip install 'simple-websocket<2'"
        )
    try:
        return BUILT_IN[name]()
    except ModuleNotFoundError as error:
        if error.name != name:
            raise
        hint = f"{name} is not installed: pip install 'simple-websocket[{name}]'"
        raise ModuleNotFoundError(hint, name=name) from error


def resolve(
    profile: Profile | str | None,
    thread_class: Any,
    event_class: Any,
    selector_class: Any,
    sock: Any = None,
    client: bool = False,
) -> Profile:
    """Choose the profile of a connection, as the top of this file says.

    :param profile: the caller's choice, by name or value.
    :param thread_class: an injected class, or None; likewise the next two.
    :param sock: the socket, where there is one already.
    :param client: whether the connection is a client's.
    """
    if profile is thread_class is event_class is selector_class is None:
        return get_profile(_detect([], sock, client))
    check_choice(profile, thread_class, event_class, selector_class)
    injected = {
        name: value
        for name, value in (
            ('thread_class', thread_class),
            ('event_class', event_class),
            ('selector_class', selector_class),
        )
        if value is not None
    }
    if isinstance(profile, Profile):
        base = profile
    elif profile is not None:
        base = get_profile(profile)
    else:
        base = get_profile(_detect(list(injected.values()), sock, client))
    if injected:
        return replace(base, name=f'injected into {base.name}', link=None, **injected)
    return base


def check_choice(
    profile: Profile | str | None, thread_class: Any, event_class: Any, selector_class: Any
) -> None:
    """Check what a caller has chosen; imports no backend, which a process may want to
    monkey-patch first.

    :raises TypeError: for anything but a profile, its name or a class.
    :raises ValueError: for a name that there is not.
    """
    for name, value in (
        ('thread_class', thread_class),
        ('event_class', event_class),
        ('selector_class', selector_class),
    ):
        if value is not None and not callable(value):
            raise TypeError(f'{name} must be a class, not {value!r}')
    if profile is not None and not isinstance(profile, (str, Profile)):
        raise TypeError(f'profile must be a name or a Profile, not {profile!r}')
    if isinstance(profile, str):
        _check_name(profile)


def _detect(injected: list[Any], sock: Any, client: bool) -> str:
    for value in injected:
        family = _family(value)
        if family is not None:
            return family
    if injected and all(_is_stdlib(value) for value in injected):
        return 'threads'
    world = _socket_family(type(sock)) if sock is not None else None
    if world is not None:
        return world
    if client:  # which makes any socket one that does not block
        return _patched() or calling_hub() or 'threads'
    hub = None if injected else calling_hub(main=False)
    if hub is not None:
        warnings.warn(
            f'a plain blocking socket inside a {hub} hub: waiting on it freezes every '
            f"other greenlet; monkey-patch the process, or serve with {hub}'s own "
            f'WSGI server',
            RuntimeWarning,
            stacklevel=5,  # _detect, resolve, __init__, accept, and who called that
        )
    return 'threads'


def _family(kind: Any) -> str | None:
    """Which green library a class belongs to, by the modules it comes from."""
    for base in getattr(kind, '__mro__', (kind,)):
        parts = (getattr(base, '__module__', None) or '').split('.')
        for family in ('gevent', 'eventlet'):
            if family in parts:
                return family
    return None


_socket_family: Callable[[Any], str | None] = cache(_family)


def _is_stdlib(kind: Any) -> bool:
    """Whether a class is the standard library's own, which blocks a thread.

    eventlet's green copies have the module names of what they copy, and in a
    patched process the library's own are green.
    """
    module = getattr(kind, '__module__', None)
    if module not in ('threading', 'selectors') or _patched() is not None:
        return False
    return getattr(sys.modules[module], kind.__name__, None) is kind


def _patched() -> str | None:
    monkey = sys.modules.get('gevent.monkey')
    if monkey is not None and monkey.is_module_patched('socket'):
        return 'gevent'
    patcher = sys.modules.get('eventlet.patcher')
    if patcher is not None and patcher.is_monkey_patched('socket'):
        return 'eventlet'
    return None


def calling_hub(main: bool = True) -> str | None:
    """The green library whose hub this code runs in.

    :param main: whether a thread's main greenlet, of whose thread there is a
                 hub, counts: it can wait there as well.
    """
    hubs: dict[str, Any] = {}
    gevent_local = sys.modules.get('gevent._hub_local')
    if gevent_local is not None:
        hubs['gevent'] = gevent_local.get_hub_if_exists()
    eventlet_hubs = sys.modules.get('eventlet.hubs')
    if eventlet_hubs is not None:
        hub = getattr(eventlet_hubs._threadlocal, 'hub', None)
        hubs['eventlet'] = None if hub is None else hub.greenlet
    hubs = {name: hub for name, hub in hubs.items() if hub is not None}
    if not hubs:
        return None
    from greenlet import getcurrent

    current = getcurrent()
    above = current.parent
    while above is not None:
        for name, hub in hubs.items():
            if above is hub:
                return name
        above = above.parent
    return next(iter(hubs)) if main and current.parent is None else None


__all__ = ['Profile', 'get_profile', 'resolve']
