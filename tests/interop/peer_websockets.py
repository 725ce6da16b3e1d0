"""The library `websockets` as a peer, in this process, on threads."""

from __future__ import annotations

import contextlib
import json
import queue
import threading
from urllib.parse import unquote

from interop.conversation import SUBPROTOCOLS, from_json, to_json
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.extensions.permessage_deflate import (
    ClientPerMessageDeflateFactory,
    ServerPerMessageDeflateFactory,
)
from websockets.sync.client import connect
from websockets.sync.server import serve


class Server:
    """Serves in a thread; what it is asked for is in `conversation.py`.

    :param deflate: parameters of RFC 7692, None for no compression.
    """

    def __init__(self, deflate=None, compress=True):
        self.seen = queue.Queue()
        extensions = [ServerPerMessageDeflateFactory(**(deflate or {}))] if compress else None
        self._server = serve(
            self._handle,
            '127.0.0.1',
            0,
            select_subprotocol=self._choose,
            extensions=extensions,
            compression=None,
            max_size=None,
            process_request=self._process,
        )
        self.port = self._server.socket.getsockname()[1]
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def stop(self):
        self._server.shutdown()
        self._thread.join(10)
        assert not self._thread.is_alive()

    def _choose(self, connection, offered):
        return next((name for name in offered if name in SUBPROTOCOLS), None)

    def _process(self, connection, request):
        if request.path == '/refuse':
            return connection.respond(403, 'no\n')
        return None

    def _handle(self, connection):
        path = connection.request.path.partition('?')[0]
        kind, *args = map(unquote, path.removeprefix('/unseen')[1:].split('/'))
        if kind == 'last':
            connection.send(json.dumps(self.seen.get(timeout=10)))
            return
        with contextlib.suppress(ConnectionClosed):
            self._converse(connection, kind, args)
        closed = connection.protocol.close_rcvd
        if not path.startswith('/unseen'):
            self.seen.put([closed.code, closed.reason] if closed else [1006, ''])

    def _converse(self, connection, kind, args):
        if kind == 'headers':
            test = connection.request.headers.get('X-Test')
            carried = {'x-test': test, 'subprotocol': connection.subprotocol}
            connection.send(json.dumps(carried))
        elif kind == 'close':
            connection.recv()
            connection.close(int(args[0]), args[1])
        elif kind == 'ping':
            assert connection.ping('from the server').wait(10)
            connection.send('pong')
        elif kind == 'fragments':
            connection.send(with_ping(connection, ['fr\u00e4g', '', 'ment\u20ac']))
            connection.send(with_ping(connection, [b'bi', b'na', b'ry']))
        for message in connection:
            connection.send(message)


def with_ping(connection, parts, ping=True):
    for index, part in enumerate(parts):
        yield part
        if ping and not index:
            connection.ping()  # with a payload that no other has


def run(case):
    """Run a case as the client."""
    deflate = case.get('deflate', {})
    extensions = None if deflate is None else [ClientPerMessageDeflateFactory(**deflate)]
    try:
        with connect(
            case['url'],
            subprotocols=case.get('subprotocols'),
            additional_headers=case.get('headers'),
            extensions=extensions,
            compression=None,
            max_size=None,
            proxy=None,
        ) as connection:
            return converse(connection, case['steps'])
    except InvalidStatus as error:
        return {'refused': error.response.status_code}


def converse(connection, steps):
    got = []
    try:
        for verb, *args in steps:
            if verb == 'send':
                connection.send(from_json(args[0]))
            elif verb == 'receive':
                got.append(to_json(connection.recv(timeout=10)))
            elif verb == 'ping':
                assert connection.ping(args[0]).wait(10)
                got.append(args[0])
            elif verb == 'fragments':
                parts = [from_json(part) for part in args[0]]
                connection.send(with_ping(connection, parts, args[1]))
            else:
                connection.close(*args)
        got += [to_json(message) for message in connection]
    except ConnectionClosed:
        pass
    closed = connection.protocol.close_rcvd
    return {
        'got': got,
        'subprotocol': connection.subprotocol or '',
        'headers': {name.lower(): v for name, v in connection.response.headers.raw_items()},
        'close': [closed.code, closed.reason] if closed else [1006, ''],
    }
