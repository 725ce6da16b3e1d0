"""Serve `module:name` on an inherited listening socket.

python serve.py werkzeug|gevent|eventlet FD [--patch] [--tls CERT KEY] module:name
"""

from __future__ import annotations

import argparse
import importlib
import signal
import sys

parser = argparse.ArgumentParser()
parser.add_argument('server')
parser.add_argument('fd', type=int)
parser.add_argument('--patch', action='store_true')
parser.add_argument('--tls', nargs=2)
parser.add_argument('app')
args = parser.parse_args()

if args.patch and args.server == 'gevent':
    import gevent.monkey

    gevent.monkey.patch_all()
elif args.patch:
    import eventlet

    eventlet.monkey_patch()


def load():
    module, _, name = args.app.partition(':')
    return getattr(importlib.import_module(module), name)


def werkzeug():
    import ssl

    from werkzeug.serving import make_server

    context = None
    if args.tls:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(*args.tls)
    server = make_server('127.0.0.1', 0, load(), threaded=True, ssl_context=context, fd=args.fd)
    server.serve_forever()


def gevent_pywsgi():
    import socket

    from gevent import signal_handler
    from gevent.pywsgi import WSGIServer
    from gevent.socket import socket as green_socket

    tls = {'certfile': args.tls[0], 'keyfile': args.tls[1]} if args.tls else {}
    listener = green_socket(socket.AF_INET, socket.SOCK_STREAM, fileno=args.fd)
    server = WSGIServer(listener, load(), **tls)
    # Waits for nobody: an open connection is a handler that does not return.
    signal_handler(signal.SIGTERM, server.stop, 0.1)
    server.serve_forever()


def eventlet_wsgi():
    import eventlet
    import eventlet.wsgi
    from eventlet.green import socket

    listener = socket.socket(fileno=args.fd)
    if args.tls:
        listener = eventlet.wrap_ssl(
            listener, certfile=args.tls[0], keyfile=args.tls[1], server_side=True
        )
    # Not in the main greenlet: at its end the server waits for its handlers.
    eventlet.spawn(eventlet.wsgi.server, listener, load()).wait()


SERVERS = {'werkzeug': werkzeug, 'gevent': gevent_pywsgi, 'eventlet': eventlet_wsgi}

if __name__ == '__main__':
    # An orderly exit of the interpreter, in the middle of whatever goes on.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    SERVERS[args.server]()
