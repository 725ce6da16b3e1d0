"""Faults that come over the wire in numbers: docs/faults.rst, table B."""

from __future__ import annotations

import gc
import random
import time
import tracemalloc

from support.frames import BINARY, CONTINUATION, TEXT, Frame, parse, wire
from support.lab import End

from simple_websocket import codec
from simple_websocket.options import Options

MIB = 1 << 20
#: What arrives in fragments of one byte.  A frame costs the pure Python codec
#: forty times as much: four mebibytes take it a minute and a half.
MILLION = 1_000_000 if codec.NAME == 'compiled' else 200_000
MUCH = 4 * MIB if codec.NAME == 'compiled' else MIB // 8
READ = 65536


def feed(end, data, times):
    """Have so many copies arrive, in reads of the usual size."""
    for _ in range(times):
        for at in range(0, len(data), READ):
            end.feed(data[at : at + READ])


def peak_of(function):
    tracemalloc.start()
    try:
        function()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


# B5


def test_a_million_empty_messages_are_received():
    end = End()
    count = 10_000
    data = wire([Frame(TEXT)] * count, True)
    for _ in range(MILLION // count):
        feed(end, data, 1)
        assert end.got == [''] * count
        end.got.clear()
    assert end.protocol.out == []


def test_a_million_empty_messages_cost_the_memory_of_one_read(client):
    end = End(client)
    end.got = []
    data = wire([Frame(TEXT)] * 100_000, not client)

    def run():
        for at in range(0, len(data), READ):
            end.feed(data[at : at + READ])
            end.got.clear()

    assert peak_of(run) < 8 * MIB


def one_byte_fragments(count):
    """The seconds for a message of so many bytes, one in each fragment."""
    end = End(max_fragments=None)
    data = wire([Frame(CONTINUATION, b'x', False)] * 1024, True)
    gc.collect()
    gc.disable()  # it walks through everything that earlier tests have left
    try:
        started = time.process_time()
        end.say(Frame(BINARY, b'', False))
        feed(end, data, count // 1024)
        end.say(Frame(CONTINUATION))
        taken = time.process_time() - started
    finally:
        gc.enable()
    assert end.got == [b'x' * count]
    return taken


def test_four_mebibytes_in_one_byte_fragments_take_linear_time():
    # Eight times as much takes eight times as long, not sixty-four.
    assert one_byte_fragments(MUCH) < 20 * min(one_byte_fragments(MUCH // 8) for _ in range(3))


def test_the_131073rd_fragment_fails_the_connection_by_default(client):
    end = End(client, max_fragments=Options().max_fragments)
    data = wire([Frame(CONTINUATION, b'x', False)] * 1024, not client)
    end.say(Frame(BINARY, b'x', False))
    feed(end, data, 127)
    more = wire([Frame(CONTINUATION, b'x', False)] * 1023, not client)
    end.feed(more)
    assert end.hear() == []
    end.say(Frame(CONTINUATION, b'x'))
    assert end.close_said() == 1009


def test_a_message_in_exactly_131072_fragments_is_received_by_default():
    end = End(max_fragments=Options().max_fragments)
    end.say(Frame(BINARY, b'x', False))
    feed(end, wire([Frame(CONTINUATION, b'x', False)] * 131_070, True), 1)
    end.say(Frame(CONTINUATION, b'x'))
    assert end.got == [b'x' * 131_072]


def test_a_fin_that_never_comes_keeps_the_payload_and_no_more():
    end = End(max_fragments=None)
    data = wire([Frame(CONTINUATION, b'x', False)] * 1024, True)
    end.say(Frame(BINARY, b'', False))
    # What is kept is the payload, not an object for each of its bytes.
    assert peak_of(lambda: feed(end, data, MUCH // 4096)) < MUCH + 4 * MIB


def test_a_text_in_one_byte_fragments_keeps_its_characters_and_no_more():
    end = End(max_fragments=None)
    text = 'ü漢'.encode() * 256
    data = wire([Frame(CONTINUATION, text[at : at + 1], False) for at in range(len(text))], True)
    end.say(Frame(TEXT, b'', False))
    size = MUCH // 16 // len(text) * len(text)  # five bytes are two characters of two bytes
    assert peak_of(lambda: feed(end, data, size // len(text))) < size + 2 * MIB
    end.say(Frame(CONTINUATION))
    assert end.got == ['ü漢' * (size // 5)]


# D9


def test_masks_do_not_come_from_a_generator_that_can_be_seeded():
    def masks():
        random.seed(1)
        data = b''.join(codec.encode(BINARY, bytes(8), True) for _ in range(1000))
        # Under a payload of zeros the mask shows twice.
        return [data[at + 6 : at + 10] for at in range(0, len(data), 14)]

    one, two = masks(), masks()
    assert len(one) == len({*one}) == 1000
    assert not {*one} & {*two}


def test_a_client_masks_each_frame_anew():
    end = End(client=True)
    for _ in range(1000):
        end.protocol.send(BINARY, bytes(8))
    data = b''.join(end.protocol.out)
    assert [frame.payload for frame in parse(data, True)] == [bytes(8)] * 1000
    assert len({data[at + 2 : at + 6] for at in range(0, len(data), 14)}) == 1000
