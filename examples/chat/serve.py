"""One WSGI application on three servers, up to Ctrl-C.

Nothing is monkey-patched, and only the server that is asked for is imported.
"""

import logging
import signal
import socket
import sys
import threading
import warnings

from simple_websocket import get_profile

# eventlet says at each start that it is deprecated; here it was asked for by name.
warnings.filterwarnings('ignore', '\nEventlet is deprecated')

# Each starts a server, and returns its port and what stops it from accepting.


def gevent(app, address):
    from gevent.pywsgi import WSGIServer

    server = WSGIServer(address, app, log=None)
    server.start()
    return server.server_port, server.close


def eventlet(app, address):
    import eventlet
    import eventlet.wsgi

    listener = eventlet.listen(address, reuse_port=False)
    server = eventlet.spawn(eventlet.wsgi.server, listener, app, log_output=False)
    return listener.getsockname()[1], server.kill


def threads(app, address):
    from werkzeug.serving import make_server

    logging.getLogger('werkzeug').setLevel(logging.WARNING)
    server = make_server(*address, app, threaded=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server.port, server.shutdown


BACKENDS = {'gevent': gevent, 'eventlet': eventlet, 'threads': threads}


def until_ctrl_c(app, backend, port):
    """Serve on the loopback interface until SIGINT or SIGTERM; 0: any free port."""
    try:
        port, stop = BACKENDS[backend](app, ('127.0.0.1', port))
    except OSError as error:
        sys.exit(f'port {port}: {error.strerror}; try another with --port')
    # A signal becomes a byte: something that every kind of thread can wait for.  Not by
    # a handler in Python, which would run only once that wait is over.
    stopped, stopping = socket.socketpair()
    stopping.setblocking(False)
    signal.set_wakeup_fd(stopping.fileno())
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    print(f'Chat on {backend}: http://127.0.0.1:{port}/ (Ctrl-C ends it)', flush=True)
    get_profile(backend).wait(stopped.fileno(), False, None)
    signal.set_wakeup_fd(-1)
    stop()
