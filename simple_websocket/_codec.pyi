from .codec import Chunk

class CompiledDecoder:
    def __init__(
        self,
        client: bool,
        limit: int | None = None,
        max_fragments: int | None = None,
        compression: bool = False,
    ) -> None: ...
    def whole(self, data: bytes | bytearray) -> str | bytes | None: ...
    def feed(self, data: bytes | bytearray | memoryview) -> list[Chunk]: ...

def encode(
    opcode: int,
    payload: str | bytes | bytearray | memoryview,
    masked: bool,
    compressed: bool = False,
    fin: bool = True,
) -> bytes: ...
