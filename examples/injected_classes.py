"""Injected classes: a connection that runs its reader on threads of your own.

    pip install simple-websocket werkzeug
    python injected_classes.py              ws://127.0.0.1:8000/
    PORT=9000 python injected_classes.py    another port

Not needed for speed or for a backend (that is what profile= is for), but it is
how a framework brings its own kind of thread, event or selector.
"""

import os
import selectors
import threading

from werkzeug.serving import run_simple

from simple_websocket import websocket_app


class NamedThread(threading.Thread):
    """Little is asked of it: being made with target=, and start()."""

    def __init__(self, target):
        super().__init__(target=target, name='the reader', daemon=True)


@websocket_app(
    thread_class=NamedThread,
    event_class=threading.Event,
    selector_class=selectors.PollSelector,
)
def echo(ws):
    for message in ws:
        ws.send(f'{ws.thread.name} read {message}')


if __name__ == '__main__':
    run_simple('127.0.0.1', int(os.environ.get('PORT', 8000)), echo, threaded=True)
