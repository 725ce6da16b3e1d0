"""The application that every host of the live tests serves.

`/<ending>?<stage>` is one conversation: an echo, then the connection is closed
by the peer (`peer`) or by us (`us`), or left as it is (`open`), and then the
handler ends in one of the ways in which handlers end. What a test wants to
know about the inside is printed, and so in the server's log.
"""

from __future__ import annotations

import gc
import os
import sys
from urllib.parse import parse_qsl

from flask import Flask, request
from flask_sock import Sock

from simple_websocket import ConnectionClosed, ConnectionError, Server, websocket_app

flask = Flask(__name__)
sock = Sock(flask)
BUG = 'a bug in the handler'


def say(*words):
    print('app:', *words, file=sys.stderr, flush=True)


def options(environ):
    """What the query says, in seconds."""
    # eventlet leaves an empty query out.
    return {name: float(value) for name, value in parse_qsl(environ.get('QUERY_STRING', ''))}


def converse(ws):
    """An echo, and the stage that the query names."""
    stage = ws.environ['QUERY_STRING']
    ws.send(ws.receive())
    if stage == 'us':
        ws.close(4001, 'enough')
    elif stage == 'peer':
        try:
            ws.receive()
        except ConnectionClosed:
            pass


# -- the endings ----------------------------------------------------------


def raw(environ, start_response):
    converse(Server.accept(environ))
    return []


def stop(environ, start_response):
    converse(Server.accept(environ))
    raise StopIteration


def bug(environ, start_response):
    converse(Server.accept(environ))
    raise ValueError(BUG)


def late(environ, start_response):
    """Leaves the conversation to what it returns."""
    ws = Server.accept(environ)

    def rest():
        converse(ws)
        yield b''

    return rest()


def late_bug(environ, start_response):
    ws = Server.accept(environ)

    def rest():
        converse(ws)
        raise ValueError(BUG)
        yield

    return rest()


def ok(environ, start_response):
    """A handler that answers as if nothing had happened."""
    converse(Server.accept(environ))
    start_response('200 OK', [('Content-Type', 'text/plain'), ('Content-Length', '2')])
    return [b'ok']


def manager(environ, start_response):
    with Server.accept(environ) as ws:
        converse(ws)
    return []


@flask.route('/flask', websocket=True)
def flask_view():
    converse(Server.accept(request.environ))
    return ''


@flask.route('/flask-bug', websocket=True)
def flask_bug():
    converse(Server.accept(request.environ))
    raise ValueError(BUG)


@sock.route('/flask-sock')
def flask_sock(ws):
    converse(ws)


@sock.route('/flask-sock-bug')
def flask_sock_bug(ws):
    converse(ws)
    raise ValueError(BUG)


# -- the rest -------------------------------------------------------------


def mode(environ, start_response):
    with Server.accept(environ) as ws:
        ws.send(ws.mode)
    return []


def echo(environ, start_response):
    with Server.accept(environ, **options(environ)) as ws:
        for message in ws:
            ws.send(message)
    return []


def goodbye(environ, start_response):
    Server.accept(environ, **options(environ)).close()
    return []


def picky(environ, start_response):
    """Refuses; the answer is on the wire already."""
    try:
        Server.accept(environ, origins=['https://good.example'])
    except ConnectionError as error:
        say('refused', error.status_code)
    return []


def twice(environ, start_response):
    """Accepts, and accepts again, also from a copy as middleware makes them."""
    copy = {**environ}
    with Server.accept(environ) as ws:
        for again in (environ, copy):
            try:
                Server.accept(again)
            except RuntimeError:
                ws.send('refused')
        for message in ws:
            ws.send(message)
    return []


def stubborn(environ, start_response):
    """Accepts what was refused, all the same."""
    try:
        Server.accept(environ, origins=['https://good.example'])
    except ConnectionError:
        try:
            Server.accept(environ)
        except RuntimeError as error:
            say('again:', error)
    return []


@flask.route('/flask-picky', methods=['GET', 'POST'])
@flask.route('/flask-picky', websocket=True)
def flask_picky():
    try:
        Server.accept(request.environ, origins=['https://good.example'])
    except ConnectionError as error:
        say('refused', error.status_code)
    return ''


def pid(environ, start_response):
    # A socket that its host has left in a cycle is not closed before this.
    gc.collect()
    body = str(os.getpid()).encode()
    headers = [('Content-Type', 'text/plain'), ('Content-Length', str(len(body)))]
    start_response('200 OK', [*headers, ('Connection', 'close')])
    return [body]


ROUTES = {
    '/raw': raw,
    '/stop': stop,
    '/bug': bug,
    '/late': late,
    '/late-bug': late_bug,
    '/ok': ok,
    '/with': manager,
    '/decorator': websocket_app(converse),
    '/mode': mode,
    '/echo': echo,
    '/goodbye': goodbye,
    '/picky': picky,
    '/twice': twice,
    '/stubborn': stubborn,
    '/pid': pid,
}


def app(environ, start_response):
    return ROUTES.get(environ['PATH_INFO'], flask)(environ, start_response)
