"""Build the compiled code with ASan and UBSan, test it and fuzz it.

    python tests/sanitize.py [--seconds 20] [--seed 1]

It runs the tests of the codec and of the pump, some tests of connections, whose
short ways (`profiles/express.py`) are compiled too, everything that `make fuzz`
starts from or has found (the committed inputs, and those that lie in
.build/fuzz/corpus/), and then a fuzzer of its own.

The build lies in .build/sanitize/ and is of no use to anything else. Python's
own allocator is off, so that every object of a payload or a frame is seen by
ASan, and the fuzzer feeds from arrays, whose memory ends with their last item:
reading or writing a byte too far ends the process.
"""

from __future__ import annotations

import argparse
import os
import random
import subprocess
import sys
import time
from array import array
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / '.build' / 'sanitize'
FLAGS = '-g -fno-omit-frame-pointer -fsanitize=address,undefined -fno-sanitize-recover=all'


#: What is tested, by mode.  ASan does not know greenlets.
TESTS = {
    'core-compiled': ['core/test_codec.py', 'core/test_pump.py', 'core/test_fuzz.py'],
    'threads-bare': [
        f'sync/test_{name}.py'
        for name in ('broadcast', 'injected', 'interrupted', 'interruption', 'messages')
    ],
    'aio': ['aio/test_messages.py', 'aio/test_waiting.py', 'aio/test_closing.py'],
}


def build() -> None:
    setup = [sys.executable, 'setup.py', '-q', 'build', '--force']
    setup += [f'--build-base={BUILD / "base"}', f'--build-lib={BUILD / "lib"}']
    environ = {**os.environ, 'CFLAGS': FLAGS, 'LDFLAGS': '-fsanitize=address,undefined'}
    subprocess.run(setup, cwd=ROOT, env=environ, check=True)


def environment() -> dict[str, str]:
    compiler = os.environ.get('CC', 'cc')
    asan = subprocess.check_output([compiler, '-print-file-name=libasan.so'], text=True).strip()
    return {
        **os.environ,
        'LD_PRELOAD': asan,
        # What is left at exit is the interpreter's; the tests look for leaks.
        'ASAN_OPTIONS': 'detect_leaks=0:strict_string_checks=1',
        'UBSAN_OPTIONS': 'print_stacktrace=1:halt_on_error=1',
        'PYTHONMALLOC': 'malloc',
        'PYTHONPATH': str(BUILD / 'lib'),
        'SIMPLE_WEBSOCKET_CODEC': 'compiled',
        'PYTEST_DISABLE_PLUGIN_AUTOLOAD': '1',
    }


def samples(dice: random.Random) -> Iterator[tuple[bytes, bool]]:
    """Bytes for a decoder, for ever; and whether their splits are all worth it."""
    from support.frames import Frame, fragments, wire

    while True:
        masked = dice.random() < 0.9
        sizes = (0, 1, 7, 8, 9, 60, 125, 126, 127, 300, 65535, 65536, 70000)
        payload = dice.randbytes(dice.choice(sizes))
        short = len(payload) <= 300
        pieces = [payload[at : at + 50] for at in range(0, len(payload), 50)]
        valid = wire([Frame(9, payload[:125]), Frame(2, payload), Frame(8, b'')], masked)
        yield valid, short
        if short and pieces:
            message = fragments(1, *pieces, compressed=dice.random() < 0.3)
            yield wire([message[0], Frame(10, b'x'), *message[1:]], masked), True
        yield dice.randbytes(dice.randrange(40)), True
        # Lengths beyond anything, with a little behind the header.
        huge = dice.choice([1 << 31, 1 << 32, (1 << 63) - 1, 1 << 63, (1 << 64) - 1])
        header = Frame(dice.choice([0, 1, 2, 8]), length=huge, form=64).raw(masked)
        yield header + payload[:20], True
        damaged = bytearray(valid)
        for _ in range(dice.randrange(1, 4)):
            damaged[dice.randrange(min(len(damaged), 40))] = dice.randrange(256)
        yield bytes(damaged), False


def splits(data: bytes, every: bool, dice: random.Random) -> Iterator[list[bytes]]:
    yield [data]
    if every:
        for at in range(len(data) + 1):
            yield [data[:at], data[at:]]
        yield [data[at : at + 1] for at in range(len(data))]
    cuts = sorted(dice.randrange(len(data) + 1) for _ in range(dice.randrange(6)))
    edges = [0, *cuts, len(data)]
    yield [data[a:b] for a, b in zip(edges, edges[1:], strict=False)]


def tight(data: bytes) -> array[int]:
    """A buffer with nothing behind its last byte: repeating allocates what is
    needed, everything else some more."""
    return array('B', data) * 1


def replay() -> None:
    """Run what libFuzzer has found to be of interest on this machine."""
    sys.path.append(str(ROOT))
    from fuzz.targets import load

    for target in ('codec', 'protocol'):
        inputs = sorted((ROOT / '.build' / 'fuzz' / 'corpus' / target).glob('*'))
        check = load(target)
        for path in inputs:
            check(path.read_bytes())
        print(f'replay: {len(inputs)} inputs of earlier fuzzing, {target}: nothing found')


def fuzz(seconds: float, seed: int) -> None:
    """Feed what must be refused or read, and compare it with wsproto's word."""
    from simple_websocket import _codec, codec

    if b'__asan_report' not in Path(_codec.__file__).read_bytes():
        sys.exit(f'{_codec.__file__} is not built with ASan')
    replay()
    dice = random.Random(seed)
    end = time.monotonic() + seconds
    inputs = feeds = 0
    for data, every in samples(dice):
        inputs += 1
        options = (
            dice.random() < 0.3,
            dice.choice([None, 0, 100, 70000]),
            dice.choice([None, 1, 5]),
            dice.random() < 0.5,
        )
        for number, pieces in enumerate(splits(data, every, dice)):
            decoder = _codec.CompiledDecoder(*options)
            got = [decoder.feed(tight(piece)) for piece in pieces]
            feeds += len(pieces)
            if number in (0, len(data)):
                oracle = codec.WsprotoDecoder(*options)
                assert got == [oracle.feed(piece) for piece in pieces], (data, pieces, options)
        payload = tight(data)
        for masked in (False, True):
            (chunk,) = _codec.CompiledDecoder(not masked).feed(_codec.encode(2, payload, masked))
            assert chunk.payload == data
        if time.monotonic() > end:
            break
    print(f'fuzz: {inputs} inputs in {feeds} pieces, seed {seed}: nothing found')


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('--seconds', type=float, default=20, help='of fuzzing')
    parser.add_argument('--seed', type=int, default=1)
    parser.add_argument('--fuzz', action='store_true', help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.fuzz:
        fuzz(options.seconds, options.seed)
        return
    print('== building with -fsanitize=address,undefined', flush=True)
    build()
    environ = environment()
    for mode, paths in TESTS.items():
        print(f'== {mode}: {" ".join(paths)}', flush=True)
        # pytest by its script: the working directory must not come first in sys.path.
        tests = [str(Path(sys.executable).parent / 'pytest'), '-q', '-p', 'timeout']
        tests += ['-p', 'hypothesispytest', '--timeout=300']
        tests += [f'tests/{path}' for path in paths]
        subprocess.run(
            [sys.executable, *tests], cwd=ROOT, env={**environ, 'SWS_MODE': mode}, check=True
        )
    print('== the fuzzer', flush=True)
    again = [sys.executable, __file__, '--fuzz', f'--seed={options.seed}']
    again.append(f'--seconds={options.seconds}')
    subprocess.run(again, cwd=ROOT, env=environ, check=True)


if __name__ == '__main__':
    try:
        main()
    except subprocess.CalledProcessError as error:
        sys.exit(f'failed: exit status {error.returncode}')
