"""A client: sends what is typed, line by line, and prints what comes back.

    pip install simple-websocket
    python client.py ws://127.0.0.1:5000/echo

The end of the input (Ctrl-D) closes the connection.
"""

import sys
import threading

from simple_websocket import Client


def show(ws):
    for message in ws:
        print(message, flush=True)
    print(f'closed: {ws.close_reason} {ws.close_message or ""}'.rstrip(), flush=True)


def main(url='ws://127.0.0.1:5000/echo'):
    with Client.connect(url, ping_interval=25, max_message_size=2**20) as ws:
        # One thread may receive while another sends.
        reader = threading.Thread(target=show, args=(ws,), daemon=True)
        reader.start()
        for line in sys.stdin:
            if not ws.connected:
                break
            ws.send(line.rstrip('\n'))
    reader.join(5)


if __name__ == '__main__':
    main(*sys.argv[1:2])
