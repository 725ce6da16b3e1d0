"""Echo with Flask, on the server that comes with it (Werkzeug, threads).

    pip install simple-websocket flask
    python echo_flask_werkzeug.py               ws://127.0.0.1:8000/echo
    PORT=9000 python echo_flask_werkzeug.py     another port

Also with `flask --app echo_flask_werkzeug run`, also in debug mode.
"""

import os

from flask import Flask, request

from simple_websocket import Server

app = Flask(__name__)


@app.route('/echo', websocket=True)
def echo():
    with Server.accept(request.environ, max_message_size=2**20) as ws:
        for message in ws:
            ws.send(message)
    return ''  # Flask wants a response; it is not sent


if __name__ == '__main__':
    app.run('127.0.0.1', int(os.environ.get('PORT', 8000)))
