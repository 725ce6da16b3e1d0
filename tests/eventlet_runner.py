"""pytest in a process that is eventlet's, patched (`--patch`) or not.

Patching comes before pytest is imported: a lock or a socket made before would
stay a blocking one.
"""

import sys

if __name__ == '__main__':
    arguments = sys.argv[1:]
    import eventlet

    if '--patch' in arguments:
        arguments.remove('--patch')
        eventlet.monkey_patch()

    # On Python 3.13 this cannot be imported first in a greenlet.
    import eventlet.green.threading
    import pytest

    sys.exit(pytest.main(arguments))
