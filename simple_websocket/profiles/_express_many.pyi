from .link import Link

def put_to_many(
    links: list[Link], frame: bytes, size: int, ident: int
) -> list[int | None]: ...
