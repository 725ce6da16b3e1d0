"""Messages (RFC 6455 sections 5.4 to 5.6, 8.1; RFC 7692): what arrives in any
split is what was sent, and what is wrong fails the connection as soon as it is
certain, with the right code."""

from __future__ import annotations

import gc
import random
import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st
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
    parse,
    wire,
)
from support.lab import ROLES, End, deflated, quick, ways

from simple_websocket import ConnectionClosed
from simple_websocket.deflate import PerMessageDeflate
from simple_websocket.protocol import DONE, ENDED, OPEN


def outcome(client, pieces, **options):
    """What comes of a stream: messages, answers, and the close code if any."""
    if 'deflate' in options:
        options['deflate'] = PerMessageDeflate()
    end = End(client, **options)
    for piece in pieces:
        end.feed(piece)
    said = end.hear()
    return end.got, said, end.protocol.close_code if end.protocol.state >= ENDED else None


def check(client, frames, messages, said=(), **options):
    """The frames give the messages and the answers, in any split."""
    for pieces in ways(wire(frames, not client)):
        assert outcome(client, pieces, **options) == (messages, list(said), None)


def check_failure(client, frames, code, messages=(), **options):
    """_Fail the WebSocket Connection_ (section 7.1.7), in any split, and also
    where the peer goes on: Close, read no further, close TCP."""
    data = wire(frames, not client)
    more = wire([Frame(TEXT, b'more'), Frame(PING, b'more'), closing(1000)], not client)
    for pieces in [*ways(data), [data + more], [data, more]]:
        if options.get('deflate'):
            options['deflate'] = PerMessageDeflate()
        end = End(client, **options)
        for piece in pieces:
            end.feed(piece)
        assert end.got == list(messages)
        assert end.close_said() == code
        assert end.protocol.close_code == code
        assert end.protocol.state == ENDED
        assert end.protocol.half_close
        with pytest.raises(ConnectionClosed) as closed:
            end.protocol.send(TEXT, b'')
        assert closed.value.reason == code
    assert end.at(4.9).protocol.state == ENDED
    assert end.at(5).protocol.state == DONE


# Messages


MESSAGES = {
    'a text': ([Frame(TEXT, b'Hello')], ['Hello']),
    'a binary': ([Frame(BINARY, b'Hello')], [b'Hello']),
    'an empty text': ([Frame(TEXT)], ['']),
    'an empty binary': ([Frame(BINARY)], [b'']),
    'text of every length in UTF-8': ([Frame(TEXT, 'aé€😀'.encode())], ['aé€😀']),
    'two messages': ([Frame(TEXT, b'a'), Frame(BINARY, b'b')], ['a', b'b']),
    'fragments': (fragments(TEXT, b'Hel', b'l', b'o'), ['Hello']),
    'empty fragments': (fragments(BINARY, b'', b'', b''), [b'']),
    'an empty fragment first': (fragments(TEXT, b'', b'Hello'), ['Hello']),
    'an empty fragment last': (fragments(TEXT, b'Hello', b''), ['Hello']),
    'a character over fragments': (
        fragments(TEXT, *[b'%c' % byte for byte in '€😀'.encode()]),
        ['€😀'],
    ),
    'a binary that is no UTF-8': (fragments(BINARY, b'\xff', b'\xc3'), [b'\xff\xc3']),
    'a text behind a fragmented binary': (
        [*fragments(BINARY, b'\xff', b'\xff'), Frame(TEXT, b'a')],
        [b'\xff\xff', 'a'],
    ),
    'a NUL and a BOM': ([Frame(TEXT, '\ufeff\0'.encode())], ['\ufeff\0']),
    'the last code point': ([Frame(TEXT, '\U0010ffff\uffff'.encode())], ['\U0010ffff\uffff']),
    'a frame with an extended length': ([Frame(BINARY, bytes(300))], [bytes(300)]),
    'a frame with a long length': ([Frame(BINARY, bytes(65536))], [bytes(65536)]),
}


@pytest.mark.parametrize(('frames', 'messages'), MESSAGES.values(), ids=MESSAGES)
def test_messages_are_received_in_any_split(client, frames, messages):
    check(client, frames, messages)
    check(client, [*frames, *frames], messages * 2)


def test_control_frames_between_fragments_leave_the_message_intact(client):
    first, second, third = fragments(TEXT, b'\xe2', b'\x82', b'\xac')
    check(
        client,
        [first, Frame(PING, b'1'), Frame(PONG, b'x'), second, Frame(PING, b'2'), third],
        ['€'],
        [(PONG, b'1'), (PONG, b'2')],
    )


def test_a_ping_is_answered_with_its_payload(client):
    for payload in (b'', b'\xff', bytes(range(125))):
        check(client, [Frame(PING, payload)], [], [(PONG, payload)])


def test_a_pong_that_nobody_asked_for_is_ignored(client):
    check(client, [Frame(PONG, b'hello'), Frame(PONG), Frame(TEXT, b'a')], ['a'])


def test_bytes_like_input_of_any_kind_is_taken(client):
    data = wire([Frame(TEXT, b'Hello')], not client)
    for kind in (bytes, bytearray, memoryview):
        assert outcome(client, [kind(data)])[0] == ['Hello']


def test_a_received_binary_is_bytes_and_a_text_is_str(client):
    frames = [*fragments(BINARY, b'a', b'b'), Frame(BINARY, b'c'), Frame(TEXT, b'd')]
    got = outcome(client, [wire(frames, not client)])[0]
    assert [type(message) for message in got] == [bytes, bytes, str]


@pytest.mark.parametrize('kind', [bytes, bytearray, memoryview])
@pytest.mark.parametrize('size', [0, 1, 125, 126, 65535, 65536, 100_000])
def test_a_message_leaves_as_one_frame_masked_by_the_client_only(client, kind, size):
    end = End(client)
    payload = random.Random(size).randbytes(size)
    end.protocol.send(BINARY, kind(payload))
    assert end.hear() == [(BINARY, payload)]
    assert end.said == [Frame(BINARY, payload)]


# Violations (B1)


VIOLATIONS = {
    'a reserved opcode': [Frame(3)],
    'a reserved control opcode': [Frame(0xB)],
    'RSV1 that was not negotiated': [Frame(TEXT, b'a', rsv=4)],
    'RSV1 on a continuation': [Frame(TEXT, b'a', False), Frame(CONTINUATION, b'a', rsv=4)],
    'RSV2': [Frame(TEXT, b'a', rsv=2)],
    'RSV3': [Frame(PING, b'a', rsv=1)],
    'a wrong mask': [Frame(TEXT, b'a', flip_mask=True)],
    'a wrong mask on a Close': [Frame(CLOSE, b'\x03\xe8', flip_mask=True)],
    'a fragmented ping': [Frame(PING, fin=False)],
    'a ping of 126 bytes': [Frame(PING, bytes(126))],
    'a Close of 126 bytes': [Frame(CLOSE, b'\x03\xe8' + bytes(124))],
    'a continuation without a start': [Frame(CONTINUATION, b'a')],
    'a text inside a message': [Frame(TEXT, b'a', False), Frame(TEXT, b'b')],
    'a length of 2 ** 63': [Frame(BINARY, length=1 << 63, form=64)],
    'a length in too many bytes': [Frame(BINARY, b'a', form=16)],
    'a Close of one byte': [Frame(CLOSE, b'\x03')],
    'a Close with a code that must not be sent': [closing(1005)],
}


@pytest.mark.parametrize('frames', VIOLATIONS.values(), ids=VIOLATIONS)
def test_a_violation_fails_with_1002(client, frames):
    check_failure(client, frames, 1002)


@pytest.mark.parametrize('frames', VIOLATIONS.values(), ids=VIOLATIONS)
def test_messages_before_a_violation_are_received(client, frames):
    before = [Frame(TEXT, b'a'), *fragments(BINARY, b'b', b'c')]
    check_failure(client, [*before, *frames], 1002, ['a', b'bc'])


# UTF-8 (B9; section 8.1; Autobahn 6.2 to 6.23)


GOOD = 'κόσμε'.encode()
INVALID = {
    'a continuation byte alone': b'\x80',
    'FE': b'\xfe',
    'overlong two bytes': b'\xc0\xaf',
    'overlong three bytes': b'\xe0\x80\xaf',
    'overlong four bytes': b'\xf0\x80\x80\xaf',
    'a surrogate': b'\xed\xa0\x80',
    'a pair of surrogates': b'\xed\xa0\x80\xed\xb0\x80',
    'above U+10FFFF': b'\xf4\x90\x80\x80',
    'five bytes': b'\xf8\x88\x80\x80\x80',
    'six bytes': b'\xfc\x84\x80\x80\x80\x80',
    'a character cut by another': b'\xe2\x82a',
}


@pytest.mark.parametrize('bad', INVALID.values(), ids=INVALID)
def test_invalid_utf8_fails_with_1007(client, bad):
    check_failure(client, [Frame(TEXT, GOOD + bad)], 1007)
    check_failure(client, fragments(TEXT, GOOD, bad, b'edited'), 1007)
    for at in range(1, len(bad)):
        check_failure(client, fragments(TEXT, bad[:at], b'', bad[at:]), 1007)


@pytest.mark.parametrize('cut', ['é'.encode()[:1], '€'.encode()[:2], '😀'.encode()[:3]])
def test_a_character_cut_by_the_end_of_the_message_fails_with_1007(client, cut):
    check_failure(client, [Frame(TEXT, GOOD + cut)], 1007)
    check_failure(client, fragments(TEXT, GOOD + cut, b''), 1007)
    check_failure(client, fragments(TEXT, GOOD, cut), 1007)


def certain(data):
    """Whether no continuation makes the bytes valid UTF-8; by RFC 3629 section 4."""
    at = 0
    while at < len(data):
        lead = data[at]
        if lead < 0x80:
            at += 1
            continue
        if 0xC2 <= lead <= 0xDF:
            rest = [(0x80, 0xBF)]
        elif 0xE0 <= lead <= 0xEF:
            second = {0xE0: (0xA0, 0xBF), 0xED: (0x80, 0x9F)}.get(lead, (0x80, 0xBF))
            rest = [second, (0x80, 0xBF)]
        elif 0xF0 <= lead <= 0xF4:
            second = {0xF0: (0x90, 0xBF), 0xF4: (0x80, 0x8F)}.get(lead, (0x80, 0xBF))
            rest = [second, (0x80, 0xBF), (0x80, 0xBF)]
        else:
            return True
        for (low, high), byte in zip(rest, data[at + 1 :], strict=False):
            if not low <= byte <= high:
                return True
        at += 1 + len(rest)
    return False


@pytest.mark.parametrize('bad', INVALID.values(), ids=INVALID)
@pytest.mark.parametrize('compressed', [False, True], ids=['plain', 'compressed'])
def test_invalid_utf8_fails_in_the_middle_of_a_frame_as_soon_as_it_is_certain(
    client, bad, compressed
):
    # Autobahn 6.4: the frame is not complete, and never will be.
    text = GOOD + bad + b'edited'
    body = deflated(text) if compressed else text
    data = Frame(TEXT, body, rsv=4 if compressed else 0, length=len(body) + 40).raw(not client)
    end = End(client, deflate=PerMessageDeflate() if compressed else None)
    head = len(data) - len(body)
    end.feed(data[:head])
    for at in range(head, len(data)):
        assert end.protocol.state == OPEN
        end.feed(data[at : at + 1])
        if certain(text[: at + 1 - head]) if not compressed else end.protocol.state > OPEN:
            break
    assert end.protocol.state == ENDED
    assert end.close_said() == 1007


@pytest.mark.parametrize('bad', INVALID.values(), ids=INVALID)
def test_invalid_utf8_fails_as_soon_as_it_is_certain_in_small_fragments(client, bad):
    # Autobahn 6.3 and 6.4: before the message has ended.
    text = GOOD + bad
    end = End(client)
    for at in range(len(text)):
        assert end.protocol.state == OPEN
        end.say(Frame(CONTINUATION if at else TEXT, text[at : at + 1], False))
        if certain(text[: at + 1]):
            break
    assert end.close_said() == 1007


def test_every_lead_byte_with_every_second_byte_is_judged_as_soon_as_it_is_certain():
    wrong = []
    for lead in range(0xC0, 0x100):
        for second in range(0x100):
            text = bytes((lead, second))
            end = End()
            end.say(Frame(TEXT, text, False))
            if (end.protocol.state > OPEN) is not certain(text):
                wrong.append(text.hex())
    assert not wrong


# Limits (B2, B5, B7, A11)


def test_a_declared_length_over_the_limit_fails_before_the_payload(client):
    head = Frame(BINARY, length=11).raw(not client)
    check_failure(client, [head], 1009, max_message_size=10)
    check(client, [Frame(BINARY, bytes(10))] * 3, [bytes(10)] * 3, max_message_size=10)


def test_a_declared_length_over_the_limit_fails_in_a_later_fragment_too(client):
    first, second, _ = fragments(BINARY, bytes(5), bytes(5), b'')
    last = Frame(CONTINUATION, length=1).raw(not client)
    check_failure(client, [first, Frame(PING), second, last], 1009, max_message_size=10)


def test_the_limit_counts_bytes_of_text_and_not_characters(client):
    check(client, [Frame(TEXT, '€€€'.encode())], ['€€€'], max_message_size=9)
    check_failure(client, [Frame(TEXT, '€€€'.encode())], 1009, max_message_size=8)


def test_messages_before_one_that_is_too_big_are_received(client):
    check_failure(
        client, [Frame(TEXT, b'a'), Frame(BINARY, bytes(11))], 1009, ['a'], max_message_size=10
    )


@pytest.mark.parametrize('payload', [b'', b'x'])
def test_a_fragment_too_many_fails_with_1009(client, payload):
    check(client, fragments(BINARY, *[payload] * 20), [payload * 20], max_fragments=20)
    check_failure(client, fragments(BINARY, *[payload] * 21), 1009, max_fragments=20)


def test_a_fin_that_never_comes_costs_no_more_than_the_limit(client):
    end = End(client, max_message_size=1000, max_fragments=None)
    end.say(Frame(BINARY, b'x', False))
    chunk = wire([Frame(CONTINUATION, b'', False)] * 1000, not client)
    end.feed(chunk)
    tracemalloc.start()
    for _ in range(20):
        end.feed(chunk)
    grown, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert grown < 4096
    assert end.protocol.state == OPEN


def cost(feed, count):
    gc.disable()  # it walks through everything that earlier tests have left
    try:
        started = time.process_time()
        feed(count)
        return time.process_time() - started
    finally:
        gc.enable()


def linear(feed, small, large):
    """Twenty times the work at most, for eight times the input."""
    assert large == 8 * small
    few = min(cost(feed, small) for _ in range(3))
    return min(cost(feed, large) for _ in range(2)) < 20 * few


@pytest.mark.parametrize('opcode', [TEXT, BINARY])
def test_a_message_in_one_byte_reads_takes_linear_time(opcode):
    def feed(count):
        end = End(max_queue=10)
        for byte in Frame(opcode, bytes(count)).raw(True):
            end.protocol.feed(b'%c' % byte)
        assert len(end.drain()[0]) == count

    assert linear(feed, 8192, 65536)


@pytest.mark.parametrize('opcode', [TEXT, BINARY])
def test_a_message_in_one_byte_fragments_takes_linear_time(opcode):
    def feed(count):
        end = End()
        end.feed(wire(fragments(opcode, *[b'x'] * count), True))
        assert len(end.got[0]) == count

    assert linear(feed, 4096, 32768)


def test_a_message_of_four_mib_arrives_in_small_reads():
    end = End()
    payload = random.Random(1).randbytes(1 << 16) * 64
    data = Frame(BINARY, length=len(payload)).raw(True, b'\0\0\0\0') + payload
    for at in range(0, len(data), 1000):
        end.feed(data[at : at + 1000])
    assert end.got == [payload]


# Compression (B3, B7, B8; RFC 7692)


ON = {'deflate': True}
TALE = b'Once upon a time there was a peer. ' * 20
ZIPPED = deflated(TALE)

COMPRESSED = {
    'one frame': ([Frame(TEXT, ZIPPED, rsv=4)], [TALE.decode()]),
    'fragments': (fragments(BINARY, ZIPPED[:7], b'', ZIPPED[7:], compressed=True), [TALE]),
    'all of it in the first fragment': (fragments(BINARY, ZIPPED, b'', compressed=True), [TALE]),
    'one byte a fragment': (
        fragments(TEXT, *[b'%c' % byte for byte in ZIPPED], compressed=True),
        [TALE.decode()],
    ),
    'an empty message': ([Frame(TEXT, b'\0', rsv=4)], ['']),
    'not compressed in between': (
        [Frame(BINARY, ZIPPED, rsv=4), Frame(TEXT, b'plain'), Frame(BINARY, ZIPPED, rsv=4)],
        [TALE, 'plain', TALE],
    ),
    'BFINAL, then another message': (
        [Frame(BINARY, deflated(TALE, True), rsv=4), Frame(BINARY, ZIPPED, rsv=4)],
        [TALE, TALE],
    ),
    'BFINAL in each of many fragments': (
        fragments(BINARY, *[deflated(b'one', True)[:-1]] * 40, b'\0', compressed=True),
        [b'one' * 40],
    ),
    'several blocks': (
        # 7.2.3.5: two blocks of which the first was flushed
        [Frame(BINARY, b'\xf2\x48\x05\x00\x00\x00\xff\xff\xca\xc9\xc9\x07\x00', rsv=4)],
        [b'Hello'],
    ),
    'no compression': ([Frame(BINARY, b'\x00\x05\x00\xfa\xffHello\x00', rsv=4)], [b'Hello']),
}


@pytest.mark.parametrize(('frames', 'messages'), COMPRESSED.values(), ids=COMPRESSED)
def test_compressed_messages_are_received_in_any_split(client, frames, messages):
    check(client, frames, messages, **ON)


def test_control_frames_between_compressed_fragments_leave_the_message_intact(client):
    parts = fragments(TEXT, ZIPPED[:5], ZIPPED[5:9], ZIPPED[9:], compressed=True)
    frames = [parts[0], Frame(PING, b'1'), Frame(PONG), parts[1], Frame(PING, b'2'), parts[2]]
    check(client, frames * 2, [TALE.decode()] * 2, [(PONG, b'1'), (PONG, b'2')] * 2, **ON)


def test_corrupt_compressed_data_fails_with_1007(client):
    check_failure(client, [Frame(BINARY, b'\x07corrupt', rsv=4)], 1007, deflate=True)
    broken = fragments(BINARY, ZIPPED[:9], b'\xff\xff\xff', compressed=True)
    check_failure(client, broken, 1007, deflate=True)


def test_more_ends_of_streams_than_fragments_have_use_for_fail_with_1007(client):
    ends = b'\x03\x00' * 18  # 7.2.3.4: each costs a window, for two bytes
    check_failure(client, [Frame(BINARY, ends, rsv=4)], 1007, deflate=True)
    late = fragments(BINARY, ZIPPED, *[b''] * 30, ends, compressed=True)
    check_failure(client, late, 1007, deflate=True)


def test_invalid_utf8_in_a_compressed_text_fails_with_1007(client):
    check_failure(client, [Frame(TEXT, deflated(b'a\xff'), rsv=4)], 1007, deflate=True)


def test_the_limit_holds_for_the_inflated_size(client):
    size = len(TALE)
    parts = fragments(BINARY, ZIPPED[:9], ZIPPED[9:], compressed=True)
    for frames in ([Frame(BINARY, ZIPPED, rsv=4)], parts):
        check(client, frames, [TALE], max_message_size=size, **ON)
        check_failure(client, frames, 1009, max_message_size=size - 1, deflate=True)


@pytest.mark.parametrize('pieces', [1, 2, 50])
@pytest.mark.parametrize('before', [0, 1], ids=['first', 'with context'])
def test_a_deflate_bomb_fails_with_1009_in_bounded_memory(client, pieces, before):
    limit = 1 << 20
    bomb = deflated(bytes(200 << 20))
    step = len(bomb) // pieces + 1
    cut = [bomb[at : at + step] for at in range(0, len(bomb), step)]
    frames = [Frame(BINARY, ZIPPED, rsv=4)] * before + fragments(BINARY, *cut, compressed=True)
    data = wire(frames, not client)
    end = End(client, max_message_size=limit, deflate=PerMessageDeflate())
    tracemalloc.start()
    end.feed(data)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert end.got == [TALE] * before
    assert end.close_said() == 1009
    assert peak < 3 * limit + len(data) * 4


def test_what_we_compress_another_can_inflate(client):
    end = End(client, deflate=PerMessageDeflate(threshold=10))
    for payload in (TALE, b'short', TALE, TALE[:9], TALE[:10], b''):
        end.protocol.send(BINARY, payload)
    end.hear()
    reader = PerMessageDeflate()
    assert [frame.rsv for frame in end.said] == [4, 0, 4, 0, 4, 0]
    assert [
        reader.decompress(frame.payload, True) if frame.rsv else frame.payload
        for frame in end.said
    ] == [TALE, b'short', TALE, TALE[:9], TALE[:10], b'']


def test_without_compression_nothing_is_compressed(client):
    end = End(client)
    end.protocol.send(TEXT, TALE)
    assert end.hear() == [(TEXT, TALE)]
    assert end.said[0].rsv == 0


# Any conversation (B6)


texts = st.text(max_size=300).map(lambda text: (TEXT, text))
binaries = st.binary(max_size=300).map(lambda data: (BINARY, data))


@st.composite
def conversations(draw):
    """Messages, and one of the ways to put them on the wire."""
    compression = draw(st.booleans())
    deflate = PerMessageDeflate(threshold=0) if compression else None
    frames, messages, pongs = [], [], []
    for opcode, message in draw(st.lists(texts | binaries, max_size=8)):
        messages.append(message)
        payload = message.encode() if opcode == TEXT else message
        compressed = compression and draw(st.booleans())
        if compressed:
            payload = deflate.compress(payload)
        cuts = draw(st.lists(st.integers(0, len(payload)), max_size=4))
        edges = [0, *sorted(cuts), len(payload)]
        parts = [payload[a:b] for a, b in zip(edges, edges[1:], strict=False)]
        for part in fragments(opcode, *parts, compressed=compressed):
            frames.append(part)
            control = draw(st.sampled_from([None, None, PING, PONG]))
            if control:
                frames.append(Frame(control, draw(st.binary(max_size=125))))
                if control == PING:
                    pongs.append((PONG, frames[-1].payload))
    return compression, frames, messages, pongs


@quick
@given(
    conversation=conversations(),
    client=st.sampled_from(list(ROLES.values())),
    size=st.integers(1, 400),
    max_queue=st.integers(1, 40),
)
def test_any_conversation_is_received_in_any_split(conversation, client, size, max_queue):
    compression, frames, messages, pongs = conversation
    options = {'deflate': True} if compression else {}
    data = wire(frames, not client)
    pieces = [data[at : at + size] for at in range(0, len(data), size)]
    for split in ([data], pieces, [data[at : at + 1] for at in range(len(data))]):
        assert outcome(client, split, max_queue=max_queue, **options) == (messages, pongs, None)


@quick
@given(
    messages=st.lists(texts | binaries, max_size=8),
    size=st.integers(1, 400),
    client=st.sampled_from(list(ROLES.values())),
    threshold=st.sampled_from([None, 0, 50]),
)
def test_what_one_end_sends_the_other_receives(messages, size, client, threshold):
    engines = [None if threshold is None else PerMessageDeflate(threshold=threshold)] * 2
    if threshold is not None:
        engines[1] = PerMessageDeflate()
    sender, receiver = End(client, deflate=engines[0]), End(not client, deflate=engines[1])
    for opcode, message in messages:
        sender.protocol.send(opcode, message.encode() if opcode == TEXT else message)
    data = b''.join(sender.protocol.out)
    parse(data, masked=client)
    for at in range(0, len(data), size):
        receiver.feed(data[at : at + size])
    assert receiver.got == [message for _, message in messages]
