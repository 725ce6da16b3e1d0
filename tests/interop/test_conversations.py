"""Every server and client of ours against the clients and servers of others:
messages of every kind, pings, closes in both directions, what a handshake
carries."""

from __future__ import annotations

import json
from typing import Any, NamedTuple
from urllib.parse import quote

import pytest
from interop.conftest import PEERS, WORLDS
from interop.conversation import from_json, to_json

PAIRS = [
    *((world, peer) for world in WORLDS for peer in PEERS),
    *((peer, world) for world in WORLDS for peer in PEERS),
]
pairs = pytest.mark.parametrize(
    ('server', 'client'), PAIRS, ids=[f'{server}-{client}' for server, client in PAIRS]
)
BY_PEERS = [(server, client) for server, client in PAIRS if client in PEERS]
OF_PEERS = [(server, client) for server, client in PAIRS if server in PEERS]
by_peers = pytest.mark.parametrize(('server', 'client'), BY_PEERS)
of_peers = pytest.mark.parametrize(('server', 'client'), OF_PEERS)

MiB = 1 << 20
MESSAGES = {
    'text': 'plain',
    'text of all lengths in UTF-8': 'a\u00e9\u20ac\U0001f600' * 50,
    'binary': bytes(range(256)),
    'an empty text': '',
    'an empty binary': b'',
    'a text of 125 bytes': 'x' * 125,
    'a text of 126 bytes': 'x' * 126,
    'a binary of 65536 bytes': bytes(65536),
    'a text of 1 MiB': 'simple websocket' * (MiB // 16),
    'a binary of 1 MiB that does not compress': bytes(
        (i * i * 2654435761 >> 13) & 255 for i in range(MiB)
    ),
}


class Seen(NamedTuple):
    """How a connection ended, at its two ends."""

    client: list[Any]
    server: list[Any]


@pytest.fixture
def talk(servers, clients):
    """Runs a case, and asks the server how it saw the end."""

    def run(server, client, path, *steps, last=True, **case):
        base = f'ws://127.0.0.1:{servers(server).port}'
        steps = [[verb, *map(as_json, args)] for verb, *args in steps]
        report = clients(client).run({'url': base + path, 'steps': steps, **case})
        assert 'error' not in report or 'refused' in report, report
        if last and 'refused' not in report:
            told = clients(client).run({'url': f'{base}/last', 'steps': [['receive']]})
            report['seen'] = Seen(report['close'], json.loads(told['got'][0]))
        report['got'] = [from_json(message) for message in report.get('got', [])]
        return report

    return run


def as_json(argument):
    if isinstance(argument, list):
        return [to_json(part) for part in argument]
    return to_json(argument) if isinstance(argument, (str, bytes)) else argument


@pairs
@pytest.mark.parametrize('deflate', [{}, None], ids=['deflate', 'plain'])
def test_messages_come_back_as_they_were_sent(talk, server, client, deflate):
    messages = list(MESSAGES.values())
    steps = [step for message in messages for step in (['send', message], ['receive'])]
    done = talk(server, client, '/echo', *steps, ['close', 1000, ''], deflate=deflate)
    assert done['got'] == messages
    assert done['seen'] == Seen([1000, ''], [1000, ''])


@pairs
def test_messages_keep_their_order(talk, server, client):
    messages = [f'message {number}' for number in range(200)]
    steps = [*(['send', message] for message in messages), *[['receive']] * 200]
    done = talk(server, client, '/echo', *steps, ['close', 1000, ''])
    assert done['got'] == messages


CODES = [1000, 1001, 1002, 1003, *range(1007, 1015), 3000, 3999, 4000, 4999]
REASONS = ['', 'bye', '\u20ac' * 41]  # the last is as long as may be


@pairs
def test_a_close_of_the_client_has_its_code_and_reason_at_the_server(talk, server, client):
    for number, code in enumerate(CODES):
        reason = REASONS[number % 3]
        done = talk(server, client, '/echo', ['close', code, reason])
        assert done['seen'].server == [code, reason]
        assert done['seen'].client[0] == code


@pairs
def test_a_close_of_the_server_has_its_code_and_reason_at_the_client(talk, server, client):
    for number, code in enumerate(CODES):
        reason = REASONS[number % 3]
        done = talk(server, client, f'/close/{code}/{quote(reason)}', ['send', 'go'])
        assert done['seen'].client == [code, reason]
        assert done['seen'].server[0] == code
        assert done['got'] == []


@pytest.mark.parametrize('world', WORLDS)
def test_a_close_without_a_code_is_1005_at_both_ends(talk, world):
    done = talk('ws', world, '/close/none', ['send', 'go'])
    assert done['seen'] == Seen([1005, ''], [1005, ''])
    done = talk(world, 'ws', '/echo', ['close'])
    assert done['seen'] == Seen([1005, ''], [1005, ''])


@pairs
def test_the_subprotocol_is_agreed(talk, server, client):
    for offered, chosen in (
        (['chat'], 'chat'),
        (['other', 'superchat'], 'superchat'),
        ([], ''),
    ):
        steps = [['receive'], ['close', 1000, '']]
        done = talk(server, client, '/headers', *steps, subprotocols=offered)
        assert done['subprotocol'] == chosen
        assert (json.loads(done['got'][0])['subprotocol'] or '') == chosen


@pairs
def test_headers_go_both_ways(talk, server, client):
    headers = {'X-Test': 'tea, or "coffee"; q=1'}
    done = talk(
        server, client, '/headers', ['receive'], ['close', 1000, ''], headers=headers
    )
    assert json.loads(done['got'][0])['x-test'] == headers['X-Test']
    # An AioServer has no headers of its own to add, and our clients hide theirs.
    if client in PEERS and server != 'asyncio':
        assert done['headers']['x-server'] == 'ours'


@pairs
def test_a_ping_of_the_server_is_answered(talk, server, client):
    done = talk(server, client, '/ping', ['receive'], ['close', 1000, ''])
    assert done['got'] == ['pong']


@by_peers
def test_a_ping_of_the_client_is_answered(talk, server, client):
    steps = ['ping', 'abc'], ['send', 'x'], ['receive'], ['ping', 'x' * 125]
    done = talk(server, client, '/echo', *steps, ['close', 1000, ''])
    assert done['got'] == ['abc', 'x', 'x' * 125]


@by_peers
@pytest.mark.parametrize('deflate', [{}, None], ids=['deflate', 'plain'])
def test_fragments_with_a_ping_between_reach_our_server_whole(talk, server, client, deflate):
    steps = [
        *(['fragments', ['fr\u00e4g', '', 'ment\u20ac' * 1000], True], ['receive']),
        *(['fragments', [b'bi', bytes(100_000), b''], False], ['receive']),
        *(['fragments', [b'\xff', b'\xff', b'\xff'], True], ['receive']),
    ]
    done = talk(server, client, '/echo', *steps, ['close', 1000, ''], deflate=deflate)
    whole = 'fr\u00e4g' + 'ment\u20ac' * 1000
    assert done['got'] == [whole, b'bi' + bytes(100_000), b'\xff' * 3]


@of_peers
@pytest.mark.parametrize('deflate', [{}, None], ids=['deflate', 'plain'])
def test_fragments_with_a_ping_between_reach_our_client_whole(talk, server, client, deflate):
    steps = ['receive'], ['receive'], ['close', 1000, '']
    done = talk(server, client, '/fragments', *steps, deflate=deflate)
    assert done['got'] == ['fr\u00e4gment\u20ac', b'binary']


@pairs
def test_a_refusal_has_its_status(talk, server, client):
    headers = {'Origin': 'http://elsewhere.example'}
    done = talk(server, client, '/refuse', headers=headers)
    assert done['refused'] == 403
