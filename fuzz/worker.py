"""The process of one target, under libFuzzer: ``python -m fuzz.worker TARGET
[libFuzzer's arguments]``. ``python -m fuzz`` starts it."""

from __future__ import annotations

import faulthandler
import os
import resource
import sys

from fuzz import watch

watch.preload()

import atheris  # noqa: E402

#: Address space of the process: what asks for more at once gets a MemoryError,
#: which is a finding, also where it would never touch it.
ADDRESS_SPACE = 4 << 30

WATCHED = ['simple_websocket', 'wsproto.frame_protocol', 'h11']


def main() -> None:
    faulthandler.enable()
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, ADDRESS_SPACE))
    # Without it, a build that cannot be loaded would go unnoticed.
    os.environ['SIMPLE_WEBSOCKET_CODEC'] = 'compiled'
    name = sys.argv.pop(1)
    with atheris.instrument_imports(include=WATCHED):
        if name == 'planted':
            from fuzz.planted import check
        else:
            from fuzz.targets import load

            check = load(name)
    atheris.Setup(sys.argv, check)
    watch.register()
    atheris.Fuzz()


if __name__ == '__main__':
    main()
