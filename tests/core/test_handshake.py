"""The opening handshake (RFC 6455 section 4): tables of requests, responses, URLs."""

from __future__ import annotations

import base64
import dataclasses
import re
import types
from email import message_from_string

import h11
import pytest
from hypothesis import given
from hypothesis import strategies as st

from simple_websocket import handshake
from simple_websocket.client_handshake import (
    MAX_INFORMATIONAL,
    MAX_RESPONSE_HEAD,
    URL,
    ClientHandshake,
    parse_url,
    time_for_body,
)
from simple_websocket.environ import request_from_environ
from simple_websocket.errors import ConnectionError
from simple_websocket.handshake import (
    Rejected,
    accept_response,
    accept_token,
    check_origin,
    choose_subprotocol,
    normalize_headers,
    parse_origins,
    parse_subprotocols,
    rejection_response,
    request_from_headers,
)

KEY = 'dGhlIHNhbXBsZSBub25jZQ=='
BASE = [
    ('Host', 'example.com'),
    ('Upgrade', 'websocket'),
    ('Connection', 'Upgrade'),
    ('Sec-WebSocket-Key', KEY),
    ('Sec-WebSocket-Version', '13'),
]
GONE = object()

# What a caller's string must never have in it.
POISON = ['a\r\nb', 'a\nb', 'a\rb', 'a\0b', '\u00e9', '\u20ac', '\n', 'a\x7fb']


class Any:
    """An iterable and nothing else, for tests that may run more than once."""

    def __init__(self, members):
        self.members = members

    def __iter__(self):
        return iter(self.members)


def changed(**changes):
    """Return the base request's headers, some replaced, left out or repeated."""
    names = {name.lower().replace('-', '_'): name for name, _ in BASE}
    changes = {key.lower(): value for key, value in changes.items()}
    headers = [(n, v) for n, v in BASE if n.lower().replace('-', '_') not in changes]
    for key, value in changes.items():
        name = names.get(key, key.replace('_', '-'))
        values = value if isinstance(value, list) else [value]
        headers += [(name, v) for v in values if v is not GONE]
    return headers


def environ(headers, method='GET', version='HTTP/1.1'):
    """Return what a WSGI server makes of a request: repeated headers joined."""
    result = {'REQUEST_METHOD': method, 'SERVER_PROTOCOL': version, 'PATH_INFO': '/'}
    for name, value in headers:
        key = name.upper().replace('-', '_')
        key = key if key == 'CONTENT_LENGTH' else 'HTTP_' + key
        result[key] = f'{result[key]},{value}' if key in result else value
    return result


def via_environ(headers, method='GET', version='HTTP/1.1'):
    return request_from_environ(environ(headers, method, version))


def via_headers(headers, method='GET', version='HTTP/1.1'):
    return request_from_headers(method, '/', version, headers)


both = pytest.mark.parametrize('read', [via_environ, via_headers])


def request(**changes):
    return via_headers(changed(**changes))


class TestRequest:
    @both
    @pytest.mark.parametrize(
        'changes',
        [
            {},
            {'upgrade': 'WebSocket'},
            {'upgrade': 'h2c, websocket'},
            {'upgrade': ['h2c', 'WEBSOCKET']},
            {'connection': 'upgrade'},
            {'connection': 'keep-alive, Upgrade'},
            {'connection': 'UPGRADE,keep-alive'},
            {'connection': ['keep-alive', 'upgrade']},
            {'connection': ' , Upgrade\t, close'},
            {'content_length': '0'},
            {'sec_websocket_key': f' {KEY} '},
        ],
    )
    def test_a_valid_upgrade_is_accepted(self, read, changes):
        assert read(changed(**changes)).key == KEY

    @both
    def test_headers_come_in_any_order(self, read):
        assert read(list(reversed(BASE))).key == KEY

    @both
    @pytest.mark.parametrize(
        ('changes', 'status'),
        [
            ({'upgrade': GONE}, 426),
            ({'upgrade': 'h2c'}, 426),
            ({'upgrade': 'websockets'}, 426),
            ({'upgrade': ''}, 426),
            ({'connection': GONE}, 426),
            ({'connection': 'keep-alive'}, 426),
            ({'connection': 'not-upgrade'}, 426),
            ({'host': GONE}, 400),
            ({'host': 'a b'}, 400),
            ({'host': ['a', 'a']}, 400),
            ({'sec_websocket_version': GONE}, 400),
            ({'sec_websocket_version': ''}, 400),
            ({'sec_websocket_version': '8'}, 426),
            ({'sec_websocket_version': '14'}, 426),
            ({'sec_websocket_version': '013'}, 426),
            ({'sec_websocket_version': 'x'}, 426),
            ({'sec_websocket_version': ['13', '13']}, 400),
            ({'sec_websocket_version': '13, 8'}, 400),
            ({'sec_websocket_key': GONE}, 400),
            ({'sec_websocket_key': ''}, 400),
            ({'sec_websocket_key': 'short'}, 400),
            ({'sec_websocket_key': base64.b64encode(bytes(15)).decode()}, 400),
            ({'sec_websocket_key': base64.b64encode(bytes(17)).decode()}, 400),
            ({'sec_websocket_key': base64.b64encode(bytes(18)).decode()}, 400),
            ({'sec_websocket_key': KEY.rstrip('=')}, 400),
            ({'sec_websocket_key': '-' + KEY[1:]}, 400),
            ({'sec_websocket_key': KEY[:10] + ' ' + KEY[10:]}, 400),
            ({'sec_websocket_key': '\u00e9' + KEY[1:]}, 400),
            ({'sec_websocket_key': [KEY, KEY]}, 400),
            ({'sec_websocket_key': [KEY, '']}, 400),
            ({'content_length': '1'}, 400),
            ({'content_length': 'x'}, 400),
            ({'content_length': '-1'}, 400),
            ({'content_length': '+0'}, 400),
            ({'transfer_encoding': 'chunked'}, 400),
            ({'sec_websocket_protocol': 'a b'}, 400),
            ({'sec_websocket_protocol': 'a, b/c'}, 400),
            ({'sec_websocket_protocol': '"a"'}, 400),
            ({'sec_websocket_protocol': '\u00e9'}, 400),
            ({'sec_websocket_protocol': 'a, b, a'}, 400),
            ({'sec_websocket_protocol': ['a', 'a']}, 400),
        ],
    )
    def test_anything_else_is_rejected(self, read, changes, status):
        with pytest.raises(Rejected) as caught:
            read(changed(**changes))
        assert caught.value.status == status

    @both
    @pytest.mark.parametrize(
        'method', ['POST', 'HEAD', 'OPTIONS', 'CONNECT', 'get', '']
    )
    def test_another_method_is_rejected(self, read, method):
        for headers in (BASE, []):
            with pytest.raises(Rejected) as caught:
                read(headers, method=method)
            assert caught.value.status == 405
            assert caught.value.headers == [('Allow', 'GET')]

    @both
    @pytest.mark.parametrize(
        'version', ['HTTP/1.0', 'HTTP/0.9', 'HTTP/2', 'HTTP/2.0', 'x']
    )
    def test_another_http_version_is_rejected(self, read, version):
        with pytest.raises(Rejected) as caught:
            read(BASE, version=version)
        assert caught.value.status == 400

    @both
    @pytest.mark.parametrize('version', ['HTTP/1.1', 'HTTP/1.2', 'HTTP/1.9', 'http/1.1'])
    def test_a_later_minor_version_is_accepted(self, read, version):
        assert read(BASE, version=version).key == KEY

    def test_repeated_single_headers_are_rejected(self):
        for name, value in [*BASE[3:], ('Origin', 'http://a'), ('Host', 'a')]:
            headers = [*changed(origin='http://a'), (name, value)]
            with pytest.raises(Rejected) as caught:
                via_headers(headers)
            assert caught.value.status == 400

    def test_an_environ_without_method_and_protocol_is_taken_for_a_get(self):
        values = environ(BASE)
        del values['REQUEST_METHOD'], values['SERVER_PROTOCOL']
        assert request_from_environ(values).key == KEY

    def test_an_empty_environ_is_rejected(self):
        with pytest.raises(Rejected) as caught:
            request_from_environ({})
        assert caught.value.status == 426

    def test_what_is_no_header_does_not_disturb(self):
        values = environ(BASE)
        values.update({'wsgi.input': object(), 'CONTENT_LENGTH': '', 'HTTP_X': 1})
        assert request_from_environ(values).key == KEY

    def test_the_other_headers_are_told_as_they_came(self):
        # aiohttp decodes them as UTF-8, with what is none of it in surrogates.
        fields = [*BASE, ('X-A', 'é'), ('X-B', '€'), ('X-C', '\udce9')]
        got = request_from_headers('GET', '/', '1.1', fields)
        assert got.extra_headers == [
            (b'x-a', b'\xe9'), (b'x-b', '€'.encode()), (b'x-c', b'\xe9'),
        ]  # fmt: skip

    @both
    def test_the_request_tells_what_was_sent(self, read):
        got = read(
            changed(
                sec_websocket_protocol=['a, b', ',c'],
                sec_websocket_extensions='x; y="1, 2"',
                origin='http://example.com',
                x_custom='1',
            )
        )
        assert got.subprotocols == ['a', 'b', 'c']
        assert got.extensions == ['x; y="1, 2"']
        assert got.origin == 'http://example.com'
        assert got.host == 'example.com'
        assert got.target == '/'
        assert ('x-custom', '1') in [(n.lower(), v) for n, v in got.headers]

    @both
    def test_what_was_not_sent_is_none_or_empty(self, read):
        got = read(BASE)
        assert (got.subprotocols, got.extensions) == ([], [])
        assert got.origin is None

    @pytest.mark.parametrize(
        ('values', 'target'),
        [
            ({'PATH_INFO': '/chat'}, '/chat'),
            ({'SCRIPT_NAME': '/app', 'PATH_INFO': '/chat'}, '/app/chat'),
            ({'PATH_INFO': '/a', 'QUERY_STRING': 'x=1'}, '/a?x=1'),
            ({'PATH_INFO': '/\u00c3\u00a9 '}, '/%C3%A9%20'),
            ({'PATH_INFO': ''}, '/'),
            ({'PATH_INFO': '/a b', 'REQUEST_URI': '/a%20b?c'}, '/a%20b?c'),
            ({'PATH_INFO': '/a b', 'RAW_URI': '/a%20b?c'}, '/a%20b?c'),
        ],
    )
    def test_the_target_comes_from_the_environ(self, values, target):
        assert request_from_environ({**environ(BASE), **values}).target == target

    @pytest.mark.parametrize('version', ['1.1', 'HTTP/1.1'])
    def test_headers_may_be_a_mapping(self, version):
        headers = types.MappingProxyType(dict(BASE))
        assert request_from_headers('GET', '/', version, headers).key == KEY

    @given(
        st.dictionaries(
            st.sampled_from(
                sorted(environ([*BASE, ('Content-Length', ''), ('Origin', '')]))
            ),
            st.text(max_size=30),
        )
    )
    def test_no_environ_raises_anything_else(self, changes):
        try:
            got = request_from_environ({**environ(BASE), **changes})
            check_origin(got, ['same', 'http://a'], False)
        except Rejected as rejected:
            parse_response(rejection_response(rejected))


def parse_response(data):
    """Return what an HTTP client reads: status, headers, body; nothing behind."""
    client = h11.Connection(h11.CLIENT)
    client.send(h11.Request(method='GET', target='/', headers=[('Host', 'a')]))
    client.send(h11.EndOfMessage())
    client.receive_data(data)
    response = client.next_event()
    body = client.next_event()
    assert isinstance(client.next_event(), h11.EndOfMessage)
    assert client.trailing_data == (b'', False)
    headers = {name.decode(): value.decode() for name, value in response.headers}
    return response, headers, bytes(body.data)


class TestRejection:
    @pytest.mark.parametrize('status', [400, 403, 405, 426, 503, 599])
    def test_the_answer_is_a_whole_http_response(self, status):
        data = rejection_response(Rejected(status, 'Why not.', [('X-More', '1')]))
        response, headers, body = parse_response(data)
        assert response.status_code == status
        assert response.reason
        assert headers['x-more'] == '1'
        assert 'close' in headers['connection']
        assert body == b'Why not.\n'

    @pytest.mark.parametrize(
        ('changes', 'method', 'expected'),
        [
            (
                {'upgrade': GONE},
                'GET',
                {'upgrade': 'websocket', 'sec-websocket-version': '13'},
            ),
            ({'sec_websocket_version': '8'}, 'GET', {'sec-websocket-version': '13'}),
            ({'sec_websocket_key': GONE}, 'GET', {'sec-websocket-version': '13'}),
            ({}, 'POST', {'allow': 'GET'}),
        ],
    )
    def test_the_answer_says_what_would_do(self, changes, method, expected):
        with pytest.raises(Rejected) as caught:
            via_headers(changed(**changes), method=method)
        _, headers, body = parse_response(rejection_response(caught.value))
        assert expected.items() <= headers.items()
        assert body.decode('ascii').strip() == caught.value.reason

    def test_a_426_names_upgrade_as_a_connection_option(self):
        _, headers, _ = parse_response(rejection_response(Rejected(426, 'No.')))
        assert headers['connection'].lower() == 'close, upgrade'

    def test_a_line_break_in_a_header_is_never_written(self):
        with pytest.raises(ValueError, match='line break'):
            rejection_response(Rejected(400, 'No.', [('X', 'a\r\nY: b')]))


class TestOrigin:
    @pytest.mark.parametrize(
        ('origin', 'origins', 'host', 'secure'),
        [
            ('http://evil.example', None, 'a', False),
            (None, None, 'a', False),
            # the same origin
            ('http://a.example', 'same', 'a.example', False),
            ('http://a.example', 'same', 'a.example:80', False),
            ('http://a.example:80', 'same', 'a.example', False),
            ('https://a.example', 'same', 'a.example:443', True),
            ('http://A.Example', 'same', 'a.eXample', False),
            ('http://a.example:5000', 'same', 'a.example:5000', False),
            ('http://[::1]:5000', 'same', '[::1]:5000', False),
            ('http://[0:0::1]', 'same', '[::1]:80', False),
            (None, 'same', 'a.example', False),
            ('http://a.example', ['same', 'http://b.example'], 'a.example', False),
            # a list
            ('http://b.example', ['same', 'http://b.example'], 'a.example', False),
            ('https://b.example', 'https://b.example', 'a', False),
            ('https://b.example', 'HTTPS://B.example:443', 'a', False),
            ('https://b.example', {'https://b.example'}, 'a', False),
            ('https://b.example', Any(['https://b.example']), 'a', False),
            (
                'https://xn--bcher-kva.example',
                'https://b\u00fccher.example',
                'a',
                False,
            ),
            ('chrome-extension://abc', ['chrome-extension://abc'], 'a', False),
            ('null', 'null', 'a', False),
            ('null', ['same', 'null'], 'a', False),
            (None, ['https://b.example', None], 'a', False),
            (None, [None], 'a', False),
        ],
    )
    def test_an_allowed_origin_passes(self, origin, origins, host, secure):
        changes = {'host': host} | ({} if origin is None else {'origin': origin})
        check_origin(request(**changes), origins, secure)

    @pytest.mark.parametrize(
        ('origin', 'origins', 'host', 'secure'),
        [
            ('http://b.example', 'same', 'a.example', False),
            ('https://a.example', 'same', 'a.example', False),
            ('http://a.example', 'same', 'a.example', True),
            ('http://a.example:8080', 'same', 'a.example', False),
            ('http://a.example', 'same', 'a.example:8080', False),
            ('http://a.example.evil.example', 'same', 'a.example', False),
            ('http://evil-a.example', 'same', 'a.example', False),
            ('http://evil.example/a.example', 'same', 'a.example', False),
            ('http://a.example@evil.example', 'same', 'a.example', False),
            ('http://a.example/', 'same', 'a.example', False),
            ('http://a.example, http://b.example', 'same', 'a.example', False),
            ('http://[::2]', 'same', '[::1]', False),
            ('null', 'same', 'a.example', False),
            ('null', 'same', 'null', False),
            ('same', 'same', 'a.example', False),
            ('', 'same', '', False),
            ('http://', 'same', '', False),
            ('http://none', 'same', None, False),
            ('http://a.example', 'same', 'a b', False),
            ('https://b.example', [], 'a', False),
            (None, [], 'a', False),
            (None, 'https://b.example', 'a', False),
            ('https://b.example', [None], 'a', False),
            ('null', ['https://b.example', None], 'a', False),
            ('', ['https://b.example', None], 'a', False),
            ('NULL', ['null'], 'a', False),
            ('https://x.b.example', 'https://b.example', 'a', False),
            ('https://b.example.evil', 'https://b.example', 'a', False),
            ('https://b.example:444', 'https://b.example', 'a', False),
            ('http://b.example', 'https://b.example', 'a', False),
            ('b.example', 'https://b.example', 'a', False),
            ('https://b.example\u00e9', 'https://b.example', 'a', False),
        ],
    )
    def test_another_origin_gets_a_403(self, origin, origins, host, secure):
        changes = {} if origin is None else {'origin': origin}
        # Over HTTP/2 nobody has looked at the host before.
        asked = dataclasses.replace(request(**changes), host=host)
        with pytest.raises(Rejected) as caught:
            check_origin(asked, origins, secure)
        assert caught.value.status == 403

    @pytest.mark.parametrize(
        ('origins', 'error'),
        [
            (b'https://a', TypeError),
            (1, TypeError),
            ([b'https://a'], TypeError),
            ([1], TypeError),
            ('*', ValueError),
            ('', ValueError),
            ('a.example', ValueError),
            ('https://', ValueError),
            ('https://a/', ValueError),
            ('https://*.a', ValueError),
            ('https://a:0', ValueError),
            ('https://a:65536', ValueError),
            ('https://a:x', ValueError),
            ('https://u@a', ValueError),
            ('https://[::1', ValueError),
            ('https://[x]', ValueError),
            (['same', 'https://a b'], ValueError),
            *(
                (f'https://{poison}', ValueError)
                for poison in POISON
                if poison[0] == 'a'
            ),
        ],
    )
    def test_a_wrong_option_is_refused_by_name(self, origins, error):
        with pytest.raises(error, match='origins'):
            parse_origins(origins)
        with pytest.raises(error, match='origins'):
            check_origin(request(), origins, False)

    @pytest.mark.parametrize(
        ('origins', 'parsed'),
        [
            (None, None),
            ([], set()),
            ('same', {'same'}),
            (['HTTP://A:80', 'null', None], {'http://a', 'null', None}),
        ],
    )
    def test_what_was_parsed_is_taken_as_it_is(self, origins, parsed):
        once = parse_origins(origins)
        assert once == parsed
        assert parse_origins(once) is once

    def test_equal_options_are_parsed_once(self, monkeypatch):
        parsed = []
        normalize = handshake._normalize_origin
        monkeypatch.setattr(
            handshake,
            '_normalize_origin',
            lambda origin: parsed.append(origin) or normalize(origin),
        )
        origins = [f'https://{number}.once.example' for number in range(20)]
        for _ in range(3):  # as for each connection of a server
            allowed = parse_origins(list(origins))
            check_origin(request(origin=origins[7]), allowed, False)
        assert parsed == [*origins, *[origins[7]] * 3]
        with pytest.raises(ValueError, match='b c'):
            parse_origins([*origins, 'https://b c'])
        assert parse_origins(origins) is allowed


class TestSubprotocols:
    @pytest.mark.parametrize(
        ('option', 'expected'),
        [
            (None, []),
            ('', []),  # of 1.x
            ([], []),
            ('chat', ['chat']),
            (['b', 'a'], ['b', 'a']),
            (('a',), ['a']),
            (Any('ab'), ['a', 'b']),
            ({'a': 1}, ['a']),
            ('v1.chat+json', ['v1.chat+json']),
        ],
    )
    def test_none_one_or_several_names_are_taken(self, option, expected):
        assert parse_subprotocols(option) == expected

    @pytest.mark.parametrize(
        ('option', 'error'),
        [
            (b'a', TypeError),
            (1, TypeError),
            ([1], TypeError),
            ([b'a'], TypeError),
            ([None], TypeError),
            ('a b', ValueError),
            ('a,b', ValueError),
            (['a', 'a'], ValueError),
            (['a', ''], ValueError),
            *((poison, ValueError) for poison in POISON),
        ],
    )
    def test_anything_else_is_refused_by_name(self, option, error):
        with pytest.raises(error, match='subprotocols'):
            parse_subprotocols(option)

    @pytest.mark.parametrize(
        ('offered', 'supported', 'chosen'),
        [
            (['a', 'b'], ['b', 'a'], 'a'),
            (['x', 'b'], ['a', 'b'], 'b'),
            (['x'], ['a'], None),
            ([], ['a'], None),
            (['a'], [], None),
            (['A'], ['a'], None),
        ],
    )
    def test_the_first_of_the_client_that_is_supported_is_chosen(
        self, offered, supported, chosen
    ):
        assert choose_subprotocol(offered, supported) == chosen


class TestHeaders:
    @pytest.mark.parametrize(
        ('headers', 'expected'),
        [
            (None, []),
            ({}, []),
            ({'A': '1', 'b': ''}, [('A', '1'), ('b', '')]),
            (types.MappingProxyType({'A': '1'}), [('A', '1')]),
            ([('A', '1'), ['A', '2']], [('A', '1'), ('A', '2')]),
            (Any([('A', ' 1\t')]), [('A', '1')]),
            ({'A': 'x\ty "z"'}, [('A', 'x\ty "z"')]),
            ({b'A': b'Basic dTpw', 'B': b'2'}, [('A', 'Basic dTpw'), ('B', '2')]),
            (message_from_string('A: 1\nA: 2\n\n'), [('A', '1'), ('A', '2')]),
        ],
    )
    def test_any_mapping_and_any_pairs_are_taken(self, headers, expected):
        assert normalize_headers(headers) == expected

    @pytest.mark.parametrize(
        ('headers', 'error'),
        [
            ('A: 1', TypeError),
            (b'A: 1', TypeError),
            (1, TypeError),
            (['A: 1'], TypeError),
            (['ab'], TypeError),
            ([('A',)], TypeError),
            ([('A', '1', '2')], TypeError),
            ([1], TypeError),
            ({'A': 1}, TypeError),
            ({'A': ['1']}, TypeError),
            ({'A': bytearray(b'1')}, TypeError),
            ({'A': b'1\r\nB: 2'}, ValueError),
            ({'A': b'\xe9'}, ValueError),
            ({b'': b'1'}, ValueError),
            ({'': '1'}, ValueError),
            ({'A B': '1'}, ValueError),
            ({'A:': '1'}, ValueError),
            *(({'A': poison}, ValueError) for poison in POISON),
            *(({poison: '1'}, ValueError) for poison in POISON),
            *(
                ({name: '1'}, ValueError)
                for name in (
                    'Upgrade',
                    'connection',
                    'Sec-WebSocket-Key',
                    'sec-websocket-version',
                    'SEC-WEBSOCKET-ACCEPT',
                    'Sec-WebSocket-Extensions',
                    'Sec-WebSocket-Protocol',
                    'Content-Length',
                    'Transfer-Encoding',
                )
            ),
        ],
    )
    def test_anything_else_is_refused_by_name(self, headers, error):
        with pytest.raises(error, match='headers'):
            normalize_headers(headers)

    def test_what_was_checked_is_taken_as_it_is(self):
        once = normalize_headers({'A': ' 1'})
        assert normalize_headers(once) is once == [('A', '1')]
        assert b'\r\nA: 1\r\n' in accept_response(request(), None, None, once)

    def test_a_secret_value_is_not_shown_in_the_error(self):
        with pytest.raises(ValueError, match='A') as caught:
            normalize_headers({'A': 'secret\n'})
        assert 'secret' not in str(caught.value)


class TestAccept:
    def test_the_token_is_that_of_the_rfc(self):
        assert accept_token(KEY) == 's3pPLMBiTxaQ9kYGzzhZRbK+xOo='

    def test_the_response_has_what_was_agreed(self):
        got = request(sec_websocket_protocol='a, b')
        assert accept_response(got, 'b', 'x; y', {'X-More': '1'}) == (
            b'HTTP/1.1 101 Switching Protocols\r\n'
            b'Upgrade: websocket\r\n'
            b'Connection: Upgrade\r\n'
            b'Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n'
            b'Sec-WebSocket-Protocol: b\r\n'
            b'Sec-WebSocket-Extensions: x; y\r\n'
            b'X-More: 1\r\n'
            b'\r\n'
        )

    def test_what_was_not_agreed_is_not_there(self):
        data = accept_response(request(sec_websocket_protocol='a'), None, None)
        assert b'Protocol:' not in data
        assert b'Extensions' not in data

    @pytest.mark.parametrize('name', ['b', '', 'A', 'a, b', *POISON])
    def test_a_subprotocol_that_was_not_offered_is_refused(self, name):
        with pytest.raises(ValueError, match='subprotocol'):
            accept_response(request(sec_websocket_protocol='a'), name, None)

    @pytest.mark.parametrize('poison', POISON)
    def test_no_header_smuggles_in_a_line(self, poison):
        with pytest.raises(ValueError, match='headers'):
            accept_response(request(), None, None, {'X': poison})


class TestURL:
    @pytest.mark.parametrize(
        ('url', 'expected'),
        [
            ('ws://a', (False, 'a', 80, '/', 'a')),
            ('wss://a', (True, 'a', 443, '/', 'a')),
            ('http://a/x', (False, 'a', 80, '/x', 'a')),
            ('https://a/x', (True, 'a', 443, '/x', 'a')),
            ('WS://A.Example/X', (False, 'a.example', 80, '/X', 'a.example')),
            ('ws://a?x=1', (False, 'a', 80, '/?x=1', 'a')),
            ('ws://a/b?', (False, 'a', 80, '/b?', 'a')),
            ('ws://a/b;c?d/e?f', (False, 'a', 80, '/b;c?d/e?f', 'a')),
            ('ws://a//b', (False, 'a', 80, '//b', 'a')),
            ('ws://a/%C3%A9', (False, 'a', 80, '/%C3%A9', 'a')),
            ('ws://a:80/', (False, 'a', 80, '/', 'a')),
            ('ws://a:/', (False, 'a', 80, '/', 'a')),
            ('ws://a:443/', (False, 'a', 443, '/', 'a:443')),
            ('wss://a:443/', (True, 'a', 443, '/', 'a')),
            ('wss://a:80/', (True, 'a', 80, '/', 'a:80')),
            ('ws://a:05000/', (False, 'a', 5000, '/', 'a:5000')),
            ('ws://127.0.0.1:5000', (False, '127.0.0.1', 5000, '/', '127.0.0.1:5000')),
            ('ws://[::1]', (False, '::1', 80, '/', '[::1]')),
            ('ws://[0:0::1]:5000/x', (False, '::1', 5000, '/x', '[::1]:5000')),
            ('ws://[fe80::1%25eth0]/', (False, 'fe80::1%eth0', 80, '/', '[fe80::1]')),
            (
                'ws://b\u00fccher.example/',
                (False, 'xn--bcher-kva.example', 80, '/', 'xn--bcher-kva.example'),
            ),
            (
                'ws://my_host.local.',
                (False, 'my_host.local.', 80, '/', 'my_host.local.'),
            ),
        ],
    )
    def test_a_url_is_taken_apart(self, url, expected):
        assert parse_url(url) == URL(*expected)

    @pytest.mark.parametrize(
        ('url', 'name', 'shown'),
        [
            ('wss://a.example./x?secret', 'a.example', 'wss://a.example./x'),
            ('wss://[fe80::1%25eth0]/', 'fe80::1', 'wss://[fe80::1]/'),
            ('ws://user:secret@127.0.0.1:5000', '127.0.0.1', 'ws://127.0.0.1:5000/'),
        ],
    )
    def test_a_url_says_what_a_certificate_is_for_and_what_a_log_may_have(
        self, url, name, shown
    ):
        assert parse_url(url).tls_name == name
        assert str(parse_url(url)) == shown

    @pytest.mark.parametrize('letter', ['\u00df', '\u1e9e', '\u03c2', '\u200c', '\u200d'])
    def test_a_name_that_browsers_read_as_another_one_is_refused(self, letter):
        with pytest.raises(ValueError, match='xn--'):
            parse_url(f'wss://fa{letter}.example')
        with pytest.raises(ValueError, match='no origin'):
            parse_origins(f'https://fa{letter}.example')

    @pytest.mark.parametrize(
        ('userinfo', 'credentials'),
        [
            ('user:secret', b'user:secret'),
            ('user', b'user:'),
            ('u%40x:p%3A%2F', b'u@x:p:/'),
            ('u:p@q', b'u:p@q'),
            ('u%0d%0a:%C3%A9', b'u\r\n:\xc3\xa9'),
        ],
    )
    def test_user_and_password_become_basic_authorization(self, userinfo, credentials):
        url = parse_url(f'ws://{userinfo}@a')
        assert (url.host, url.host_header) == ('a', 'a')
        scheme, _, encoded = url.authorization.partition(' ')
        assert (scheme, base64.b64decode(encoded)) == ('Basic', credentials)
        assert encoded not in repr(url)

    @pytest.mark.parametrize('url', ['ws://@a', 'ws://:@a', 'ws://a'])
    def test_no_user_and_no_password_become_none(self, url):
        assert parse_url(url).authorization is None

    @pytest.mark.parametrize(
        'url',
        [
            '',
            'a',
            'a.example/x',
            '//a',
            'ftp://a',
            'ws:a',
            'ws:/a',
            'ws://',
            'ws:///x',
            'ws://:80',
            'ws://u@',
            'ws://a#x',
            'ws://a/#',
            'ws://a/b c',
            ' ws://a',
            'ws://a ',
            'ws://a\t',
            'w\ns://a',
            'ws://a\\@b',
            'ws://a:x',
            'ws://a:-1',
            'ws://a:+80',
            'ws://a:0',
            'ws://a:65536',
            'ws://a:100000',
            'ws://a:' + '9' * 5000,
            'ws://a:\u0661',
            'ws://a:80:80',
            'ws://::1',
            'ws://[::1',
            'ws://::1]',
            'ws://[::1]x',
            'ws://[::g]',
            'ws://[]',
            'ws://a..b',
            'ws://' + 'a' * 64,
            'ws://' + 'a.' * 200 + 'a',
            'ws://a%00b',
            'ws://a,b',
            'ws://a*b',
            'ws://a/\u00e9',
            'ws://a/?\u00e9',
            'ws://\u2100.example',
            'ws://a\uff0fb',
            'ws://\ud800',
            *(f'ws://a/{poison}' for poison in POISON),
            *(f'ws://{poison}/' for poison in POISON if poison.isascii()),
        ],
    )
    def test_what_is_no_websocket_url_is_refused(self, url):
        with pytest.raises(ValueError, match='url'):
            parse_url(url)

    @pytest.mark.parametrize(
        'url',
        [
            '',
            'localhost:8000/x',
            'localhost',
            'user:secret@localhost/x',
            '127.0.0.1:8000',
            '[::1]:8000/x',
            '/path',
            '//localhost/x',
            'ws:localhost',
            'ws:/localhost',
            'localhost/?next=ws://a',
        ],
    )
    def test_a_scheme_that_is_missing_is_named(self, url):
        with pytest.raises(ValueError, match='url must begin with .*, which is missing') as error:
            parse_url(url)
        assert 'secret' not in str(error.value)

    @pytest.mark.parametrize('url', ['ftp://a', 'wsx://a', 'tcp+ws://', 'file:///etc'])
    def test_another_scheme_is_named(self, url):
        scheme = re.escape(url.split('://')[0])
        with pytest.raises(ValueError, match=f'url must begin with .*, not {scheme}://'):
            parse_url(url)

    @pytest.mark.parametrize('url', [None, b'ws://a', 1, ['ws://a']])
    def test_what_is_no_string_is_refused(self, url):
        with pytest.raises(TypeError, match='url'):
            parse_url(url)

    @given(st.text(max_size=30))
    def test_no_string_raises_anything_else(self, text):
        try:
            url = parse_url('ws://' + text)
        except ValueError:
            return
        assert ClientHandshake(url).request().isascii()


A = parse_url('ws://a.example:5000/chat?x=1')


def lines(client):
    head, _, rest = client.request().decode('ascii').partition('\r\n\r\n')
    assert rest == ''
    return head.split('\r\n')


class TestClientRequest:
    def test_the_request_is_that_of_the_rfc(self):
        client = ClientHandshake(A)
        assert lines(client) == [
            'GET /chat?x=1 HTTP/1.1',
            'Host: a.example:5000',
            'Upgrade: websocket',
            'Connection: Upgrade',
            f'Sec-WebSocket-Key: {client.key}',
            'Sec-WebSocket-Version: 13',
        ]

    def test_the_request_carries_what_was_given(self):
        client = ClientHandshake(
            parse_url('ws://u:p@a'),
            ['a', 'b'],
            types.MappingProxyType({'Origin': 'http://page.example', 'X-More': '2'}),
            'permessage-deflate',
        )
        assert lines(client)[6:] == [
            'Sec-WebSocket-Protocol: a, b',
            'Sec-WebSocket-Extensions: permessage-deflate',
            'Authorization: Basic dTpw',
            'Origin: http://page.example',
            'X-More: 2',
        ]

    @pytest.mark.parametrize('name', ['Host', 'hOST', 'Authorization'])
    def test_a_header_of_the_caller_replaces_ours(self, name):
        client = ClientHandshake(parse_url('ws://u:p@a'), None, {name: 'mine'})
        found = [x for x in lines(client) if x.lower().startswith(name.lower() + ':')]
        assert found == [f'{name}: mine']

    def test_each_key_is_new(self):
        keys = {ClientHandshake(A).key for _ in range(200)}
        assert len(keys) == 200
        assert all(len(base64.b64decode(key)) == 16 for key in keys)

    @pytest.mark.parametrize(
        ('arguments', 'error'),
        [
            *(({'headers': {'X': poison}}, ValueError) for poison in POISON),
            *(({'headers': {poison: 'x'}}, ValueError) for poison in POISON),
            *(({'subprotocols': [poison]}, ValueError) for poison in POISON),
            *(({'extensions': poison}, ValueError) for poison in POISON),
            ({'headers': [('Host', 'a'), ('host', 'b')]}, ValueError),
            ({'headers': [('Origin', 'a'), ('origin', 'b')]}, ValueError),
        ],
    )
    def test_what_can_not_be_sent_is_refused_by_name(self, arguments, error):
        with pytest.raises(error, match=next(iter(arguments))):
            ClientHandshake(A, **arguments)

    def test_our_own_server_accepts_it(self):
        client = ClientHandshake(A, ['a', 'b'], {'X': 'y', 'Origin': 'http://p'}, 'x; y')
        first, *fields = lines(client)
        method, target, version = first.split(' ')
        pairs = [tuple(field.split(': ', 1)) for field in fields]
        got = request_from_headers(method, target, version, pairs)
        answer = client.receive(accept_response(got, 'b', 'x', {'Z': '1'}) + b'frames')
        assert (answer.subprotocol, answer.extensions) == ('b', ['x'])
        assert answer.leftover == b'frames'
        assert ('z', '1') in answer.headers


def reply(client, *extra, accept=None, upgrade='websocket', connection='Upgrade'):
    """Return a 101 for a client, right where nothing else is said."""
    fields = [
        ('Upgrade', upgrade),
        ('Connection', connection),
        (
            'Sec-WebSocket-Accept',
            accept_token(client.key) if accept is None else accept,
        ),
        *extra,
    ]
    head = ['HTTP/1.1 101 Switching Protocols']
    head += [f'{name}: {value}' for name, value in fields if value is not GONE]
    return '\r\n'.join([*head, '', '']).encode('latin-1')


def client(**arguments):
    return ClientHandshake(A, **arguments)


class TestClientResponse:
    @pytest.mark.parametrize('frames', [b'', b'\x81\x00', b'\x82\x7f' + bytes(200_000)])
    def test_frames_behind_the_head_are_kept(self, frames):
        peer = client()
        assert peer.receive(reply(peer) + frames).leftover == frames

    @pytest.mark.parametrize('version', ['0.1', '0.9', '1.0', '2.0'])
    def test_a_101_of_another_http_version_is_an_error(self, version):
        peer = client()
        data = reply(peer).replace(b'HTTP/1.1', f'HTTP/{version}'.encode())
        with pytest.raises(ConnectionError, match='another HTTP version'):
            peer.receive(data)

    def test_every_split_gives_the_same(self):
        peer = client(subprotocols='a')
        data = reply(peer, ('Sec-WebSocket-Protocol', 'a')) + b'\x81\x02hi'
        head = len(data) - 4
        for cut in range(len(data) + 1):
            other = client(subprotocols='a')
            other.key = peer.key
            got = other.receive(data[:cut])
            rest = data[cut:]
            if got is None:
                assert cut < head
                got, rest = other.receive(rest), b''
            assert got.subprotocol == 'a'
            assert got.leftover + rest == b'\x81\x02hi'

    def test_one_byte_at_a_time_is_enough(self):
        peer = client()
        data = reply(peer)
        for position in range(len(data) - 1):
            assert peer.receive(data[position : position + 1]) is None
            assert peer.receive(b'') is None
        assert peer.receive(data[-1:]).leftover == b''

    def test_eof_at_every_byte_is_one_kind_of_error(self):
        peer = client()
        data = b'HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n' + reply(peer)
        for length in range(len(data)):
            other = client()
            other.key = peer.key
            assert other.receive(data[:length]) is None
            with pytest.raises(ConnectionError) as caught:
                other.receive_eof()
            assert caught.value.status_code is None

    @pytest.mark.parametrize(
        'before',
        [
            b'HTTP/1.1 100 Continue\r\n\r\n',
            b'HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n',
            b'HTTP/1.1 100\r\n\r\n' * MAX_INFORMATIONAL,
        ],
    )
    def test_informational_responses_are_skipped(self, before):
        for together in (True, False):
            peer = client()
            if together:
                got = peer.receive(before + reply(peer) + b'x')
            else:
                assert peer.receive(before) is None
                got = peer.receive(reply(peer) + b'x')
            assert got.leftover == b'x'

    @pytest.mark.parametrize(
        'changes',
        [
            {'upgrade': 'WebSocket'},
            {'connection': 'upgrade'},
            {'connection': 'keep-alive, UPGRADE'},
        ],
    )
    def test_case_and_other_tokens_do_not_matter(self, changes):
        peer = client()
        assert peer.receive(reply(peer, **changes)) is not None

    @pytest.mark.parametrize(
        ('changes', 'extra'),
        [
            ({'upgrade': GONE}, []),
            ({'upgrade': 'h2c'}, []),
            ({'upgrade': 'websocket, h2c'}, []),
            ({'connection': GONE}, []),
            ({'connection': 'keep-alive'}, []),
            ({'accept': GONE}, []),
            ({'accept': ''}, []),
            ({'accept': accept_token(KEY)}, []),
            ({'accept': '\u00e9'}, []),
            ({}, [('Sec-WebSocket-Accept', 'x')]),
            ({}, [('Sec-WebSocket-Protocol', 'c')]),
            ({}, [('Sec-WebSocket-Protocol', '')]),
            ({}, [('Sec-WebSocket-Protocol', 'A')]),
            ({}, [('Sec-WebSocket-Protocol', 'a, b')]),
            ({}, [('Sec-WebSocket-Protocol', 'a'), ('Sec-WebSocket-Protocol', 'b')]),
            ({}, [('Sec-WebSocket-Protocol', 'a'), ('Sec-WebSocket-Protocol', 'a')]),
            ({}, [('Sec-WebSocket-Extensions', 'permessage-deflate')]),
        ],
    )
    def test_a_wrong_101_is_an_error(self, changes, extra):
        peer = client(subprotocols=['a', 'b'])
        with pytest.raises(ConnectionError) as caught:
            peer.receive(reply(peer, *extra, **changes))
        assert caught.value.status_code is None
        assert caught.value.__cause__ is not None

    def test_a_doubled_accept_token_is_an_error(self):
        peer = client()
        with pytest.raises(ConnectionError):
            peer.receive(reply(peer, ('Sec-WebSocket-Accept', accept_token(peer.key))))

    def test_a_subprotocol_where_none_was_offered_is_an_error(self):
        peer = client()
        with pytest.raises(ConnectionError):
            peer.receive(reply(peer, ('Sec-WebSocket-Protocol', 'a')))

    def test_a_server_may_choose_no_subprotocol(self):
        peer = client(subprotocols='a')
        assert peer.receive(reply(peer)).subprotocol is None

    def test_extensions_are_handed_on_unparsed(self):
        peer = client(extensions='x')
        fields = [
            ('Sec-WebSocket-Extensions', 'x; y'),
            ('Sec-WebSocket-Extensions', ';'),
        ]
        assert peer.receive(reply(peer, *fields)).extensions == ['x; y', ';']

    @pytest.mark.parametrize(
        'status', [200, 204, 301, 302, 307, 400, 401, 404, 426, 503]
    )
    def test_a_refusal_has_its_status(self, status):
        data = f'HTTP/1.1 {status} No\r\nLocation: ws://b/\r\nContent-Length: 0\r\n\r\n'
        for prefix in ('', 'HTTP/1.1 100 Continue\r\n\r\n'):
            with pytest.raises(ConnectionError, match=str(status)) as caught:
                client().receive((prefix + data).encode())
            assert caught.value.status_code == status

    @pytest.mark.parametrize(
        ('fields', 'sent', 'kept'),
        [
            ('Content-Length: 9', b'no, since', b'no, since'),
            ('Content-Length: 0', b'', b''),
            ('Content-Length: 5000', b'x' * 5000, b'x' * 1024),
            ('Transfer-Encoding: chunked', b'3\r\nno,\r\n6\r\n since\r\n0\r\n\r\n', b'no, since'),
            ('Transfer-Encoding: chunked', b'2\r\nno\r\nnonsense\r\n', b'no'),
            ('Connection: close', b'x' * 5000, b'x' * 1024),
        ],
    )
    def test_a_refusal_has_its_headers_and_the_beginning_of_its_body(self, fields, sent, kept):
        head = f'HTTP/1.1 403 No\r\nX-Why: {"y" * 9}\r\n{fields}\r\n\r\n'
        with pytest.raises(ConnectionError) as caught:
            client().receive(head.encode() + sent)
        error = caught.value
        assert (error.status_code, str(error)) == (403, 'Connection error: 403 No')
        assert ('X-Why'.lower(), 'y' * 9) in [(n.lower(), v) for n, v in error.headers]
        assert (error.body, type(error.body)) == (kept, bytes)

    @pytest.mark.parametrize('size', [1, 2, 7, 100])
    @pytest.mark.parametrize(
        ('fields', 'sent'),
        [
            ('Content-Length: 9', b'no, since'),
            ('Transfer-Encoding: chunked', b'3\r\nno,\r\n6\r\n since\r\n0\r\n\r\n'),
        ],
    )
    def test_the_body_of_a_refusal_may_come_in_any_split(self, size, fields, sent):
        opening = client()
        assert not opening.refused
        data = f'HTTP/1.1 403 No\r\n{fields}\r\n\r\n'.encode() + sent
        pieces = [data[start : start + size] for start in range(0, len(data), size)]
        for piece in pieces[:-1]:
            assert opening.receive(piece) is None
        assert opening.refused is (size < 100)
        with pytest.raises(ConnectionError) as caught:
            opening.receive(pieces[-1])
        assert (caught.value.status_code, caught.value.body) == (403, b'no, since')

    @pytest.mark.parametrize('fields', ['Content-Length: 9', 'Connection: close'])
    @pytest.mark.parametrize('sent', [b'', b'no'])
    def test_a_refusal_is_one_without_the_rest_of_its_body(self, fields, sent):
        opening = client()
        head = f'HTTP/1.1 403 No\r\n{fields}\r\n\r\n'.encode()
        assert opening.receive(head + sent) is None and opening.refused
        assert (opening.refusal().status_code, opening.refusal().body) == (403, sent)
        with pytest.raises(ConnectionError) as caught:
            opening.receive_eof()
        assert (caught.value.status_code, caught.value.body) == (403, sent)

    def test_a_body_has_a_moment_and_no_more_than_half_of_the_time_to_connect(self):
        assert [time_for_body(left) for left in (None, 10, 1, 0.5, 0)] == [0.5, 0.5, 0.5, 0.25, 0]

    def test_what_is_no_refusal_has_no_headers_and_no_body(self):
        with pytest.raises(ConnectionError) as caught:
            client().receive(b'SSH-2.0-OpenSSH\r\n\r\n')
        assert (caught.value.headers, caught.value.body) == ([], b'')

    def test_a_redirect_says_where_it_leads(self):
        with pytest.raises(ConnectionError, match='ws://b/ .*not followed|ws://b/'):
            client().receive(b'HTTP/1.1 301 Moved\r\nContent-Length: 0\r\nLocation: ws://b/\r\n\r\n')

    @pytest.mark.parametrize(
        'data',
        [
            b'garbage\r\n\r\n',
            b'\x00' * 20 + b'\r\n\r\n',
            b'SSH-2.0-OpenSSH\r\n\r\n',
            b'HTTP/2 101 Switching Protocols\r\n\r\n',
            b'HTTP/1.1 999999\r\n\r\n',
            b'HTTP/1.1 101 X\r\nno colon\r\n\r\n',
            b'HTTP/1.1 101 X\r\n: x\r\n\r\n',
            b'HTTP/1.1 101 X\r\nA: \x00\r\n\r\n',
            b'\x15\x03\x01\x00\x02\x02\x16\r\n\r\n',
        ],
    )
    def test_what_is_no_http_is_an_error(self, data):
        with pytest.raises(ConnectionError) as caught:
            client().receive(data)
        assert caught.value.status_code is None
        assert caught.value.__cause__ is not None

    @pytest.mark.parametrize(
        'data',
        [
            b'HTTP/1.1 101 X\r\nA: ' + b'x' * MAX_RESPONSE_HEAD,
            b'HTTP/1.1 101 X\r\n' + b'A: x\r\n' * (MAX_RESPONSE_HEAD // 6),
            b'x' * MAX_RESPONSE_HEAD + b'x',
            b'HTTP/1.1 100 X\r\n\r\n' * (MAX_INFORMATIONAL + 1),
            b'HTTP/1.1 100 X\r\nA: ' + b'x' * MAX_RESPONSE_HEAD + b'\r\n\r\n',
        ],
    )
    @pytest.mark.parametrize('size', [1000, 1 << 20])
    def test_an_endless_response_is_an_error(self, data, size):
        peer = client()
        data += reply(peer) if data.endswith(b'\r\n') else b''
        with pytest.raises(ConnectionError):
            for start in range(0, len(data), size):
                peer.receive(data[start : start + size])

    def test_a_response_just_short_enough_is_accepted(self):
        peer = client()
        room = MAX_RESPONSE_HEAD - len(reply(peer, ('X', '')))
        assert peer.receive(reply(peer, ('X', 'y' * room)) + b'frames') is not None
        peer = client()
        with pytest.raises(ConnectionError):
            peer.receive(reply(peer, ('X', 'y' * (room + 1))))

    @given(st.binary(max_size=200), st.integers(0, 200))
    def test_no_bytes_raise_anything_else(self, junk, position):
        peer = client()
        data = reply(peer)
        try:
            peer.receive(data[:position] + junk + data[position:])
            peer.receive_eof()
        except ConnectionError:
            pass


@pytest.mark.parametrize(
    ('scheme', 'secure'),
    [('https', True), ('wss', True), ('WSS', True), ('http', False), ('ws', False), (None, False)],
)
def test_a_scheme_is_secure_in_whatever_words(scheme, secure):
    # Proxies say "wss", and ASGI servers "https".
    assert handshake.is_secure(scheme) is secure
