"""gunicorn's own ways to end a worker (docs/faults.rst, D5)."""

from __future__ import annotations

import os
import signal
from contextlib import suppress
from dataclasses import replace

import pytest
from live.servers import HOSTS, wait_until
from support.frames import TEXT, frame

pytestmark = pytest.mark.timeout(60)

WORKERS = [host for host in HOSTS if host.gunicorn and not host.tls]


@pytest.mark.parametrize('host', WORKERS, ids=lambda host: host.name)
def test_a_restart_of_the_workers_does_not_wait_for_open_connections(start, host):
    # A sync or gthread worker whose handler goes on is ended by this timeout.
    server = start(replace(host, argv=(*host.argv, '--timeout', '4')))
    worker = server.pid()
    held = [server.peer('/echo', (TEXT, b'here')) for _ in range(3 if host.parallel else 1)]
    for peer in held:
        peer.expect(TEXT, b'here')
    server.forget_log()
    server.process.send_signal(signal.SIGHUP)
    wait_until(lambda: not os.path.exists(f'/proc/{worker}'), 'the end of the old worker', 20)
    for peer in held:
        # The end, with a Close before it or without.
        with suppress(ConnectionResetError):
            while peer.sock.recv(1000):
                pass
        peer.close()
    assert server.pid() != worker
    peer = server.peer('/echo', (TEXT, b'to the new one'))
    peer.expect(TEXT, b'to the new one')
    peer.send(frame(8, b'\x03\xe8', masked=True))
    peer.expect_close(1000)
    peer.expect_eof()
    log = server.new_log()
    if 'WORKER TIMEOUT' in log:
        # It is told by an exception, which is logged if it is given the time.
        assert host.name in ('gunicorn-sync', 'gunicorn-gthread')
        assert log.count('Traceback') <= 1, log
    else:
        assert 'Traceback' not in log, log
    server.disconnect()
    server.stop()
