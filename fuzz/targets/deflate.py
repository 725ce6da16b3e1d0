"""permessage-deflate: what two ends agree upon, any extension strings, any
compressed bytes with a limit, and the way there and back, beside zlib.

An input: a byte for the kind, some of options, then strings or bytes.
"""

from __future__ import annotations

import tracemalloc
import zlib

from fuzz.reader import Reader, cuts
from simple_websocket import deflate
from simple_websocket.deflate import (
    Deflate,
    DeflateError,
    ExtensionSyntaxError,
    InflateError,
    InflateTooBig,
    NegotiationError,
    PerMessageDeflate,
)

LIMITS = (None, 0, 1, 100, 5000, 1 << 20)
#: What inflating may take beyond its input, the limit twice (it grows) and the
#: window: zlib's state, one step of input and one of output.
SLACK = 1 << 20


def check(data: bytes) -> None:
    reader = Reader(data)
    reader.pick((strings, bargain, inflate, inflate, inflate, there_and_back))(reader)


def chosen_options(reader: Reader) -> Deflate:
    flags = reader.byte()
    return Deflate(
        level=flags % 10,
        mem_level=1 + reader.byte() % 9,
        server_max_window_bits=9 + reader.byte() % 7,
        client_max_window_bits=9 + reader.byte() % 7,
        server_no_context_takeover=bool(flags & 64),
        client_no_context_takeover=bool(flags & 128),
    )


def strings(reader: Reader) -> None:
    """Header values of a stranger, to either end."""
    options = chosen_options(reader)
    values = reader.rest().decode('latin-1').split('\n')
    try:
        found = deflate.parse_extensions(values)
    except ExtensionSyntaxError:
        found = None
    for offered in (options, None):
        try:
            engine, answer = deflate.negotiate(offered, values)
        except ExtensionSyntaxError:
            assert found is None
        else:
            assert found is not None
            assert (engine is None) is (answer is None)
            if engine is not None:
                assert offered is not None and any(one.name == deflate.NAME for one in found)
                within(engine, options.server_max_window_bits, 15)
                obeyed(found, engine, answer or '')
        try:
            engine = deflate.accept_offer(offered, values)
        except ExtensionSyntaxError:
            assert not found  # a client may offer an empty list, a server not answer one
        except NegotiationError:
            assert found
        else:
            assert found and engine is not None
            # A server may not know how to limit its own window.
            within(engine, options.client_max_window_bits, 15)


def within(engine: PerMessageDeflate, compress_bits: int, decompress_bits: int) -> None:
    assert 9 <= engine.compress_bits <= compress_bits
    assert 8 <= engine.decompress_bits <= decompress_bits


def obeyed(
    found: list[deflate.Extension], engine: PerMessageDeflate, answer: str
) -> None:
    """The answer is one to an offer that is there (RFC 7692 section 7.1)."""
    ((_, params),) = deflate.parse_extensions([answer])
    said = dict(params)
    for name, offer in found:
        asked = dict(offer)
        if name != deflate.NAME or len(asked) != len(offer):
            continue
        if 'server_no_context_takeover' in asked and 'server_no_context_takeover' not in said:
            continue
        if 'client_max_window_bits' in said and 'client_max_window_bits' not in asked:
            continue
        bits = asked.get('server_max_window_bits')
        if bits and not bits.isdecimal():
            continue
        if bits and int(said.get('server_max_window_bits') or 15) > int(bits):
            continue
        break
    else:
        raise AssertionError('an answer to no offer')
    assert engine.compress_takeover is ('server_no_context_takeover' not in said)
    assert engine.decompress_takeover is ('client_no_context_takeover' not in said)


def bargain(reader: Reader) -> None:
    """Two ends of ours always agree, and understand each other."""
    ours, theirs = chosen_options(reader), chosen_options(reader)
    server, answer = deflate.negotiate(ours, [deflate.offer(theirs)])
    assert server is not None and answer is not None
    client = deflate.accept_offer(theirs, [answer])
    assert client is not None
    assert client.compress_bits <= server.decompress_bits
    assert server.compress_bits <= client.decompress_bits
    assert client.compress_takeover <= server.decompress_takeover
    assert server.compress_takeover <= client.decompress_takeover
    while reader:
        message = reader.take(reader.byte()) * (1 + reader.byte())
        for sender, receiver in ((client, server), (server, client)):
            assert receiver.decompress(sender.compress(message), True, len(message)) == message


def engine_of(reader: Reader) -> PerMessageDeflate:
    flags = reader.byte()
    return PerMessageDeflate(
        compress_bits=9 + reader.byte() % 7,
        decompress_bits=8 + (flags & 7),
        compress_takeover=bool(flags & 8),
        decompress_takeover=bool(flags & 16),
        level=reader.byte() % 10,
        mem_level=1 + (flags >> 5),
    )


def there_and_back(reader: Reader) -> None:
    """zlib reads what we write, and we read it in any split."""
    sender = engine_of(reader)
    back = PerMessageDeflate(decompress_takeover=sender.compress_takeover)
    peer = zlib.decompressobj(-15)
    way = reader.byte()
    while reader:
        message = reader.take(reader.byte()) * (1 + reader.byte())
        data = sender.compress(message)
        if not sender.compress_takeover:
            peer = zlib.decompressobj(-15)
        assert peer.decompress(data + b'\0\0\xff\xff') == message
        pieces = list(cuts(data, way))
        read = b''.join(
            back.decompress(piece, number == len(pieces) - 1, len(message))
            for number, piece in enumerate(pieces)
        )
        assert read == message


def inflate(reader: Reader) -> None:
    """Messages of any bytes: bounded, the same in every split, zlib's word."""
    flags = reader.byte()
    limit = LIMITS[flags % len(LIMITS)]
    takeover, measured = bool(flags & 64), bool(flags & 128)
    way = reader.byte()
    engines = [PerMessageDeflate(decompress_takeover=takeover) for _ in range(2)]
    oracle = zlib.decompressobj(-15)
    sizes = reader.byte()
    comparable = True
    while reader:
        data = reader.take(1 + reader.byte() * (1 + sizes % 8))
        got = [
            message(engine, list(cuts(data, how)), limit, measured)
            for engine, how in zip(engines, (0, way or 1), strict=True)
        ]
        # Where data is both too much and corrupt, the split may say which is seen.
        failed = [not isinstance(one, bytes) for one in got]
        assert got[0] == got[1] or (limit is not None and all(failed)), 'the splits differ'
        if comparable:
            comparable = compare(oracle, data, got[0], limit) and takeover
        if not isinstance(got[0], bytes):
            return
    if flags & 32:
        bomb(engines[0], limit)


def message(
    engine: PerMessageDeflate, pieces: list[bytes], limit: int | None, measured: bool
) -> bytes | type[DeflateError]:
    """What a message inflates to, or what is wrong with it."""
    out = b''
    if measured:
        tracemalloc.start()
    try:
        for number, piece in enumerate(pieces):
            room = None if limit is None else limit - len(out)
            out += engine.decompress(piece, number == len(pieces) - 1, room)
            assert limit is None or len(out) <= limit, 'more than the limit'
    except InflateTooBig:
        assert limit is not None, 'too big without a limit'
        return InflateTooBig
    except InflateError as error:
        return type(error)
    finally:
        if measured:
            _, peak = tracemalloc.get_traced_memory()
            tracemalloc.stop()
            bound = SLACK + 4 * (max(map(len, pieces)) + (len(out) if limit is None else limit))
            assert peak <= bound, f'{peak} bytes of memory, {bound} are too many'
    return out


def compare(
    oracle: zlib._Decompress, data: bytes, got: bytes | type[DeflateError], limit: int | None
) -> bool:
    """Hold a message against zlib's word; whether the next one may be, too."""
    try:
        said = oracle.decompress(data, 1 << 22)
    except zlib.error:
        assert not isinstance(got, bytes), 'zlib cannot read it'
        return False
    if oracle.eof or oracle.unconsumed_tail:
        return False
    if limit is not None and len(said) > limit:
        assert not isinstance(got, bytes), 'more than the limit'
        return False
    try:
        tail = oracle.decompress(b'\0\0\xff\xff')
    except zlib.error:
        tail = b'cut inside a code table'
    if got is InflateError:
        return False  # incomplete: zlib itself would wait for more
    assert got == said, 'zlib reads something else'
    return not tail and not oracle.eof


def bomb(engine: PerMessageDeflate, limit: int | None) -> None:
    """Whatever came before: a megabyte of zeros in a kilobyte, held to the limit."""
    packer = zlib.compressobj(9, zlib.DEFLATED, -15)
    data = packer.compress(bytes(1 << 20)) + packer.flush(zlib.Z_SYNC_FLUSH)
    message(engine, [data[:-4]], 4096 if limit is None else min(limit, 4096), True)
