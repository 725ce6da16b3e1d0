from ..ws import Base

def put_to_many(
    connections: list[Base], frame: bytes, size: int, ident: int
) -> list[int | None]: ...
