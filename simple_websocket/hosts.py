"""WSGI servers: where each keeps the socket, and how its request ends quietly.

WSGI has no upgrade.  A handler of ours takes the connection's socket out of
the environ, and when it returns the server still believes that an HTTP
response is due: it would write one after our Close, wait for the next
request where the peer's frames are, or complain about a closed descriptor.

So the socket is taken *away* from its host.  The object that the host holds
stays, as a **husk**: of the same class to look at, but writes vanish, reads
give the end of the stream, and timeouts and shutdowns do nothing.  Whatever
the host does afterwards is harmless and silent.  The husk also tells when the
host is done with the request, so that a connection which the handler left
open is closed then, as 1011 if the host reports an error.  The connection
itself goes on through bound methods that were taken before (``Wire``).

One entry a server below; ``register_host`` adds others.  Nothing here knows
the protocol, or a green library.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

Environ = dict[str, Any]

#: Called when the host touches a husk: with what it writes, or None when it
#: closes it.
OnHost = Callable[[bytes | None], None]


@dataclass(frozen=True)
class Host:
    """What is to be known about one WSGI server.

    :param mode: its name, the value of ``Server.mode``.
    :param get_socket: the connection's socket out of an environ; None when
                       the environ is not this server's.
    :param get_input: the buffered reader on that socket which the server read
                      the request from; bytes that came with the request are
                      in it.  Its ``read()`` is called when reads of the socket
                      itself give the end already.
    :param close_input: whether to close that reader then, for the memory of
                        its buffer; not where the server reads on regardless.
    :param end_quietly: called once the socket is taken, for a server that still
                        writes or logs something when the handler has returned:
                        with the environ, and with a function that is to be told
                        what it writes, or None when it is done; None for nothing.
    :param refuse_select: whether the server must be kept from selecting on
                          its socket afterwards.
    :param tells_version: whether ``SERVER_PROTOCOL`` is what the client sent;
                          eventlet always says HTTP/1.0.
    """

    mode: str
    get_socket: Callable[[Environ], Any]
    get_input: Callable[[Environ], Any] | None = None
    close_input: bool = True
    end_quietly: Callable[[Environ, OnHost], None] | None = None
    refuse_select: bool = False
    tells_version: bool = True


#: Marks an environ, and the husk's class, as taken over.
_TAKEN = 'simple_websocket.taken'

# -- the husk -------------------------------------------------------------

#: The callbacks of husks without an ``_Inner``, which holds its own.
_on_host: WeakKeyDictionary[Any, OnHost] = WeakKeyDictionary()


def reports_error(data: bytes | None) -> bool:
    """Whether what a host has written, or None, says that its handler has failed."""
    return data is not None and data[:5] == b'HTTP/' and data[9:10] == b'5'


def _tell(husk: Any, data: bytes | None) -> None:
    inner = getattr(husk, '_sock', None)
    on_host = inner.on_host if type(inner) is _Inner else _on_host.get(husk)
    if on_host is not None:
        on_host(data)


def _swallow(self: Any, data: Any, *_: Any) -> int:
    _tell(self, bytes(data[:16]))
    return len(data)


def _swallow_all(self: Any, data: Any, *_: Any) -> None:
    _swallow(self, data)


def _swallow_many(self: Any, buffers: Any, *_: Any) -> int:
    return sum(_swallow(self, data) for data in list(buffers))


def _end_of_stream(self: Any, *_: Any) -> bytes:
    return b''


def _end_of_stream_into(self: Any, *_: Any) -> int:
    return 0


def _nothing(self: Any, *_: Any) -> None:
    pass


def _shutdown(self: Any, *_: Any) -> None:
    _tell(self, None)


def _close(self: Any) -> None:
    _tell(self, None)
    if self.fileno() == -1:
        # Our side is over: let the class tidy up what belongs to the object.
        close = getattr(super(type(self), self), 'close', None)
        if close is not None:
            close()


def _refuse_select(self: Any) -> int:
    # Werkzeug drains its socket through a selector in a ``finally``; a lost
    # connection is the one thing there that it passes over in silence, also
    # when ``return []`` without ``start_response`` is about to be an error.
    caller = sys._getframe(1)
    if caller.f_globals.get('__name__') == 'selectors':
        register = caller.f_back
        selector = register.f_locals.get('self') if register is not None else None
        if selector is not None:
            selector.close()  # it would be left to the garbage collector
        error = sys.exc_info()[1]
        if error is not None and not _is_of_werkzeug(error):
            # It would be lost.  Werkzeug answers it, and so tells us.  (The selector
            # replaces some exceptions by its own.)
            raise RuntimeError(f'the application has raised {error!r}') from error
        # The handler has returned, and the environ, which holds the connection,
        # may go before the socket is closed.
        _tell(self, None)
        raise ConnectionAbortedError('the connection was upgraded')
    fileno = getattr(super(type(self), self), 'fileno', None) or self.fd.fileno  # eventlet's
    return int(fileno())


def _is_of_werkzeug(error: BaseException) -> bool:
    """Whether it is the server that has raised, and not the application."""
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_next is not None:
        traceback = traceback.tb_next
    where = traceback and traceback.tb_frame.f_globals.get('__name__')
    return where == 'werkzeug.serving'


_HUSK = {
    'send': _swallow,
    'sendall': _swallow_all,
    'sendmsg': _swallow_many,
    'recv': _end_of_stream,
    'recv_into': _end_of_stream_into,
    'settimeout': _nothing,
    'setblocking': _nothing,
    'shutdown': _shutdown,
    'close': _close,
}


@cache
def _husk_class(kind: Any, refuse_select: bool) -> type:
    body: dict[str, Any] = {'__slots__': (), _TAKEN: True, **_HUSK}
    if refuse_select:
        body['fileno'] = _refuse_select
    return type(kind.__name__, (kind,), body)


class _Inner:
    """In place of the C socket inside a gevent one, which pywsgi reaches for."""

    __slots__ = ('_tcp', 'family', 'fileno', 'on_host', 'proto', 'type')

    def __init__(self, tcp: Any, on_host: OnHost) -> None:
        self._tcp = tcp
        self.on_host = on_host
        # What gevent asks for when it closes the socket.
        self.family, self.type, self.proto = tcp.family, tcp.type, tcp.proto
        self.fileno = tcp.fileno

    def recv(self, *_: Any) -> bytes:
        return b''

    def close(self) -> None:
        pass

    def __getattr__(self, name: str) -> Any:
        return getattr(self._tcp, name)


def make_husk(sock: Any, on_host: OnHost, refuse_select: bool = False) -> None:
    """Take a socket object away from its host.

    Its bound methods that were taken before go on working.

    :param sock: the host's socket object.  One of a class that can't be
                 replaced stays as it is.
    :param on_host: called when the host writes to it or closes it; may be
                    called more than once, and from any thread.
    :param refuse_select: see ``Host``.
    """
    kind: Any = type(sock)
    try:
        sock.__class__ = _husk_class(kind, refuse_select)
        if kind.__dictoffset__:
            # eventlet copies methods into the object, where they hide the class's.
            for name in (*_HUSK, 'fileno') if refuse_select else _HUSK:
                sock.__dict__.pop(name, None)
        inner = getattr(sock, '_sock', None)
        if inner is not None and inner is not sock:  # eventlet's is itself
            sock._sock = _Inner(inner, on_host)
        else:
            _on_host[sock] = on_host
    except TypeError:
        pass  # its class can't be replaced


# -- the registry ---------------------------------------------------------


class _EndsRequest:
    """gunicorn asks whether the result is a file, right after the handler has
    returned; StopIteration is its own way to end a request."""

    def __init__(self, on_host: OnHost) -> None:
        self._on_host = on_host

    def __instancecheck__(self, instance: Any) -> bool:
        for _ in instance or ():
            pass  # a generator may be what talks on the connection
        response = sys._getframe(1).f_locals.get('resp')
        _tell_error(self._on_host, getattr(response, 'status', None))
        self._on_host(None)  # the environ may go before the socket is closed
        raise StopIteration


class _AlreadyHandled:
    """eventlet asks whether the request was handled by other means, right
    after the handler has returned."""

    def __init__(self, on_host: OnHost) -> None:
        self._on_host = on_host

    def __bool__(self) -> bool:
        _tell_error(self._on_host, sys._getframe(1).f_locals.get('headers_set'))
        return True


def _tell_error(on_host: OnHost, status: Any) -> None:
    """Where a host ends the request before it writes: whether a framework made
    an error page of the handler's exception."""
    if isinstance(status, list):
        status = status[0] if status else None
    if isinstance(status, str) and status.startswith('5'):
        on_host(b'HTTP/1.1 ' + status.encode())


def _gunicorn_socket(environ: Environ) -> Any:
    # In HTTP/2 it is the socket of many requests, of which this is one.
    if str(environ.get('SERVER_PROTOCOL')).startswith('HTTP/2'):
        return None
    return environ.get('gunicorn.socket')


def _gunicorn_quiet(environ: Environ, on_host: OnHost) -> None:
    environ['wsgi.file_wrapper'] = _EndsRequest(on_host)


def _eventlet_socket(environ: Environ) -> Any:
    wsgi_input = environ.get('eventlet.input')
    return None if wsgi_input is None else wsgi_input.get_socket()


def _eventlet_quiet(environ: Environ, on_host: OnHost) -> None:
    wsgi_local = getattr(sys.modules.get('eventlet.wsgi'), 'WSGI_LOCAL', None)
    if wsgi_local is not None:
        wsgi_local.already_handled = _AlreadyHandled(on_host)


def _pywsgi_rfile(environ: Environ) -> Any:
    # For a request that asks for an upgrade it is the input itself, for any
    # other there is a wrapper around it.
    wsgi_input = environ['wsgi.input']
    return wsgi_input if hasattr(wsgi_input, 'raw') else getattr(wsgi_input, 'rfile', None)


def _pywsgi_socket(environ: Environ) -> Any:
    if not environ.get('SERVER_SOFTWARE', '').startswith('gevent'):
        return None
    return getattr(getattr(_pywsgi_rfile(environ), 'raw', None), '_sock', None)


def _pywsgi_quiet(environ: Environ, on_host: OnHost) -> None:
    wsgi_input = environ['wsgi.input']
    if not hasattr(wsgi_input, 'rfile') and _has_body(environ):
        wsgi_input = _pywsgi_wrapper()
    if hasattr(wsgi_input, 'rfile'):
        # The rest of a refused request's body is not there to be discarded.
        wsgi_input.content_length = 0
        wsgi_input.chunked_input = False


def _has_body(environ: Environ) -> bool:
    return 'HTTP_TRANSFER_ENCODING' in environ or environ.get('CONTENT_LENGTH') not in (None, '')


def _pywsgi_wrapper() -> Any:
    """The wrapper around the input of a request that asks for an upgrade, which only
    pywsgi's handler has."""
    frame: Any = sys._getframe()
    while frame is not None:
        wrapper = getattr(frame.f_locals.get('self'), 'wsgi_input', None)
        if wrapper is not None:
            return wrapper
        frame = frame.f_back
    return None


_hosts: list[Host] = [
    Host(
        'werkzeug',
        lambda environ: environ.get('werkzeug.socket'),
        lambda environ: environ.get('wsgi.input'),
        close_input=False,
        refuse_select=True,
    ),
    Host(
        'gunicorn',
        _gunicorn_socket,
        lambda environ: environ['wsgi.input'].reader.unreader,
        close_input=False,
        end_quietly=_gunicorn_quiet,
    ),
    Host(
        'eventlet',
        _eventlet_socket,
        lambda environ: environ['eventlet.input'].rfile,
        end_quietly=_eventlet_quiet,
        tells_version=False,
    ),
    Host('gevent', _pywsgi_socket, _pywsgi_rfile, end_quietly=_pywsgi_quiet),
]


def register_host(host: Host) -> None:
    """Teach ``Server`` another WSGI server; the last registered is asked first.

    :param host: what to know about it.
    :raises TypeError: for anything but a ``Host``.
    """
    if not isinstance(host, Host):
        raise TypeError(f'host must be a Host, not {host!r}')
    _hosts.insert(0, host)


def find_socket(environ: Environ) -> tuple[Host, Any]:
    """The host of a request and the connection's socket.

    :param environ: the WSGI environ.
    :raises RuntimeError: when no known host gave a socket, or it was taken before.
    """
    if environ.get('wsgi.websocket') is not None:
        raise RuntimeError(
            'the server has accepted this WebSocket itself (gevent-websocket): '
            "serve the application with pywsgi's own handler_class"
        )
    taken = _TAKEN in environ
    for host in _hosts:
        sock = None if taken else host.get_socket(environ)
        if sock is not None:
            # Middleware may have handed on a copy of the environ.
            taken = hasattr(type(sock), _TAKEN)
            if not taken:
                return host, sock
    if taken:
        raise RuntimeError('this request was accepted, or refused, before: do so once')
    server = environ.get('SERVER_SOFTWARE') or 'this WSGI server'
    raise RuntimeError(
        f'Cannot obtain socket from WSGI environment: {server} does not hand one out. '
        'Run the application on Werkzeug, gunicorn (gthread or gevent worker), '
        "gevent's pywsgi or eventlet's wsgi server, or describe the server with "
        'simple_websocket.register_host(); on an ASGI server use AioServer.  HTTP/2 has '
        'no socket for a request (switch it off for WebSockets).  A test '
        'client has no socket either: serve the application at a free port.'
    )


def take_over(host: Host, environ: Environ, sock: Any, on_host: OnHost) -> bytes:
    """Make the socket ours alone.

    :param host: the entry of the server.
    :param environ: the WSGI environ.
    :param sock: from ``find_socket``.
    :param on_host: see ``make_husk``.
    :returns: the bytes that the host had read after the request.
    """
    environ[_TAKEN] = True
    make_husk(sock, on_host, host.refuse_select)
    leftover = b''
    if host.get_input is not None:
        try:
            reader = host.get_input(environ)
            if reader is not None:
                # The husk has no more to give than what is in the buffer.
                buffered = isinstance(reader, io.BufferedReader)
                leftover = bytes((reader.peek() if buffered else reader.read()) or b'')
                if host.close_input:
                    reader.close()
                elif buffered:
                    # The host reads the end of the stream from it once more;
                    # until then it need not hold a buffer of 8 KiB.
                    reader.__init__(reader.raw, 1)
        except (AttributeError, KeyError, ValueError, OSError):
            # An environ of another make than the host's gives no reader, or one that
            # was used up; and the body that no WebSocket request has may be malformed.
            pass
    if host.end_quietly is not None:
        host.end_quietly(environ, on_host)
    return leftover
