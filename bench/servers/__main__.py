"""Run the server NAME at a loopback PORT: ``python -m bench.servers NAME PORT``."""

import sys

from . import SERVERS

# The working directory, which the environment of 1.1 must not find ours in.
del sys.path[0]
name, port = sys.argv[1:]
SERVERS[name].start(int(port))
