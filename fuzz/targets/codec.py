"""Frames: both codecs give the same chunks or the same failure for any bytes in
any split, and read what either of them writes.

An input: a byte of options, a byte for the split, then what a peer sent.
"""

from __future__ import annotations

from array import array
from typing import Any

from fuzz.reader import Reader, cuts
from simple_websocket import codec as seam
from simple_websocket.codec import BINARY, CLOSE, CONTINUATION, FAILURE, Chunk
from tests.support.frames import Frame, parse

CODECS: list[tuple[type[Any], Any]] = [(seam.WsprotoDecoder, seam.wsproto_encode)]
if seam.NAME == 'compiled':
    CODECS.append((seam.Decoder, seam.encode))

LIMITS = (None, 0, 5, 200)
FRAGMENTS = (None, 1, 2, 5)


def check(data: bytes) -> None:
    reader = Reader(data)
    choice = reader.byte()
    client = bool(choice & 1)
    options = (client, LIMITS[choice >> 1 & 3], FRAGMENTS[choice >> 3 & 3], bool(choice & 32))
    way = reader.byte()
    wire = reader.rest()
    whole = [merged(decode(decoder, options, [wire])) for decoder, _ in CODECS]
    for pieces in (list(cuts(wire, 1)), list(cuts(wire, way))):
        chunks = [decode(decoder, options, pieces) for decoder, _ in CODECS]
        assert all(one == chunks[0] for one in chunks), 'the codecs differ'
        whole.append(merged(chunks[0]))
    assert all(one == whole[0] for one in whole), 'the splits, or the codecs, differ'
    sanity(whole[0], options)
    for chunk in whole[0]:
        if chunk.opcode != FAILURE:
            round_trip(chunk)


def decode(decoder_class: Any, options: tuple[Any, ...], pieces: list[bytes]) -> list[Chunk]:
    """The chunks; fed from memory that ends with the last byte, where only
    bytes and bytearrays are otherwise seen."""
    decoder = decoder_class(*options)
    chunks: list[Chunk] = []
    for number, piece in enumerate(pieces):
        kind = (bytes, bytearray, lambda one: memoryview(array('B', one) * 1))[number % 3]
        for chunk in decoder.feed(kind(piece)):
            assert not chunks or chunks[-1].opcode != FAILURE, 'a chunk behind the failure'
            assert type(chunk) is Chunk and type(chunk.payload) is bytes
            chunks.append(chunk)
    return chunks


def merged(chunks: list[Chunk]) -> list[Chunk]:
    """What does not depend on the split: neighbours of one message are joined."""
    joined: list[Chunk] = []
    for chunk in chunks:
        last = joined[-1] if joined else None
        if chunk.opcode == CONTINUATION and last and not last.final and last.opcode <= BINARY:
            if last.opcode != FAILURE:
                assert chunk.compressed == last.compressed
                chunk = last._replace(
                    payload=last.payload + chunk.payload,
                    final=chunk.final,
                    ends_frame=chunk.ends_frame,
                )
                joined.pop()
        joined.append(chunk)
    # An empty beginning of a message shows only in some splits.
    return [one for one in joined if one.payload or one.final or one.opcode > CONTINUATION]


def sanity(chunks: list[Chunk], options: tuple[Any, ...]) -> None:
    """What the protocol counts on."""
    client, limit, _, compression = options
    size, inside = 0, False
    for chunk in chunks:
        if chunk.opcode == FAILURE:
            assert chunk.code in (1002, 1009) and chunk.payload.decode()
        elif chunk.opcode >= CLOSE:
            assert chunk.final and not chunk.compressed and len(chunk.payload) <= 125
        else:
            assert inside == (chunk.opcode == CONTINUATION), 'a message inside another'
            assert compression or not chunk.compressed
            size += len(chunk.payload)
            assert limit is None or chunk.compressed or size <= limit
            inside = not chunk.final
            size = size if inside else 0


def round_trip(chunk: Chunk) -> None:
    """What one codec writes both read, and a strict parser too."""
    opcode = chunk.opcode or BINARY
    for masked in (False, True):
        for _, encode in CODECS:
            fin = chunk.final or opcode >= CLOSE
            data = encode(opcode, chunk.payload, masked, chunk.compressed, fin)
            (one,) = parse(data, masked)
            assert one == Frame(opcode, chunk.payload, fin, 4 * chunk.compressed)
            for decoder, _ in CODECS:
                back = decode(decoder, (not masked, None, None, chunk.compressed), [data])
                assert back == [Chunk(opcode, chunk.payload, fin, chunk.compressed)]
