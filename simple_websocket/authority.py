"""Hosts and ports, as URLs and origins have them (RFC 3986 section 3.2)."""

from __future__ import annotations

import ipaddress
import re

DEFAULT_PORTS = {'http': 80, 'ws': 80, 'https': 443, 'wss': 443}

_authority = re.compile(r'(?:\[([^\[\]]*)\]|([^\[\]:]*))(?::([0-9]{0,5}))?')
#: What IDNA 2003, which Python has, makes other letters of, or nothing, and IDNA 2008,
#: which browsers have, does not (UTS 46 section 7): another domain.
_AMBIGUOUS = frozenset('\u00df\u1e9e\u03c2\u200c\u200d')
_reg_name = re.compile(r'[A-Za-z0-9._~-]+')


def split_authority(authority: str) -> tuple[str, int | None]:
    """Split ``host[:port]``; an IPv6 address comes without its brackets.

    :raises ValueError: it isn't that.
    """
    match = _authority.fullmatch(authority)
    if match is None:
        raise ValueError(f'{authority!r} is not a host with an optional port')
    address, name, digits = match.groups()
    port = int(digits) if digits else None
    if port is not None and not 0 < port < 65536:
        raise ValueError(f'port {port} is not from 1 to 65535')
    if address is not None:
        # RFC 6874: in a URL the zone follows %25
        return ipaddress.IPv6Address(address.replace('%25', '%', 1)).compressed, port
    return _ascii_host(name), port


def _ascii_host(name: str) -> str:
    """Return a host name in lower case, an international one in its ASCII form.

    :raises ValueError: it has characters or labels that no host name has.
    """
    if len(name) > 253:
        raise ValueError('the host name is too long')
    if not _AMBIGUOUS.isdisjoint(name):
        raise ValueError(f'{name!r} can be two names: give the form that begins with xn--')
    try:
        # This also finds empty labels, and those too long for the resolver.
        ascii_name = name.encode('idna').decode('ascii')
    except UnicodeError as error:
        raise ValueError(f'{name!r} is not a host name: {error}') from error
    if _reg_name.fullmatch(ascii_name) is None:
        raise ValueError(f'{name!r} is not a host name')
    return ascii_name.lower()


def bracketed(host: str) -> str:
    # A zone means something on this machine only (RFC 6874 section 4).
    return f'[{host.partition("%")[0]}]' if ':' in host else host
