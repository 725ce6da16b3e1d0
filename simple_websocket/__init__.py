"""WebSocket for Python code that blocks, and for asyncio."""

from .deflate import Deflate
from .errors import ConnectionClosed, ConnectionError, SimpleWebsocketError
from .hosts import Host, register_host
from .profiles import Profile, get_profile
from .ws import Client, Server
from .wsgi import websocket_app

__all__ = [
    'Client',
    'ConnectionClosed',
    'ConnectionError',
    'Deflate',
    'Host',
    'Profile',
    'Server',
    'SimpleWebsocketError',
    'get_profile',
    'register_host',
    'websocket_app',
]
