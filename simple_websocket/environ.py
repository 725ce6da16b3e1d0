"""The request for a WebSocket out of a WSGI environ (PEP 3333).

A WSGI server has parsed it; what is left is to say whether it is an upgrade.  Of
thousands of clients nearly all say the same but for the key and, if they are pages,
the origin: the rest is checked once.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from typing import Any
from urllib.parse import quote

from .handshake import Fields, Headers, UpgradeRequest, checked_key, checked_origin, validate


class _EnvironRequest(UpgradeRequest):
    """A request out of a WSGI environ.  Its target and the list of its headers,
    which few look at, are made when somebody does."""

    def __init__(self, environ: Mapping[str, Any], **values: Any) -> None:
        self._environ = environ
        self.__dict__.update(values)

    def __getattr__(self, name: str) -> Any:
        if name == 'target':
            self.target = _target_of(self._environ)
            return self.target
        if name == 'headers':
            self.headers = _headers_of(self._environ)
            return self.headers
        raise AttributeError(name)


@lru_cache(maxsize=256)
def _header_name(key: str) -> str:
    return key[5:].replace('_', '-').title()


def _headers_of(environ: Mapping[str, Any]) -> Headers:
    headers = [
        (_header_name(name) if len(name) < 100 else _header_name.__wrapped__(name), value)
        for name, value in environ.items()
        if name.startswith('HTTP_') and isinstance(value, str)
    ]
    for name in ('CONTENT_LENGTH', 'CONTENT_TYPE'):
        # Servers set these two to '' for a request that doesn't have them.
        if environ.get(name):
            headers.append((name.replace('_', '-').title(), str(environ[name])))
    return headers


def _target_of(environ: Mapping[str, Any]) -> str:
    target: str = environ.get('REQUEST_URI') or environ.get('RAW_URI') or ''
    if not target:
        path = environ.get('SCRIPT_NAME', '') + environ.get('PATH_INFO', '')
        target = quote(path.encode('latin-1', 'replace')) or '/'
        if environ.get('QUERY_STRING'):
            target += '?' + environ['QUERY_STRING']
    return target


#: The headers that decide and that most clients of a server have alike, by their
#: names in an environ.
_CACHED_HEADERS = {
    f'HTTP_{name.upper().replace("-", "_")}': name
    for name in (
        'upgrade', 'connection', 'content-length', 'transfer-encoding', 'host',
        'sec-websocket-version', 'sec-websocket-protocol', 'sec-websocket-extensions',
    )
}  # fmt: skip

#: Most characters of a request that are cached: the peer chooses their number.
_MOST_CACHED = 1000


def request_from_environ(environ: Mapping[str, Any]) -> UpgradeRequest:
    """Read the request from a WSGI environ (PEP 3333).

    :param environ: the environ.  ``REQUEST_METHOD`` and ``SERVER_PROTOCOL``
                    count as ``GET`` and ``HTTP/1.1`` where they are missing.
    :raises Rejected: it isn't a valid upgrade.
    """
    get = environ.get
    given = (
        get('REQUEST_METHOD', 'GET'),
        get('SERVER_PROTOCOL') or 'HTTP/1.1',
        str(get('CONTENT_LENGTH') or ''),
        *map(get, _CACHED_HEADERS),
    )
    try:
        short = len(''.join(filter(None, given))) <= _MOST_CACHED
    except TypeError:  # one is no string
        short = False
    read = _validate_cached if short else _validate_cached.__wrapped__
    subprotocols, extensions, host = read(*given)
    return _EnvironRequest(
        environ,
        subprotocols=subprotocols.copy(),
        extensions=extensions.copy(),
        host=host,
        origin=checked_origin(_given(get('HTTP_ORIGIN'))),
        key=checked_key(_given(get('HTTP_SEC_WEBSOCKET_KEY'))),
    )


@lru_cache(maxsize=64)
def _validate_cached(
    method: Any, http_version: Any, length: str, *values: Any
) -> tuple[list[str], list[str], str]:
    fields: Fields = {}
    for name, value in zip(_CACHED_HEADERS.values(), values, strict=True):
        if isinstance(value, str):
            fields[name] = _given(value)
    if length:
        fields.setdefault('content-length', []).extend(_given(length))
    return validate(method, http_version, fields)


def _given(value: Any) -> list[str]:
    """The values of a header out of an environ, at most one."""
    return [value.strip(' \t')] if isinstance(value, str) else []
