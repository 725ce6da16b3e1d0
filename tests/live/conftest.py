"""Servers for the live tests: one process a host, shared by its tests."""

from __future__ import annotations

import ssl

import pytest
import trustme

pytest.register_assert_rewrite('live.servers')

from live import servers  # noqa: E402
from support import modes  # noqa: E402

HOSTS = servers.EVENTLET_WORKER if modes.current().venv == 'eventlet-gunicorn' else servers.HOSTS


def pytest_generate_tests(metafunc):
    if 'server' in metafunc.fixturenames:
        metafunc.parametrize(
            'server', HOSTS, indirect=True, scope='module', ids=lambda host: host.name
        )


@pytest.fixture(scope='session')
def certificate(tmp_path_factory):
    directory = tmp_path_factory.mktemp('tls')
    authority = trustme.CA()
    issued = authority.issue_cert('localhost')
    cert, key = directory / 'cert.pem', directory / 'key.pem'
    issued.cert_chain_pems[0].write_to_path(cert)
    issued.private_key_pem.write_to_path(key)
    context = ssl.create_default_context()
    authority.configure_trust(context)
    return servers.Certificate(str(cert), str(key), context)


@pytest.fixture(scope='session')
def start(tmp_path_factory, certificate):
    """Starts a server, once it serves."""
    running = []

    def start(host, app='apps:app', **wait):
        log = tmp_path_factory.mktemp('log') / f'{host.name}.log'
        server = servers.Running(host, app, log, certificate)
        running.append(server)
        try:
            server.pid()
        except OSError as error:
            raise AssertionError(log.read_text()) from error
        server.forget_log()
        return server

    yield start
    for server in running:
        server.stop()


@pytest.fixture(scope='module')
def server(request, start):
    server = start(request.param)
    yield server
    server.stop()


@pytest.fixture(autouse=True)
def nothing_stays_connected(request):
    yield
    if 'server' in request.fixturenames:
        request.getfixturevalue('server').disconnect()


@pytest.fixture
def quiet(server):
    """Nothing is logged but what the test expects."""
    server.forget_log()
    yield
    if server.process.poll() is None:
        server.pid()
    server.assert_quiet()
