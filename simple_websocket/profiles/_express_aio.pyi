from typing import TypeVar

_Kind = TypeVar('_Kind', bound=type)

def aio(kind: _Kind) -> _Kind: ...
