"""What a frame costs in each codec, without sockets or messages around it.

    python bench/codec.py [--seconds 0.5]

Receive is ``feed`` of one whole masked frame to a server's decoder, send is
``encode`` of the same payload, unmasked as a server sends it; masked sending
is what a client pays.  Two memcpys of the payload stand beside them: no codec
that hands out bytes objects of its own can do with less.
"""

from __future__ import annotations

import argparse
import os
import platform
import timeit
from collections.abc import Callable

from simple_websocket import codec

try:
    from simple_websocket import _codec
except ImportError:
    _codec = None  # type: ignore[assignment]

SIZES = (0, 64, 1024, 16 * 1024, 64 * 1024, 1024 * 1024)


def best(call: Callable[[], object], seconds: float) -> float:
    """Microseconds a call takes, in the best of several rounds."""
    timer = timeit.Timer(call)
    number, took = timer.autorange()
    number = max(1, int(number * seconds / 5 / took))
    return min(timer.repeat(5, number)) / number * 1e6


def costs(decoder: object, encode: Callable[..., bytes], size: int, seconds: float):
    """Receive, send and masked send, in microseconds."""
    payload = os.urandom(size)
    frame = encode(codec.BINARY, payload, True)
    feed = decoder(False).feed
    assert feed(frame)[0].payload == payload
    return (
        best(lambda: feed(frame), seconds),
        best(lambda: encode(codec.BINARY, payload, False), seconds),
        best(lambda: encode(codec.BINARY, payload, True), seconds),
    )


def memcpys(size: int, seconds: float) -> float:
    source = bytearray(size)
    return 2 * best(lambda: bytes(source), seconds)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--seconds', type=float, default=0.5, help='for each figure')
    seconds = parser.parse_args().seconds
    codecs = [('wsproto', codec.WsprotoDecoder, codec.wsproto_encode)]
    if _codec is None:
        print('The compiled codec is not there.')
    else:
        codecs.append(('compiled', _codec.CompiledDecoder, _codec.encode))
    print(f'Microseconds a frame; Python {platform.python_version()}, {platform.machine()}.\n')
    print('codec     payload    receive       send        sum  masked send  two memcpys')
    for name, decoder, encode in codecs:
        for size in SIZES:
            receive, send, masked = costs(decoder, encode, size, seconds)
            print(
                f'{name:8} {size:8} {receive:10.2f} {send:10.2f} {receive + send:10.2f}'
                f' {masked:12.2f} {memcpys(size, seconds):12.2f}',
                flush=True,
            )


if __name__ == '__main__':
    main()
