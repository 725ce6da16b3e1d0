"""One message to many: the frame is made once for all connections of a server
that would write the same bytes, and for no other."""

from __future__ import annotations

import pytest
from support.frames import BINARY, TEXT, Frame, closing, parse
from support.lab import End

from simple_websocket import ConnectionClosed
from simple_websocket.deflate import PerMessageDeflate

MESSAGE = b'again and again and again'


def fresh(**options):
    """Compression without a memory of former messages."""
    return PerMessageDeflate(compress_takeover=False, **options)


def share(*ends, payload=MESSAGE, opcode=BINARY):
    """The frames for these ends, of one message."""
    made = {}
    return [end.protocol.shared_frame(opcode, payload, made) for end in ends]


def read(end, data):
    """The frame in these bytes, inflated by who would receive it."""
    (frame,) = parse(data, masked=end.client)
    if frame.rsv:
        assert frame.rsv == 4
        payload = PerMessageDeflate().decompress(frame.payload, True)
        return Frame(frame.opcode, payload), True
    return frame, False


def test_servers_that_do_not_compress_share_a_frame():
    for opcode, payload in [(TEXT, b''), (TEXT, 'größer'.encode()), (BINARY, bytes(70_000))]:
        ends = End(), End(), End()
        one, *others = share(*ends, opcode=opcode, payload=payload)
        assert read(ends[0], one) == (Frame(opcode, payload), False)
        assert all(other is one for other in others)
        assert not any(end.protocol.out for end in ends)


def test_clients_mask_each_with_a_key_of_its_own():
    ends = End(True), End(True)
    frames = share(*ends)
    assert frames[0] != frames[1]
    for end, frame in zip(ends, frames, strict=True):
        assert read(end, frame) == (Frame(BINARY, MESSAGE), False)
    # Nor is a server given what a client made, or the reverse.
    server, client = End(), End(True)
    for ends in [(server, client), (client, server)]:
        for end, frame in zip(ends, share(*ends, opcode=TEXT), strict=True):
            assert read(end, frame) == (Frame(TEXT, MESSAGE), False)


def test_a_window_that_lives_on_is_not_shared():
    ends = [End(deflate=PerMessageDeflate()) for _ in range(2)]
    ends[0].protocol.send(BINARY, MESSAGE)
    frames = share(*ends)
    assert len(frames[0]) < len(frames[1])  # it refers to what was sent before
    for opcode in (TEXT, BINARY):
        end = End(deflate=PerMessageDeflate())
        (frame,) = share(end, opcode=opcode)
        assert read(end, frame) == (Frame(opcode, MESSAGE), True)
    plain = End()
    for ends in [(plain, end), (end, plain)]:
        rsv = [parse(frame, masked=False)[0].rsv for frame in share(*ends)]
        assert rsv == [0 if one is plain else 4 for one in ends]


def test_servers_that_compress_alike_and_afresh_share_a_frame():
    ends = [End(deflate=fresh(compress_bits=10)) for _ in range(3)]
    one, *others = share(*ends)
    assert read(ends[0], one) == (Frame(BINARY, MESSAGE), True)
    assert all(other is one for other in others)


@pytest.mark.parametrize('options', [{'compress_bits': 9}, {'level': 1}, {'mem_level': 1}])
def test_what_is_compressed_in_another_way_is_another_frame(options):
    ends = End(), End(deflate=fresh()), End(deflate=fresh(**options))
    for order in (ends, ends[::-1]):
        frames = share(*order)
        assert len({id(frame) for frame in frames}) == 3
        for end, frame in zip(order, frames, strict=True):
            assert read(end, frame) == (Frame(BINARY, MESSAGE), end is not ends[0])


def test_below_its_threshold_a_server_shares_with_those_that_do_not_compress():
    size = len(MESSAGE)
    plain = End()
    below, at = (End(deflate=fresh(threshold=threshold)) for threshold in (size + 1, size))
    taking_over = End(deflate=PerMessageDeflate(threshold=size + 1))
    one, *others = share(plain, below, taking_over)
    assert all(other is one for other in others)
    for ends in [(plain, at), (at, plain)]:
        frames = dict(zip(ends, share(*ends), strict=True))
        assert read(plain, frames[plain]) == (Frame(BINARY, MESSAGE), False)
        assert read(at, frames[at]) == (Frame(BINARY, MESSAGE), True)


def test_who_has_learned_of_the_end_may_still_be_sent_what_all_others_are(client):
    ended = End(client, reading=False).say(Frame(TEXT, b'a'), closing(4001, 'bye'))
    frames = share(End(), ended)
    assert read(ended, frames[1]) == (Frame(BINARY, MESSAGE), False)
    assert (frames[1] is frames[0]) is not client


def test_behind_a_close_nothing_is_sent_though_others_have_made_it(client):
    ended = End(client)
    ended.close(4001, 'bye')
    made = {}
    End().protocol.shared_frame(TEXT, MESSAGE, made)
    with pytest.raises(ConnectionClosed) as closed:
        ended.protocol.shared_frame(TEXT, MESSAGE, made)
    assert (closed.value.reason, closed.value.message) == (4001, 'bye')


def test_an_end_that_cannot_be_sent_to_leaves_nothing_for_the_others():
    made = {}
    gone = End()
    gone.protocol.abort()
    with pytest.raises(ConnectionClosed):
        gone.protocol.shared_frame(TEXT, MESSAGE, made)
    end = End()
    frame = end.protocol.shared_frame(TEXT, MESSAGE, made)
    assert read(end, frame) == (Frame(TEXT, MESSAGE), False)
