"""The live tests, for the one host that needs an environment of its own."""

import pytest

pytest.register_assert_rewrite('live.servers', 'live.test_hosts')

from live.conftest import *  # noqa: E402, F403
