"""The load: clients of every kind, good and bad, against one server process.

``python -m soak.load PORT TLS_PORT CA SERVER_PID SECONDS SHARE SEED`` runs for
some seconds and prints counts as JSON; what goes wrong is in ``failures``.
Load and server together take about ``SHARE`` of a core.

A scenario is a function of a ``Load``; it dials, does its thing and asserts
what must come back.
"""

from __future__ import annotations

import json
import os
import random
import socket
import ssl
import struct
import sys
import threading
import time
import traceback
import zlib
from collections import Counter
from collections.abc import Callable

from tests.support.frames import BINARY, CLOSE, CONTINUATION, PING, PONG, TEXT

from .gauge import cpu
from .peer import Peer, dial, frame, request, reset
from .servers import LIMIT, PUSHES, pushed

WORKERS = 6
RESIDENTS = 4
SIZES = (0, 1, 125, 126, 1000, 4096, 65535, 65536, 65537, 300_000, 1 << 20)

#: Failures from which it is of no use to go on.
ENOUGH = 20

_squeezer = zlib.compressobj(9, zlib.DEFLATED, -15)
#: 16 MiB of zeros.  Made beforehand: a peer that computes for ten seconds, on a
#: busy machine, is a silent one to the keepalive.
BOMB = (_squeezer.compress(bytes(16 << 20)) + _squeezer.flush(zlib.Z_SYNC_FLUSH))[:-4]


class Load:
    """What the workers share.

    :param tls: how to speak TLS with the server.
    :param seconds: how long to go on.
    :param share: of a core, that this process and the server may take.
    """

    def __init__(
        self,
        port: int,
        tls_port: int,
        tls: ssl.SSLContext,
        server: int,
        seconds: float,
        share: float,
    ) -> None:
        self._ports = (port, tls_port)
        self._tls = tls
        self._server = server
        self._share = share
        self._lock = threading.Lock()
        self._began = time.monotonic()
        self._until = self._began + seconds
        self._cpu = self._spent()
        self.counts: Counter[str] = Counter()
        self.failures: list[str] = []

    @property
    def over(self) -> bool:
        return time.monotonic() >= self._until or len(self.failures) >= ENOUGH

    def count(self, what: str, number: int = 1) -> None:
        with self._lock:
            self.counts[what] += number

    def fail(self, where: str) -> None:
        with self._lock:
            self.failures.append(f'{where}: {traceback.format_exc()}')

    def _spent(self) -> float:
        return time.process_time() + cpu(self._server)

    def pace(self) -> None:
        """Wait until what was spent fits into the share."""
        while not self.over:
            allowed = self._share * (time.monotonic() - self._began)
            ahead = self._spent() - self._cpu - allowed
            if ahead <= 0:
                return
            time.sleep(min(ahead / self._share, 1) + 0.01)

    def where(self) -> tuple[int, ssl.SSLContext | None]:
        """One of the two listeners."""
        tls = random.random() < 0.4
        self.count('connections over TLS' if tls else 'connections without TLS')
        return (self._ports[1], self._tls) if tls else (self._ports[0], None)

    def dial(self) -> socket.socket:
        return dial(*self.where(), 60)

    def connect(self, path: str = '/echo', deflate: bool = False, **how: int) -> Peer:
        port, tls = self.where()
        return Peer(port, path, tls, deflate, **how)

    def echo(self, peer: Peer, opcode: int, payload: bytes) -> None:
        peer.echo(opcode, payload)
        self.count('echoes')
        self.count('bytes echoed', len(payload))

    def leave(self, peer: Peer) -> None:
        peer.close()
        self.count('pings answered', peer.pinged)

    def work(self) -> None:
        names = list(SCENARIOS)
        random.shuffle(names)
        while True:
            for name in names:
                self.pace()
                if self.over:
                    return
                try:
                    SCENARIOS[name](self)
                except Exception:
                    self.fail(name)
                else:
                    self.count(name)

    def reside(self) -> None:
        """A connection that stays, while all of this goes on around it."""
        try:
            peer = self.connect()
            while not self.over:
                self.echo(peer, BINARY, random.randbytes(random.randrange(2000)))
                time.sleep(min(1.0, max(self._until - time.monotonic(), 0)))
            self.leave(peer)
        except Exception:
            self.fail('resident')
        else:
            self.count('connections that stayed')

    def run(self) -> None:
        threads = [threading.Thread(target=self.work) for _ in range(WORKERS)]
        threads += [threading.Thread(target=self.reside) for _ in range(RESIDENTS)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


SCENARIOS: dict[str, Callable[[Load], None]] = {}


def scenario(name: str) -> Callable[[Callable[[Load], None]], Callable[[Load], None]]:
    """Enter a function into the list, under the words that a report has for it."""

    def enter(function: Callable[[Load], None]) -> Callable[[Load], None]:
        SCENARIOS[name] = function
        return function

    return enter


# -- well-behaved -----------------------------------------------------------------


@scenario('conversations of echoes of 0 B to 1 MiB')
def converse(load: Load) -> None:
    peer = load.connect()
    for size in random.sample(SIZES, 5):
        load.echo(peer, BINARY, random.randbytes(size))
        load.echo(peer, TEXT, ('ü' * (size // 2)).encode())
    load.leave(peer)


@scenario('compressed conversations')
def compress(load: Load) -> None:
    peer = load.connect(deflate=True)
    for size in random.sample(SIZES, 4):
        line = json.dumps({'id': random.random(), 'name': 'a value'}).encode()
        load.echo(peer, TEXT, (line * (size // len(line) + 1))[:size])
        load.echo(peer, BINARY, random.randbytes(size // 4))
    load.leave(peer)


@scenario('rounds of 10 short connections')
def churn(load: Load) -> None:
    for _ in range(10):
        peer = load.connect()
        load.echo(peer, TEXT, b'hello')
        load.leave(peer)


@scenario('messages in 3,000 fragments, with pings between')
def fragment(load: Load) -> None:
    peer = load.connect()
    payload = random.randbytes(9000)
    parts = [payload[at : at + 3] for at in range(0, len(payload), 3)]
    last = len(parts) - 1
    data = bytearray()
    for index, part in enumerate(parts):
        data += frame(CONTINUATION if index else BINARY, part, index == last)
        if index % 500 == 0:
            data += frame(PING, b'between')
    peer.send(data)
    pongs = 0
    while (heard := peer.hear())[0] == PONG:
        assert heard[1] == b'between'
        pongs += 1
    assert heard == (BINARY, payload) and pongs
    load.count('fragments', len(parts))
    load.leave(peer)


# -- floods -------------------------------------------------------------------------


@scenario('floods of 5,000 pings, pongs read')
def ping(load: Load) -> None:
    peer = load.connect()
    last = -1
    for first in range(0, 5000, 500):
        numbers = range(first, first + 500)
        peer.send(b''.join(frame(PING, number.to_bytes(2, 'big')) for number in numbers))
        while last != numbers[-1]:  # the latest may answer for those before it
            opcode, payload = peer.hear()
            assert opcode == PONG and int.from_bytes(payload, 'big') > last
            last = int.from_bytes(payload, 'big')
    load.count('pings', 5000)
    load.echo(peer, TEXT, b'after the pings')
    load.leave(peer)


@scenario('floods of 20,000 pings, pongs never read, then an RST')
def ping_unread(load: Load) -> None:
    peer = load.connect(receive_buffer=4096)
    pings = frame(PING, bytes(125)) * 1000
    for _ in range(20):
        peer.send(pings)
        load.count('pings', 1000)
    peer.reset()


@scenario('floods of 20,000 empty fragments')
def empty_fragments(load: Load) -> None:
    peer = load.connect()
    number = 20_000
    peer.send(frame(TEXT, b'', False))
    for _ in range(number // 1000):
        peer.send(frame(CONTINUATION, b'', False) * 1000)
    peer.send(frame(CONTINUATION, b'the end'))
    peer.expect(TEXT, b'the end')
    load.count('empty frames', number)
    load.leave(peer)


@scenario('floods of 3,000 empty messages')
def empty_messages(load: Load) -> None:
    peer = load.connect()
    number = 3000
    for _ in range(number // 500):
        peer.send(frame(BINARY) * 500)
        for _ in range(500):
            peer.expect(BINARY, b'')
    load.count('empty frames', number)
    load.count('echoes', number)
    load.leave(peer)


@scenario('messages over the limit, plain and inflated')
def too_large(load: Load) -> None:
    peer = load.connect('/limited', deflate=True)
    load.echo(peer, BINARY, random.randbytes(LIMIT))
    peer.send(frame(BINARY, BOMB, rsv1=True))
    peer.expect_close(1009)
    peer = load.connect('/limited')
    peer.send(frame(BINARY, bytes(LIMIT + 1)))
    opcode, payload = peer.hear()
    assert (opcode, payload[:2]) == (CLOSE, b'\x03\xf1')
    peer.wait_for_end()


@scenario('messages to a handler that does not receive')
def not_received(load: Load) -> None:
    peer = load.connect('/busy')
    peer.sock.settimeout(1)
    data = frame(BINARY, bytes(60_000))
    try:
        for _ in range(200):  # more than TCP takes
            peer.send(data)
    except TimeoutError:
        load.count('times that TCP pushed back')
    peer.reset()


# -- slow, and gone --------------------------------------------------------------------


@scenario('slow readers of 1.5 MiB')
def read_slowly(load: Load) -> None:
    peer = load.connect('/push', receive_buffer=8192)
    for number in range(PUSHES):
        if number % 4 == 0:
            time.sleep(0.1)
        peer.expect(BINARY, pushed(number))
    opcode, payload = peer.hear()
    assert (opcode, payload) == (CLOSE, b'\x03\xe8')
    peer.say(CLOSE, payload)
    peer.expect_end()


@scenario('readers that stop reading, then an RST')
def stop_reading(load: Load) -> None:
    peer = load.connect('/push', receive_buffer=4096)
    peer.expect(BINARY, pushed(0))
    time.sleep(random.random())
    peer.reset()


@scenario('RSTs of an idle connection')
def reset_idle(load: Load) -> None:
    peer = load.connect()
    load.echo(peer, TEXT, b'hello')
    peer.reset()


@scenario('RSTs in the middle of a frame')
def reset_inside(load: Load) -> None:
    peer = load.connect()
    data = frame(BINARY, random.randbytes(100_000))
    peer.send(data[: random.randrange(1, len(data))])
    peer.reset()


@scenario('RSTs before the request')
def reset_early(load: Load) -> None:
    # In the middle of one is between the client and the host, which may log it.
    reset(load.dial())


@scenario('half-closes without a Close')
def half_close(load: Load) -> None:
    peer = load.connect()
    load.echo(peer, TEXT, b'hello')
    peer.sock.shutdown(socket.SHUT_WR)
    peer.wait_for_end()


@scenario('half-closes behind a Close')
def half_close_closed(load: Load) -> None:
    peer = load.connect()
    peer.say(CLOSE, b'\x0f\xa0bye')
    if not isinstance(peer.sock, ssl.SSLSocket):
        peer.sock.shutdown(socket.SHUT_WR)
    opcode, payload = peer.hear()
    assert (opcode, payload) == (CLOSE, b'\x0f\xa0')
    peer.expect_end()


@scenario('ends of TCP without a word')
def vanish(load: Load) -> None:
    peer = load.connect()
    load.echo(peer, TEXT, b'hello')
    peer.let_go()


# -- the handler's ends -------------------------------------------------------------------


@scenario('kills of a handler in receive')
def kill(load: Load) -> None:
    peer = load.connect('/kill')
    load.echo(peer, TEXT, b'hello')
    peer.expect_close(1001)


@scenario('handlers with a bug')
def fail(load: Load) -> None:
    peer = load.connect('/fail')
    load.echo(peer, TEXT, b'hello')
    peer.expect_close(1011)


@scenario('handlers that return with the connection open')
def drop(load: Load) -> None:
    peer = load.connect('/drop')
    load.echo(peer, TEXT, b'hello')
    peer.expect_close(1000)


# -- what is no WebSocket ----------------------------------------------------------------------


@scenario('violations of the protocol')
def violate(load: Load) -> None:
    for data, code in (
        (frame(3, b'reserved'), 1002),
        (frame(TEXT, b'\xff'), 1007),
        (frame(CONTINUATION, b'of nothing'), 1002),
        (struct.pack('!BB', 0x82, 3) + b'abc', 1002),  # not masked
    ):
        peer = load.connect()
        load.echo(peer, TEXT, b'hello')
        peer.send(data)
        opcode, payload = peer.hear()
        assert (opcode, payload[:2]) == (CLOSE, code.to_bytes(2, 'big')), (opcode, payload)
        peer.wait_for_end()


@scenario('requests that are refused')
def refuse(load: Load) -> None:
    for headers, status in (
        ({'Sec_WebSocket_Version': '8'}, b'426'),
        ({'Sec_WebSocket_Key': 'short'}, b'400'),
        ({'Upgrade': 'h2c'}, b'426'),
    ):
        sock = load.dial()
        sock.sendall(request('/echo', **headers))
        with sock, sock.makefile('rb') as file:
            answer = file.read()
        assert answer.split()[1:2] == [status], answer


def main() -> None:
    port, tls_port, authority, server, seconds, share, seed = sys.argv[1:]
    random.seed(int(seed))
    tls = ssl.create_default_context(cafile=authority)
    load = Load(
        int(port), int(tls_port), tls, int(server), float(seconds), float(share)
    )
    load.run()
    sys.stdout.write(json.dumps({'counts': load.counts, 'failures': load.failures}))
    sys.stdout.flush()
    os._exit(0)  # whatever thread still hangs has failed already


if __name__ == '__main__':
    main()
