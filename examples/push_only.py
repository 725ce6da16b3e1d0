"""Push only: a clock that never receives, and still notices who has gone.

    pip install simple-websocket werkzeug
    python push_only.py             ws://127.0.0.1:8000/
    PORT=9000 python push_only.py   another port

Pings are answered, and a Close is seen, while the handler does other things;
a peer that vanishes without a word is found out by the keepalive.
"""

import os
import time

from werkzeug.serving import run_simple

from simple_websocket import ConnectionClosed, websocket_app


@websocket_app(ping_interval=10, max_message_size=1024)
def clock(ws):
    try:
        while ws.connected:
            ws.send(time.strftime('%H:%M:%S'), timeout=5)  # no waiting for slow readers
            time.sleep(1)
    except ConnectionClosed:
        pass
    print(f'gone: {ws.close_reason} {ws.close_message or ""}'.rstrip(), flush=True)


if __name__ == '__main__':
    run_simple('127.0.0.1', int(os.environ.get('PORT', 8000)), clock, threaded=True)
