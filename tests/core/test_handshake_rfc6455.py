"""The opening handshake against each demand of RFC 6455 section 4, and a few of
section 11: the tables of `support.handshakes`, and what no table can say."""

from __future__ import annotations

import base64

import pytest
from support.handshakes import ACCEPT, KEY, REQUESTS, RESPONSES, token

from simple_websocket.client_handshake import ClientHandshake, parse_url
from simple_websocket.environ import request_from_environ
from simple_websocket.errors import ConnectionError
from simple_websocket.handshake import (
    Rejected,
    accept_response,
    choose_subprotocol,
    rejection_response,
    request_from_headers,
)

OURS = ['chat', 'superchat']


def answered(read, method='GET'):
    """What a server writes to a request, and the status."""
    try:
        request = read()
    except Rejected as rejected:
        return rejection_response(rejected, method), rejected.status
    chosen = choose_subprotocol(request.subprotocols, OURS)
    return accept_response(request, chosen, None), 101


@pytest.mark.parametrize('row', REQUESTS, ids=lambda row: row.name)
def test_a_request_gets_its_answer_to_the_byte(row):
    status = int(row.answer[9:12])
    from_headers = answered(
        lambda: request_from_headers(row.method, '/chat', row.version, row.pairs), row.method
    )
    assert from_headers == (row.answer, status)
    from_environ = answered(lambda: request_from_environ(row.environ), row.method)
    assert from_environ == (row.answer, status)


def test_the_accept_token_is_that_of_section_1_3():
    assert token(KEY) == ACCEPT


def test_the_answers_are_complete_http():
    for row in REQUESTS:
        head, _, body = row.answer.partition(b'\r\n\r\n')
        fields = dict(line.split(b': ', 1) for line in head.split(b'\r\n')[1:])
        if row.method != 'HEAD':
            assert int(fields.get(b'Content-Length', 0)) == len(body)


def opened(row, pieces):
    """A client that was told the row's response: its agreement, or the error."""
    client = ClientHandshake(parse_url('ws://server.example.com/chat'), OURS)
    response = None
    for piece in pieces(row.raw(client.key)):
        assert response is None, 'something behind the end of the response'
        response = client.receive(piece)
    if client.refused:
        client.receive_eof()
    return response


def whole(data):
    return [data]


def bytewise(data):
    return [data[at : at + 1] for at in range(len(data))]


@pytest.mark.parametrize('pieces', [whole, bytewise])
@pytest.mark.parametrize('row', RESPONSES, ids=lambda row: row.name)
def test_a_response_opens_the_connection_or_is_an_error(row, pieces):
    if row.error is None:
        response = opened(row, pieces)
        assert response is not None
        assert response.subprotocol == row.changes.get('Sec-WebSocket-Protocol')
        assert response.leftover == b''
    else:
        with pytest.raises(ConnectionError, match=row.error) as caught:
            opened(row, pieces)
        assert caught.value.status_code == row.status


# The client's request (section 4.1)


def fields_of(client):
    """The request line, and the header fields in a list of their values by name."""
    head, end, rest = client.request().partition(b'\r\n\r\n')
    assert (end, rest) == (b'\r\n\r\n', b'')
    line, *headers = head.decode('ascii').split('\r\n')
    fields = {}
    for header in headers:
        name, _, value = header.partition(': ')
        fields.setdefault(name.lower(), []).append(value)
    return line, fields


def the_request(url='ws://server.example.com/chat', **arguments):
    return fields_of(ClientHandshake(parse_url(url), **arguments))


DEMANDS = [
    ('(1) a valid HTTP request', lambda line, fields: line.endswith(' HTTP/1.1')),
    ('(2) the method is GET', lambda line, fields: line.startswith('GET ')),
    ('(3) the Request-URI is the resource name', lambda line, fields: line.split()[1] == '/chat'),
    ('(4) Host', lambda line, fields: fields['host'] == ['server.example.com']),
    ('(5) Upgrade', lambda line, fields: fields['upgrade'] == ['websocket']),
    ('(6) Connection', lambda line, fields: fields['connection'] == ['Upgrade']),
    (
        '(7) a key of 16 bytes',
        lambda line, fields: [
            len(base64.b64decode(key, validate=True)) for key in fields['sec-websocket-key']
        ]
        == [16],
    ),
    ('(8) no Origin, for this is no browser', lambda line, fields: 'origin' not in fields),
    ('(9) version 13', lambda line, fields: fields['sec-websocket-version'] == ['13']),
    ('(10) no subprotocol unasked', lambda line, fields: 'sec-websocket-protocol' not in fields),
    ('(11) no extension unasked', lambda line, fields: 'sec-websocket-extensions' not in fields),
]


@pytest.mark.parametrize(('demand', 'holds'), DEMANDS, ids=[demand for demand, _ in DEMANDS])
def test_the_request_of_a_client(demand, holds):
    assert holds(*the_request())


@pytest.mark.parametrize(
    ('url', 'target', 'host'),
    [
        ('ws://a.example', '/', 'a.example'),  # 3: an empty path is /
        ('ws://a.example?x', '/?x', 'a.example'),
        ('ws://a.example/b?c=d', '/b?c=d', 'a.example'),
        ('ws://a.example:80/', '/', 'a.example'),  # 4.1 (4): no port where it is the default
        ('wss://a.example:443/', '/', 'a.example'),
        ('ws://a.example:443/', '/', 'a.example:443'),
        ('wss://a.example:80/', '/', 'a.example:80'),
        ('ws://[::1]:8080/', '/', '[::1]:8080'),
        ('ws://user:password@a.example/', '/', 'a.example'),
    ],
)
def test_the_request_uri_and_the_host_of_a_url(url, target, host):  # 3, 4.1 (3), 4.1 (4)
    line, fields = the_request(url)
    assert (line, fields['host']) == (f'GET {target} HTTP/1.1', [host])


def test_no_two_requests_have_the_same_key():  # 4.1 (7): "selected randomly for each"
    keys = {the_request()[1]['sec-websocket-key'][0] for _ in range(1000)}
    assert len(keys) == 1000


def test_subprotocols_are_offered_in_order_in_one_field():  # 4.1 (10)
    _, fields = the_request(subprotocols=['b', 'a', 'c'])
    assert fields['sec-websocket-protocol'] == ['b, a, c']
    for wrong in (['a', 'a'], ['a b'], [''], ['a,b'], ['\xe9'], ['a\x7f'], ['"a"']):
        with pytest.raises(ValueError, match='subprotocols'):
            the_request(subprotocols=wrong)


def test_a_server_never_chooses_what_was_not_offered():  # 4.2.2 (5)
    request = request_from_environ(REQUESTS[0].environ)
    for name in ('chat', ''):
        with pytest.raises(ValueError, match='not one that the client offered'):
            accept_response(request, name, None)
