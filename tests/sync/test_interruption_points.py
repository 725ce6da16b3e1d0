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

import gc
import socket
import ssl

import pytest
import trustme
from support import modes
from support.frames import TEXT
from support.peer import Peer, accepted, connected, environ_for, switching, tcp_pair
from support.points import Progress, raise_at_bytecode, throw_at_switch
from support.strict import Strict

from simple_websocket import Client, ConnectionClosed, Server
from simple_websocket.codec import NAME
from simple_websocket.profiles import watchman

MODE = modes.current()
pytestmark = [pytest.mark.timeout(180), pytest.mark.only('default-codec')]
LARGE = b'x' * 1_000_000
TOO_MANY = 5000
CA = trustme.CA()
CERT = CA.issue_cert('localhost', '127.0.0.1')


def context(world, server):
    made = world.ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    if server:
        CERT.configure_cert(made)
    else:
        CA.configure_trust(made)
    return made


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
    # Resumed, a greenlet runs at once: nothing but a signal comes in between,
    # and what it was resumed with may be lost, with the connection.
    for error in [KeyboardInterrupt()] if late else thrown(world):
        for number in range(1, TOO_MANY):
            call = at_switches(world, number, error, late)
            outcome, usable, _ = run(world, classes, scenario, call, strictly=not late)
            if not outcome.hit:
                assert outcome.error is None or isinstance(outcome.error, ConnectionClosed)
                break
            if outcome.error is error and not late:
                if scenario in RECEIVE and scenario is not receive_while_closing:
                    assert usable, f'{outcome}: a receiver cannot go on'
    # Those that never wait have no switches; all others do.
    expected = scenario not in (send_small, receive_what_is_there, receive_from_a_full_queue)
    assert number > 1 or not expected


# -- Ctrl-C between two bytecodes ----------------------------------------------


def at_bytecodes(world, number):
    """Interrupt a call in this thread, while another does what comes then."""

    def call(act, meanwhile):
        progress = Progress()

        def when_it_waits():
            progress.stuck(world.sleep)
            meanwhile()

        task = world.spawn(when_it_waits) if meanwhile is not None else None
        outcome = raise_at_bytecode(act, number, KeyboardInterrupt(), progress)
        if task is not None:
            try:
                task.join(10)
            except (OSError, ConnectionClosed):
                pass  # the connection has failed by then
        return outcome

    return call


@pytest.mark.parametrize('scenario', RECEIVE + SEND + CLOSE, ids=lambda s: s.__name__)
def test_between_any_two_bytecodes(world, classes, scenario):
    # Somebody looks on, so that what a process has once stays.
    bystander, other = accepted(world)
    fds = world.fds()
    gone = []
    for number in range(1, TOO_MANY):
        outcome, usable, missing = run(
            world, classes, scenario, at_bytecodes(world, number), strictly=False
        )
        if missing:
            gone.append(outcome.where)
        if not outcome.hit:
            break
        try:
            world.wait_until(lambda: world.fds() <= fds)
        except AssertionError as error:
            raise AssertionError(f'{outcome}: {world.fds()} fds, not {fds}') from error
    other.send((TEXT, b'to another'))
    assert bystander.receive(5) == 'to another'
    other.close()
    bystander._link.abandon()
    if NAME == 'compiled' and scenario is send_small:
        assert number == 1, 'a small message that nothing is in the way of is sent in C'
    else:
        assert number > 10
    # Only where it has been handed over, and the caller has not got hold of it.
    assert all(where.startswith('ws.py') for where in gone), gone


# -- accept and connect ----------------------------------------------------------

# A socket that was made and has not got a name yet is closed by its finaliser.
ORPHANS = pytest.mark.filterwarnings(
    'ignore::ResourceWarning', 'ignore::pytest.PytestUnraisableExceptionWarning'
)


class Host:
    """Takes any number of connections, and answers in pieces."""

    def __init__(self, world, tls):
        self.world = world
        self.tls = tls
        self.listener, self.port = world.listen()
        self.busy = 0
        self.failures = []
        self.accepting = world.spawn(self._accept)

    def _accept(self):
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            if self.over:
                sock.close()
                return
            self.busy += 1
            self.world.spawn(self._serve, sock)

    over = False

    def close(self):
        # A last connection ends the accept() on every backend.
        self.over = True
        self.world.connect(self.port).close()
        self.accepting.join()
        self.listener.close()

    def _serve(self, sock):
        try:
            sock.settimeout(5)
            if self.tls:
                sock = context(self.world, True).wrap_socket(
                    sock, server_side=True, do_handshake_on_connect=False
                )
                sock.do_handshake()
            self._answer(Peer(sock, client=False))
        except (EOFError, OSError):
            pass  # the client was interrupted in its handshake
        except AssertionError as error:
            self.failures.append(error)
        finally:
            sock.close()
            self.busy -= 1

    def _answer(self, peer):
        answer = switching(peer.head())
        for at in range(0, len(answer), 60):
            peer.sock.sendall(answer[at : at + 60])
            self.world.sleep(0.001)
        heard = Strict(masked=True)
        while data := peer.sock.recv(65536):
            heard.feed(data)
            if heard.close is not None:
                peer.sock.sendall(peer.frame(8, heard.close))
                return
        assert not heard.said and not heard.torn

    def check(self, outcome, fds):
        """What a call of connect has left behind."""
        if outcome.error is None:
            outcome.result.close()
        elif isinstance(outcome.error, BaseException):
            outcome.error.__traceback__ = None  # it holds what was being made
        self.world.wait_until(lambda: not self.busy)
        assert not self.failures, f'{outcome}: {self.failures}'
        if self.world.fds() > fds:
            gc.collect()  # a half-made connection and its reader hold each other
        try:
            self.world.wait_until(lambda: self.world.fds() <= fds)
        except AssertionError:
            raise AssertionError(f'{outcome}: {self.world.fds()} fds, not {fds}') from None


@pytest.fixture(params=['ws', 'wss'])
def dial(request, world, classes):
    """The call that connects, to a name; and its host."""
    tls = request.param == 'wss'
    host = Host(world, tls)
    options = {'ssl_context': context(world, False)} if tls else {}
    url = f'{request.param}://localhost:{host.port}'

    def call():
        return Client(url, close_timeout=1, **options, **classes)

    bystander, other = accepted(world)
    call().close()  # what a process opens once is open now
    world.wait_until(lambda: not host.busy)
    yield host, call
    host.close()
    other.close()
    bystander._link.abandon()


@pytest.mark.only('green')
def test_at_every_switch_of_connect(world, dial):
    host, call = dial
    world.sleep(0.05)
    fds = world.fds()
    for error in thrown(world):
        came_out = 0
        for number in range(1, TOO_MANY):
            outcome = throw_at_switch(world, call, number, error, late=False)
            hit = outcome.hit
            host.check(outcome, fds)
            if not hit:
                break
            # eventlet's hub may find first what was waited for, and go on.
            assert outcome.error in (error, None)
            came_out += outcome.error is error
        assert number > 2 and came_out, 'TCP or HTTP are waited for, at least'


@ORPHANS
def test_between_any_two_bytecodes_of_connect(world, dial):
    host, call = dial
    world.sleep(0.05)
    fds = world.fds()
    # With TLS, what it has of its own: the rest is the same without.
    files = '/dial.py' if host.tls else '.py'
    for number in range(1, TOO_MANY):
        outcome = raise_at_bytecode(call, number, KeyboardInterrupt(), Progress(), files)
        hit = outcome.hit
        host.check(outcome, fds)
        if not hit:
            break
    assert number > 30


@pytest.fixture(params=['alone', 'beside another'])
def company(request, world, monkeypatch):
    """Whether there is another connection in the hub, or the process; behind the
    test, that nothing is left of either."""
    monkeypatch.setattr(watchman, 'LINGER', 0.01)
    beside = request.param != 'alone'
    bystander, other = accepted(world) if beside else (None, None)
    yield
    if beside:
        other.send((TEXT, b'to another'))
        assert bystander.receive(5) == 'to another'
        other.close()
        bystander._link.abandon()
    if world.name == 'eventlet':
        from simple_websocket.profiles.eventlet import _Mailbox

        world.settles_to(lambda: [box for box in _Mailbox._boxes.values() if box._users], [])


@ORPHANS
@pytest.mark.usefixtures('company')
def test_between_any_two_bytecodes_of_accept(world, classes):
    for number in range(1, TOO_MANY):
        fds = world.fds()
        theirs, ours = tcp_pair(world)
        ours_environ = environ_for(ours)
        outcome = raise_at_bytecode(
            lambda environ=ours_environ: Server(environ, close_timeout=0.2, **classes),
            number,
            KeyboardInterrupt(),
            Progress(),
        )
        peer = Peer(theirs, client=True)
        if outcome.error is None:
            peer.head()
            world.spawn(outcome.result.close).join(10)
            peer.expect_close(1000)
        else:
            outcome.error.__traceback__ = None
            # What a WSGI server does with a handler that is interrupted.
            ours.close()
        hit = outcome.hit
        where = outcome.where
        del outcome, ours, ours_environ
        peer.close()
        if world.fds() > fds:
            gc.collect()  # what hangs together with the request
        try:
            world.wait_until(lambda fds=fds: world.fds() <= fds)
        except AssertionError:
            raise AssertionError(f'{where}: {world.fds()} fds, not {fds}') from None
        if not hit:
            break
    assert number > 50
