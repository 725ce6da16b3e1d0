"""Senders, receivers, closers, pingers and killers, all at once, for many rounds.

Every round is drawn from a seed (`support/racing.py`), which a failure names;
`make races` runs more of them. On threads the interpreter switches five
thousand times as often as it does by itself.
"""

from __future__ import annotations

import faulthandler
import os
import random
import sys

import pytest
from support import greenery, modes
from support import world as worlds
from support.frames import TEXT
from support.peer import accepted, environ_for, tcp_pair
from support.racing import LIMIT, ROUNDS, Plan, RacingPeer, judge, message

from simple_websocket import Client, ConnectionClosed, Server
from simple_websocket.errors import SimpleWebsocketError

from .conftest import injected_classes

MODE = modes.current()


class Round:
    """One round: our end of it, and all who use it."""

    def __init__(self, number):
        self.plan = Plan(number, MODE.name, kills=MODE.green)
        self.rng = random.Random(self.plan.rng.random())
        self.world = worlds.make(MODE)
        self.sent = {}
        self.received = []
        self.receivers = []
        self.over = False

    def connect(self):
        plan, world = self.plan, self.world
        theirs, ours = tcp_pair(world) if plan.tcp else world.socketpair()
        # The peer is on a plain socket, out of reach of any hub.
        plain = world.original('socket', 'socket')(fileno=os.dup(theirs.fileno()))
        theirs.close()
        self.peer = RacingPeer(plan, plain, world.original, lambda: self.over)
        self.playing = world.real_thread(self.peer.run)
        options = plan.options()
        if plan.injected:
            options |= injected_classes(world)
        if plan.client:
            return Client('ws://localhost', sock=ours, **options)
        offer = {'SEC_WEBSOCKET_EXTENSIONS': 'permessage-deflate'} if plan.deflate else {}
        return Server(environ_for(ours, **offer), **options)

    def run(self):
        """Play it, and judge it."""
        world, plan = self.world, self.plan
        self.ws = self.connect()
        tasks = []
        for script in plan.senders:
            start = world.real_thread if script['foreign'] else world.spawn
            tasks.append(start(self.send, script))
        for _ in range(plan.receivers):
            self.receivers.append(world.spawn(self.receive))
        for moment, code in plan.ours or ():
            foreign = self.rng.random() < 0.3
            start = world.real_thread if foreign else world.spawn
            tasks.append(start(self.close, moment, code, foreign))
        if plan.kills:
            tasks.append(world.spawn(self.kill, list(tasks)))
        for task in tasks:
            task.join(LIMIT)
        for task in self.receivers:
            task.join(LIMIT)
        self.check_the_end()
        self.playing.join(LIMIT)
        judge(plan, self.peer, self.sent, self.received, self.ws.close_reason)
        assert not world.finish()

    def sleep(self, foreign):
        """How to sleep: an OS thread that is not the hub's does it for itself."""
        return self.world.original('time', 'sleep') if foreign else self.world.sleep

    def send(self, script):
        who, done = script['who'], self.sent.setdefault(script['who'], [])
        for number, size in enumerate(script['sizes']):
            try:
                self.ws.send(message(who, number, size), timeout=script['timeout'])
            except ConnectionClosed:
                break
            done.append(number)
            if script['pause'] is not None:
                self.sleep(script['foreign'])(script['pause'])

    def receive(self):
        mine = []
        self.received.append(mine)
        timeouts = [self.rng.choice((None, None, 0, 0.0005, 5)) for _ in range(7)]
        at = 0
        while True:
            at = (at + 1) % len(timeouts)
            try:
                got = self.ws.receive(timeouts[at])
            except ConnectionClosed:
                return
            except SimpleWebsocketError:
                # The other one is waiting, or this one will be next time.
                assert self.plan.receivers > 1 or self.plan.kills
                self.world.sleep(0.0005)
                continue
            if got is not None:
                mine.append(got)
            elif timeouts[at] == 0:
                self.world.sleep(0.0002)

    def close(self, moment, code, foreign):
        self.sleep(foreign)(moment)
        try:
            self.ws.close(code, 'bye')
        except ConnectionClosed:
            pass

    def kill(self, tasks):
        for moment in self.plan.kills:
            self.world.sleep(moment)
            green = [t for t in (*tasks, *self.receivers) if t.greenlet is not None and not t.done]
            if not green:
                return
            victim = self.rng.choice(green)
            self.world.kill(victim)
            if victim in self.receivers and victim.killed:
                self.receivers.append(self.world.spawn(self.receive))
        if self.plan.ours and not self.plan.theirs:
            # Somebody has to end it, now that the closer may be gone.
            self.close(0, self.plan.ours[0][1], False)

    def check_the_end(self):
        ws = self.ws
        assert not ws.connected
        for call in (ws.receive, lambda: ws.send('x'), ws.close):
            with pytest.raises(ConnectionClosed) as closed:
                call()
            assert closed.value.reason == ws.close_reason
        if not self.plan.injected:  # an injected thread may be unable to say so
            ws.thread.join(LIMIT)
            assert not ws.thread.is_alive()


@pytest.fixture
def watchdog(pytestconfig):
    """Prints every stack when a round takes too long; past any capturing."""
    manager = pytestconfig.pluginmanager.getplugin('capturemanager')
    with manager.global_and_fixture_disabled():
        out = os.fdopen(os.dup(2), 'w')

    yield lambda: faulthandler.dump_traceback_later(LIMIT * 0.75, file=out)
    faulthandler.cancel_dump_traceback_later()
    out.close()


@pytest.fixture
def nervous():
    """Threads that are switched between at every turn."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


@pytest.mark.timeout(60 + ROUNDS)
def test_rounds_of_senders_receivers_closers_pingers_and_killers(world, watchdog, nervous):
    # One connection looks on: what the others do is nothing to it. It also
    # keeps what a process has once, so that the descriptors can be counted.
    bystander, other = accepted(world)
    bystander.send('warm')
    other.expect(TEXT, b'warm')
    fds = None
    for number in range(ROUNDS):
        watchdog()
        one = Round(number)
        try:
            one.run()
            if fds is None:
                fds = world.fds()
            world.comes_down_to(world.fds, fds)
        except BaseException as error:
            if MODE.green:
                greenery.dump_greenlets()
            raise AssertionError(f'{error!r} in {one.plan!r}') from error
        finally:
            one.over = True
        if number % 20 == 0:
            bystander.send('still here')
            other.expect(TEXT, b'still here')
            other.send((TEXT, b'so am I'))
            assert bystander.receive(5) == 'so am I'
    bystander._link.abandon()
    other.close()
    world.settles_to(lambda: bystander.connected, False)
