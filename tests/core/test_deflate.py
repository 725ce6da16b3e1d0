"""permessage-deflate (RFC 7692): the negotiation as tables, the engine against zlib."""

from __future__ import annotations

import random
import sys
import tracemalloc
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from simple_websocket.deflate import (
    Deflate,
    DeflateError,
    ExtensionSyntaxError,
    InflateError,
    InflateTooBig,
    NegotiationError,
    PerMessageDeflate,
    accept_offer,
    from_option,
    negotiate,
    offer,
    parse_extensions,
)

WIDE = Deflate(server_max_window_bits=15, client_max_window_bits=15)
BITS = range(9, 16)

# RFC 7692 section 7.2.3: one message, the same with BFINAL, two blocks, stored
HELLO = bytes.fromhex('f248cdc9c90700')
HELLO_AGAIN = bytes.fromhex('f200110000')
HELLO_FINAL = bytes.fromhex('f348cdc9c9070000')
HELLO_TWO_BLOCKS = bytes.fromhex('f248050000 00ffffcac9c90700')
HELLO_STORED = bytes.fromhex('000500faff48656c6c6f00')


def text(size, seed=1):
    """Compressible bytes that refer back to all of their past."""
    rng = random.Random(seed)
    words = [rng.randbytes(rng.randrange(2, 9)) for _ in range(200)]
    return b''.join(rng.choices(words, k=size // 2 + 1))[:size]


def zlib_message(payload, bits=15):
    packer = zlib.compressobj(6, zlib.DEFLATED, -bits)
    return (packer.compress(payload) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]


def inflate(engine, data, *cuts, limit=None):
    """Feed a message cut at some offsets; the limit is that of the message."""
    points = [0, *cuts, len(data)]
    pieces = [data[a:b] for a, b in zip(points, points[1:], strict=False)]
    out = b''
    for number, piece in enumerate(pieces, 1):
        left = None if limit is None else limit - len(out)
        out += engine.decompress(piece, number == len(pieces), left)
    return out


class TestOptions:
    @pytest.mark.parametrize('option', [None, False])
    def test_none_and_false_mean_no_compression(self, option):
        assert from_option(option) is None

    @pytest.mark.parametrize('option', [True, 'deflate', Deflate()])
    def test_true_and_deflate_mean_the_defaults(self, option):
        assert from_option(option) == Deflate()

    def test_an_instance_is_taken_as_it_is(self):
        options = Deflate(level=1)
        assert from_option(options) is options

    @pytest.mark.parametrize(
        ('option', 'error'),
        [
            ('gzip', ValueError),
            ('', ValueError),
            (1, TypeError),
            (0, TypeError),
            (b'deflate', TypeError),
            ({'level': 1}, TypeError),
        ],
    )
    def test_anything_else_is_refused_by_name(self, option, error):
        with pytest.raises(error, match='compression'):
            from_option(option)

    @pytest.mark.parametrize(
        ('name', 'value', 'error'),
        [
            ('level', 10, ValueError),
            ('level', -1, ValueError),
            ('level', '6', TypeError),
            ('level', True, TypeError),
            ('mem_level', 0, ValueError),
            ('mem_level', 10, ValueError),
            ('server_max_window_bits', 8, ValueError),
            ('server_max_window_bits', 16, ValueError),
            ('client_max_window_bits', 8, ValueError),
            ('client_max_window_bits', 16, ValueError),
            ('client_max_window_bits', None, TypeError),
            ('server_no_context_takeover', 1, TypeError),
            ('client_no_context_takeover', None, TypeError),
            ('threshold', -1, ValueError),
            ('threshold', 1.5, TypeError),
        ],
    )
    def test_a_wrong_value_is_refused_by_name(self, name, value, error):
        with pytest.raises(error, match=name):
            Deflate(**{name: value})

    def test_options_can_not_be_changed(self):
        with pytest.raises(AttributeError):
            Deflate().level = 1


class TestSyntax:
    @pytest.mark.parametrize(
        ('values', 'expected'),
        [
            ([], []),
            (['a'], [('a', [])]),
            ([''], []),
            ([' , ,'], []),
            (['', ' , a ,,', ''], [('a', [])]),
            (['a, b', 'c'], [('a', []), ('b', []), ('c', [])]),
            (['a,,b'], [('a', []), ('b', [])]),
            (['a;x'], [('a', [('x', None)])]),
            (['\ta ;\tx = 1 ; y="2" ,b'], [('a', [('x', '1'), ('y', '2')]), ('b', [])]),
            ([r'a; x="1\0"'], [('a', [('x', '10')])]),
            (['a; x; x=1'], [('a', [('x', None), ('x', '1')])]),
        ],
    )
    def test_the_grammar_of_the_rfc_is_accepted(self, values, expected):
        assert parse_extensions(values) == expected

    @pytest.mark.parametrize(
        'value',
        [
            ';',
            'a b',
            'a;',
            'a;;b',
            'a; =1',
            'a; x=',
            'a; x==1',
            'a; x=1 2',
            'a; x="',
            'a; x="1',
            'a; x=""',
            'a; x="1 2"',
            'a; x="1,2"',
            'a; x="1"2',
            r'a; x="1\"',
            'a/b',
            '"a"',
            'a\x00',
            'a\u00e9',
            'a; x=\u0661',
            'a\r\nb',
            'a, b; @',
        ],
    )
    @pytest.mark.parametrize('options', [Deflate(), None])
    def test_a_syntax_error_is_an_error_of_its_own(self, value, options):
        with pytest.raises(ExtensionSyntaxError):
            negotiate(options, ['permessage-deflate', value])
        with pytest.raises(ExtensionSyntaxError):
            accept_offer(options, [value])

    @given(st.text(alphabet='ab;,="\\ \t1é'))
    def test_no_header_raises_anything_else(self, value):
        try:
            parse_extensions([value])
        except ExtensionSyntaxError:
            pass

    def test_a_long_header_is_parsed_in_linear_time(self):
        assert len(parse_extensions([' \t' * 50_000 + 'a' + ';b' * 50_000])) == 1
        with pytest.raises(ExtensionSyntaxError):
            parse_extensions(['a;x="' + '\\a' * 50_000])


class TestServer:
    @pytest.mark.parametrize(
        ('options', 'header', 'answer'),
        [
            (WIDE, 'permessage-deflate', ''),
            (WIDE, 'permessage-deflate; client_max_window_bits', ''),
            (
                WIDE,
                'permessage-deflate; client_max_window_bits=9',
                'client_max_window_bits=9',
            ),
            (
                WIDE,
                'permessage-deflate; client_max_window_bits=8',
                'client_max_window_bits=8',
            ),
            (
                WIDE,
                'permessage-deflate; server_max_window_bits=9',
                'server_max_window_bits=9',
            ),
            (
                WIDE,
                'permessage-deflate; server_max_window_bits="15"',
                'server_max_window_bits=15',
            ),
            (
                WIDE,
                'permessage-deflate; server_no_context_takeover',
                'server_no_context_takeover',
            ),
            (
                WIDE,
                'permessage-deflate; client_no_context_takeover',
                'client_no_context_takeover',
            ),
            # What the client left open, the server may decide; but not the
            # client's window, unless the client said that it understands.
            (Deflate(), 'permessage-deflate', 'server_max_window_bits=12'),
            (
                Deflate(),
                'permessage-deflate; client_max_window_bits',
                'server_max_window_bits=12; client_max_window_bits=12',
            ),
            (
                Deflate(),
                'permessage-deflate; server_max_window_bits=10',
                'server_max_window_bits=10',
            ),
            (
                Deflate(
                    server_no_context_takeover=True, client_no_context_takeover=True
                ),
                'permessage-deflate',
                'server_no_context_takeover; client_no_context_takeover; '
                'server_max_window_bits=12',
            ),
        ],
    )
    def test_an_offer_gets_its_answer(self, options, header, answer):
        engine, value = negotiate(options, [header])
        assert engine is not None
        assert value == 'permessage-deflate' + (answer and '; ' + answer)
        # A strict client can live with it.
        assert ('server_no' in value) is not engine.compress_takeover
        assert ('client_no' in value) is not engine.decompress_takeover

    BAD = (
        'permessage-deflate; unknown',
        'permessage-deflate; unknown=1',
        'permessage-deflate; server_no_context_takeover; server_no_context_takeover',
        'permessage-deflate; client_max_window_bits; client_max_window_bits=10',
        'permessage-deflate; server_no_context_takeover=true',
        'permessage-deflate; client_no_context_takeover=1',
        'permessage-deflate; server_max_window_bits',
        'permessage-deflate; server_max_window_bits=7',
        'permessage-deflate; server_max_window_bits=8',
        'permessage-deflate; server_max_window_bits=16',
        'permessage-deflate; server_max_window_bits=0',
        'permessage-deflate; server_max_window_bits=010',
        'permessage-deflate; server_max_window_bits=+10',
        'permessage-deflate; server_max_window_bits=1e1',
        'permessage-deflate; server_max_window_bits=ten',
        'permessage-deflate; client_max_window_bits=7',
        'permessage-deflate; client_max_window_bits=16',
        'permessage-deflate; client_max_window_bits=09',
        'permessage-deflate; client_max_window_bits=99999999999999999999999',
        'permessage-deflate; client_max_window_bits=x',
        'permessage-bzip2',
        'Permessage-Deflate',
        'x-webkit-deflate-frame',
    )

    @pytest.mark.parametrize('header', BAD)
    def test_a_bad_offer_is_declined(self, header):
        assert negotiate(Deflate(), [header]) == (None, None)

    @pytest.mark.parametrize('header', BAD)
    @pytest.mark.parametrize('joined', [True, False])
    def test_the_offer_behind_a_bad_one_is_taken(self, header, joined):
        good = 'permessage-deflate; server_max_window_bits=11'
        values = [f'{header}, {good}'] if joined else [header, good]
        engine, value = negotiate(Deflate(), values)
        assert engine is not None
        assert value == good

    def test_the_first_good_offer_wins(self):
        engine, _ = negotiate(
            WIDE,
            ['permessage-deflate; server_max_window_bits=9, permessage-deflate'],
        )
        assert engine.compress_bits == 9

    def test_no_compression_declines_everything(self):
        assert negotiate(None, ['permessage-deflate']) == (None, None)

    def test_the_options_reach_the_engine(self):
        engine, _ = negotiate(Deflate(level=1, mem_level=2, threshold=3), [offer(WIDE)])
        assert (engine.level, engine.mem_level, engine.threshold) == (1, 2, 3)


class TestClient:
    @pytest.mark.parametrize(
        ('options', 'expected'),
        [
            (
                Deflate(),
                'permessage-deflate; server_max_window_bits=12; client_max_window_bits=12, '
                'permessage-deflate; client_max_window_bits=12',
            ),
            (
                Deflate(server_max_window_bits=9, server_no_context_takeover=True),
                'permessage-deflate; server_no_context_takeover; server_max_window_bits=9; '
                'client_max_window_bits=12, '
                'permessage-deflate; server_no_context_takeover; client_max_window_bits=12',
            ),
            (WIDE, 'permessage-deflate; client_max_window_bits'),
            (
                Deflate(
                    server_max_window_bits=15,
                    client_max_window_bits=9,
                    server_no_context_takeover=True,
                    client_no_context_takeover=True,
                ),
                'permessage-deflate; server_no_context_takeover; '
                'client_no_context_takeover; client_max_window_bits=9',
            ),
        ],
    )
    def test_the_offer_says_what_the_options_say(self, options, expected):
        assert offer(options) == expected

    @pytest.mark.parametrize('options', [None, Deflate()])
    def test_no_answer_means_no_compression(self, options):
        assert accept_offer(options, []) is None

    @pytest.mark.parametrize(
        ('options', 'answer', 'send', 'receive'),
        [
            (WIDE, '', 15, 15),
            (WIDE, '; server_max_window_bits=9', 15, 9),
            (WIDE, '; server_max_window_bits=8', 15, 8),
            (WIDE, '; client_max_window_bits="10"', 10, 15),
            (Deflate(), '; server_max_window_bits=12', 12, 12),
            (Deflate(), '; server_max_window_bits=9; client_max_window_bits=9', 9, 9),
            # Servers that know no such limit, or not this one.
            (Deflate(), '', 12, 15),
            (Deflate(), '; server_max_window_bits=13', 12, 13),
            # Our own window may be smaller than what the server allows.
            (
                Deflate(),
                '; server_max_window_bits=12; client_max_window_bits=15',
                12,
                12,
            ),
        ],
    )
    def test_a_good_answer_sets_the_windows(self, options, answer, send, receive):
        engine = accept_offer(options, ['permessage-deflate' + answer])
        assert (engine.compress_bits, engine.decompress_bits) == (send, receive)

    def test_a_server_may_forbid_takeover_unasked(self):
        engine = accept_offer(WIDE, ['permessage-deflate; server_no_context_takeover'])
        assert engine.compress_takeover
        assert not engine.decompress_takeover
        engine = accept_offer(WIDE, ['permessage-deflate; client_no_context_takeover'])
        assert not engine.compress_takeover
        assert engine.decompress_takeover

    @pytest.mark.parametrize(
        ('options', 'values'),
        [
            (None, ['permessage-deflate']),
            (WIDE, ['x-other']),
            (WIDE, ['permessage-deflate, x-other']),
            (WIDE, ['permessage-deflate, permessage-deflate']),
            (WIDE, ['permessage-deflate', 'permessage-deflate']),
            (WIDE, ['permessage-deflate; unknown']),
            (WIDE, ['permessage-deflate; server_no_context_takeover=1']),
            (
                WIDE,
                [
                    'permessage-deflate; '
                    'server_no_context_takeover; server_no_context_takeover'
                ],
            ),
            (WIDE, ['permessage-deflate; client_max_window_bits']),
            (WIDE, ['permessage-deflate; client_max_window_bits=8']),
            (WIDE, ['permessage-deflate; client_max_window_bits=16']),
            (WIDE, ['permessage-deflate; client_max_window_bits=010']),
            (WIDE, ['permessage-deflate; server_max_window_bits']),
            (WIDE, ['permessage-deflate; server_max_window_bits=7']),
            (
                Deflate(server_max_window_bits=15, server_no_context_takeover=True),
                ['permessage-deflate'],
            ),
        ],
    )
    def test_a_bad_answer_is_an_error(self, options, values):
        with pytest.raises(NegotiationError):
            accept_offer(options, values)


OPTIONS = [
    Deflate(
        server_max_window_bits=server,
        client_max_window_bits=client,
        server_no_context_takeover=server_fresh,
        client_no_context_takeover=client_fresh,
    )
    for server in BITS
    for client in BITS
    for server_fresh in (False, True)
    for client_fresh in (False, True)
]


class TestBothEnds:
    def test_each_combination_of_options_agrees_and_carries_messages(self):
        messages = [text(3000), b'', text(3000), b'x', bytes(70_000), text(40_000, 2)]
        for wanted in OPTIONS:
            for supported in (wanted, Deflate(), WIDE):
                server, value = negotiate(supported, [offer(wanted)])
                client = accept_offer(wanted, [value])
                assert client.compress_takeover is server.decompress_takeover
                assert server.compress_takeover is client.decompress_takeover
                assert client.compress_bits <= server.decompress_bits
                assert server.compress_bits <= client.decompress_bits
        for wanted in OPTIONS[::5]:
            server, value = negotiate(wanted, [offer(wanted)])
            client = accept_offer(wanted, [value])
            for message in messages:
                assert client.decompress(server.compress(message), True) == message
                assert server.decompress(client.compress(message), True) == message

    @pytest.mark.parametrize('bits', BITS)
    @pytest.mark.parametrize('takeover', [True, False])
    def test_what_is_sent_zlib_reads(self, bits, takeover):
        engine = PerMessageDeflate(compress_bits=bits, compress_takeover=takeover)
        reader = zlib.decompressobj(-bits)
        for size in (1, 100, 5000, 100_000):
            if not takeover:
                reader = zlib.decompressobj(-bits)
            message = text(size)
            sent = engine.compress(message)
            assert reader.decompress(sent + b'\x00\x00\xff\xff') == message

    @pytest.mark.parametrize('bits', BITS)
    @pytest.mark.parametrize('takeover', [True, False])
    def test_what_zlib_sends_is_read(self, bits, takeover):
        engine = PerMessageDeflate(decompress_bits=bits, decompress_takeover=takeover)
        packer = zlib.compressobj(9, zlib.DEFLATED, -bits)
        for size in (1, 100, 5000, 100_000):
            if not takeover:
                packer = zlib.compressobj(9, zlib.DEFLATED, -bits)
            message = text(size)
            sent = (packer.compress(message) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]
            assert engine.decompress(sent, True) == message

    def test_a_sender_who_says_8_bits_and_means_9_is_read(self):
        engine = PerMessageDeflate(decompress_bits=8)
        message = text(5000)
        assert engine.decompress(zlib_message(message, 9), True) == message

    @given(st.lists(st.binary(max_size=300), max_size=8), st.booleans())
    def test_any_messages_come_back(self, messages, takeover):
        sender = PerMessageDeflate(compress_bits=9, compress_takeover=takeover)
        receiver = PerMessageDeflate(decompress_bits=9, decompress_takeover=takeover)
        for message in messages:
            sent = sender.compress(message)
            assert receiver.decompress(sent, True, len(message)) == message


class TestCompress:
    def test_an_empty_message_is_one_zero_byte_every_time(self):
        engine = PerMessageDeflate()
        assert [engine.compress(b'') for _ in range(3)] == [b'\x00'] * 3

    def test_the_rfc_example_is_reproduced(self):
        engine = PerMessageDeflate()
        assert engine.compress(b'Hello') == HELLO
        assert engine.compress(b'Hello') == HELLO_AGAIN

    def test_without_takeover_each_message_stands_alone(self):
        engine = PerMessageDeflate(compress_takeover=False)
        assert engine.compress(b'Hello') == engine.compress(b'Hello') == HELLO

    @pytest.mark.parametrize('kind', [bytes, bytearray, memoryview])
    def test_every_kind_of_bytes_is_taken(self, kind):
        sent = PerMessageDeflate().compress(kind(b'Hello'))
        assert PerMessageDeflate().decompress(kind(sent), True) == b'Hello'

    def test_what_does_not_compress_is_intact(self):
        message = random.Random(1).randbytes(1 << 20)
        sent = PerMessageDeflate().compress(message)
        assert PerMessageDeflate().decompress(sent, True) == message


class TestDecompress:
    @pytest.mark.parametrize(
        'data', [HELLO, HELLO_FINAL, HELLO_TWO_BLOCKS, HELLO_STORED, HELLO_FINAL[:-1]]
    )
    def test_the_rfc_examples_are_read(self, data):
        engine = PerMessageDeflate()
        for _ in range(3):
            assert engine.decompress(data, True) == b'Hello'

    def test_every_split_of_a_message_gives_the_same(self):
        message = text(700)
        data = zlib_message(message)
        for cut in range(len(data) + 1):
            assert inflate(PerMessageDeflate(), data, cut, limit=700) == message
        for data in (HELLO, HELLO_FINAL, HELLO_TWO_BLOCKS, HELLO_STORED):
            for first in range(len(data) + 1):
                for second in range(first, len(data) + 1):
                    out = inflate(PerMessageDeflate(), data, first, second, limit=5)
                    assert out == b'Hello'

    def test_one_byte_at_a_time_and_empty_fragments_give_the_same(self):
        engine = PerMessageDeflate()
        for _ in range(2):
            out = engine.decompress(b'', False)
            for byte in HELLO:
                out += engine.decompress(bytes([byte]), False)
                out += engine.decompress(b'', False)
            assert out + engine.decompress(b'', True) == b'Hello'

    def test_a_stream_may_end_and_the_next_message_refers_back(self):
        engine = PerMessageDeflate()
        assert engine.decompress(HELLO_FINAL, True) == b'Hello'
        # It consists of a reference into the message before.
        assert engine.decompress(HELLO_AGAIN, True) == b'Hello'
        assert engine.decompress(HELLO_FINAL, True) == b'Hello'
        assert engine.decompress(HELLO_AGAIN, True) == b'Hello'

    def test_the_window_is_the_same_whatever_the_split(self):
        for cut in range(len(HELLO_FINAL) + 1):
            engine = PerMessageDeflate()
            assert inflate(engine, HELLO_FINAL, cut, limit=5) == b'Hello'
            assert engine.decompress(HELLO_AGAIN, True) == b'Hello'
            assert inflate(engine, HELLO_FINAL[:-1] + HELLO_AGAIN, cut) == b'HelloHello'

    def test_the_window_reaches_over_several_ended_streams(self):
        message = text(20_000)
        engine = PerMessageDeflate()
        assert engine.decompress(HELLO_FINAL, True) == b'Hello'
        packer = zlib.compressobj(9, zlib.DEFLATED, -15, zdict=b'Hello')
        for _ in range(2):
            sent = (packer.compress(message) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]
            assert engine.decompress(sent, True) == message
        ended = packer.compress(message) + packer.flush() + b'\x00'
        assert engine.decompress(ended, True) == message
        packer = zlib.compressobj(9, zlib.DEFLATED, -15, zdict=(message * 2)[-32768:])
        sent = (packer.compress(message) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]
        assert len(sent) < 200
        assert engine.decompress(sent, True) == message

    def test_the_window_survives_a_long_message_in_small_chunks(self):
        message = text(200_000)
        engine = PerMessageDeflate()
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        ended = packer.compress(message) + packer.flush() + b'\x00'
        assert inflate(engine, ended, *range(1, len(ended), 50)) == message
        packer = zlib.compressobj(9, zlib.DEFLATED, -15, zdict=message[-32768:])
        sent = packer.compress(message[-30_000:]) + packer.flush(zlib.Z_SYNC_FLUSH)
        assert len(sent) < 400
        assert engine.decompress(sent[:-4], True) == message[-30_000:]

    def test_several_streams_in_one_message_are_read(self):
        final = HELLO_FINAL[:-1]
        engine = PerMessageDeflate()
        assert engine.decompress(final * 3 + HELLO, True) == b'Hello' * 4
        assert inflate(engine, final * 3 + b'\x00', 7, 14, limit=15) == b'Hello' * 3
        assert engine.decompress(HELLO, True) == b'Hello'

    def test_a_flood_of_ended_streams_is_refused(self):
        with pytest.raises(InflateError):
            PerMessageDeflate().decompress(b'\x03\x00' * 100_000, False)

    def test_the_streams_of_other_messages_do_not_count(self):
        engine = PerMessageDeflate()
        for _ in range(3000):
            assert engine.decompress(HELLO_FINAL, True) == b'Hello'

    def test_without_takeover_nothing_refers_back(self):
        for first in (HELLO, HELLO_FINAL):
            engine = PerMessageDeflate(decompress_takeover=False)
            assert engine.decompress(first, True) == b'Hello'
            with pytest.raises(InflateError):
                engine.decompress(HELLO_AGAIN, True)

    @pytest.mark.parametrize(
        'data',
        [
            b'\xff' * 16,
            b'\x07',  # the reserved block type
            b'\x00\x05\x00\x05\x00Hello',  # a stored block whose lengths disagree
            HELLO_AGAIN,  # refers to what isn't there
            b'{"json": "sent as it is"}',
        ],
    )
    def test_corrupt_data_is_an_error_1007(self, data):
        with pytest.raises(InflateError) as caught:
            PerMessageDeflate().decompress(data, True)
        assert caught.value.code == 1007

    @pytest.mark.parametrize(
        'data', [HELLO, HELLO_TWO_BLOCKS, HELLO_STORED, zlib_message(b'ab' * 9)]
    )
    def test_a_cut_message_is_an_error_1007(self, data):
        whole = zlib.decompressobj(-15).decompress(data)
        for length in range(len(data)):
            try:
                out = PerMessageDeflate().decompress(data[:length], True)
            except InflateError:
                continue
            # Cut between two blocks: nothing that could be noticed.
            assert whole.startswith(out)
            assert data[:length].endswith(b'\x00')

    def test_a_message_cut_in_a_code_table_is_noticed_at_the_next(self):
        message = text(5000)
        data = zlib_message(message)
        for length in range(1, len(data)):
            engine = PerMessageDeflate()
            with pytest.raises(InflateError):
                engine.decompress(data[:length], True)
                engine.decompress(data, True)

    def test_a_compressed_message_of_no_bytes_is_an_error_1007(self):
        for before in ((), (HELLO,), (HELLO_FINAL,)):
            engine = PerMessageDeflate()
            for data in before:
                engine.decompress(data, True)
            with pytest.raises(InflateError):
                engine.decompress(b'', True)

    @given(st.lists(st.binary(max_size=60), min_size=1, max_size=4))
    def test_no_bytes_raise_anything_else(self, chunks):
        engine = PerMessageDeflate()
        try:
            for number, chunk in enumerate(chunks):
                assert len(engine.decompress(chunk, number % 2 == 1, 100)) <= 100
        except (InflateError, InflateTooBig) as error:
            assert error.code in (1007, 1009)

    def test_the_exceptions_have_one_base_and_a_close_code(self):
        codes = {InflateError: 1007, InflateTooBig: 1009, NegotiationError: 1002}
        for kind, code in codes.items():
            assert issubclass(kind, DeflateError)
            assert kind.code == code


BOMB = zlib_message(bytes(64 << 20))  # 64 MiB in 64 KiB
MiB = 1 << 20


class TestLimit:
    @pytest.mark.parametrize('size', [0, 1, 257, 258, 259, 1000, 300_000])
    def test_exactly_the_limit_is_let_through(self, size):
        data = zlib_message(bytes(size)) if size else b'\x00'
        assert PerMessageDeflate().decompress(data, True, size) == bytes(size)

    @pytest.mark.parametrize('size', [1, 2, 258, 259, 1000, 300_000])
    def test_one_byte_more_is_an_error_1009(self, size):
        with pytest.raises(InflateTooBig) as caught:
            PerMessageDeflate().decompress(zlib_message(bytes(size)), True, size - 1)
        assert caught.value.code == 1009

    def test_a_spent_limit_lets_nothing_through(self):
        engine = PerMessageDeflate()
        assert engine.decompress(HELLO, False, 5) == b'Hello'
        assert engine.decompress(b'', True, 0) == b''
        for limit in (0, -1):
            with pytest.raises(InflateTooBig):
                PerMessageDeflate().decompress(HELLO, True, limit)

    def test_the_limit_holds_at_every_split(self):
        message = text(700)
        data = zlib_message(message)
        for cut in range(len(data) + 1):
            with pytest.raises(InflateTooBig):
                inflate(PerMessageDeflate(), data, cut, limit=699)

    @pytest.mark.parametrize('limit', [1000, MiB, 8 * MiB])
    def test_a_bomb_takes_no_more_memory_than_the_limit(self, limit):
        assert peak(lambda: self.explode(BOMB, limit)) < limit * 1.2 + MiB

    def test_a_fragmented_bomb_takes_no_more_memory_than_the_limit(self):
        def explode():
            engine = PerMessageDeflate()
            made = 0
            with pytest.raises(InflateTooBig):
                for start in range(0, len(BOMB), 100):
                    chunk = BOMB[start : start + 100]
                    made += len(engine.decompress(chunk, False, MiB - made))
            assert made <= MiB

        assert peak(explode) < 2 * MiB

    def test_a_bomb_that_refers_to_an_earlier_message_is_bounded(self):
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        small = (packer.compress(bytes(1000)) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]
        bomb = (packer.compress(bytes(64 * MiB)) + packer.flush(zlib.Z_SYNC_FLUSH))[:-4]
        engine = PerMessageDeflate()
        assert engine.decompress(small, True, MiB) == bytes(1000)
        assert peak(lambda: self.explode(bomb, MiB, engine)) < 3 * MiB

    def test_a_bomb_of_ended_streams_is_bounded(self):
        packer = zlib.compressobj(9, zlib.DEFLATED, -15)
        stream = packer.compress(bytes(MiB)) + packer.flush()
        assert peak(lambda: self.explode(stream * 40, 4 * MiB)) < 6 * MiB

    def test_a_message_is_not_copied_while_it_grows(self):
        def inflate_it():
            assert len(PerMessageDeflate().decompress(BOMB, True)) == 64 * MiB

        assert peak(inflate_it) < 64 * MiB * 1.25

    def test_output_of_which_zlib_took_all_input_is_not_lost(self):
        # Few bytes in, many steps of output: at the last ones nothing is left
        # to feed, and zlib still owes.
        size = 5 * (1 << 18)
        for extra in range(-300, 300, 7):
            data = zlib_message(bytes(size + extra))
            assert len(PerMessageDeflate().decompress(data, True)) == size + extra

    @staticmethod
    def explode(bomb, limit, engine=None):
        engine = engine or PerMessageDeflate()
        with pytest.raises(InflateTooBig):
            engine.decompress(bomb, True, limit)


def peak(action):
    """Return the bytes that an action had allocated at its worst."""
    tracemalloc.start()
    try:
        action()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def holds_nothing(engine):
    return all(isinstance(v, int) or v in (None, b'') for v in vars(engine).values())


class TestMemory:
    def test_contexts_are_made_at_the_first_compressed_message(self, monkeypatch):
        made = []
        for name in ('compressobj', 'decompressobj'):
            make = getattr(zlib, name)
            monkeypatch.setattr(
                zlib, name, lambda *a, n=name, m=make, **k: made.append(n) or m(*a, **k)
            )
        client = accept_offer(WIDE, ['permessage-deflate'])
        server, _ = negotiate(WIDE, [offer(WIDE)])
        assert made == []
        sent = client.compress(b'Hello')
        assert made == ['compressobj']
        server.decompress(sent, True)
        assert made == ['compressobj', 'decompressobj']
        server.decompress(client.compress(b'Hello'), True)
        assert len(made) == 2

    def test_without_takeover_nothing_is_kept_between_messages(self):
        engine = PerMessageDeflate(compress_takeover=False, decompress_takeover=False)
        for data in (HELLO, HELLO_FINAL):
            engine.compress(bytes(100_000))
            engine.decompress(data, False)
            engine.decompress(b'', True)
            assert holds_nothing(engine)

    def test_a_failed_message_leaves_no_context(self):
        engine = PerMessageDeflate()
        for data in (b'\xff' * 9, BOMB):
            with pytest.raises(DeflateError):
                engine.decompress(data, True, 10)
            assert holds_nothing(engine)

    def test_no_window_is_copied_for_peers_that_end_no_stream(self):
        engine = PerMessageDeflate()
        inflate(engine, zlib_message(text(50_000)), 100, 200)
        held = [v for v in vars(engine).values() if isinstance(v, (bytes, bytearray))]
        assert not any(held)

    def test_an_engine_that_did_nothing_is_small(self):
        engine = PerMessageDeflate()
        assert sys.getsizeof(engine) + sys.getsizeof(vars(engine)) < 1024
