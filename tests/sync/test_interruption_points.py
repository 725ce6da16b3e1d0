"""An exception at every point of every call: what is left behind is sound.

Two kinds of points are enumerated (`support/points.py`):

* the switches of a green call, where a kill, a timeout of the library and
  Ctrl-C come out, either while it waits or in place of what it waited for.
  Nothing may be lost there and a receiver goes on;
* the places between two bytecodes at which Ctrl-C can raise. There no step can
  be taken back, so a connection may fail, with 1006; what it may not do is
  go on with something missing, say half a frame, keep a lock or hang.
"""

from __future__ import annotations

import socket

import pytest
from support import modes
from support.peer import TEXT, accepted, connected
from support.points import throw_at_switch
from support.strict import Strict

from simple_websocket import ConnectionClosed

MODE = modes.current()
LARGE = b'x' * 1_000_000
TOO_MANY = 5000


class Stage:
    """A connection, its peer, and what each has said."""

    def __init__(self, world, classes, role='server', **options):
        options = {'compression': None, 'close_timeout': 0.3, **classes, **options}
        opener = accepted if role == 'server' else connected
        self.world = world
        self.ws, self.peer = opener(world, **options)
        # So that little fills TCP.
        self.ws.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 16)
        self.peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        self.heard = Strict(masked=role == 'client')
        self.heard.feed(self.peer.buffer)
        self.theirs = []
        self.listener = None

    def say(self, *texts):
        self.theirs += texts
        self.peer.send(*((TEXT, text.encode()) for text in texts))

    def listen(self):
        """Read what comes until the end, and answer a Close."""
        if self.listener is None:
            self.listener = self.world.spawn(self._listen)

    def _listen(self):
        peer, heard = self.peer, self.heard
        answered = False
        try:
            while data := peer.sock.recv(1 << 18):
                heard.feed(data)
                if heard.close is not None and not answered:
                    answered = True
                    peer.sock.sendall(peer.frame(8, heard.close))
                    if not peer.client:
                        break
        except ConnectionError:  # a reset: we had more to say than was read
            pass
        peer.sock.close()

    def drain(self, got):
        """Receive in another task what is still to come."""
        ws = self.ws
        try:
            while self.theirs[-1:] != got[-1:]:
                message = ws.receive(5)
                assert message is not None, f'{got} and nothing more'
                got.append(message)
        except ConnectionClosed:
            pass

    def finish(self, got):
        """Go on in other tasks, and end; returns whether it was still usable."""
        ws, world = self.ws, self.world
        usable = ws.connected
        if usable:
            try:
                self.say('last')
            except OSError:
                pass
        self.listen()
        world.spawn(self.drain, got).join(10)
        usable = usable and ws.connected
        if usable:
            world.spawn(ws.send, 'still here').join(10)
            world.spawn(ws.close, 4001).join(10)
        for call in (ws.receive, ws.close, lambda: ws.send('late')):
            with pytest.raises(ConnectionClosed):
                world.spawn(call).join(10)
        self.listener.join(10)
        if usable:
            assert self.heard.messages[-1:] == [b'still here']
            assert self.heard.close == (4001).to_bytes(2, 'big'), self.heard.close
        assert not self.heard.torn or ws.close_reason == 1006
        return usable


# -- scenarios: what is there before, the call, what comes while it waits ------


def receive(stage):
    return stage.ws.receive, lambda: stage.say('one', 'two', 'three')


def receive_with_timeout(stage):
    return lambda: stage.ws.receive(5), lambda: stage.say('one', 'two', 'three')


def receive_until_the_time_is_over(stage):
    return lambda: stage.ws.receive(0.01), None


def receive_what_is_there(stage):
    stage.say('one', 'two', 'three')
    return stage.ws.receive, None


def receive_behind_half_a_frame(stage):
    frame = stage.peer.frame(TEXT, b'one')
    stage.theirs.append('one')
    stage.peer.send(frame[:4])

    def rest():
        stage.peer.send(frame[4:])
        stage.say('two')

    return stage.ws.receive, rest


def receive_from_a_full_queue(stage):
    stage.say(*map(str, range(8)))
    assert stage.ws.receive(5) == '0'
    del stage.theirs[0]
    return stage.ws.receive, None


receive_from_a_full_queue.options = {'max_queue': 2}


def receive_while_closing(stage):
    def close():
        stage.listen()
        stage.ws.close(4000)

    return stage.ws.receive, close


def send_small(stage):
    return lambda: stage.ws.send('small'), None


def send_large(stage):
    return lambda: stage.ws.send(LARGE), stage.listen


def send_large_with_timeout(stage):
    return lambda: stage.ws.send(LARGE, timeout=0.03), None


def close_with_an_answer(stage):
    stage.listen()
    return lambda: stage.ws.close(4000), None


def close_and_hear_nothing(stage):
    return lambda: stage.ws.close(4000), None


close_and_hear_nothing.options = {'close_timeout': 0.03}

RECEIVE = [
    receive,
    receive_with_timeout,
    receive_until_the_time_is_over,
    receive_what_is_there,
    receive_behind_half_a_frame,
    receive_from_a_full_queue,
    receive_while_closing,
]
SEND = [send_small, send_large, send_large_with_timeout]
CLOSE = [close_with_an_answer, close_and_hear_nothing]


def judge_messages(stage, outcome, got, usable, strictly):
    """Nothing is lost, or the connection has failed; returns what is missing."""
    theirs = stage.theirs
    if usable:
        missing = [one for one in theirs if one not in got]
        assert got == [one for one in theirs if one in got], got
        if strictly or outcome.error is None:
            assert not missing
        # The one that was on its way out of receive() when it was interrupted.
        assert missing in ([], theirs[:1]), f'lost {missing}'
        return missing
    assert got == [one for one in theirs if one in got], got
    return []


def judge_close(stage, outcome, scenario, usable):
    code = stage.ws.close_reason
    if not usable:
        closing = scenario in CLOSE or scenario is receive_while_closing
        assert code in ((4000, 1006) if closing else (1006,)), code
    large = [one for one in stage.heard.messages if one == LARGE]
    if outcome.error is None and scenario is send_large:
        assert large
    if stage.heard.torn:
        assert code == 1006


def run(world, classes, scenario, call, strictly):
    """One run of a scenario; returns its outcome and what happened to it."""
    options = getattr(scenario, 'options', {})
    stage = Stage(world, classes, **options)
    act, meanwhile = scenario(stage)
    outcome = call(act, meanwhile)
    try:
        got = [outcome.result] if isinstance(outcome.result, str) else []
        usable = stage.finish(got)
        missing = judge_messages(stage, outcome, got, usable, strictly)
        judge_close(stage, outcome, scenario, usable)
    except BaseException as error:
        raise AssertionError(f'{outcome}: {error!r}') from error
    return outcome, usable, missing


def thrown(world):
    """What can come out of a switch in this world."""
    from greenlet import GreenletExit

    return [GreenletExit(), world.Timeout(None), KeyboardInterrupt()]


def at_switches(world, number, error, late):
    def call(act, meanwhile):
        if meanwhile is not None:
            def when_it_waits():
                world.sleep(0.001)
                meanwhile()

            task = world.spawn(when_it_waits)
        outcome = throw_at_switch(world, act, number, error, late)
        if meanwhile is not None:
            try:
                task.join(10)
            except (OSError, ConnectionClosed):
                pass  # the connection has failed by then
        return outcome

    return call


@pytest.mark.only('green')
@pytest.mark.parametrize('late', [False, True], ids=['waiting', 'resumed'])
@pytest.mark.parametrize('scenario', RECEIVE + SEND + CLOSE, ids=lambda s: s.__name__)
def test_at_every_switch(world, classes, scenario, late):
    number = 0
    with_error = 0
    for error in thrown(world):
        for number in range(1, TOO_MANY):
            call = at_switches(world, number, error, late)
            outcome, usable, _ = run(world, classes, scenario, call, strictly=True)
            if not outcome.hit:
                assert outcome.error is None or isinstance(outcome.error, ConnectionClosed)
                break
            if outcome.error is error:
                with_error += 1
                if scenario in RECEIVE and scenario is not receive_while_closing:
                    assert usable, f'{outcome}: a receiver cannot go on'
    # Those that never wait have no switches; all others do.
    expected = scenario not in (send_small, receive_what_is_there, receive_from_a_full_queue)
    assert number > 1 or not expected
