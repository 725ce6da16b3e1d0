"""What no server can go below: bench/echo.c, the kernel's part of a message."""

import os
from pathlib import Path

from .registry import server

PROGRAM = Path(__file__).resolve().parents[2] / '.build' / 'bench' / 'echo'


@server('bare-c', 'C', 'bare', 'bare epoll')
def bare_c(port):
    os.execv(PROGRAM, [PROGRAM, str(port)])
