"""The options that every kind of connection shares, checked once."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from . import deflate, handshake
from .protocol import Protocol

if TYPE_CHECKING:
    from .handshake import UpgradeRequest
    from .profiles import Profile

DEFAULT_LOGGER = logging.getLogger('simple_websocket')

Subprotocols = str | Iterable[str] | None
Origins = str | Iterable[str | None] | None
Headers = Mapping[str, str] | Iterable[tuple[str, str]] | None


def _check_number(name: str, value: Any, kinds: tuple[Any, ...], zero: bool = False) -> None:
    if isinstance(value, bool) or not isinstance(value, kinds):
        wanted = 'an int' if kinds == (int,) else 'a number'
        raise TypeError(f'{name} must be {wanted}, not {value!r}')
    if not (value > 0 or (zero and value == 0)):
        raise ValueError(f'{name} must be positive, not {value!r}')


def check_timeout(timeout: Any) -> None:
    """Check a ``timeout=`` argument: seconds, or None for no limit.

    :raises TypeError: for anything but a number.
    :raises ValueError: for a NaN.
    """
    if timeout is not None:
        if isinstance(timeout, bool) or not isinstance(timeout, (int, float)):
            raise TypeError(f'timeout must be a number of seconds or None, not {timeout!r}')
        if timeout != timeout:
            raise ValueError('timeout must not be NaN')


# What calls take as ``**options``, for type checkers.  The defaults are below and
# in the classes.


class CommonKeywords(TypedDict, total=False):
    """What each connection takes."""

    ping_timeout: float | None
    close_timeout: float
    max_queue: int
    max_fragments: int | None
    compression: bool | deflate.Deflate | Literal['deflate'] | None
    logger: logging.Logger | logging.LoggerAdapter[Any] | None


class DialKeywords(CommonKeywords, total=False):
    """What ``Client()`` and ``AioClient()`` do not list."""

    open_timeout: float | None


class ConnectKeywords(DialKeywords, total=False):
    """What ``AioClient.connect`` does not list."""

    sock: Any
    server_hostname: str | None


class SyncConnectKeywords(ConnectKeywords, total=False):
    """What ``Client.connect`` does not list."""

    profile: Profile | str | None


class AioAcceptKeywords(CommonKeywords, total=False):
    """What ``AioServer.accept`` does not list."""

    origins: Origins


class AcceptKeywords(AioAcceptKeywords, total=False):
    """What ``Server.accept`` does not list."""

    profile: Profile | str | None
    headers: Headers


class ServerKeywords(AcceptKeywords, total=False):
    """All that ``Server`` takes besides the environ."""

    subprotocols: Subprotocols
    receive_bytes: int
    ping_interval: float | None
    max_message_size: int | None
    thread_class: Any
    event_class: Any
    selector_class: Any


class ASGIKeywords(CommonKeywords, total=False):
    """What ``WebSocketASGI()`` does not list."""

    receive_bytes: int
    ping_interval: float | None
    max_message_size: int | None


class ASGIAcceptKeywords(ASGIKeywords, total=False):
    """What ``WebSocketASGI.accept`` does not list."""

    origins: Origins
    choose_subprotocol: Callable[[UpgradeRequest], str | None] | None


@dataclass(frozen=True)
class Options:
    """Options of a connection.

    :param receive_bytes: accepted for 1.x; without effect.
    :param ping_interval: seconds between keepalive pings (RFC 6455 section
                          5.5.2); None or 0 for none.
    :param max_message_size: bytes that a received message may have once it is
                             inflated and reassembled; a larger one closes the
                             connection with 1009.  None or 0 for no limit.
    :param ping_timeout: seconds in which anything must arrive after a ping,
                         else the connection fails with 1011; None for
                         ``ping_interval``.
    :param open_timeout: seconds that a client's opening handshake may take;
                         None for no limit.
    :param close_timeout: seconds that each step of closing may take.
    :param max_queue: messages that may wait to be received; then reading
                      stops and TCP slows the peer down.
    :param max_fragments: frames that one message may come in; more close the
                          connection with 1009.  None for no limit.
    :param compression: permessage-deflate (RFC 7692): True for the defaults,
                        a ``Deflate`` for others, None or False for none.
    :param logger: where connections are logged, at level DEBUG.
    """

    receive_bytes: int = 4096
    ping_interval: float | None = None
    max_message_size: int | None = None
    ping_timeout: float | None = None
    open_timeout: float | None = 10.0
    close_timeout: float = 5.0
    max_queue: int = 32
    max_fragments: int | None = 131072
    compression: Any = True
    logger: Any = None

    def __post_init__(self) -> None:
        integer, number = (int,), (int, float)
        _check_number('receive_bytes', self.receive_bytes, integer)
        _check_number('close_timeout', self.close_timeout, number, zero=True)
        _check_number('max_queue', self.max_queue, integer)
        for name in ('ping_interval', 'ping_timeout', 'open_timeout'):
            if getattr(self, name) is not None:
                # 0 has always meant "none" to programs written for 1.x.
                _check_number(name, getattr(self, name), number, zero=name == 'ping_interval')
        size = self.max_message_size
        if isinstance(size, float) and size.is_integer():  # 1e6, for one
            object.__setattr__(self, 'max_message_size', int(size))
        for name in ('max_message_size', 'max_fragments'):
            if getattr(self, name) is not None:
                _check_number(name, getattr(self, name), integer, zero=name == 'max_message_size')
        object.__setattr__(self, 'compression', deflate.from_option(self.compression))
        if self.logger is None:
            object.__setattr__(self, 'logger', DEFAULT_LOGGER)
        elif not callable(getattr(self.logger, 'debug', None)):
            raise TypeError(f'logger must be a logging.Logger, not {self.logger!r}')

    @classmethod
    def of(
        cls,
        owner: str,
        receive_bytes: int,
        ping_interval: float | None,
        max_message_size: int | None,
        others: Mapping[str, Any],
        client: bool = False,
    ) -> Options:
        """Options out of the arguments of ``owner``, a class of connections.

        :param client: whether its connections are clients, which alone have an
                       ``open_timeout``.
        :raises TypeError: for an argument that there is not, or of a wrong type.
        :raises ValueError: for a wrong value.
        """
        for name in others:
            if name not in cls.__dataclass_fields__ or (name == 'open_timeout' and not client):
                raise TypeError(f'{owner}() got an unexpected keyword argument {name!r}')
        try:
            # A server's connections have the same: one object, checked once.
            return _cached(receive_bytes, ping_interval, max_message_size, **others)
        except TypeError:
            pass  # not hashable, or wrong
        # Out of the except: what is wrong is told once.
        return cls(receive_bytes, ping_interval, max_message_size, **others)

    def negotiate(
        self, request: UpgradeRequest, origins: handshake.Origins | None, secure: bool
    ) -> tuple[deflate.PerMessageDeflate | None, str | None]:
        """What a server says to a request: whether its origin may connect, and how
        messages are compressed (RFC 6455 section 4.2.2).

        :param origins: those that may connect, as parsed; None for all.
        :param secure: whether the request came over TLS.
        :returns: the compression and the value of ``Sec-WebSocket-Extensions``, or
                  None for each.
        :raises Rejected: with 403 for another origin, 400 for a malformed offer.
        """
        handshake.check_origin(request, origins, secure)
        try:
            return deflate.negotiate(self.compression, request.extensions)
        except deflate.ExtensionSyntaxError as error:
            raise handshake.Rejected(400, str(error)) from error

    def protocol(
        self,
        client: bool,
        now: Callable[[], float],
        compression: deflate.PerMessageDeflate | None,
    ) -> Protocol:
        """The protocol of a connection with these options.

        :param client: whether this end is the client.
        :param now: a monotonic clock, in seconds.
        :param compression: what was negotiated.
        """
        interval = self.ping_interval or None
        return Protocol(
            client,
            now,
            max_message_size=self.max_message_size or None,
            max_queue=self.max_queue,
            max_fragments=self.max_fragments,
            deflate=compression,
            ping_interval=interval,
            ping_timeout=interval if self.ping_timeout is None else self.ping_timeout,
            close_timeout=self.close_timeout,
        )


@lru_cache(maxsize=64, typed=True)  # True is 1, and no number of seconds
def _cached(*arguments: Any, **others: Any) -> Options:
    return Options(*arguments, **others)
