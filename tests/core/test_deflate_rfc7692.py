"""permessage-deflate against each demand of RFC 7692: the negotiation (sections
5 and 7.1) as tables, the data (sections 6 and 7.2) against zlib, in both roles."""

from __future__ import annotations

import dataclasses
import itertools
import random
import zlib

import pytest
from support.deflates import (
    ANSWERS,
    CLIENT_BITS,
    CLIENT_FRESH,
    OFFERS,
    PMD,
    SERVER_BITS,
    SERVER_FRESH,
    WIDE,
    Packer,
    Unpacker,
    agreed,
    by_hand,
    pmd,
    words,
)
from support.frames import (
    BINARY,
    CLOSE,
    CONTINUATION,
    PING,
    PONG,
    TEXT,
    Frame,
    closing,
    fragments,
    wire,
)
from support.lab import ROLES, End, deflated, ways

from simple_websocket.deflate import (
    Deflate,
    ExtensionSyntaxError,
    PerMessageDeflate,
    accept_offer,
    negotiate,
    offer,
)

# Negotiation (sections 5, 7.1)


@pytest.mark.parametrize('row', OFFERS, ids=lambda row: row.name)
def test_an_offer_gets_its_answer(row):
    if row.malformed:
        with pytest.raises(ExtensionSyntaxError):
            negotiate(row.options, row.values)
        return
    engine, answer = negotiate(row.options, row.values)
    assert answer == row.answer
    assert (engine and agreed(engine, client=False)) == row.agreed


@pytest.mark.parametrize('row', ANSWERS, ids=lambda row: row.name)
def test_an_answer_is_judged(row):
    if row.error is not None:
        with pytest.raises(row.error):
            accept_offer(row.options, row.values)
        return
    engine = accept_offer(row.options, row.values)
    assert (engine and agreed(engine, client=True)) == row.agreed


# Windows and takeover (7.1.1, 7.1.2, 7.2.1, 7.2.2)

FLAGS = [False, True]
#: Whatever its length, a message is compressed.
ALWAYS = dataclasses.replace(WIDE, threshold=0)
BITS = range(9, 16)
MESSAGES = [b'Hello', words(3000), b'', words(3000), words(50_000, 2), b'x', words(50_000, 2)]


def negotiated(client, bits, fresh):
    """An engine in a role, and its peer's packer and unpacker by zlib: the same
    window and takeover in both directions."""
    params = [f'{SERVER_BITS}={bits}', f'{CLIENT_BITS}={bits}']
    params += [SERVER_FRESH, CLIENT_FRESH] if fresh else []
    if client:
        engine = accept_offer(ALWAYS, [pmd('; '.join(params))])
    else:
        engine, _ = negotiate(ALWAYS, [pmd('; '.join(params))])
    return engine, Packer(bits, not fresh), Unpacker(bits, not fresh)


@pytest.mark.parametrize('fresh', FLAGS, ids=['takeover', 'no takeover'])
@pytest.mark.parametrize('bits', BITS)
def test_each_window_goes_both_ways_with_zlib_at_the_other_end(client, bits, fresh):
    engine, packer, unpacker = negotiated(client, bits, fresh)
    end = End(client, deflate=engine)
    for message in MESSAGES:
        end.say(Frame(BINARY, packer(message), rsv=4))
        end.protocol.send(BINARY, message)
    assert end.got == MESSAGES
    end.hear()
    assert [frame.rsv for frame in end.said] == [4] * len(MESSAGES)
    assert [unpacker(frame.payload) for frame in end.said] == MESSAGES


@pytest.mark.parametrize('bits', BITS)
def test_a_window_is_no_larger_than_was_agreed(bits):
    """What lies further back than the window is not referred to."""
    rng = random.Random(bits)
    one, other = rng.randbytes(200), rng.randbytes(1 << bits)
    for window in BITS:
        sent = PerMessageDeflate(compress_bits=window).compress(one + other + one)
        found = len(sent) < len(one + other) + 100
        assert found is (window > bits)


def test_without_takeover_a_message_refers_to_nothing_before_it(client):
    for fresh in FLAGS:
        engine, _, _ = negotiated(client, 15, fresh)
        first, second = engine.compress(words(3000)), engine.compress(words(3000))
        assert (first == second) is fresh
        assert len(second) < 100 or fresh


COMBINATIONS = list(itertools.product((9, 12, 15), (9, 12, 15), FLAGS, FLAGS))


@pytest.mark.parametrize(('server', 'other', 'server_fresh', 'client_fresh'), COMBINATIONS)
def test_each_direction_has_a_window_and_a_takeover_of_its_own(
    client, server, other, server_fresh, client_fresh
):
    options = Deflate(
        server_max_window_bits=server,
        client_max_window_bits=other,
        server_no_context_takeover=server_fresh,
        client_no_context_takeover=client_fresh,
        threshold=0,
    )
    there, answer = negotiate(options, [offer(options)])
    here = accept_offer(options, [answer])
    assert agreed(here, True) == agreed(there, False)
    assert agreed(here, True) == (server, other, not server_fresh, not client_fresh)
    engine, ours, theirs = (
        (here, (other, not client_fresh), (server, not server_fresh))
        if client
        else (there, (server, not server_fresh), (other, not client_fresh))
    )
    end = End(client, deflate=engine)
    packer, unpacker = Packer(*theirs), Unpacker(*ours)
    for message in MESSAGES:
        end.say(*fragments(BINARY, *thirds(packer(message)), compressed=True))
        end.protocol.send(BINARY, message)
    end.hear()
    assert end.got == MESSAGES
    assert [unpacker(frame.payload) for frame in end.said] == MESSAGES


def thirds(data):
    step = len(data) // 3
    return data[:step], data[step : 2 * step], data[2 * step :]


# A window of 8 bits


def test_a_peer_may_compress_with_8_bits(client):
    if client:
        engine = accept_offer(WIDE, [pmd(f'{SERVER_BITS}=8')])
    else:
        engine, answer = negotiate(WIDE, [pmd(f'{CLIENT_BITS}=8')])
        assert answer == pmd(f'{CLIENT_BITS}=8')
    literals = bytes(range(256))
    first, second = by_hand(literals, 20), by_hand(b'', 3)
    whole = (literals * 2)[: 256 + 200]
    behind = (whole * 2)[200:230]  # it begins 256 bytes before the end
    # zlib itself, with no more window than that, says that the data is right
    reader = zlib.decompressobj(-8)
    assert reader.decompress(first + b'\0\0\xff\xff') == whole
    assert reader.decompress(second + b'\0\0\xff\xff') == behind
    end = End(client, deflate=engine)
    end.say(Frame(BINARY, first, rsv=4), Frame(BINARY, second, rsv=4))
    assert end.got == [whole, behind]


def test_a_peer_that_promised_8_bits_and_uses_9_is_read(client):
    # What Node does: zlib's smallest window is the next one.
    engine = PerMessageDeflate(decompress_bits=8)
    packer = Packer(9, True)
    message = words(3000)
    end = End(client, deflate=engine)
    end.say(Frame(BINARY, packer(message), rsv=4), Frame(BINARY, packer(message), rsv=4))
    assert end.got == [message, message]


def test_nobody_is_promised_8_bits():
    assert negotiate(WIDE, [pmd(f'{SERVER_BITS}=8')]) == (None, None)
    assert negotiate(WIDE, [f'{pmd(f"{SERVER_BITS}=8")}, {PMD}'])[1] == PMD
    for name in (SERVER_BITS, CLIENT_BITS):
        with pytest.raises(ValueError, match=f'{name} must be from 9 to 15'):
            Deflate(**{name: 8})


# The frames (sections 6, 7.2.3)

#: The bytes that section 7.2.3 prints, as a server sends them.
EXAMPLES = {
    '7.2.3.1 a message': ['c1 07 f2 48 cd c9 c9 07 00'],
    '7.2.3.1 a message in two frames': ['41 03 f2 48 cd', '80 04 c9 c9 07 00'],
    '7.2.3.2 sharing the window': ['c1 07 f2 48 cd c9 c9 07 00', 'c1 05 f2 00 11 00 00'],
    '7.2.3.3 a block without compression': ['c1 0b 00 05 00 fa ff 48 65 6c 6c 6f 00'],
    '7.2.3.4 a block with BFINAL': ['c1 08 f3 48 cd c9 c9 07 00 00'],
    '7.2.3.5 two blocks': ['c1 0d f2 48 05 00 00 00 ff ff ca c9 c9 07 00'],
}


@pytest.mark.parametrize('example', EXAMPLES.values(), ids=EXAMPLES)
def test_the_examples_of_the_rfc_are_read_in_any_split(client, example):
    frames = []
    for text in example:
        first, _, *payload = bytes.fromhex(text)
        frames.append(
            Frame(first & 15, bytes(payload), bool(first & 0x80), first >> 4 & 7).raw(not client)
        )
    if not client:
        assert frames[0][1] & 0x80
    else:
        assert frames == [bytes.fromhex(text) for text in example]
    messages = sum(bytes.fromhex(text)[0] >= 0xC1 or text[0] == '4' for text in example)
    for pieces in ways(b''.join(frames)):
        end = End(client, deflate=PerMessageDeflate())
        for piece in pieces:
            end.feed(piece)
        assert end.got == ['Hello'] * messages


def test_an_empty_message_is_one_byte_0(client):  # 7.2.3.6
    end = End(client, deflate=PerMessageDeflate())
    end.say(Frame(TEXT, b'\0', rsv=4), Frame(BINARY, b'\0', rsv=4))
    for _ in range(2):
        end.protocol.send(BINARY, b'')
    assert end.got == ['', b'']
    assert end.hear() == [(BINARY, b'\0')] * 2


def test_messages_that_are_not_compressed_may_come_in_between(client):  # 6
    packer = Packer(15, True)
    message = words(2000)
    end = End(client, deflate=PerMessageDeflate())
    end.say(
        Frame(BINARY, packer(message), rsv=4),
        Frame(BINARY, message),
        Frame(TEXT, b'plain'),
        Frame(BINARY, packer(message), rsv=4),
    )
    assert end.got == [message, message, 'plain', message]


PING_1, PING_2, PONG_3 = Frame(PING, b'1'), Frame(PING, b'2'), Frame(PONG, b'3')
ANSWERED = [(PONG, b'1'), (PONG, b'2')]


@pytest.mark.parametrize('takeover', [True, False], ids=['takeover', 'no takeover'])
@pytest.mark.parametrize('text', ['€' * 40 + 'Hello', ''])
def test_control_frames_between_compressed_fragments_leave_all_intact(client, takeover, text):
    """A control frame is never compressed and has no part in the window (6.1)."""
    packer = Packer(15, takeover)
    frames = []
    for _ in range(2):
        data = packer(text.encode())
        first, second, third = fragments(TEXT, *thirds(data), compressed=True)
        frames += [PING_1, first, PONG_3, second, PING_2, third]
    for pieces in ways(wire(frames, not client)):
        end = End(client, deflate=PerMessageDeflate(decompress_takeover=takeover))
        for piece in pieces:
            end.feed(piece)
        assert end.got == [text, text]
        assert end.hear() == ANSWERED * 2


def test_a_ping_at_every_place_between_the_bytes_of_a_compressed_message(client):
    data = Packer(15, True)(b'Hello, Hello, Hello')
    for at in range(len(data) + 1):
        for other in range(at, len(data) + 1):
            first, second, third = fragments(
                TEXT, data[:at], data[at:other], data[other:], compressed=True
            )
            end = End(client, deflate=PerMessageDeflate())
            end.say(first, PING_1, second, PING_2, third)
            assert end.got == ['Hello, Hello, Hello']
            assert end.hear() == ANSWERED


def test_pings_and_messages_of_ours_between_the_fragments_of_the_peer(client):
    """The two directions share nothing."""
    packer, unpacker = Packer(15, True), Unpacker(15, True)
    end = End(client, deflate=PerMessageDeflate())
    message = words(2000)
    for _ in range(3):
        first, second, third = fragments(BINARY, *thirds(packer(message)), compressed=True)
        end.say(first)
        end.protocol.send(BINARY, message)
        end.say(PING_1, second)
        end.protocol.send(BINARY, message)
        end.say(PING_2, third)
    assert end.got == [message] * 3
    end.hear()
    assert [frame.payload for frame in end.said if frame.opcode == PONG] == [b'1', b'2'] * 3
    ours = [frame for frame in end.said if frame.opcode == BINARY]
    assert [unpacker(frame.payload) for frame in ours] == [message] * 6
    assert {frame.rsv for frame in end.said if frame.opcode == PONG} == {0}


def test_a_close_between_compressed_fragments_ends_the_connection(client):
    first, second, third = fragments(TEXT, *thirds(deflated(b'Hello')), compressed=True)
    end = End(client, deflate=PerMessageDeflate())
    end.say(first, second, closing(1001, 'bye'), third)
    assert end.got == []
    assert end.closed == (1001, 'bye')
    assert end.hear() == [(CLOSE, b'\x03\xe9')]


HELLO = deflated(b'Hello')
FAILURES = {
    '6.1 RSV1 on a Ping': ([Frame(PING, HELLO, rsv=4)], 1002),
    '6.1 RSV1 on a Pong': ([Frame(PONG, HELLO, rsv=4)], 1002),
    '6.1 RSV1 on a Close': ([Frame(CLOSE, b'\x03\xe8', rsv=4)], 1002),
    '6.1 RSV1 on the second fragment': (
        [Frame(TEXT, HELLO[:3], False, 4), Frame(CONTINUATION, HELLO[3:], rsv=4)],
        1002,
    ),
    '6.1 RSV1 on the second fragment of a plain message': (
        [Frame(TEXT, b'Hel', False), Frame(CONTINUATION, HELLO[3:], rsv=4)],
        1002,
    ),
    '6.1 RSV1 on a Ping between fragments': (
        [Frame(TEXT, HELLO[:3], False, 4), Frame(PING, rsv=4)],
        1002,
    ),
    '5.2 of RFC 6455: RSV2': ([Frame(TEXT, HELLO, rsv=6)], 1002),
    '5.2 of RFC 6455: RSV3': ([Frame(TEXT, HELLO, rsv=5)], 1002),
    '7.2.2 what is no DEFLATE data': ([Frame(TEXT, b'\xff' * 9, rsv=4)], 1007),
    '7.2.2 a window that is not there': ([Frame(TEXT, b'\xf2\0\x11\0\0', rsv=4)], 1007),
    '7.2.3.6 no bytes at all': ([Frame(TEXT, b'', rsv=4)], 1007),
    '8.1 of RFC 6455: no UTF-8 in it': ([Frame(TEXT, deflated(b'\xff'), rsv=4)], 1007),
}


@pytest.mark.parametrize(('frames', 'code'), FAILURES.values(), ids=FAILURES)
def test_what_is_against_the_rules_fails_in_any_split(client, frames, code):
    before = [Frame(TEXT, b'before')]
    for pieces in ways(wire([*before, *frames], not client)):
        end = End(client, deflate=PerMessageDeflate())
        for piece in pieces:
            end.feed(piece)
        assert end.got == ['before']
        assert end.close_said() == code


def test_rsv1_that_was_not_negotiated_is_a_violation(client):  # 5.2 of RFC 6455
    end = End(client).say(Frame(TEXT, HELLO, rsv=4))
    assert end.close_said() == 1002


def test_what_one_end_sends_the_other_reads():
    """Both roles are ours: every options pair over every split in two."""
    for bits, fresh in itertools.product((9, 15), FLAGS):
        options = Deflate(
            server_max_window_bits=bits,
            client_max_window_bits=bits,
            server_no_context_takeover=fresh,
            client_no_context_takeover=fresh,
            threshold=0,
        )
        there, answer = negotiate(options, [offer(options)])
        ends = {
            role: End(client, deflate=engine)
            for (role, client), engine in zip(
                ROLES.items(), (there, accept_offer(options, [answer])), strict=True
            )
        }
        for sender, receiver in (('server', 'client'), ('client', 'server')):
            for message in ('Hello', 'Hello', '€' * 50):
                ends[sender].protocol.send(TEXT, message.encode())
            data = b''.join(ends[sender].protocol.out)
            ends[sender].protocol.out.clear()
            for at in range(len(data)):
                ends[receiver].feed(data[at : at + 1])
            assert ends[receiver].got == ['Hello', 'Hello', '€' * 50]
