"""Every host and every way in which a handler ends: the wire carries the
Close and then the end, the log carries nothing (DESIGN, invariant 8)."""

from __future__ import annotations

import os
import re
import socket
import ssl
import struct
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress

import pytest
from live.servers import wait_until
from support.frames import BINARY, CLOSE, TEXT, frame

pytestmark = pytest.mark.timeout(30)

#: What ends without an error.
CLEAN = ('flask', 'raw', 'late', 'ok', 'with', 'decorator', 'flask-sock')
#: What raises `ValueError`.
BUGS = ('bug', 'late-bug', 'flask-bug', 'flask-sock-bug')
TRACEBACK = 'Traceback (most recent call last)'


def masked_close(code):
    return frame(CLOSE, struct.pack('!H', code), masked=True)


def converse(server, path, stage, left_open):
    """Talk to an ending; after it there is nothing on the wire but one Close
    and the end of the stream."""
    peer = server.peer(f'/{path}?{stage}')
    peer.send((TEXT, b'hello'))
    peer.expect(TEXT, b'hello')
    if stage == 'peer':
        peer.send(masked_close(4000))
        peer.expect_close(4000)
    else:
        peer.expect_close(4001 if stage == 'us' else left_open)
        # Long after a host has had its chance to speak: it has served others.
        if server.host.parallel:
            server.pid()
        peer.send(masked_close(4001 if stage == 'us' else left_open))
    peer.expect_eof()
    peer.close()


@pytest.mark.parametrize('stage', ['peer', 'us', 'open'])
@pytest.mark.parametrize('ending', CLEAN)
def test_an_ending_is_quiet(server, quiet, ending, stage):
    converse(server, ending, stage, left_open=1000)


@pytest.mark.parametrize('stage', ['peer', 'us', 'open'])
def test_stop_iteration_ends_as_the_host_takes_it(server, stage):
    # gunicorn's own way to end a request is an exception like any other
    # elsewhere: such a host logs it, and a connection left open is failed.
    server.forget_log()
    gunicorn = server.host.mode == 'gunicorn'
    converse(server, 'stop', stage, left_open=1000 if gunicorn else 1011)
    server.pid()
    if gunicorn:
        server.assert_quiet()
    else:
        wait_until(lambda: TRACEBACK in server.new_log(), 'the traceback')
        assert server.new_log().count(TRACEBACK) == 1, server.new_log()


@pytest.mark.parametrize('stage', ['peer', 'us', 'open'])
@pytest.mark.parametrize('ending', BUGS)
def test_a_bug_is_closed_as_1011_and_logged_once(server, ending, stage):
    server.forget_log()
    # Flask-Sock closes the connection itself only if nothing is raised.
    converse(server, ending, stage, left_open=1011)
    wait_until(lambda: 'ValueError: a bug in the handler' in server.new_log(), 'the traceback')
    server.pid()
    log = server.new_log()
    # Werkzeug loses what an iterable raises; we give it one that has it as its cause.
    chained = ending == 'late-bug' and server.host.mode == 'werkzeug'
    assert log.count(TRACEBACK) == 1 + chained, log
    assert not re.search('EBADF|Bad file|socket error|Bad request|OSError', log, re.I), log


def test_a_peer_that_hangs_up_is_quiet(server, quiet):
    peer = server.peer('/flask?peer', (TEXT, b'hello'))
    peer.expect(TEXT, b'hello')
    peer.close()


def test_a_peer_that_never_answers_the_close_sees_the_end(server, quiet):
    peer = server.peer('/goodbye?close_timeout=0.2')
    peer.expect_close(1000)
    # There is no TLS goodbye to somebody who does not answer.
    with suppress(ssl.SSLEOFError):
        peer.expect_eof()


def test_the_mode_is_the_servers(server, quiet):
    peer = server.peer('/mode')
    peer.expect(TEXT, server.host.mode.encode())
    peer.expect_close(1000)
    peer.send(masked_close(1000))
    peer.expect_eof()


def test_frames_that_came_with_the_request_are_not_lost(server, quiet):
    # A whole conversation in one packet, and more than a read buffer in it.
    large = os.urandom(20_000)
    peer = server.peer(
        '/echo', (TEXT, b'one'), (BINARY, large), (TEXT, b'two'), masked_close(1000)
    )
    peer.expect(TEXT, b'one')
    peer.expect(BINARY, large)
    peer.expect(TEXT, b'two')
    peer.expect_close(1000)
    peer.expect_eof()


def test_a_large_message_reaches_a_slow_reader_whole(server, quiet):
    payload = os.urandom(4 << 20)
    peer = server.peer('/echo', timeout=20)
    with ThreadPoolExecutor(1) as pool:
        sent = pool.submit(peer.send, (BINARY, payload)) if not server.host.tls else None
        if sent is None:
            # One thread at a time may use an SSLSocket.
            peer.send((BINARY, payload))
        received = bytearray()
        while len(received) < 10 + len(payload):
            chunk = peer.sock.recv(20_000)
            assert chunk, f'the end after {len(received)} bytes'
            received += chunk
        if sent is not None:
            sent.result()
    assert received == frame(BINARY, payload)
    peer.send(masked_close(1000))
    peer.expect_close(1000)
    peer.expect_eof()


def test_a_tls_record_is_read_whole_beside_a_keepalive(server, quiet):
    payload = os.urandom(12_000)
    peer = server.peer('/echo?ping_interval=25', timeout=3)
    for _ in range(3):
        peer.send((BINARY, payload))
        peer.expect(BINARY, payload)
    peer.send(masked_close(1000))
    peer.expect_close(1000)
    peer.expect_eof()


NO_UPGRADE = {
    'Upgrade': None,
    'Connection': None,
    'Sec-WebSocket-Key': None,
    'Sec-WebSocket-Version': None,
}
REFUSED = {
    'a plain GET': (426, 'GET', NO_UPGRADE),
    'a POST': (405, 'POST', {**NO_UPGRADE, 'Content-Length': '3'}),
    'another version': (426, 'GET', {'Sec-WebSocket-Version': '12'}),
    'a short key': (400, 'GET', {'Sec-WebSocket-Key': 'c2hvcnQ='}),
    'no key': (400, 'GET', {'Sec-WebSocket-Key': None}),
    'an upgrade with a body': (400, 'GET', {'Content-Length': '5'}),
    'a body of no chunks': (400, 'GET', {'Transfer-Encoding': 'chunked'}),
    'a foreign origin': (403, 'GET', {'Origin': 'https://good.example.evil.example'}),
}


@pytest.mark.parametrize('path', ['picky', 'flask-picky'])
@pytest.mark.parametrize('what', REFUSED)
def test_no_upgrade_is_answered_once(server, what, path):
    status, method, headers = REFUSED[what]
    server.forget_log()
    sock = server.connect()
    request = server.request(f'/{path}', method, **headers)
    body = {'POST': b'a=b', 'GET': b'no chunk\r\n' if 'Transfer-Encoding' in headers else b''}
    sock.sendall(request + body.get(method, b''))
    answer = b''
    while chunk := sock.recv(65536):
        answer += chunk
    sock.close()
    head, _, body = answer.partition(b'\r\n\r\n')
    assert head.startswith(b'HTTP/1.1 %d ' % status), answer
    assert (b'\r\nsec-websocket-version: 13' in head.lower()) == (status in (400, 426)), head
    length = re.search(rb'(?i)\r\ncontent-length: (\d+)', head)
    assert length is not None and len(body) == int(length[1]), answer
    assert b'HTTP/' not in body
    server.wait_for_log(f'app: refused {status}')
    server.pid()
    log = server.new_log()
    assert TRACEBACK not in log and 'Error' not in log, log


def test_a_second_accept_is_refused_and_harms_nothing(server, quiet):
    beside = server.peer('/echo') if server.host.parallel else None
    peer = server.peer('/twice')
    for _ in range(2):
        peer.expect(TEXT, b'refused')
    peer.send((TEXT, b'still here'))
    peer.expect(TEXT, b'still here')
    peer.send(masked_close(1000))
    peer.expect_close(1000)
    peer.expect_eof()
    peer.close()
    if beside is not None:
        beside.send((TEXT, b'me too'))
        beside.expect(TEXT, b'me too')
        beside.close()
    server.pid()


def test_a_request_that_was_refused_is_not_accepted_afterwards(server):
    server.forget_log()
    sock = server.connect()
    sock.sendall(server.request('/stubborn', Origin='https://evil.example'))
    answer = b''
    while chunk := sock.recv(65536):
        answer += chunk
    sock.close()
    assert answer.startswith(b'HTTP/1.1 403 ') and answer.count(b'HTTP/') == 1, answer
    server.wait_for_log('app: again: this request was accepted, or refused, before')
    server.pid()
    assert TRACEBACK not in server.new_log()


def descriptors_and_threads(pid):
    return tuple(len(os.listdir(f'/proc/{pid}/{what}')) for what in ('fd', 'task'))


def test_connections_leave_nothing_behind(server, quiet):
    rounds = [(ending, stage) for ending in CLEAN for stage in ('peer', 'us', 'open')]
    pid = server.pid()
    if server.host.parallel:
        # Fill what a server keeps for good: a pool of threads.
        held = [server.peer('/echo') for _ in range(3)]
        for peer in held:
            peer.send(masked_close(1000))
            peer.expect_close(1000)
            peer.expect_eof()
            peer.close()
    for ending, stage in rounds[:5]:
        converse(server, ending, stage, 1000)
    before = descriptors_and_threads(pid)
    for ending, stage in (rounds * 3)[:45]:
        converse(server, ending, stage, 1000)
    for _ in range(5):
        server.peer('/echo', (TEXT, b'gone')).close()

    def restored():
        now = descriptors_and_threads(pid)
        return now[0] <= before[0] and now[1] <= before[1]

    try:
        wait_until(restored, 'descriptors and threads as before')
    except AssertionError:
        now = descriptors_and_threads(pid)
        raise AssertionError(f'descriptors and threads: {before} before, {now} now') from None


def test_a_client_that_hangs_up_at_any_byte_of_its_request(server):  # C6
    pid = server.pid()
    request = server.request('/echo')
    # A TLS handshake each takes its time.
    places = range(0, len(request), 16 if server.host.tls else 1)

    def hang_up(at, linger):
        sock = server.connect()
        if linger:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack('ii', 1, 0))
        sock.sendall(request[:at])
        sock.close()

    for at in places[:5]:
        hang_up(at, at % 2)
    server.pid()
    before = descriptors_and_threads(pid)
    for at in places:
        for linger in (False, True):
            hang_up(at, linger)
    # It serves as ever, and holds nothing of them.
    converse(server, 'flask', 'peer', 1000)
    server.disconnect()

    def restored():
        assert server.pid() == pid  # which collects
        return descriptors_and_threads(pid)[0] <= before[0]

    wait_until(restored, 'descriptors as before', 20)


def test_termination_does_not_wait_for_open_connections(server):
    # The last one: it ends the server.
    server.forget_log()
    held = [server.peer('/echo', (TEXT, b'here')) for _ in range(3 if server.host.parallel else 1)]
    for peer in held:
        peer.expect(TEXT, b'here')
    assert server.terminate(timeout=8) == 0
    for peer in held:
        peer.close()
    assert TRACEBACK not in server.new_log(), server.new_log()
