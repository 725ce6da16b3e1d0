"""A client: sends what is typed, line by line, and prints what comes back.

    pip install simple-websocket
    python client.py ws://127.0.0.1:8000/echo

One thread may receive while another sends. What arrives after close() is discarded,
so the end of the input (Ctrl-D) closes only when each line has got its answer.
"""

import sys
import threading

from simple_websocket import Client


def show(ws, answers):
    for message in ws:
        print(message, flush=True)
        answers.release()
    print(f'closed: {ws.close_reason} {ws.close_message or ""}'.rstrip(), flush=True)


def main(url='ws://127.0.0.1:8000/echo'):
    with Client.connect(url, ping_interval=25, max_message_size=2**20) as ws:
        answers, owed = threading.Semaphore(0), 0
        reader = threading.Thread(target=show, args=(ws, answers), daemon=True)
        reader.start()
        for line in sys.stdin:
            if not ws.connected:
                break
            ws.send(line.rstrip('\n'))
            owed += 1
        while owed and ws.connected and answers.acquire(timeout=5):
            owed -= 1
    reader.join(5)


if __name__ == '__main__':
    main(*sys.argv[1:2])
