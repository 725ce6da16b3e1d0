"""Who may connect: a token (401) and the page's origin (403), before the upgrade.

    pip install simple-websocket flask
    python auth_and_origin.py           ws://127.0.0.1:8000/private?token=sesame
    PORT=9000 python auth_and_origin.py   another port

Browsers send no headers of your choice with a WebSocket, but cookies and the
query string, which ends up in access logs: let such a token be short-lived. And
they do not keep other sites' pages from connecting, with the cookies of your
users: hence origins=.
"""

import hmac
import os

from flask import Flask, abort, request

from simple_websocket import ConnectionError, Server

app = Flask(__name__)
TOKEN = os.environ.get('TOKEN', 'sesame')
ORIGINS = ['same', 'https://app.example.com', None]  # None: without one, so no browser


@app.route('/private', websocket=True)
def private():
    # Until accept() this is a request like any other.
    if not hmac.compare_digest(request.args.get('token', '').encode(), TOKEN.encode()):
        abort(401)
    try:
        ws = Server.accept(request.environ, origins=ORIGINS, max_message_size=2**16)
    except ConnectionError:
        return ''  # answered already, with 403 for another origin
    with ws:
        ws.send('welcome')
    return ''


if __name__ == '__main__':
    app.run('127.0.0.1', int(os.environ.get('PORT', 8000)))
