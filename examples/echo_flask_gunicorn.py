"""Echo with Flask on gunicorn, with threads or with greenlets.

    pip install simple-websocket flask 'gunicorn[gevent]'
    gunicorn -b 127.0.0.1:8000 --threads 100 echo_flask_gunicorn:app
    gunicorn -b 127.0.0.1:8000 -k gevent echo_flask_gunicorn:app
    python echo_flask_gunicorn.py           the first, with PORT from the environment

With threads each connection takes one for as long as it lasts; greenlets
(-k gevent, or -k gevent_pywsgi) hold thousands. When gunicorn stops it gives open
connections --graceful-timeout seconds, 30 by default.
"""

import os
import sys

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
    os.chdir(os.path.dirname(os.path.abspath(__file__)))
    address = f'127.0.0.1:{os.environ.get("PORT", 8000)}'
    options = ['-b', address, '--threads', '100', '--graceful-timeout', '1']
    gunicorn = [sys.executable, '-m', 'gunicorn', *options, 'echo_flask_gunicorn:app']
    os.execv(sys.executable, gunicorn)
