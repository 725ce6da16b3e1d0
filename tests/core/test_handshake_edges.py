"""The opening handshake where it turns over: exact sizes, odd environs, and
what is added or left out without a word."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import simple_websocket
from simple_websocket import environ as environ_module
from simple_websocket.client_handshake import (
    MAX_RESPONSE_HEAD,
    ClientHandshake,
    parse_url,
)
from simple_websocket.environ import request_from_environ
from simple_websocket.errors import ConnectionError
from simple_websocket.handshake import (
    Rejected,
    accept_token,
    check_origin,
    header_tokens,
    header_values,
    index_fields,
    normalize_headers,
    rejection_response,
    split_authority,
)

PACKAGE = Path(simple_websocket.__file__).parent
ENVIRON = {
    'REQUEST_METHOD': 'GET',
    'SERVER_PROTOCOL': 'HTTP/1.1',
    'SERVER_NAME': 'localhost',
    'HTTP_HOST': 'example.com',
    'HTTP_UPGRADE': 'websocket',
    'HTTP_CONNECTION': 'Upgrade',
    'HTTP_SEC_WEBSOCKET_KEY': 'dGhlIHNhbXBsZSBub25jZQ==',
    'HTTP_SEC_WEBSOCKET_VERSION': '13',
    'HTTP_X_NUMBER': 7,
}


def test_the_headers_are_those_of_the_request_and_nothing_else():
    request = request_from_environ(ENVIRON | {'CONTENT_TYPE': 'a/b', 'CONTENT_LENGTH': '0'})
    assert request.headers == [
        ('Host', 'example.com'),
        ('Upgrade', 'websocket'),
        ('Connection', 'Upgrade'),
        ('Sec-Websocket-Key', 'dGhlIHNhbXBsZSBub25jZQ=='),
        ('Sec-Websocket-Version', '13'),
        ('Content-Length', '0'),
        ('Content-Type', 'a/b'),
    ]


@pytest.mark.parametrize(
    ('more', 'target'),
    [
        ({}, '/'),
        ({'SCRIPT_NAME': '/app'}, '/app'),
        ({'PATH_INFO': '/a'}, '/a'),
        ({'SCRIPT_NAME': '/app', 'PATH_INFO': '/a', 'QUERY_STRING': 'b=c'}, '/app/a?b=c'),
        ({'PATH_INFO': '/\xc3\xb6 \u20ac'}, '/%C3%B6%20%3F'),
    ],
)
def test_the_target_is_put_together_from_what_there_is(more, target):
    assert request_from_environ(ENVIRON | more).target == target


def test_what_is_done_to_a_request_does_not_reach_the_next_one_like_it():
    environ = ENVIRON | {
        'HTTP_SEC_WEBSOCKET_PROTOCOL': 'a, b',
        'HTTP_SEC_WEBSOCKET_EXTENSIONS': 'permessage-deflate',
    }
    request = request_from_environ(environ)
    request.subprotocols.remove('a')
    request.extensions.clear()
    key = 'AAAAAAAAAAAAAAAAAAAAAA=='
    request = request_from_environ(
        environ | {'HTTP_ORIGIN': 'http://a', 'HTTP_SEC_WEBSOCKET_KEY': key}
    )
    assert (request.subprotocols, request.extensions) == (['a', 'b'], ['permessage-deflate'])
    assert (request.origin, request.key) == ('http://a', key)
    request = request_from_environ(environ)
    assert (request.origin, request.key) == (None, ENVIRON['HTTP_SEC_WEBSOCKET_KEY'])


@pytest.mark.parametrize(
    ('name', 'status'),
    [
        ('HTTP_UPGRADE', 426),
        ('HTTP_CONNECTION', 426),
        ('HTTP_HOST', 400),
        ('HTTP_SEC_WEBSOCKET_VERSION', 400),
        ('HTTP_SEC_WEBSOCKET_KEY', 400),
        ('REQUEST_METHOD', 405),
    ],
)
@pytest.mark.parametrize('value', [None, 13, ['websocket']])
def test_a_header_that_is_no_string_is_none(name, status, value):
    for _ in range(2):
        with pytest.raises(Rejected) as rejected:
            request_from_environ(ENVIRON | {name: value})
        assert rejected.value.status == status


def test_only_what_is_short_is_remembered():
    remembered = environ_module._validate_cached.cache_info
    for number in range(100):
        offered = ','.join(f'{number}-{other}' for other in range(1000))
        before = remembered().currsize
        request = request_from_environ(ENVIRON | {'HTTP_SEC_WEBSOCKET_PROTOCOL': offered})
        assert len(request.subprotocols) == 1000
        assert remembered().currsize == before
    before = remembered().hits
    for _ in range(3):
        request_from_environ(ENVIRON)
    assert remembered().hits >= before + 2
    names = environ_module._header_name.cache_info
    request = request_from_environ(ENVIRON)
    assert request.headers  # all of their names are remembered now
    before = names().currsize
    request = request_from_environ(ENVIRON | {'HTTP_' + 'X' * 200: 'long'})
    assert ('X' + 'x' * 199, 'long') in request.headers
    assert names().currsize == before


def test_the_answer_to_head_has_no_body():
    rejected = Rejected(405, 'Not so.', [('Allow', 'GET')])
    head, _, body = rejection_response(rejected).partition(b'\r\n\r\n')
    assert (body, b'Content-Length: 8' in head) == (b'Not so.\n', True)
    assert rejection_response(rejected, 'HEAD') == head + b'\r\n\r\n'


WITHOUT_SHA1 = """
import hashlib, sys
real = hashlib.sha1

def strict(data=b'', *, usedforsecurity=True):
    if usedforsecurity is not False:
        raise ValueError('unsupported hash type')
    return real(data, usedforsecurity=False)

hashlib.sha1, sys.modules['_sha1'] = strict, None
from simple_websocket.handshake import accept_token
print(accept_token('dGhlIHNhbXBsZSBub25jZQ=='))
"""


def test_the_token_is_made_where_sha1_is_not_allowed_for_security():
    """As on a system in FIPS mode, whose Python has no SHA-1 of its own."""
    done = subprocess.run(
        [sys.executable, '-c', WITHOUT_SHA1],
        env={**os.environ, 'PYTHONPATH': str(PACKAGE.parent)},
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    assert done.stdout.strip() == 's3pPLMBiTxaQ9kYGzzhZRbK+xOo='


def client(**arguments):
    return ClientHandshake(parse_url('ws://example.com/'), **arguments)


@pytest.mark.parametrize('name', ['Host', 'Origin', 'Authorization'])
def test_a_single_header_given_twice_is_refused_by_name(name):
    with pytest.raises(ValueError, match=f'^headers: more than one {name}$'):
        client(headers=[(name, 'a'), (name.lower(), 'a')])


def test_an_origin_is_sent_as_it_was_given():
    assert b'\r\nOrigin: null\r\n' in client(headers={'Origin': 'null'}).request()


def response(one, filling):
    return (
        'HTTP/1.1 101 Switching Protocols\r\n'
        'Upgrade: websocket\r\n'
        'Connection: Upgrade\r\n'
        f'Sec-WebSocket-Accept: {accept_token(one.key)}\r\n'
        f'X: {filling}\r\n\r\n'
    ).encode()


def fitting(one, size):
    """A response with a head of `size` bytes."""
    return response(one, 'x' * (size - len(response(one, ''))))


@pytest.mark.parametrize('step', [1000, 1 << 20])
def test_a_head_of_the_very_limit_is_accepted_in_any_pieces(step):
    one = client()
    data = fitting(one, MAX_RESPONSE_HEAD)
    assert len(data) == MAX_RESPONSE_HEAD
    answers = [one.receive(data[at : at + step]) for at in range(0, len(data), step)]
    assert all(answer is None for answer in answers[:-1])
    assert answers[-1].leftover == b''


def test_the_frames_behind_the_head_do_not_count_for_its_limit():
    one = client()
    frames = b'\x82\x7e\x20\x00' + bytes(8192)
    answer = one.receive(fitting(one, MAX_RESPONSE_HEAD - 100) + frames)
    assert answer.leftover == frames


@pytest.mark.parametrize(('before', 'refused'), [(0, False), (1, True)])
def test_the_limit_holds_for_all_heads_together(before, refused):
    one = client()
    early = b'HTTP/1.1 103 Early Hints\r\n\r\n'
    data = fitting(one, MAX_RESPONSE_HEAD - len(early) + before)
    assert one.receive(early) is None
    if refused:
        with pytest.raises(ConnectionError, match='too long'):
            one.receive(data)
    else:
        assert one.receive(data) is not None


def test_a_head_may_be_incomplete_up_to_the_very_limit():
    one = client()
    data = fitting(one, MAX_RESPONSE_HEAD + 1)
    assert one.receive(data[:MAX_RESPONSE_HEAD]) is None
    with pytest.raises(ConnectionError):
        one.receive(data[MAX_RESPONSE_HEAD:])


@pytest.mark.parametrize(('size', 'fits'), [(253, True), (254, False)])
def test_a_host_name_may_fill_what_dns_takes(size, fits):
    name = ('a.' * 127)[: size - 2] + 'bb'
    assert len(name) == size
    if fits:
        assert parse_url(f'ws://{name}/').host == name
    else:
        with pytest.raises(ValueError, match='^url: the host name is too long$'):
            parse_url(f'ws://{name}/')


@pytest.mark.parametrize('value', [b'ab', bytearray(b'ab'), memoryview(b'ab')])
def test_bytes_are_no_list_of_names(value):
    kind = type(value).__name__
    with pytest.raises(TypeError, match=f'^subprotocols must be .*, not {kind}$'):
        client(subprotocols=value)


def test_where_no_host_is_known_no_page_is_of_the_same_one():
    """As over HTTP/2, behind an ASGI server."""
    for origin in ('http://xxxx', 'http://', 'null', 'http://example.com'):
        request = request_from_environ(ENVIRON | {'HTTP_ORIGIN': origin})
        request.host = None
        with pytest.raises(Rejected):
            check_origin(request, 'same', False)


def test_only_blanks_and_tabs_are_not_part_of_a_header():
    """Nothing else that Python calls white space, and no letter."""
    assert header_values(index_fields([('A', '\t X1X\x0c \t')]), 'a') == ['X1X\x0c']
    assert header_tokens(index_fields([('A', ' Xa\x0c\t, \tbX ')]), 'a') == ['Xa\x0c', 'bX']
    assert normalize_headers([('A', ' \tX1X\t ')]) == [('A', 'X1X')]


@pytest.mark.parametrize('where', ['HTTP_UPGRADE', 'HTTP_CONNECTION', 'CONTENT_LENGTH'])
@pytest.mark.parametrize('other', ['\x0b', '\x0c', '\x1c', '\xa0', 'X'])
def test_nothing_else_may_stand_around_what_decides(where, other):
    environ = ENVIRON | {'CONTENT_LENGTH': '0'}
    value = environ[where]
    assert request_from_environ(environ | {where: f' \t{value}\t '})
    for wrong in (other + value, value + other, f' {other} {value}'):
        with pytest.raises(Rejected):
            request_from_environ(environ | {where: wrong})


def test_nor_is_any_of_it_cut_off():
    origin = request_from_environ(ENVIRON | {'HTTP_ORIGIN': '\t \x0cX\xa0 '}).origin
    assert origin == '\x0cX\xa0'


def test_what_a_request_does_not_have_is_named():
    with pytest.raises(AttributeError, match='cookies'):
        request_from_environ(ENVIRON).cookies  # noqa: B018


def test_any_port_there_is_may_be_named():
    for port in (1, 65535):
        assert split_authority(f'a:{port}') == ('a', port)
