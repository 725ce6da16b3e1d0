"""Compression with others: window bits 8 to 15 and every combination of
no-context-takeover, asked for by either end, in both roles."""

from __future__ import annotations

import itertools
import json
from urllib.parse import quote

import pytest
from interop import peer_websockets
from interop.conftest import PEERS, WORLDS
from support.deflates import words

FLAGS = [False, True]
TAKEOVERS = list(itertools.product(FLAGS, FLAGS))
MESSAGES = [words(2000).hex(), 'x', '', words(2000).hex(), words(20_000, 2).hex()]
STEPS = [step for message in MESSAGES for step in (['send', message], ['receive'])]

#: Pairs of window bits: all of them with takeover, the equal ones without.
def windows(lowest, takeovers):
    bits = range(lowest, 16)
    if any(takeovers):
        return [(one, one) for one in bits]
    return list(itertools.product(bits, bits))


def parameters(server, client, takeovers):
    """Options in the words of RFC 7692."""
    return {
        'server_max_window_bits': server,
        'client_max_window_bits': client,
        'server_no_context_takeover': takeovers[0],
        'client_no_context_takeover': takeovers[1],
    }


takeover = pytest.mark.parametrize(
    'takeovers', TAKEOVERS, ids=['both', 'client only', 'server only', 'none']
)
peers = pytest.mark.parametrize('peer', PEERS)


@pytest.fixture
def websockets_server():
    """Starts a server of `websockets` with certain parameters."""
    made = []

    def start(deflate):
        made.append(peer_websockets.Server(deflate))
        return made[-1]

    yield start
    for server in made:
        server.stop()


def url(server, path, deflate=None):
    query = '' if deflate is None else f'?deflate={quote(json.dumps(deflate))}'
    return f'ws://127.0.0.1:{server.port}{path}{query}'


def talk(client, where, **case):
    report = client.run({'url': where, 'steps': [*STEPS, ['close', 1000, '']], **case})
    if 'refused' not in report:
        assert report['got'] == MESSAGES
        assert report['close'][0] == 1000
    return report


@peers
@takeover
def test_our_client_keeps_to_what_a_server_asks_for(
    clients, servers, websockets_server, peer, takeovers
):
    # zlib, and so Python, can't compress with 8 bits; node quietly takes 9.
    for server, client in windows(8 if peer == 'ws' else 9, takeovers):
        asked = parameters(server, client, takeovers)
        if peer == 'ws':
            where = url(servers('ws'), '/unseen/echo', asked)
        else:
            where = url(websockets_server(asked), '/unseen/echo')
        wide = {'server_max_window_bits': 15, 'client_max_window_bits': 15}
        report = talk(clients('threads'), where, deflate=wide)
        if client == 8:  # what we can't promise
            assert report['refused'] is None
            assert '8 bits' in report['error']
        else:
            assert report['agreed'] == [server, client, not takeovers[0], not takeovers[1]]


@peers
@takeover
def test_a_server_keeps_to_what_our_client_asks_for(clients, servers, peer, takeovers):
    where = url(servers(peer), '/unseen/echo')
    for server, client in windows(9, takeovers):
        asked = parameters(server, client, takeovers)
        report = talk(clients('threads'), where, deflate=asked)
        got = report['agreed']
        assert got[0] <= server and got[1] <= client
        assert got[2] is not takeovers[0] and not (got[3] and takeovers[1])


@peers
@takeover
def test_a_client_keeps_to_what_our_server_asks_for(clients, servers, peer, takeovers):
    for server, client in windows(9, takeovers):
        asked = parameters(server, client, takeovers)
        talk(clients(peer), url(servers('threads'), '/unseen/echo', asked))
        told = agreement(clients(peer), url(servers('threads'), '/unseen/headers', asked))
        assert told == [server, client, not takeovers[0], not takeovers[1]]


@peers
@takeover
def test_our_server_keeps_to_what_a_client_asks_for(clients, servers, peer, takeovers):
    wide = {'server_max_window_bits': 15, 'client_max_window_bits': 15}
    for server, client in windows(8 if peer == 'ws' else 9, takeovers):
        asked = parameters(server, client, takeovers)
        talk(clients(peer), url(servers('threads'), '/unseen/echo', wide), deflate=asked)
        where = url(servers('threads'), '/unseen/headers', wide)
        told = agreement(clients(peer), where, deflate=asked)
        if server == 8:  # what we can't promise, so the offer is declined
            assert told is None
        else:
            assert told == [server, client, not takeovers[0], not takeovers[1]]


def agreement(client, where, **case):
    """What our server says that was agreed."""
    report = client.run({'url': where, 'steps': [['receive'], ['close', 1000, '']], **case})
    return json.loads(report['got'][0])['agreed']


@peers
@pytest.mark.parametrize('world', WORLDS)
def test_each_of_our_clients_and_servers_compresses(clients, servers, peer, world):
    report = talk(clients(world), url(servers(peer), '/unseen/echo'))
    assert report['agreed'] is not None
    talk(clients(peer), url(servers(world), '/unseen/echo'))
    assert agreement(clients(peer), url(servers(world), '/unseen/headers')) is not None
