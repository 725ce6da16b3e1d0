"""A WSGI application out of a function that takes a connection."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Any, overload

from .errors import ConnectionClosed, ConnectionError
from .ws import Server

Handler = Callable[[Server], Any]
App = Callable[[dict[str, Any], Callable[..., Any]], list[bytes]]


@overload
def websocket_app(handler: Handler) -> App: ...


@overload
def websocket_app(**options: Any) -> Callable[[Handler], App]: ...


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
    """
    if handler is None:
        return lambda function: websocket_app(function, **options)
    if not callable(handler):
        raise TypeError(f'handler must be a function of a connection, not {handler!r}')

    @wraps(handler)
    def app(environ: dict[str, Any], start_response: Callable[..., Any]) -> list[bytes]:
        try:
            ws = Server.accept(environ, **options)
        except ConnectionError:
            return []  # answered already
        with ws, suppress(ConnectionClosed):
            handler(ws)
        return []

    # To a framework the result is an application, not the handler.
    del app.__wrapped__
    return app
