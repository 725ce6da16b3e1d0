"""What the pure tests share: the codecs that are there, and both roles."""

from __future__ import annotations

import pytest
from support.lab import CODECS, ROLES


@pytest.fixture(params=CODECS.values(), ids=CODECS)
def codec(request):
    return request.param


@pytest.fixture(params=ROLES.values(), ids=ROLES)
def client(request):
    """Whether the end under test is the client."""
    return request.param
