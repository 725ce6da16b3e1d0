"""A chat room for browsers, on gevent, threads or eventlet.

    python app.py                           gevent's pywsgi, http://127.0.0.1:8000/
    python app.py threads --port 9000       Werkzeug, a thread for each member
    python app.py eventlet --port 0         eventlet's wsgi server, any free port

A connection finds out by itself what it is served by, without monkey-patching;
what the room needs (a thread, an event) comes from the profile of that name.
"""

import argparse
import itertools
import json
import threading
import time
from collections import deque
from contextlib import suppress
from pathlib import Path

import serve

from simple_websocket import ConnectionClosed, get_profile, websocket_app

GOING_AWAY, POLICY_VIOLATION, TRY_AGAIN, REPLACED = 1001, 1008, 1013, 4001
# What a page may say: every field of each event, and how many characters it has.
EVENTS = {'join': {'key': 64, 'name': 24}, 'say': {'text': 500}, 'ping': {'at': 20}}
STATIC = Path(__file__).parent / 'static'
FILES = {
    '/': ('index.html', 'text/html; charset=utf-8'),
    '/chat.js': ('chat.js', 'text/javascript; charset=utf-8'),
    '/chat.css': ('chat.css', 'text/css; charset=utf-8'),
    '/icon.svg': ('icon.svg', 'image/svg+xml'),
}


class Member:
    """Someone in the room.  What they are told waits in a queue of their own and
    is written by a thread of their own: who reads slowly keeps nobody waiting."""

    def __init__(self, ws, key, name, profile):
        self.ws, self.key, self.name, self.profile = ws, key, name, profile
        self.queue, self.filled = deque(), profile.event_class()

    def tell(self, event):
        self.queue.append(event)
        self.filled.set()

    def write(self):
        with suppress(ConnectionClosed):
            while True:
                self.filled.wait()
                self.filled.clear()
                while self.queue:
                    event = self.queue.popleft()
                    if event is None:
                        return
                    self.ws.send(json.dumps(event), timeout=10)

    def close(self, code, text):
        with suppress(ConnectionClosed):
            self.ws.close(code, text)

    def spawn(self, function, *args):
        thread = self.profile.thread_class(target=lambda: function(*args))
        thread.daemon = True
        thread.start()


class Room:
    """Who is here and what was said.  The lock is never held across a wait, so
    that a plain one will do for greenlets as well."""

    def __init__(self, profile):
        self.profile, self.lock = profile, threading.Lock()
        self.members, self.names, self.lines = {}, {}, deque(maxlen=50)
        self.ids = itertools.count(time.time_ns() // 1_000_000)  # rises over restarts

    def join(self, ws, key, name):
        with self.lock:
            # The same page again: its old connection may not know that it is dead.
            if old := self.members.pop(key, None):
                old.spawn(old.close, REPLACED, 'connected again')
            taken = {member.name for member in self.members.values()}
            numbered = (f'{name} {n}' for n in itertools.count(2))
            name = next(one for one in itertools.chain([name], numbered) if one not in taken)
            member = self.members[key] = Member(ws, key, name, self.profile)
            member.tell({'type': 'welcome', 'you': name, 'lines': list(self.lines)})
            self.add_line('back' if self.names.get(key) == name else 'joined', name)
            self.names[key] = name
            self.tell_who()
        member.spawn(member.write)
        return member

    def leave(self, member):
        with self.lock:
            member.tell(None)
            if self.members.get(member.key) is member:
                del self.members[member.key]
                self.add_line('left', member.name)
                self.tell_who()
            while len(self.names) > 1000:
                del self.names[next(iter(self.names))]  # the oldest

    def say(self, member, text):
        with self.lock:
            self.add_line('said', member.name, text)

    def add_line(self, kind, name, text=''):
        line = {'id': next(self.ids), 'at': time.time(), 'kind': kind, 'name': name, 'text': text}
        self.lines.append(line)
        self.tell_all({'type': 'line', 'line': line})

    def tell_who(self):
        names = sorted(member.name for member in self.members.values())
        self.tell_all({'type': 'who', 'names': names})

    def tell_all(self, event):
        for member in self.members.values():
            member.tell(event)
            if len(member.queue) == 200:  # can't keep up: better to start afresh
                member.spawn(member.close, TRY_AGAIN, 'too slow')

    def latencies(self):
        """What the server's own keepalive pings found out, in milliseconds."""
        with self.lock:
            found = {member.name: member.ws.latency for member in self.members.values()}
        return {name: round(s * 1000, 1) for name, s in found.items() if s is not None}

    def close(self):
        with self.lock:
            members = list(self.members.values())
        for member in members:  # all at once: each waits for the page's answer
            member.spawn(member.close, GOING_AWAY, 'the server stops')
        for member in members:
            member.ws.thread.join(3)


def parse(message):
    """What a page said, as a dict; ValueError if no page of ours would."""
    try:
        event = json.loads(message) if isinstance(message, str) else None
        fields = EVENTS[event['type']]
    except (TypeError, KeyError, RecursionError) as error:
        raise ValueError('not an event') from error
    for field, longest in fields.items():
        value = event.get(field)
        if not isinstance(value, str) or not 0 < len(value.strip()) <= longest:
            raise ValueError(f'bad {field}')
    return event


def make_app(room):
    # Pages of this host only; who answers no ping in 5 s is gone; and messages
    # of more than 4 KiB (close code 1009) are from no page of ours.
    @websocket_app(origins='same', ping_interval=5, max_message_size=4096, close_timeout=2)
    def talk(ws):
        member = None
        try:
            hello = parse(ws.receive(timeout=10))
            member = room.join(ws, hello['key'], ' '.join(hello['name'].split()))
            for message in ws:
                event = parse(message)
                if event['type'] == 'say':
                    room.say(member, event['text'].strip())
                elif event['type'] == 'ping':
                    pong = {'type': 'pong', 'at': event['at'], 'latencies': room.latencies()}
                    member.tell(pong)
        except (ValueError, KeyError) as error:
            ws.close(POLICY_VIOLATION, str(error)[:60])
        finally:
            if member:
                room.leave(member)

    def app(environ, start_response):
        if environ['PATH_INFO'] == '/ws':
            return talk(environ, start_response)
        name, kind = FILES.get(environ['PATH_INFO'], (None, 'text/plain'))
        body = (STATIC / name).read_bytes() if name else b'There is no such page.\n'
        headers = {'Content-Type': kind, 'Content-Length': str(len(body))}
        headers['Content-Security-Policy'] = "default-src 'self'; frame-ancestors 'none'"
        start_response('200 OK' if name else '404 Not Found', list(headers.items()))
        return [body]

    return app


if __name__ == '__main__':
    parser = argparse.ArgumentParser(description=__doc__.partition('\n')[0])
    parser.add_argument('backend', nargs='?', choices=serve.BACKENDS, default='gevent')
    parser.add_argument('--port', type=int, default=8000, help='default: 8000; 0: any free one')
    options = parser.parse_args()
    room = Room(get_profile(options.backend))
    serve.until_ctrl_c(make_app(room), options.backend, options.port)
    room.close()
