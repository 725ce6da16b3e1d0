"""What the pure tests share: the codecs that are there, and both roles."""

from __future__ import annotations

import os
import time

import pytest
from support.lab import CODECS, ROLES


@pytest.fixture(params=CODECS.values(), ids=CODECS)
def codec(request):
    return request.param


@pytest.fixture(params=ROLES.values(), ids=ROLES)
def client(request):
    """Whether the end under test is the client."""
    return request.param


if 'MUTANT_UNDER_TEST' in os.environ:
    import resource  # which not every system has

    @pytest.fixture(autouse=True)
    def a_mutant_that_goes_round_for_ever_is_ended():
        """See tests/mutation.py: no clock on the wall, as the machine may be busy."""
        soft, hard = resource.getrlimit(resource.RLIMIT_CPU)
        limit = int(time.process_time()) + 20  # several times what the longest takes
        if hard != resource.RLIM_INFINITY:
            limit = min(limit, hard)
        resource.setrlimit(resource.RLIMIT_CPU, (limit, hard))
        yield
        resource.setrlimit(resource.RLIMIT_CPU, (soft, hard))
