"""WebSocket for Python code that blocks, and for asyncio."""

import importlib
from typing import TYPE_CHECKING, Any

from .broadcast import Broadcast, broadcast
from .deflate import Deflate
from .errors import ConnectionClosed, ConnectionError, SimpleWebsocketError
from .hosts import Host, register_host
from .profiles import Profile, get_profile
from .ws import Client, Server
from .wsgi import websocket_app

if TYPE_CHECKING:
    from .aiows import AioClient, AioServer

__all__ = [
    'AioClient',
    'AioServer',
    'Broadcast',
    'Client',
    'ConnectionClosed',
    'ConnectionError',
    'Deflate',
    'Host',
    'Profile',
    'Server',
    'SimpleWebsocketError',
    'broadcast',
    'get_profile',
    'register_host',
    'websocket_app',
]


if not TYPE_CHECKING:  # to a type checker any name would be there

    def __getattr__(name: str) -> Any:
        # Code that blocks has no use for asyncio, which takes longer to import
        # than all the rest.
        if name in ('AioClient', 'AioServer'):
            from . import aiows

            return getattr(aiows, name)
        if name in ('aiows', 'asgi'):
            return importlib.import_module(f'.{name}', __name__)
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')

    def __dir__() -> list[str]:
        return sorted({*globals(), *__all__})
