"""The metadata is in setup.cfg; here is the compiled codec, with the calls that
go around it (those in profiles/): optional extensions.

Without Cython, a C compiler or Python's headers the package is installed all
the same, with a notice: its frames are then handled by wsproto, slower.
"""

from __future__ import annotations

import platform
import sys
import sysconfig

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

SOURCES = {'simple_websocket._codec': 'simple_websocket/_codec.pyx'}
if sys.platform != 'win32':
    names = ['_lock', '_pump', '_express', '_express_many', '_express_aio']
    if sys.platform == 'linux':
        names.append('_poll')
    for name in names:
        SOURCES[f'simple_websocket.profiles.{name}'] = f'simple_websocket/profiles/{name}.pyx'


def notice(reason: object, part: str = '') -> None:
    print(
        f'simple-websocket: notice: the compiled codec {part}is not built: {reason}\n'
        'simple-websocket: notice: installing without it; wsproto does its work, slower',
        file=sys.stderr,
    )


class BuildOptional(build_ext):
    """Builds on all processors, and turns every failure into a notice."""

    def finalize_options(self) -> None:
        super().finalize_options()
        if self.parallel is None:
            self.parallel = True

    def build_extension(self, ext: Extension) -> None:
        if self.compiler.compiler_type == 'unix':
            ext.extra_compile_args.append('-O3')  # vector instructions
        try:
            super().build_extension(ext)
        except Exception as error:
            notice(error, f'{ext.name} ')


def extensions() -> list[Extension]:
    if platform.python_implementation() != 'CPython':
        notice(f'it knows CPython, not {platform.python_implementation()}')
        return []
    if sysconfig.get_config_var('Py_GIL_DISABLED'):
        notice('it relies on the GIL')
        return []
    try:
        from Cython.Build import cythonize
    except ImportError as error:
        notice(error)
        return []
    # The C code is made anew by every build and shipped by none.
    made = cythonize(
        [Extension(name, [source]) for name, source in SOURCES.items()],
        build_dir='build/cython',
        quiet=True,
    )
    for extension in made:
        extension.optional = True  # cythonize would forget it; nobody misses the file then
    return made


setup(ext_modules=extensions(), cmdclass={'build_ext': BuildOptional})
