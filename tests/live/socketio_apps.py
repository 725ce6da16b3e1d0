"""Socket.IO servers, one an async mode, as their own documentation makes them.

`socketio_apps:threading`, `:gevent`, `:eventlet` and `:flask`; made when asked
for, since each imports its own driver.
"""

from __future__ import annotations

import apps
import socketio

#: Often enough for a test to see a few go by.
KEEPALIVE = {'ping_interval': 0.2, 'ping_timeout': 2}


def add_events(sio):
    @sio.event
    def connect(sid, environ):
        apps.say('joined')
        sio.emit('welcome', {'to': sid}, to=sid)

    @sio.event
    def disconnect(sid, reason=None):
        apps.say('left')

    @sio.event
    def echo(sid, data):
        return data

    @sio.event
    def call_back(sid, data):
        sio.emit('called', data, to=sid)

    @sio.event
    def throw_out(sid):
        sio.disconnect(sid)


def make(mode):
    sio = socketio.Server(async_mode=mode, **KEEPALIVE)
    add_events(sio)
    return socketio.WSGIApp(sio, apps.app)


def make_eventlet():
    from engineio.async_drivers import _websocket_wsgi
    from engineio.async_drivers import eventlet as driver

    # The line that gives python-engineio's eventlet driver, which otherwise
    # uses eventlet's own WebSocket, ours; before the server is made.
    driver._async['websocket'] = _websocket_wsgi.SimpleWebSocketWSGI
    return make('eventlet')


def make_flask():
    from flask import Flask, request
    from flask_socketio import SocketIO, disconnect, emit

    app = Flask(__name__)
    app.add_url_rule('/pid', view_func=lambda: str(apps.os.getpid()))
    sio = SocketIO(app, async_mode='threading', **KEEPALIVE)

    @sio.on('connect')
    def connect(auth=None):
        apps.say('joined')
        emit('welcome', {'to': request.sid})

    @sio.on('disconnect')
    def on_disconnect(reason=None):
        apps.say('left')

    sio.on_event('echo', lambda data: data)
    sio.on_event('call_back', lambda data: emit('called', data))
    sio.on_event('throw_out', lambda: disconnect())
    return app


def __getattr__(name):
    makers = {'eventlet': make_eventlet, 'flask': make_flask}
    if name in makers:
        return makers[name]()
    if name in ('threading', 'gevent'):
        return make(name)
    raise AttributeError(name)
