"""Close codes and the payload of a Close frame (RFC 6455 sections 5.5.1, 7.4)."""

from __future__ import annotations

NORMAL_CLOSURE = 1000
GOING_AWAY = 1001
NO_STATUS = 1005
ABNORMAL_CLOSURE = 1006
INTERNAL_ERROR = 1011

#: Codes that may stand in a Close frame (section 7.4): the RFC's and IANA's
#: assigned ones without those that only an API may report (1005, 1006, 1015).
_ASSIGNED_CODES = frozenset((1000, 1001, 1002, 1003, *range(1007, 1015)))


def sendable(code: int) -> bool:
    """Whether a close code may stand in a Close frame (section 7.4)."""
    return code in _ASSIGNED_CODES or 3000 <= code <= 4999


def close_payload(code: int, reason: str | None) -> bytes:
    """The payload of a Close frame (section 5.5.1).

    :param code: the close code.
    :param reason: a text of at most 123 bytes in UTF-8, or None.
    :raises ValueError: for a code that must not be sent, a reason that is too
                        long or has no UTF-8 form.
    :raises TypeError: for a code that is no integer or a reason that is no text.
    """
    if isinstance(code, bool) or not isinstance(code, int):
        raise TypeError(f'reason (the close code) must be an int, not {type(code).__name__}')
    if not sendable(code):
        raise ValueError(f'reason (the close code) {code} must not be sent in a Close frame')
    if reason is not None and not isinstance(reason, str):
        raise TypeError(f'message must be a str, not {type(reason).__name__}')
    text = (reason or '').encode()
    if len(text) > 123:
        raise ValueError(f'message is {len(text)} bytes long, a Close frame takes 123')
    return int(code).to_bytes(2, 'big') + text
