"""The compiled codec as libFuzzer sees it: built with a call at every edge, and
with its comparisons shown to the mutator."""

from __future__ import annotations

import ctypes
import importlib.machinery
import importlib.util
import os
import subprocess
import sys
import sysconfig
from pathlib import Path
from types import ModuleType

ROOT = Path(__file__).resolve().parent.parent
BUILD = ROOT / '.build' / 'fuzz'
NAME = 'simple_websocket._codec'
FUZZER = 'atheris.core_with_libfuzzer'
COMPARISONS = [f'{kind}{size}' for kind in ('cmp', 'const_cmp') for size in (1, 2, 4, 8)]
COMPARISONS.append('switch')
SOURCES = (ROOT / 'simple_websocket' / '_codec.pyx', ROOT / 'fuzz' / 'cov.c')


def library() -> Path:
    return BUILD / f'_codec{sysconfig.get_config_var("EXT_SUFFIX")}'


def build() -> None:
    """Build it where it is not there or older than its sources.

    :raises subprocess.CalledProcessError: it could not be built.
    """
    made = library()
    newest = max(path.stat().st_mtime for path in (*SOURCES, Path(__file__)))
    if made.exists() and made.stat().st_mtime > newest:
        return
    BUILD.mkdir(parents=True, exist_ok=True)
    source, shim = SOURCES
    code = BUILD / '_codec.c'
    cython = [sys.executable, '-m', 'cython', '-3', '-o', str(code), str(source)]
    subprocess.run(cython, check=True, cwd=ROOT)
    include = f'-I{sysconfig.get_path("include")}'
    compiler = [os.environ.get('CC', 'cc'), '-c', '-fPIC', '-O2', '-g', include]
    edges = ['-fsanitize-coverage=trace-pc,trace-cmp']
    subprocess.run([*compiler, *edges, str(code), '-o', str(BUILD / 'codec.o')], check=True)
    subprocess.run([*compiler, str(shim), '-o', str(BUILD / 'cov.o')], check=True)
    objects = [str(BUILD / 'codec.o'), str(BUILD / 'cov.o')]
    linker = [os.environ.get('CC', 'cc'), '-shared', *objects, '-o', str(made)]
    subprocess.run(linker, check=True)


class Finder:
    """Has the import of the compiled codec find this build."""

    @staticmethod
    def find_spec(
        name: str, path: object = None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        if name != NAME:
            return None
        return importlib.util.spec_from_file_location(name, library())


def preload() -> None:
    """Have the import of the compiled codec find this build."""
    sys.meta_path.insert(0, Finder)  # type: ignore[arg-type]


def register() -> None:
    """Join the codec and libFuzzer, both of which are loaded."""
    fuzzer = ctypes.CDLL(importlib.import_module(FUZZER).__file__)
    codec = ctypes.CDLL(str(library()))
    for name in COMPARISONS:
        function = getattr(fuzzer, f'__sanitizer_cov_trace_{name}')
        pointer = ctypes.c_void_p.in_dll(codec, f'on_{name}')
        pointer.value = ctypes.cast(function, ctypes.c_void_p).value
    codec.fuzz_register(
        ctypes.cast(fuzzer.__sanitizer_cov_8bit_counters_init, ctypes.c_void_p),
        ctypes.cast(fuzzer.__sanitizer_cov_pcs_init, ctypes.c_void_p),
    )
