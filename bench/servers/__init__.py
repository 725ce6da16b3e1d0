"""The servers that are measured: ours, the peers, and the bare ways to wait.

``python -m bench.servers NAME PORT`` runs one of them at a loopback port.  All
send back what they receive.  Each is what the library's own documentation
shows, with its logging and its keepalive off and no limit on the size of a
message, so that the same is asked of all.

A bare server has no WebSocket in it: it sends bytes back as they come, in one
way to wait.  That is the ceiling of everything that waits in this way.

Nothing is imported but by the server that runs: they live in two environments
(``bench``, and ``bench-1.1`` for simple-websocket 1.1), and some patch.
"""

# In the order of the tables.
from . import on_gevent, on_eventlet, on_threads, on_asyncio, in_c, idle, for_clients  # noqa: F401, I001
from .registry import HOST, SERVERS, Entry

__all__ = ['HOST', 'SERVERS', 'Entry']
