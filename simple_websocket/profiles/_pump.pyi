from typing import Any

from .pump import Came
from .wire import Wire

def wait_and_take(wire: Wire, decoder: Any, size: int, arrived: list[Came]) -> None: ...
def put(
    wire: Wire, opcode: int, payload: str | bytes | bytearray, masked: bool
) -> bytes | memoryview | None: ...
