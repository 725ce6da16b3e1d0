"""Close codes (RFC 6455 section 7.4, and what IANA has registered since)."""

from __future__ import annotations

#: What may stand in a Close frame, of all 65,536.
VALID = frozenset({1000, 1001, 1002, 1003, *range(1007, 1015), *range(3000, 5000)})
INVALID = frozenset(range(65536)) - VALID

#: What is no code at all, of integers.
NO_CODE = (-65536, -1000, -1, 65536, 65536 + 1000, 1 << 32, 1 << 64)

#: Those at the ends of each range, and all that have a name.
VALID_EDGES = (*range(1000, 1004), *range(1007, 1015), 3000, 3999, 4000, 4999)
INVALID_EDGES = (0, 1, 125, 255, 256, 999, 1004, 1005, 1006, 1015, 1016, 1100, 1999, 2000,
                 2999, 5000, 32768, 65535)  # fmt: skip
