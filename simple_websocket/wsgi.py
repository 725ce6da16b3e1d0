"""A WSGI application out of a function that takes a connection."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import TYPE_CHECKING, Any, overload

from . import handshake
from .errors import ConnectionClosed, ConnectionError
from .options import Options
from .profiles import check_choice
from .ws import Server

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .options import ServerKeywords

Handler = Callable[[Server], Any]
App = Callable[[dict[str, Any], Callable[..., Any]], list[bytes]]


@overload
def websocket_app(handler: Handler, **options: Unpack[ServerKeywords]) -> App: ...


@overload
def websocket_app(**options: Unpack[ServerKeywords]) -> Callable[[Handler], App]: ...


def websocket_app(handler: Handler | None = None, **options: Any) -> Any:
    """Make a WSGI application of a WebSocket handler; works on every host.

    ::

        @websocket_app(max_message_size=65536)
        def echo(ws):
            for message in ws:
                ws.send(message)

    The request is accepted, ``handler(ws)`` is called (``ws.environ`` has the
    request), and the connection is closed when it returns, with 1011 when it
    raises; that exception goes on to the WSGI server, which logs it.
    ``ConnectionClosed`` is no error.  A request that is no upgrade is answered
    with 400, 403, 405 or 426, and the handler is not called.

    :param handler: called with a ``Server``; its result is ignored.
    :param options: what ``Server.accept`` takes besides the environ.
    :returns: the application, or a decorator if only options were given.
    :raises TypeError: for an argument of a wrong type, at once.
    :raises ValueError: for a wrong value, at once.
    """
    options = _checked(options)
    if handler is None:
        return lambda function: websocket_app(function, **options)
    if not callable(handler):
        raise TypeError(f'handler must be a function of a connection, not {handler!r}')

    @wraps(handler)
    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        try:
            ws = Server.accept(environ, **options)
        except ConnectionError as error:
            return _end(start_response, error.status_code or 400)
        with ws, suppress(ConnectionClosed):
            handler(ws)
        return _end(start_response, 101)

    # To a framework the result is an application, not the handler.
    del app.__wrapped__
    return app


def _end(start_response: Callable[..., Any], status: int) -> list[bytes]:
    """Tell the server what went out, for its log; of this nothing is sent."""
    start_response(f'{status} {handshake.phrase_of(status)}', [])
    return []


def _checked(options: dict[str, Any]) -> dict[str, Any]:
    """The options, of which ``Server`` will take each.

    :returns: them, with what can be gone through only once as a list.
    """
    others = dict(options)
    parsed: dict[str, Any] = {}
    for name, parse in _PARSERS.items():
        if name in options:
            parsed[name] = parse(others.pop(name))
    profile = others.pop('profile', None)
    kinds = [others.pop(f'{name}_class', None) for name in ('thread', 'event', 'selector')]
    check_choice(profile, *kinds)
    Options.of(
        'websocket_app',
        others.pop('receive_bytes', 4096),
        others.pop('ping_interval', None),
        others.pop('max_message_size', None),
        others,
    )
    return {**options, **parsed}


_PARSERS: dict[str, Callable[[Any], Any]] = {
    'subprotocols': handshake.parse_subprotocols,
    'origins': handshake.parse_origins,
    'headers': handshake.normalize_headers,
}
