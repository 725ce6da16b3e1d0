"""The negotiation of RFC 7692 as two tables, and DEFLATE data made by hand.

`OFFERS` says what a server answers to each offer, `ANSWERS` what a client makes
of each answer. A row names the section and the demand that it is about.
"""

from __future__ import annotations

import random
import zlib
from typing import NamedTuple

from simple_websocket.deflate import (
    Deflate,
    ExtensionSyntaxError,
    NegotiationError,
    PerMessageDeflate,
)

PMD = 'permessage-deflate'
SERVER_FRESH, CLIENT_FRESH = 'server_no_context_takeover', 'client_no_context_takeover'
SERVER_BITS, CLIENT_BITS = 'server_max_window_bits', 'client_max_window_bits'

#: The options that ask for nothing, and the default ones.
WIDE = Deflate(server_max_window_bits=15, client_max_window_bits=15)
USUAL = Deflate()
FRESH = Deflate(
    server_max_window_bits=15,
    client_max_window_bits=15,
    server_no_context_takeover=True,
    client_no_context_takeover=True,
)


class Agreed(NamedTuple):
    """What two ends agree on: the window and the takeover of each."""

    server_bits: int = 15
    client_bits: int = 15
    server_takeover: bool = True
    client_takeover: bool = True


def agreed(engine: PerMessageDeflate, client: bool) -> Agreed:
    """What the engine of one end stands for."""
    ours = engine.compress_bits, engine.compress_takeover
    theirs = engine.decompress_bits, engine.decompress_takeover
    server, other = (theirs, ours) if client else (ours, theirs)
    return Agreed(server[0], other[0], server[1], other[1])


class Offer(NamedTuple):
    section: str
    demand: str
    options: Deflate | None
    values: list[str]  #: of the request's `Sec-WebSocket-Extensions`
    answer: str | None  #: None: declined
    agreed: Agreed | None = None
    malformed: bool = False  #: the request deserves a 400

    @property
    def name(self) -> str:
        return f'{self.section}: {self.demand}: {" + ".join(self.values)} ({self.options})'


def pmd(params: str) -> str:
    return f'{PMD}; {params}' if params else PMD


def taken(
    section: str, demand: str, params: str, answer: str, agreed: Agreed, options: Deflate = WIDE
) -> Offer:
    return Offer(section, demand, options, [pmd(params)], pmd(answer), agreed)


def declined(section: str, demand: str, *params: str) -> list[Offer]:
    return [Offer(section, demand, WIDE, [pmd(one)], None) for one in params]


def malformed(*values: str) -> list[Offer]:
    demand = 'what does not conform to the grammar fails'
    return [Offer('9.1 of RFC 6455', demand, WIDE, [one], None, malformed=True) for one in values]


NOT_BITS = ('7', '16', '0', '08', '010', '1', '150', '-9', '+9', '9.0', '0x9', 'x')

OFFERS = [
    Offer('5', 'no offer, no extension', WIDE, [], None),
    Offer('5', 'an empty list, which some clients send, is no offer', WIDE, [''], None),
    Offer('5', 'an empty list, which some clients send, is no offer', WIDE, [', ,'], None),
    Offer('5', 'a server may decline', None, [PMD], None),
    Offer('5.1', 'what is not known is declined', WIDE, ['permessage-bzip2'], None),
    Offer('5.1', 'what is not known is declined', WIDE, ['x-webkit-deflate-frame; a=1'], None),
    Offer('5.1', 'a name is that name', WIDE, ['Permessage-Deflate'], None),
    Offer('5.2', 'the first that can be accepted', WIDE, [f'x, {PMD}, y'], PMD, Agreed()),
    Offer('5.2', 'fields are one list', WIDE, ['x', PMD, pmd(SERVER_FRESH)], PMD, Agreed()),
    Offer(
        '5.2',
        'one is accepted, the one preferred',
        WIDE,
        [f'{pmd(f"{SERVER_BITS}=10")}, {PMD}'],
        pmd(f'{SERVER_BITS}=10'),
        Agreed(server_bits=10),
    ),
    Offer(
        '5.2',
        'behind one that is declined the next is looked at',
        WIDE,
        [f'{pmd("unknown")}, {pmd(SERVER_FRESH)}, {PMD}'],
        pmd(SERVER_FRESH),
        Agreed(server_takeover=False),
    ),
    taken('7.1', 'no parameters', '', '', Agreed()),
    *declined('7.1', 'a parameter that is not defined', 'unknown', 'unknown=1', 'mode=9'),
    *declined('7.1', 'names are as they are defined', SERVER_FRESH.upper(), SERVER_BITS.title()),
    *declined(
        '7.1',
        'a parameter that comes twice',
        f'{SERVER_FRESH}; {SERVER_FRESH}',
        f'{CLIENT_FRESH}; {CLIENT_FRESH}',
        f'{SERVER_BITS}=10; {SERVER_BITS}=10',
        f'{CLIENT_BITS}; {CLIENT_BITS}',
        f'{CLIENT_BITS}; {CLIENT_BITS}=10',
    ),
    taken(
        '7.1.1.1', 'is agreed by being answered', SERVER_FRESH, SERVER_FRESH,
        Agreed(server_takeover=False),
    ),
    taken(
        '7.1.1.1', 'a server may say it unasked', '', f'{SERVER_FRESH}; {CLIENT_FRESH}',
        Agreed(server_takeover=False, client_takeover=False), FRESH,
    ),
    *declined('7.1.1.1', 'has no value', f'{SERVER_FRESH}=1', f'{SERVER_FRESH}="true"'),
    taken(
        '7.1.1.2', 'may be agreed', CLIENT_FRESH, CLIENT_FRESH, Agreed(client_takeover=False)
    ),
    *declined('7.1.1.2', 'has no value', f'{CLIENT_FRESH}=0', f'{CLIENT_FRESH}=x'),
    *(
        taken(
            '7.1.2.1', 'the same or smaller is answered', f'{SERVER_BITS}={bits}',
            f'{SERVER_BITS}={bits}', Agreed(server_bits=bits),
        )
        for bits in range(9, 16)
    ),
    taken(
        '7.1.2.1', 'the same or smaller is answered', f'{SERVER_BITS}=15', f'{SERVER_BITS}=12',
        Agreed(server_bits=12), USUAL,
    ),
    taken(
        '7.1.2.1', 'the same or smaller is answered', f'{SERVER_BITS}=10', f'{SERVER_BITS}=10',
        Agreed(server_bits=10), USUAL,
    ),
    taken(
        '7.1.2.1', 'a server may say it unasked', '', f'{SERVER_BITS}=12', Agreed(server_bits=12),
        USUAL,
    ),
    taken(
        '7.1.2.1', 'a value may be quoted', f'{SERVER_BITS}="1\\0"', f'{SERVER_BITS}=10',
        Agreed(server_bits=10),
    ),
    *declined('7.1.2.1', 'has a value', SERVER_BITS),
    *declined('7.1.2.1', 'is 8 to 15', *(f'{SERVER_BITS}={bits}' for bits in NOT_BITS)),
    *declined('7.1.2.1', 'zlib has no window of 8 bits to compress with', f'{SERVER_BITS}=8'),
    taken('7.1.2.2', 'without a value, it may stay unanswered', CLIENT_BITS, '', Agreed()),
    taken(
        '7.1.2.2', 'without a value, any may be answered', CLIENT_BITS,
        f'{SERVER_BITS}=12; {CLIENT_BITS}=12', Agreed(12, 12), USUAL,
    ),
    *(
        taken(
            '7.1.2.2', 'the same or smaller is answered', f'{CLIENT_BITS}={bits}',
            f'{CLIENT_BITS}={bits}' if bits < 15 else '', Agreed(client_bits=bits),
        )
        for bits in range(8, 16)
    ),
    taken(
        '7.1.2.2', 'the same or smaller is answered', f'{CLIENT_BITS}=15',
        f'{SERVER_BITS}=12; {CLIENT_BITS}=12', Agreed(12, 12), USUAL,
    ),
    taken(
        '7.1.2.2', 'MUST NOT be answered unasked', '', f'{SERVER_BITS}=12', Agreed(server_bits=12),
        USUAL,
    ),
    *declined('7.1.2.2', 'is 8 to 15', *(f'{CLIENT_BITS}={bits}' for bits in NOT_BITS)),
    taken(
        '7.1', 'all parameters, in any order',
        f'{CLIENT_BITS}=11; {SERVER_BITS}=10; {CLIENT_FRESH}; {SERVER_FRESH}',
        f'{SERVER_FRESH}; {CLIENT_FRESH}; {SERVER_BITS}=10; {CLIENT_BITS}=11',
        Agreed(10, 11, False, False),
    ),
    *malformed(
        *(';', f'{PMD};', f'{PMD};;', f'{PMD} x', f'{PMD}; ={PMD}', f'"{PMD}"'),
        *(f'{PMD}; {SERVER_BITS}=', f'{PMD}; {SERVER_BITS}==9', f'{PMD}; {SERVER_BITS}=9 9'),
        *(f'{PMD}; {SERVER_BITS}="9', f'{PMD}; {SERVER_BITS}=""', f'{PMD}; {SERVER_BITS}="9 "'),
        *(f'{PMD}; {SERVER_BITS}="9"9', f'{PMD}, @', f'{PMD}; \xe9', f'{PMD}\x7f'),
    ),
]  # fmt: skip


class Answer(NamedTuple):
    section: str
    demand: str
    options: Deflate | None
    values: list[str]  #: of the response's `Sec-WebSocket-Extensions`
    agreed: Agreed | None = None
    error: type[Exception] | None = None

    @property
    def name(self) -> str:
        return f'{self.section}: {self.demand}: {" + ".join(self.values)} ({self.options})'


def right(
    section: str, demand: str, params: str, agreed: Agreed, options: Deflate = WIDE
) -> Answer:
    return Answer(section, demand, options, [pmd(params)], agreed)


def wrong(section: str, demand: str, *params: str, options: Deflate = WIDE) -> list[Answer]:
    return [
        Answer(section, demand, options, [pmd(one)], error=NegotiationError) for one in params
    ]


def unreadable(*values: str) -> list[Answer]:
    demand = 'what does not conform to the grammar fails'
    return [
        Answer('9.1 of RFC 6455', demand, WIDE, [one], error=ExtensionSyntaxError)
        for one in values
    ]


ANSWERS = [
    Answer('5.1', 'a server may decline', WIDE, []),
    *(
        Answer('4.1 of RFC 6455', 'was not offered', WIDE, [value], None, NegotiationError)
        for value in ('permessage-bzip2', 'Permessage-Deflate', f'{PMD}, x', f'x, {PMD}')
    ),
    *(
        Answer('5.1', 'only one is accepted', WIDE, values, None, NegotiationError)
        for values in ([f'{PMD}, {PMD}'], [PMD, PMD], [f'{PMD}, {pmd(SERVER_FRESH)}'])
    ),
    right('7.1', 'no parameters', '', Agreed()),
    *wrong('7.1', 'a parameter that is not defined', 'unknown', 'unknown=1'),
    *wrong('7.1', 'names are as they are defined', SERVER_FRESH.upper()),
    *wrong(
        '7.1',
        'a parameter that comes twice',
        f'{SERVER_FRESH}; {SERVER_FRESH}',
        f'{CLIENT_FRESH}; {CLIENT_FRESH}',
        f'{SERVER_BITS}=10; {SERVER_BITS}=10',
        f'{CLIENT_BITS}=10; {CLIENT_BITS}=10',
    ),
    right('7.1.1.1', 'may come unasked', SERVER_FRESH, Agreed(server_takeover=False)),
    right(
        '7.1.1.1', 'was asked for and is there', SERVER_FRESH, Agreed(15, 15, False, False), FRESH
    ),
    *wrong('7.1.1.1', 'was asked for and is not there', '', CLIENT_FRESH, options=FRESH),
    *wrong('7.1.1.1', 'has no value', f'{SERVER_FRESH}=1'),
    right('7.1.1.2', 'may come unasked', CLIENT_FRESH, Agreed(client_takeover=False)),
    right(
        '7.1.1.2', 'a client keeps to what it offered', SERVER_FRESH,
        Agreed(15, 15, False, False), FRESH,
    ),
    *wrong('7.1.1.2', 'has no value', f'{CLIENT_FRESH}=0'),
    *(
        right('7.1.2.1', 'may come unasked', f'{SERVER_BITS}={bits}', Agreed(server_bits=bits))
        for bits in range(8, 16)
    ),
    *(
        right(
            '7.1.2.1', 'any, since the second offer does not ask for it',
            f'{SERVER_BITS}={bits}', Agreed(bits, 12), USUAL,
        )
        for bits in range(8, 16)
    ),
    right('7.1.2.1', 'none, likewise', '', Agreed(15, 12), USUAL),
    *wrong('7.1.2.1', 'has a value', SERVER_BITS),
    *wrong('7.1.2.1', 'is 8 to 15', *(f'{SERVER_BITS}={bits}' for bits in NOT_BITS)),
    *(
        right('7.1.2.2', 'is kept to', f'{CLIENT_BITS}={bits}', Agreed(client_bits=bits))
        for bits in range(9, 16)
    ),
    right(
        '7.1.2.2', 'a client may do with less', f'{SERVER_BITS}=12; {CLIENT_BITS}=15',
        Agreed(12, 12), USUAL,
    ),
    *wrong('7.1.2.2', 'zlib has no window of 8 bits to compress with', f'{CLIENT_BITS}=8'),
    *wrong('7.1.2.2', 'in an answer, it has a value', CLIENT_BITS),
    *wrong('7.1.2.2', 'is 8 to 15', *(f'{CLIENT_BITS}={bits}' for bits in NOT_BITS)),
    *unreadable('', ',', ';', f'{PMD};', f'{PMD} x', f'{PMD}; {SERVER_BITS}="9 "', f'"{PMD}"'),
]  # fmt: skip


# DEFLATE data


def words(size: int, seed: int = 1) -> bytes:
    """Compressible bytes that refer back to all of their past."""
    rng = random.Random(seed)
    some = [rng.randbytes(rng.randrange(2, 9)) for _ in range(200)]
    return b''.join(rng.choices(some, k=size // 2 + 1))[:size]


class Packer:
    """Compresses messages as section 7.2.1 says, with zlib alone."""

    def __init__(self, bits: int, takeover: bool) -> None:
        self._bits = bits
        self._takeover = takeover
        self._zlib = self._new()

    def _new(self) -> zlib._Compress:
        return zlib.compressobj(9, zlib.DEFLATED, -self._bits)

    def __call__(self, message: bytes) -> bytes:
        if not self._takeover:
            self._zlib = self._new()
        data = self._zlib.compress(message) + self._zlib.flush(zlib.Z_SYNC_FLUSH)
        return data[:-4] if message else b'\0'


class Unpacker:
    """Inflates messages as section 7.2.2 says, with zlib alone and no larger
    window than was agreed."""

    def __init__(self, bits: int, takeover: bool) -> None:
        self._bits = bits
        self._takeover = takeover
        self._zlib = zlib.decompressobj(-bits)

    def __call__(self, data: bytes) -> bytes:
        if not self._takeover:
            self._zlib = zlib.decompressobj(-self._bits)
        return self._zlib.decompress(data + b'\0\0\xff\xff')


class Bits:
    """Bits in the order of RFC 1951 section 3.1.1."""

    def __init__(self) -> None:
        self._value = self._size = 0

    def number(self, value: int, size: int) -> None:
        self._value |= value << self._size
        self._size += size

    def code(self, value: int, size: int) -> None:
        """A Huffman code: its most significant bit goes first."""
        for at in reversed(range(size)):
            self.number(value >> at & 1, 1)

    def data(self) -> bytes:
        return self._value.to_bytes((self._size + 7) // 8, 'little')


def by_hand(literals: bytes, copies: int) -> bytes:
    """A message with the smallest window, 8 bits: literals, and then copies of
    10 bytes each from 256 bytes before. zlib reads it, but can't write it."""
    bits = Bits()
    bits.number(0b010, 3)  # not the last block; fixed codes
    for byte in literals:
        if byte < 144:
            bits.code(0b00110000 + byte, 8)
        else:
            bits.code(0b110010000 + byte - 144, 9)
    for _ in range(copies):
        bits.code(264 - 256, 7)  # a length of 10
        bits.code(15, 5)  # a distance of 193 and more
        bits.number(256 - 193, 6)
    bits.code(0, 7)  # the end of the block
    bits.number(0b000, 3)  # an empty block; its length is what a sender removes
    return bits.data()
