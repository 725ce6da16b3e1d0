"""The end of a stream that was shut for reading: nothing before it is missed."""

from __future__ import annotations

import pytest
from support.peer import tcp_pair

from simple_websocket.profiles.wire import Wire

pytestmark = pytest.mark.only('default-codec')


@pytest.mark.parametrize('name', ['recv', 'discard'])
def test_bytes_that_come_between_an_empty_look_and_the_end_are_read(world, name):
    # recv gives b'' for nothing there as well as for the end, once the socket
    # is shut for reading: which it was is asked afterwards.
    theirs, ours = tcp_pair(world)
    asked = []

    class Late(Wire):
        def ended(self):
            if not asked:
                asked.append(True)
                theirs.sendall(b'goodbye')
                theirs.close()
                world.wait_until(super().ended)
            return super().ended()

    wire = Late(ours)
    wire.shutdown_read()
    assert getattr(wire, name)(100) == b'goodbye'
    assert getattr(wire, name)(100) == b''
    wire.close()
