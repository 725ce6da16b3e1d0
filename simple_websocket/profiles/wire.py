"""A socket, of whichever library, reduced to what a link does with it.

Every operation here is non-blocking: *whether* to wait and *how* is the link's
business.  The hot paths of links take TCP's own ``recv`` and ``send`` from here,
as the C functions that they are.  TLS is handled
here, and only here: an ``SSLSocket`` with timeout 0 says that it would block
by an exception, may want to write in order to read, and may hold bytes that
no selector knows about.

The bound methods are taken once, before a host's socket object is turned into
a husk (see ``hosts.py``): that is how this file keeps using a socket which
its host can no longer touch.
"""

from __future__ import annotations

import _socket
import errno
import signal
import socket
import ssl
from collections.abc import Callable
from contextlib import suppress
from functools import cache, partial
from typing import Any

from .originals import builtin, original

#: What makes one call of a blocking socket not wait.
DONTWAIT: int = getattr(socket, 'MSG_DONTWAIT', 0)

#: The same for bytes that ``shutdown_write`` follows: they wait for its FIN,
#: and both go in one packet.  (Linux; elsewhere they just go.)
LAST: int = DONTWAIT | getattr(socket, 'MSG_MORE', 0)

_TCP_INFO = getattr(socket, 'TCP_INFO', 11)
#: ESTABLISHED, FIN_WAIT1, FIN_WAIT2: the states in which the peer may still send.
_TCP_PEER_OPEN = (1, 4, 5)

#: What a read or a write raises that would have to wait.
_WOULD_BLOCK = (BlockingIOError, InterruptedError, ssl.SSLWantReadError, ssl.SSLWantWriteError)


def _tcp_of(sock: Any) -> Any:
    """The object that speaks TCP below a green socket or an SSLSocket.

    gevent keeps it as ``_sock``, eventlet as ``fd``; a stdlib socket, an
    ``ssl.SSLSocket`` included, is its own.  What a patched eventlet's
    ``socketpair()`` gives has two of its layers.
    """
    inner = getattr(sock, '_sock', None)
    if inner is None or inner is sock:  # eventlet's has that name for itself
        inner = getattr(sock, 'fd', None)
    if inner is not None and hasattr(inner, 'detach'):
        return _tcp_of(inner)
    return sock


def _base_from(module: str, sock: Any) -> Any:
    """The class of ``sock`` that comes from the standard library's ``module``,
    below what a green library overrides; its own class where there is none."""
    for kind in type(sock).__mro__:
        if kind.__module__ == module:
            return kind
    return type(sock)


def is_of_tcp(error: BaseException) -> bool:
    """Whether an exception out of a system call tells of the connection.

    A signal handler may raise an OSError as well: TimeoutError, which has no number,
    or what came of a system call of its own."""
    if not isinstance(error, OSError) or error.errno is None:
        return False
    return not _is_of_signal_handler(error)


def _is_of_signal_handler(error: BaseException) -> bool:
    """Whether it was raised in a function that handles a signal."""
    strange = set()
    traceback = error.__traceback__
    while traceback is not None:
        frame = traceback.tb_frame
        if frame.f_globals.get('__name__', '').partition('.')[0] not in _OF_OURS:
            strange.add(frame.f_code)
        traceback = traceback.tb_next
    if not strange:
        return False  # as nearly always
    handlers = map(signal.getsignal, signal.valid_signals())
    return not strange.isdisjoint(map(_code_of, handlers))


#: Packages whose functions are between a system call and us.
_OF_OURS = frozenset(('simple_websocket', 'ssl', 'socket', 'gevent', 'eventlet'))


def _code_of(handler: Any) -> Any:
    """The code that runs when a signal is handled, if that is in Python."""
    while isinstance(handler, partial):
        handler = handler.func
    function = getattr(handler, '__func__', handler)
    if not hasattr(function, '__code__'):
        function = type(handler).__call__
    return getattr(function, '__code__', None)


def _timeout_of(tcp: Any) -> float | None:
    """The timeout of a socket; one of another make need have none."""
    gettimeout = getattr(tcp, 'gettimeout', None)
    timeout: float | None = None if gettimeout is None else gettimeout()
    return timeout


def plain_fileno(sock: Any) -> Callable[[], int] | None:
    """What gives the descriptor of a socket, or -1 once it is closed.

    :returns: None for a socket whose recv and send are more than the kernel's:
              of a class that has its own.
    """
    kind: Any = type(sock)
    return sock.fileno if _is_plain(kind) else None


@cache
def _is_plain(kind: Any) -> bool:
    base = _socket.socket
    if not DONTWAIT or not issubclass(kind, base):
        return False
    return kind.recv is base.recv and kind.send is base.send


class Wire:
    """One connected stream socket.

    Not safe for concurrent use where ``tls`` is set: OpenSSL's state is one
    for both directions (invariant 9).  Without TLS one reader and one writer
    may run side by side.

    :param sock: a connected socket of the standard library, gevent or
                 eventlet, with TLS or without.
    """

    __slots__ = (
        '_close',
        '_kind',
        '_tcp',
        '_unwrap',
        'fd',
        'fileno',
        'polled',
        'raw_recv',
        'raw_send',
        'read_shut',
        'sock',
        'tls',
    )

    def __init__(self, sock: Any) -> None:
        self.sock = sock
        # Asked of the class: a green socket looks for what it has not in others.
        self.tls = hasattr(type(sock), 'do_handshake')
        self.fd: int = sock.fileno()
        self._tcp = tcp = _tcp_of(sock)
        self.read_shut = False
        #: A receiver is to poll: ``shutdown_read`` would end more than its wait.
        self.polled = self.tls
        self._close = sock.close
        # The class whose functions are TCP's own: an SSLSocket overrides the
        # names, and in a husk they do nothing.
        self._kind = _base_from('socket', tcp) if tcp is sock and self.tls else type(tcp)
        # Without TLS these are C functions, which take flags too.
        if self.tls:
            sock.setblocking(False)
            self.raw_recv = sock.recv
            self.raw_send = sock.send
            self._unwrap: Any = _base_from('ssl', sock).unwrap
        else:
            self.raw_recv = tcp.recv
            self.raw_send = tcp.send
            self._unwrap = None
        #: Gives the descriptor, as long as it is ours, to who makes the system
        #: calls of ``raw_recv`` and ``raw_send`` himself; None where those are
        #: more than system calls.
        self.fileno = None if self.tls else plain_fileno(tcp)
        if not self.tls and _timeout_of(tcp):
            # With a timeout of its own it would wait for that, whatever the flags say.
            self._kind.settimeout(tcp, 0)
        try:
            # A message is written whole; waiting for a fuller packet only
            # delays it.
            tcp.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        except OSError:  # a Unix socket has no such option
            self.polled = True

    def _forbid_waiting(self) -> None:
        """Where the application has given the socket a timeout since, undo it."""
        if not self.tls and _timeout_of(self._tcp):
            self.be_blocking()

    def be_blocking(self) -> None:
        """Let ``raw_recv`` wait in the kernel (threads, without TLS)."""
        if not self.tls:
            self._kind.settimeout(self._tcp, None)

    def recv(self, size: int) -> bytes | None:
        """Take what has arrived.

        :param size: at most so many bytes.
        :returns: bytes, b'' at the end of the stream, None where it would block.
        :raises OSError: when the connection is broken.
        """
        self._forbid_waiting()
        try:
            data: bytes = self.raw_recv(size) if self.tls else self.raw_recv(size, DONTWAIT)
            if data or not self.read_shut:
                return data
            # Bytes and the end after them may have come since that look.
            return self.raw_recv(size, DONTWAIT) if self.ended() else None
        except _WOULD_BLOCK:
            return None
        except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
            return b''

    def send(self, data: bytes | memoryview, last: bool = False) -> int:
        """Write what TCP takes now.

        :param last: whether ``shutdown_write`` follows.
        :returns: how many bytes it took, 0 where it would block.
        :raises OSError: when the connection is broken.
        """
        self._forbid_waiting()
        try:
            if self.tls:
                sent: int = self.raw_send(data)
            else:
                sent = self.raw_send(data, LAST if last else DONTWAIT)
            return sent
        except _WOULD_BLOCK:
            return 0

    def discard(self, size: int) -> bytes | None:
        """Like ``recv``, below TLS: for bytes that nobody will look at."""
        try:
            data: bytes = self._kind.recv(self._tcp, size, DONTWAIT)
            if data or not self.read_shut:
                return data
            return self._kind.recv(self._tcp, size, DONTWAIT) if self.ended() else None
        except _WOULD_BLOCK:
            return None

    def shutdown_read(self) -> None:
        """Wake a thread that is blocked in ``raw_recv`` or polls.

        On Linux that recv returns b'', while bytes that arrive later can
        still be read without blocking.  From then on b'' alone does not tell
        the peer's end; ``ended`` does.
        """
        self.read_shut = True
        with suppress(OSError):
            self._kind.shutdown(self._tcp, socket.SHUT_RD)

    def ended(self) -> bool:
        """Whether an empty read means that the peer's half has ended.

        Only asked after ``shutdown_read``: before that it always does."""
        try:
            info = self._tcp.getsockopt(socket.IPPROTO_TCP, _TCP_INFO, 1)
            return info[0] not in _TCP_PEER_OPEN
        except OSError:
            # A Unix socket: its peer's end shows as a hang-up of the whole.
            poll = original('select', 'poll')()
            poll.register(self.fd, 0)
            return bool(poll.poll(0))

    def error(self) -> int:
        """The ``errno`` that TCP has broken with, told once; else 0."""
        try:
            number: int = self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            return number
        except OSError as error:  # somebody else has closed it
            return error.errno or errno.EBADF

    def shutdown_write(self) -> None:
        """Say that nothing follows: TLS's close_notify, then TCP's FIN."""
        if self._unwrap is not None:
            self._close_notify()
        try:
            self._kind.shutdown(self._tcp, socket.SHUT_WR)
        except OSError:
            pass  # nobody is connected any more

    def _close_notify(self) -> None:
        # Sends our close_notify and would wait for the peer's, which
        # nobody needs: WebSocket has its own closing handshake.
        unwrap, self._unwrap = self._unwrap, None
        # gevent's asserts after it that its socket is what it was.
        with suppress(OSError, ValueError, AssertionError):
            unwrap(self.sock)

    def close(self) -> None:
        """Give the file descriptor back.  Nobody may be in ``raw_recv``."""
        if self.tls:  # which is more than a descriptor
            with suppress(OSError):
                self._close()
        self.let_go()

    def let_go(self) -> None:
        """Close this process's descriptor and say nothing on the connection."""
        # A host's file objects on the socket keep it open beyond its close(),
        # and gevent's os.close() would put it off.
        # In one step of C: a signal handler in between would cost a descriptor.
        close = builtin('os', 'close')
        try:
            any(map(close, map(self._kind.detach, (self._tcp,))))
        except OSError:  # -1: it is closed already
            pass
