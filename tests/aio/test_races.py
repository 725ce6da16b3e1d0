"""Senders, receivers, closers, pingers and cancelled tasks, all at once.

The plan and the peer, which is an OS thread, are those of the blocking modes:
see `support/racing.py`.
"""

from __future__ import annotations

import asyncio
import faulthandler
import importlib
import os
import random
import socket
import threading

import pytest
from aio.peer import HEADERS, fds, tcp_pair, until
from support.racing import LIMIT, ROUNDS, Plan, RacingPeer, judge, message

from simple_websocket import AioClient, AioServer, ConnectionClosed
from simple_websocket.errors import SimpleWebsocketError


def original(module, name):
    return getattr(importlib.import_module(module), name)


class Round:
    """One round: our end of it, and all who use it."""

    def __init__(self, number):
        self.plan = Plan(number, 'aio')
        self.rng = random.Random(self.plan.rng.random())
        self.sent = {}
        self.received = []
        self.receivers = []
        self.over = False
        self.failure = None

    async def connect(self):
        plan = self.plan
        theirs, ours = await tcp_pair() if plan.tcp else socket.socketpair()
        self.peer = RacingPeer(plan, theirs, original, lambda: self.over)
        self.playing = threading.Thread(target=self.play, daemon=True)
        self.playing.start()
        if plan.client:
            return await AioClient.connect('ws://localhost', sock=ours, **plan.options())
        extension = {'Sec-WebSocket-Extensions': 'permessage-deflate'} if plan.deflate else {}
        return await AioServer.accept(
            sock=ours, headers={**HEADERS, **extension}, **plan.options()
        )

    def play(self):
        try:
            self.peer.run()
        except BaseException as error:
            self.failure = error

    async def run(self):
        """Play it, and judge it."""
        plan = self.plan
        self.ws = await self.connect()
        tasks = [asyncio.ensure_future(self.send(script)) for script in plan.senders]
        for _ in range(plan.receivers):
            self.receivers.append(asyncio.ensure_future(self.receive()))
        for moment, code in plan.ours or ():
            tasks.append(asyncio.ensure_future(self.close(moment, code)))
        if plan.kills:
            tasks.append(asyncio.ensure_future(self.kill(list(tasks))))
        _, left = await asyncio.wait(tasks, timeout=LIMIT)
        while not left and any(not task.done() for task in self.receivers):
            _, left = await asyncio.wait(self.receivers, timeout=LIMIT)
        assert not left, f'hangs: {left}'
        for task in (*tasks, *self.receivers):
            if not task.cancelled():
                task.result()
        await self.check_the_end()
        await until(lambda: not self.playing.is_alive())
        if self.failure is not None:
            raise self.failure
        judge(plan, self.peer, self.sent, self.received, self.ws.close_reason)

    async def send(self, script):
        who, done = script['who'], self.sent.setdefault(script['who'], [])
        for number, size in enumerate(script['sizes']):
            try:
                await self.ws.send(message(who, number, size), timeout=script['timeout'])
            except ConnectionClosed:
                break
            done.append(number)
            if script['pause'] is not None:
                await asyncio.sleep(script['pause'])

    async def receive(self):
        mine = []
        self.received.append(mine)
        while True:
            timeout = self.rng.choice((None, None, 0, 0.0005, 5))
            try:
                got = await self.ws.receive(timeout)
            except ConnectionClosed:
                return
            except SimpleWebsocketError:
                assert self.plan.receivers > 1 or self.plan.kills
                await asyncio.sleep(0.0005)
                continue
            if got is not None:
                mine.append(got)
            elif timeout == 0:
                await asyncio.sleep(0.0002)

    async def close(self, moment, code):
        await asyncio.sleep(moment)
        try:
            await self.ws.close(code, 'bye')
        except ConnectionClosed:
            pass

    async def kill(self, tasks):
        for moment in self.plan.kills:
            await asyncio.sleep(moment)
            running = [task for task in (*tasks, *self.receivers) if not task.done()]
            if not running:
                break
            victim = self.rng.choice(running)
            victim.cancel()
            await asyncio.wait([victim])
            if victim in self.receivers and victim.cancelled():
                self.receivers.append(asyncio.ensure_future(self.receive()))
        if self.plan.ours and not self.plan.theirs:
            # Somebody has to end it, now that the closer may be gone.
            await self.close(0, self.plan.ours[0][1])

    async def check_the_end(self):
        ws = self.ws
        assert not ws.connected
        for call in (ws.receive, lambda: ws.send('x'), ws.close):
            with pytest.raises(ConnectionClosed) as closed:
                await call()
            assert closed.value.reason == ws.close_reason
        await ws._link.join(LIMIT)


@pytest.fixture
def watchdog(pytestconfig):
    """Prints every stack when a round takes too long; past any capturing."""
    manager = pytestconfig.pluginmanager.getplugin('capturemanager')
    with manager.global_and_fixture_disabled():
        out = os.fdopen(os.dup(2), 'w')
    yield lambda: faulthandler.dump_traceback_later(LIMIT * 0.75, file=out)
    faulthandler.cancel_dump_traceback_later()
    out.close()


@pytest.mark.timeout(60 + ROUNDS)
def test_rounds_of_senders_receivers_closers_pingers_and_cancelled_tasks(watchdog):
    async def rounds():
        before = None
        for number in range(ROUNDS):
            watchdog()
            one = Round(number)
            try:
                await one.run()
                await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})
                before = before or fds()
                await until(lambda: fds() == before)  # noqa: B023
            except BaseException as error:
                for task in asyncio.all_tasks():
                    task.print_stack()
                raise AssertionError(f'{error!r} in {one.plan!r}') from error
            finally:
                one.over = True

    asyncio.run(rounds())
