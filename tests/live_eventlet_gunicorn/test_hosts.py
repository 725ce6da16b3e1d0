"""gunicorn's eventlet worker: the same as on every other host."""

from live.test_hosts import *  # noqa: F403
