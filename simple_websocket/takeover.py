"""Taking a connection over from aiohttp: the transport changes hands.

aiohttp's handler keeps a husk to write its response to.  It notices nothing:
its logs tell what happened on the wire, its shutdown finds and ends the
connection, and its own clean-up comes when the transport is lost.

What is touched of aiohttp beyond its public names (``_message_tail``,
``_paused``, the manager's ``_connections``) is used where it is there.
"""

from __future__ import annotations

import asyncio
from contextlib import suppress
from typing import Any

from .close_codes import (
    ABNORMAL_CLOSURE,
    GOING_AWAY,
    INTERNAL_ERROR,
    NORMAL_CLOSURE,
    close_payload,
)
from .errors import ConnectionClosed, ConnectionError
from .hosts import reports_error
from .profiles.aio import AioLink


def take_over(request: Any, link: AioLink, ws: Any, status: int) -> None:
    """Take the transport away from aiohttp, and give it one to play with.

    :param status: the HTTP status that goes out, for the access log.
    """
    handler = request.protocol
    transport = request.transport
    # What came after the request, which aiohttp stores if it knows an
    # upgrade when it sees one (else clients wait for the 101 anyway).
    leftover = getattr(handler, '_message_tail', b'')
    if leftover:
        handler._message_tail = b''
    handler.keep_alive(False)
    handler.close()  # no further request: after the handler, it closes its transport
    handler.logger = logger = HostLogger(handler.logger)
    if getattr(handler, 'access_logger', None) is not None:
        handler.access_logger = _AccessLogger(handler.access_logger, status)
    handler.transport = Husk(transport, link, ws, logger)
    if getattr(handler, '_paused', False):  # by a response that was pipelined before
        link.wire.full = True
        handler.resume_writing()
    link.on_lost = lambda exc: _tell_lost(handler, link, exc)
    connections = getattr(getattr(handler, '_manager', None), '_connections', None)
    if connections is not None and handler in connections:
        connection = _Connection(handler, link)
        del connections[handler]
        connections[connection] = transport

        def on_lost(exc: BaseException | None) -> None:
            # As aiohttp has it: a shutdown waits for the handler, not for TCP.
            task = getattr(handler, '_task_handler', None)
            if task is None or task.done():
                connections.pop(connection, None)
            else:
                task.add_done_callback(lambda _: connections.pop(connection, None))
            _tell_lost(handler, link, exc)

        link.on_lost = on_lost
    transport.set_protocol(link)
    link.connection_made(transport)
    if leftover:
        link.data_received(leftover)


def _tell_lost(handler: Any, link: AioLink, exc: BaseException | None) -> None:
    if link.protocol.close_code != ABNORMAL_CLOSURE:
        # ``handler_cancellation`` is for who was lost, and not for who was closed.
        handler._task_handler = None
    handler.connection_lost(exc)


def _say_goodbye(link: AioLink, code: int) -> None:
    with suppress(ConnectionClosed):
        link.begin_close(close_payload(code, None), code, None)


class Husk(asyncio.Transport):
    """What aiohttp writes its response to, once the real one is taken."""

    def __init__(
        self, transport: Any, link: AioLink, ws: Any, logger: HostLogger
    ) -> None:
        super().__init__()
        self._transport = transport
        self._link = link
        self._logger = logger
        # A handler that returns without closing leaves the rest to us, so the
        # connection has to live until then.
        self._ws: Any | None = ws

    def _handler_is_done(self, data: bytes) -> None:
        if self._ws is not None:
            failed = reports_error(data) and not self._logger.nothing_returned
            _say_goodbye(self._link, INTERNAL_ERROR if failed else NORMAL_CLOSURE)
            self._ws = None

    def write(self, data: Any) -> None:
        self._handler_is_done(bytes(data[:12]))

    def close(self) -> None:
        self._handler_is_done(b'')

    abort = close

    def is_closing(self) -> bool:
        return False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._transport.get_extra_info(name, default)

    def get_write_buffer_size(self) -> int:
        return 0

    def pause_reading(self) -> None:
        """Nothing is read for aiohttp."""

    resume_reading = pause_reading


class _Connection:
    """Stands for a handler in aiohttp's list of what to shut down."""

    def __init__(self, handler: Any, link: AioLink) -> None:
        self._handler = handler
        self._link = link

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handler, name)

    def close(self) -> None:
        """The application is about to shut down."""
        _say_goodbye(self._link, GOING_AWAY)

    async def shutdown(self, timeout: float | None = 15.0) -> None:
        """Wait for the handler, which was told by an exception, and for TCP."""
        self.close()
        await self._handler.shutdown(timeout)
        await self._link.join(self._link.protocol.close_timeout)
        self._link.give_up()


class HostLogger:
    """Keeps aiohttp from complaining about what is right for a WebSocket.

    :param logger: aiohttp's, which need not be one of ``logging``'s: under gunicorn it
                   is gunicorn's.
    """

    def __init__(self, logger: Any) -> None:
        self._logger = logger
        self.nothing_returned = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._logger, name)

    def exception(self, msg: object, *args: Any, **kwargs: Any) -> None:
        """Log an error of the handler, if it is one."""
        error = kwargs.get('exc_info')
        if str(msg).startswith(('Missing return statement', 'Web-handler should return')):
            self.nothing_returned = True
        elif isinstance(error, (ConnectionClosed, ConnectionError)):
            # A peer that hung up, or a refusal, which was answered.
            self._logger.debug('%r left the handler', error)
        else:
            self._logger.exception(msg, *args, **kwargs)


class _AccessLogger:
    """Logs the status that went out, not the one of the handler's return value."""

    def __init__(self, logger: Any, status: int) -> None:
        self._logger = logger
        self._status = status

    def log(self, request: Any, response: Any, time: float) -> None:
        """Log a request that took so many seconds."""
        from aiohttp.web import Response

        self._logger.log(request, Response(status=self._status), time)
