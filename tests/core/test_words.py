"""What errors and refusals say, to the letter: people search for these words."""

from __future__ import annotations

import pytest
from support.frames import BINARY, TEXT, Frame, closing, fragments
from support.lab import End, deflated

from simple_websocket.client_handshake import (
    MAX_INFORMATIONAL,
    MAX_RESPONSE_HEAD,
    ClientHandshake,
    parse_url,
)
from simple_websocket.close_codes import close_payload
from simple_websocket.deflate import (
    Deflate,
    ExtensionSyntaxError,
    InflateError,
    InflateTooBig,
    PerMessageDeflate,
    accept_offer,
    from_option,
    negotiate,
)
from simple_websocket.errors import ConnectionError
from simple_websocket.handshake import (
    Rejected,
    accept_token,
    check_origin,
    normalize_headers,
    parse_origins,
    parse_subprotocols,
    rejection_response,
    request_from_headers,
    split_authority,
)


def raised(error, action, *arguments, **options):
    with pytest.raises(error) as caught:
        action(*arguments, **options)
    assert type(caught.value) is error
    return str(caught.value)


@pytest.mark.parametrize(
    ('code', 'reason', 'error', 'words'),
    [
        (True, None, TypeError, 'reason (the close code) must be an int, not bool'),
        ('1000', None, TypeError, 'reason (the close code) must be an int, not str'),
        (
            1006,
            None,
            ValueError,
            'reason (the close code) 1006 must not be sent in a Close frame',
        ),
        (1000, b'bye', TypeError, 'message must be a str, not bytes'),
        (
            1000,
            '\u20ac' * 42,
            ValueError,
            'message is 126 bytes long, a Close frame takes 123',
        ),
    ],
)
def test_a_close_that_cannot_be_sent_says_why(code, reason, error, words):
    assert raised(error, close_payload, code, reason) == words


NO_8 = ' (zlib cannot compress with a window of 8 bits)'


@pytest.mark.parametrize(
    ('option', 'value', 'error', 'words'),
    [
        ('level', '6', TypeError, 'level must be an int, not str'),
        ('level', 10, ValueError, 'level must be from 0 to 9, not 10'),
        ('mem_level', 0, ValueError, 'mem_level must be from 1 to 9, not 0'),
        ('threshold', -1, ValueError, 'threshold must be at least 0, not -1'),
        ('threshold', 1.5, TypeError, 'threshold must be an int, not float'),
        *(
            (side + name, value, error, f'{side}{name} {words}')
            for side in ('server', 'client')
            for name, value, error, words in [
                ('_max_window_bits', 8, ValueError, f'must be from 9 to 15{NO_8}, not 8'),
                ('_no_context_takeover', 1, TypeError, 'must be a bool, not int'),
            ]
        ),
    ],
)
def test_an_option_of_the_compression_says_what_it_may_be(option, value, error, words):
    assert raised(error, Deflate, **{option: value}) == words


@pytest.mark.parametrize(
    ('option', 'error', 'words'),
    [
        ('gzip', ValueError, "compression must be True, a Deflate, or False, not 'gzip'"),
        (
            1.5,
            TypeError,
            'compression must be True, a Deflate, or False, not float',
        ),
    ],
)
def test_a_wrong_compression_says_what_it_may_be(option, error, words):
    assert raised(error, from_option, option) == words


@pytest.mark.parametrize(
    ('value', 'words'),
    [
        ('=x', "no extension name at 0 in '=x'"),
        ('a b', "unexpected text at 2 in 'a b'"),
        ('a; b="c d"', "'c d' is not a token"),
    ],
)
def test_a_header_of_extensions_says_where_it_is_wrong(value, words):
    for judge in (negotiate, accept_offer):
        with pytest.raises(Exception, match='.') as caught:
            judge(Deflate(), [value])
        assert str(caught.value) == words


def test_an_empty_list_of_extensions_is_no_answer():
    words = raised(ExtensionSyntaxError, accept_offer, Deflate(), [' , '])
    assert words == 'the server answered an empty list of extensions'


@pytest.mark.parametrize(
    ('options', 'answer', 'words'),
    [
        (None, 'permessage-deflate', 'extension permessage-deflate was not asked for'),
        (Deflate(), 'x-other', 'extension x-other was not asked for'),
        (
            Deflate(),
            'permessage-deflate, permessage-deflate',
            'permessage-deflate was accepted twice',
        ),
        (
            Deflate(server_no_context_takeover=True),
            'permessage-deflate',
            'server_no_context_takeover was asked for',
        ),
        (
            Deflate(),
            'permessage-deflate; server_max_window_bits=9; client_max_window_bits=8',
            'zlib cannot compress with a window of 8 bits',
        ),
        (Deflate(), 'permessage-deflate; x', 'unknown parameter x'),
        (
            Deflate(),
            'permessage-deflate; client_no_context_takeover; client_no_context_takeover',
            'duplicate parameter client_no_context_takeover',
        ),
        (
            Deflate(),
            'permessage-deflate; client_no_context_takeover=1',
            'client_no_context_takeover takes no value',
        ),
        (
            Deflate(),
            'permessage-deflate; client_max_window_bits',
            'client_max_window_bits needs a value',
        ),
        (
            Deflate(),
            'permessage-deflate; client_max_window_bits=16',
            "client_max_window_bits must be 8 to 15, not '16'",
        ),
    ],
)
def test_a_bad_answer_to_an_offer_says_what_is_wrong(options, answer, words):
    with pytest.raises(Exception, match='.') as caught:
        accept_offer(options, [answer])
    assert str(caught.value) == words


@pytest.mark.parametrize(
    ('data', 'limit', 'error', 'words'),
    [
        (b'', None, InflateError, 'the compressed message has no data'),
        (b'\xf2', None, InflateError, 'the compressed message is incomplete'),
        (b'\x03\x00' * 18, None, InflateError, 'too many final blocks in a message'),
        (
            b'\x07',
            None,
            InflateError,
            'corrupt compressed data: Error -3 while decompressing data: invalid block type',
        ),
        (
            bytes.fromhex('f248cdc9c90700'),
            4,
            InflateTooBig,
            'the message inflates to too much',
        ),
    ],
)
def test_a_bad_compressed_message_says_what_is_wrong(data, limit, error, words):
    assert raised(error, PerMessageDeflate().decompress, data, True, limit) == words


def test_an_engine_shows_its_windows():
    engine = PerMessageDeflate(compress_bits=10, decompress_bits=9)
    assert repr(engine) == '<PerMessageDeflate send 10 bits, receive 9 bits>'


class TestRefusal:
    def test_the_exception_reads_like_the_answer(self):
        assert str(Rejected(400, 'No.')) == '400 No.'

    def test_a_400_to_the_byte(self):
        assert rejection_response(Rejected(400, 'No\u2026', [('Allow', 'GET')])) == (
            b'HTTP/1.1 400 Bad Request\r\n'
            b'Content-Type: text/plain; charset=utf-8\r\n'
            b'Content-Length: 6\r\n'
            b'Connection: close\r\n'
            b'Sec-WebSocket-Version: 13\r\n'
            b'Allow: GET\r\n'
            b'\r\n'
            b'No\xe2\x80\xa6\n'
        )

    def test_a_426_to_the_byte(self):
        assert rejection_response(Rejected(426, 'No.')) == (
            b'HTTP/1.1 426 Upgrade Required\r\n'
            b'Content-Type: text/plain; charset=utf-8\r\n'
            b'Content-Length: 4\r\n'
            b'Connection: close, Upgrade\r\n'
            b'Upgrade: websocket\r\n'
            b'Sec-WebSocket-Version: 13\r\n'
            b'\r\n'
            b'No.\n'
        )

    def test_a_status_without_a_name_is_refused(self):
        answer = rejection_response(Rejected(499, 'No.'))
        assert answer.startswith(b'HTTP/1.1 499 Refused\r\n')

    @pytest.mark.parametrize('mark', ['\r', '\n', '\0'])
    def test_a_header_of_two_lines_is_never_written(self, mark):
        rejected = Rejected(400, 'No.', [('Allow', f'GET{mark}')])
        words = raised(ValueError, rejection_response, rejected)
        assert words == 'a header has a line break or a NUL in it'


HEADERS = [
    ('Host', 'example.com'),
    ('Upgrade', 'websocket'),
    ('Connection', 'Upgrade'),
    ('Sec-WebSocket-Key', 'dGhlIHNhbXBsZSBub25jZQ=='),
    ('Sec-WebSocket-Version', '13'),
]


@pytest.mark.parametrize(
    ('more', 'words'),
    [
        (
            [('Host', 'other.example')],
            '400 Send one header Host: the name of this server, and the port if need be.',
        ),
        ([('Origin', 'http://a'), ('Origin', 'http://b')], '400 More than one Origin header.'),
    ],
)
def test_a_request_that_repeats_itself_is_told_what_to_send(more, words):
    assert raised(Rejected, request_from_headers, 'GET', '/', '1.1', HEADERS + more) == words


def without(name):
    return [(other, value) for other, value in HEADERS if other != name]


@pytest.mark.parametrize(
    ('method', 'version', 'headers', 'words'),
    [
        ('POST', '1.1', HEADERS, '405 A WebSocket is opened with the method GET.'),
        (
            'GET',
            '1.0',
            HEADERS,
            '400 A WebSocket needs HTTP/1.1; '
            'a proxy in between may be set to another version.',
        ),
        *(
            (
                'GET',
                '1.1',
                without(name),
                '426 This is a WebSocket: connect with a WebSocket client (ws:// or wss://). '
                'A proxy in between must pass on the headers Upgrade and Connection.',
            )
            for name in ('Upgrade', 'Connection')
        ),
        *(
            ('GET', '1.1', [*HEADERS, field], '400 A WebSocket request has no body.')
            for field in [('Content-Length', '1'), ('Transfer-Encoding', 'chunked')]
        ),
        (
            'GET',
            '1.1',
            without('Sec-WebSocket-Version'),
            '400 Send one header Sec-WebSocket-Version: 13.',
        ),
        (
            'GET',
            '1.1',
            [*without('Sec-WebSocket-Version'), ('Sec-WebSocket-Version', '8')],
            '426 The only WebSocket version spoken here is 13.',
        ),
        (
            'GET',
            '1.1',
            without('Sec-WebSocket-Key'),
            '400 Send one header Sec-WebSocket-Key: 16 bytes in base64.',
        ),
        *(
            (
                'GET',
                '1.1',
                [*HEADERS, ('Sec-WebSocket-Protocol', offered)],
                '400 The header Sec-WebSocket-Protocol is not a list of tokens.',
            )
            for offered in ('a b', 'a,(', 'a, b;c')
        ),
        (
            'GET',
            '1.1',
            [*HEADERS, ('Sec-WebSocket-Protocol', 'a, a')],
            '400 The header Sec-WebSocket-Protocol names a subprotocol twice.',
        ),
    ],
)
def test_a_request_that_is_no_upgrade_is_told_what_would_be(method, version, headers, words):
    with pytest.raises(Rejected) as caught:
        request_from_headers(method, '/', version, headers)
    assert str(caught.value) == words
    assert caught.value.headers == ([('Allow', 'GET')] if words.startswith('405') else [])


@pytest.mark.parametrize(
    ('origins', 'error', 'words'),
    [
        (5, TypeError, 'origins must be a str or a list of them, not int'),
        ([5], TypeError, 'origins must be strings or None, not int'),
        (
            'http://a/b',
            ValueError,
            "origins: 'http://a/b' is no origin; one looks like https://example.com "
            '(no path, no wildcard)',
        ),
        (
            '1a://b',
            ValueError,
            "origins: '1a://b' is no origin; one looks like https://example.com "
            '(no path, no wildcard)',
        ),
    ],
)
def test_wrong_origins_say_what_they_may_be(origins, error, words):
    assert raised(error, parse_origins, origins) == words


def test_a_page_that_is_kept_out_is_told_why():
    silent = request_from_headers('GET', '/', '1.1', HEADERS)
    assert raised(Rejected, check_origin, silent, ['http://a:81'], False) == (
        '403 This WebSocket is for pages of certain origins; none was given.'
    )
    other = request_from_headers('GET', '/', '1.1', [*HEADERS, ('Origin', 'http://b:81')])
    words = 'Pages of this origin may not open this WebSocket.'
    assert raised(Rejected, check_origin, other, ['http://a:81'], False) == (
        f"403 {words} (Origin: 'http://b:81')"
    )
    with pytest.raises(Rejected) as rejected:
        check_origin(other, 'same', True)
    assert rejected.value.reason == words  # this alone is for the client
    assert rejected.value.explanation == (
        f"{words} (Origin: 'http://b:81'; 'same' is 'https://example.com' here, "
        "by the request's scheme and Host)"
    )


@pytest.mark.parametrize(
    ('url', 'error', 'words'),
    [
        (b'ws://a', TypeError, 'url must be a str, not bytes'),
        ('a/b', ValueError, "url must begin with ws:// or wss://, which is missing: 'a/b'"),
        (
            'u:secret@a/b?token=c',
            ValueError,
            "url must begin with ws:// or wss://, which is missing: 'a/b'",
        ),
        (
            f'a/{"b" * 100}',
            ValueError,
            f"url must begin with ws:// or wss://, which is missing: 'a/{'b' * 78}'",
        ),
        ('ws://', ValueError, 'url: it has no host'),
        ('ws://:80/a', ValueError, 'url: it has no host'),
        ('wss:///a?b', ValueError, 'url: it has no host'),
        *(
            (
                url,
                ValueError,
                'url: no host follows the user and password; percent-encode what is in these',
            )
            for url in (
                'ws://user:secret@',
                'ws://user:secret@a!b',
                'ws://user:secret@\u2100.example',
                'ws://user:sec/ret@a',
                'ws://user:sec?ret@a',
            )
        ),
        ('ftp://a/b', ValueError, 'url must begin with ws:// or wss://, not ftp://'),
        ('ws://a#b', ValueError, 'url has a fragment, which a WebSocket URL must not have'),
        (
            'ws://a/ b',
            ValueError,
            'url has a space, a backslash or a control character in it',
        ),
        (
            'ws://a/\u20ac',
            ValueError,
            'url: path and query must be ASCII; percent-encode the rest',
        ),
    ],
)
def test_a_url_says_what_is_wrong_with_it(url, error, words):
    assert raised(error, parse_url, url) == words


def client(**arguments):
    return ClientHandshake(parse_url('ws://example.com/'), **arguments)


def response(one, *fields, status='101 Switching Protocols', **changes):
    """Bytes of a response; what is not changed is right."""
    head = {
        'Upgrade': 'websocket',
        'Connection': 'Upgrade',
        'Sec-WebSocket-Accept': accept_token(one.key),
    }
    head.update({name.replace('_', '-'): value for name, value in changes.items()})
    lines = [f'HTTP/1.1 {status}', *(f'{name}: {value}' for name, value in head.items())]
    return '\r\n'.join([*lines, *fields, '', '']).encode()


#: The end of a refusal whose body need not be waited for.
NO_BODY = b'Content-Length: 0\r\n\r\n'


class TestAnswers:
    @pytest.mark.parametrize(
        ('changes', 'fields', 'words'),
        [
            ({'Upgrade': 'h2c'}, (), 'the server upgrades to something else'),
            ({'Connection': 'close'}, (), 'the response has no Connection: Upgrade'),
            (
                {'Sec-WebSocket-Accept': 'x'},
                (),
                'Sec-WebSocket-Accept is missing, repeated or wrong',
            ),
            (
                {},
                ('Sec-WebSocket-Extensions: permessage-deflate',),
                'the server chose an extension where none was asked for',
            ),
            (
                {},
                ('Sec-WebSocket-Protocol: a', 'Sec-WebSocket-Protocol: b'),
                'the server chose more than one subprotocol',
            ),
            (
                {},
                (f'Sec-WebSocket-Protocol: {"x" * 100}',),
                f"the server chose subprotocol '{'x' * 80}', not asked for",
            ),
        ],
    )
    def test_a_wrong_101_says_what_is_wrong(self, changes, fields, words):
        one = client()
        data = response(one, *fields, **changes)
        error = raised(ConnectionError, one.receive, data)
        assert error == f'Connection error: {words}'

    @pytest.mark.parametrize(
        ('version', 'allowed'), [('1.0', False), ('1.1', True), ('1.2', True), ('2.0', False)]
    )
    def test_another_version_of_http_is_called_so(self, version, allowed):
        one = client()
        data = response(one).replace(b'HTTP/1.1', f'HTTP/{version}'.encode(), 1)
        if allowed:
            assert one.receive(data) is not None
        else:
            error = raised(ConnectionError, one.receive, data)
            assert error == 'Connection error: the response is of another HTTP version'

    def test_too_many_informational_responses_are_called_so(self):
        data = b'HTTP/1.1 100 Continue\r\n\r\n'
        one = client()
        assert one.receive(data * MAX_INFORMATIONAL) is None
        error = raised(ConnectionError, one.receive, data)
        assert error == 'Connection error: too many informational responses'

    def test_another_protocol_is_called_so(self):
        error = raised(ConnectionError, client().receive, b'SSH-2.0\r\n\r\n')
        words = 'Connection error: the server does not speak HTTP: illegal status line'
        assert error.startswith(words)

    def test_what_is_fed_behind_the_answer_is_not_expected(self):
        one = client()
        assert one.receive(response(one)) is not None
        error = raised(ConnectionError, one.receive, b'x')
        assert error == 'Connection error: unexpected data in the handshake'

    def test_a_head_that_is_too_long_says_so(self):
        one = client()
        early = b'HTTP/1.1 103 Early Hints\r\nLink: ' + b'a' * 30_000 + b'\r\n\r\n'
        assert one.receive(early * 2) is None
        long = 'X: ' + 'a' * (MAX_RESPONSE_HEAD - 2 * len(early))
        for data in (response(one, long), response(one, long)[:-2]):
            two = client()
            two.key = one.key
            assert two.receive(early * 2) is None
            error = raised(ConnectionError, two.receive, data)
            assert error == 'Connection error: the response is too long'

    def test_a_server_that_hangs_up_says_when(self):
        one = client()
        assert raised(ConnectionError, one.receive_eof) == (
            'Connection error: the server hung up before its response'
        )
        assert one.receive(b'HTTP/1.1 ') is None
        assert raised(ConnectionError, one.receive_eof) == (
            'Connection error: the server hung up in the middle of its response'
        )

    @pytest.mark.parametrize(
        ('status', 'reason', 'words'),
        [
            (200, 'OK', '200 OK'),
            (300, 'Choose', "300 Choose (to '/b'; redirects are not followed)"),
            (399, 'Go', "399 Go (to '/b'; redirects are not followed)"),
            (400, 'No', '400 No'),
            (401, 'N\u00f6', '401 N\u00f6'),
        ],
    )
    def test_a_refusal_reads_like_the_status_line(self, status, reason, words):
        head = f'HTTP/1.1 {status} {reason}\r\nLocation: /b\r\n'.encode('latin-1')
        error = raised(ConnectionError, client().receive, head + NO_BODY)
        assert error == f'Connection error: {words}'

    def test_a_redirect_to_nowhere_is_one(self):
        error = raised(ConnectionError, client().receive, b'HTTP/1.1 302 Found\r\n' + NO_BODY)
        assert error == 'Connection error: 302 Found'

    def test_a_long_reason_is_cut(self):
        data = b'HTTP/1.1 500 ' + b'a' * 400 + b'\r\n' + NO_BODY
        error = raised(ConnectionError, client().receive, data)
        assert error == 'Connection error: 500 ' + 'a' * 300


@pytest.mark.parametrize(
    ('option', 'error', 'words'),
    [
        (5, TypeError, 'subprotocols must be a str or a list of them, not int'),
        ([5], TypeError, 'subprotocols must be strings, not int'),
        (['a b'], ValueError, "subprotocols: 'a b' is not a token"),
        (['a', 'a'], ValueError, "subprotocols: 'a' is there twice"),
    ],
)
def test_wrong_subprotocols_say_what_they_may_be(option, error, words):
    assert raised(error, parse_subprotocols, option) == words


@pytest.mark.parametrize(
    ('headers', 'words'),
    [
        (5, 'headers must be a mapping or a list of pairs, not int'),
        ([('A', 'b', 'c')], 'headers must be pairs of a name and a value'),
        ([('A', 5)], 'headers must be strings, not str: int'),
        ([(5, 'a')], 'headers must be strings, not int: str'),
    ],
)
def test_wrong_headers_say_what_they_may_be(headers, words):
    assert raised(TypeError, normalize_headers, headers) == words


@pytest.mark.parametrize(
    ('authority', 'words'),
    [
        ('a:0', 'port 0 is not from 1 to 65535'),
        ('a:65536', 'port 65536 is not from 1 to 65535'),
        ('a]', "'a]' is not a host with an optional port"),
        ('a!b', "'a!b' is not a host name"),
        ('a..b', "'a..b' is not a host name: "),
    ],
)
def test_what_is_no_authority_is_told_why(authority, words):
    with pytest.raises(ValueError, match='.') as caught:
        split_authority(authority)
    assert str(caught.value).startswith(words)
    assert words.endswith(': ') or str(caught.value) == words


@pytest.mark.parametrize(
    ('frames', 'code', 'words'),
    [
        ([Frame(TEXT, b'\xff')], 1007, 'invalid UTF-8'),
        (fragments(TEXT, b'\xff', b''), 1007, 'invalid UTF-8'),
        (fragments(TEXT, b'a', b'\xc3'), 1007, 'invalid UTF-8'),
        ([Frame(BINARY, deflated(bytes(101)), rsv=4)], 1009, 'the message inflates to too much'),
        ([Frame(BINARY, b'', rsv=4)], 1007, 'the compressed message has no data'),
        ([closing(1005)], 1002, 'invalid close code'),
        ([closing(1000), Frame(TEXT)], 1000, None),
        ([Frame(8, b'\x03\xe8\xff')], 1007, 'invalid UTF-8 in a close reason'),
    ],
)
def test_what_ends_a_connection_is_said_to_the_peer_and_reported(client, frames, code, words):
    end = End(client, deflate=PerMessageDeflate(), max_message_size=100).say(*frames)
    assert end.closed == (code, words)
    assert end.hear() == [(8, code.to_bytes(2, 'big') + (words or '').encode())]
