"""A task that waits for a message: how it is woken, cancelled, and driven otherwise.

Where the compiled codec is, it waits without a coroutine of ours, and goes on in
the callback that has received the message; none of this may be noticed but by
those who look for it.
"""

from __future__ import annotations

import asyncio
import contextvars
import gc
import sys
import zlib

import pytest
from aio.peer import end
from support import modes
from support.frames import CONTINUATION, PING, PONG, TEXT

from simple_websocket import AioServer, ConnectionClosed, SimpleWebsocketError


async def waiting(call):
    """A task that has begun to wait."""
    task = asyncio.ensure_future(call)
    await asyncio.sleep(0)
    assert not task.done()
    return task


def in_a_callback(function, *args, context=None):
    """Have the loop call it; the future is done, with what came of it, behind it."""
    loop = asyncio.get_running_loop()
    done = loop.create_future()

    def call():
        try:
            done.set_result(function(*args))
        except BaseException as error:
            done.set_exception(error)

    loop.call_soon(call, context=context)
    return done


@pytest.mark.only('default-codec')
async def test_the_task_goes_on_in_the_callback_that_receives(role):
    async with end(role) as (ws, peer):
        steps = []

        async def echo():
            async for message in ws:
                steps.append(message)
                await ws.send(message)

        task = await waiting(echo())

        def arrive(text):
            ws._link.data_received(peer.frame(TEXT, text))
            steps.append('back')

        for text in (b'one', b'two'):
            await in_a_callback(arrive, text)
            await peer.expect(TEXT, text)
        assert steps == ['one', 'back', 'two', 'back']
        await peer.send(peer.close_frame(1000))
        await task


@pytest.mark.only('default-codec')
@pytest.mark.parametrize('role', ['server'])
async def test_the_task_goes_on_there_with_a_message_of_any_make(role):
    """Compressed, of several frames, or with others behind it."""
    async with end(role, request={'Sec-WebSocket-Extensions': 'permessage-deflate'}) as (ws, peer):
        steps = []

        async def collect():
            async for message in ws:
                steps.append(message)

        task = await waiting(collect())
        deflated = zlib.compressobj(wbits=-12)
        small = deflated.compress(b'squeezed') + deflated.flush(zlib.Z_SYNC_FLUSH)[:-4]

        def arrive(*frames):
            ws._link.data_received(b''.join(frames))
            steps.append('back')

        await in_a_callback(arrive, peer.frame(TEXT, small, rsv=4))
        await in_a_callback(arrive, peer.frame(TEXT, b'two', fin=False))
        await in_a_callback(arrive, peer.frame(CONTINUATION, b' parts'))
        await in_a_callback(arrive, *(peer.frame(TEXT, text) for text in (b'a', b'b')))
        await in_a_callback(arrive, peer.frame(PING, b'?'))
        assert steps == ['squeezed', 'back', 'back', 'two parts', 'back', 'a', 'b', 'back', 'back']
        await peer.expect(PONG, b'?')
        await peer.send(peer.close_frame(1000))
        await task


async def test_what_comes_while_a_task_runs_waits_for_its_turn(role):
    """A task can't go on within another."""
    async with end(role) as (ws, peer):
        task = await waiting(ws.receive())
        ws._link.data_received(peer.frame(TEXT, b'hello'))  # in this very task
        assert not task.done()
        assert await task == 'hello'


async def test_a_callback_with_the_context_of_the_task_is_no_hindrance(role):
    """A context cannot be entered twice."""
    async with end(role) as (ws, peer):
        context = contextvars.copy_context()
        given = {'context': context} if sys.version_info >= (3, 11) else {}
        task = await waiting(asyncio.create_task(ws.receive(), **given))
        await in_a_callback(ws._link.data_received, peer.frame(TEXT, b'hello'), context=context)
        assert await task == 'hello'


async def test_contexts_stay_apart(role):
    async with end(role) as (ws, peer):
        name = contextvars.ContextVar('name', default='nobody')
        seen = []

        async def receive():
            name.set('the task')
            await ws.receive()
            seen.append(name.get())

        task = await waiting(receive())
        await in_a_callback(ws._link.data_received, peer.frame(TEXT, b'hello'))
        await task
        assert seen == ['the task']
        assert name.get() == 'nobody'


@pytest.mark.parametrize('where', ['before', 'behind'])
async def test_a_cancelled_wait_loses_nothing(role, where):  # invariant 3
    async with end(role) as (ws, peer):
        task = await waiting(ws.receive())
        if where == 'behind':  # it has come, and the task has not run yet
            ws._link.data_received(peer.frame(TEXT, b'one'))
        task.cancel('enough')
        if where == 'before':
            ws._link.data_received(peer.frame(TEXT, b'one'))
        with pytest.raises(asyncio.CancelledError) as cancelled:
            await task
        if where == 'before':
            assert cancelled.value.args in (('enough',), ())  # Python 3.10 forgets it
        ws._link.data_received(peer.frame(TEXT, b'two'))
        assert await ws.receive() == 'one'
        assert await ws.receive() == 'two'
        task = await waiting(ws.receive())
        await peer.send((TEXT, b'three'))
        assert await task == 'three'


async def test_a_cancelled_iteration_can_begin_again(role):
    async with end(role) as (ws, peer):
        async def first():
            async for message in ws:
                return message

        task = await waiting(first())
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await peer.send((TEXT, b'hello'))
        assert await first() == 'hello'


@pytest.mark.parametrize('of', [aiter, lambda ws: ws], ids=['iterator', 'connection'])
async def test_anext_is_a_coroutine_to_all_who_ask_for_one(role, of):
    async with end(role) as (ws, peer):
        messages = of(ws)
        task = asyncio.create_task(anext(messages))
        await asyncio.sleep(0)
        await peer.send((TEXT, b'one'))
        assert await task == 'one'
        await peer.send((TEXT, b'two'))
        assert await asyncio.wait_for(anext(messages), 5) == 'two'
        await peer.send((TEXT, b'three'))
        assert await asyncio.gather(anext(messages)) == ['three']
        await peer.send(peer.close_frame(1000))
        assert await anext(messages, 'over') == 'over'
        with pytest.raises(StopAsyncIteration):
            await anext(messages)


async def test_a_wait_can_be_given_up_before_it_begins(role):
    async with end(role) as (ws, peer):
        given_up = anext(aiter(ws))
        given_up.close()
        await peer.send((TEXT, b'hello'))
        assert await ws.receive() == 'hello'


async def test_a_wait_goes_on_behind_what_is_no_message(role):
    async with end(role) as (ws, peer):
        task = await waiting(anext(aiter(ws)))
        await peer.send((PING, b'there?'))
        await peer.expect(PONG, b'there?')
        assert not task.done()
        await peer.send((TEXT, b'one'), (TEXT, b'two'))
        assert await task == 'one'
        assert await ws.receive(0) == 'two'


async def test_a_wait_that_meets_another_is_an_error_and_disturbs_it_not(role):  # invariant 1
    async with end(role) as (ws, peer):
        task = await waiting(anext(aiter(ws)))
        for call in (ws.receive, lambda: ws.receive(1), ws.__anext__, aiter(ws).__anext__):
            with pytest.raises(SimpleWebsocketError, match='one receiver'):
                await call()
        await peer.send((TEXT, b'hello'))
        assert await task == 'hello'


async def test_two_that_begin_at_once_are_told_apart(role):
    async with end(role) as (ws, peer):
        one, two = anext(aiter(ws)), anext(aiter(ws))  # neither waits yet
        task = await waiting(one)
        with pytest.raises(SimpleWebsocketError, match='one receiver'):
            await two
        await peer.send((TEXT, b'hello'))
        assert await task == 'hello'


async def test_what_a_task_raises_is_its_own(role):
    async with end(role) as (ws, peer):
        async def fail():
            raise ValueError(await ws.receive())

        task = await waiting(fail())
        await peer.send((TEXT, b'not mine'), (TEXT, b'and on'))
        with pytest.raises(ValueError, match='not mine'):
            await task
        assert await ws.receive() == 'and on'


async def test_a_task_may_close_where_it_is_woken(role):
    async with end(role) as (ws, peer):
        async def last():
            await ws.receive()
            await ws.close(4000, 'seen enough')

        task = await waiting(last())
        await peer.send((TEXT, b'hello'))
        assert await peer.expect_close(4000) == 'seen enough'
        await peer.send(peer.close_frame(4000))
        await peer.close()
        await task
        with pytest.raises(ConnectionClosed):
            await ws.receive()


async def test_the_close_ends_an_iteration_that_waits(role):
    async with end(role) as (ws, peer):
        async def all_of_them():
            return [message async for message in ws]

        task = await waiting(all_of_them())
        await peer.send((TEXT, b'one'))
        await peer.send(peer.close_frame(1001))
        assert await task == ['one']
        assert ws.close_reason == 1001


async def test_an_iteration_asks_a_receive_of_somebodys_own(monkeypatch):
    class Shouting(AioServer):
        async def receive(self, timeout=None):
            return (await super().receive(timeout)).upper()

    monkeypatch.setattr('aio.peer.AioServer', Shouting)
    async with end('server') as (ws, peer):
        await peer.send((TEXT, b'hello'))
        assert await anext(ws) == 'HELLO'
        await peer.send((TEXT, b'and again'))
        async for message in ws:
            assert message == 'AND AGAIN'
            break


async def test_an_iteration_asks_a_receive_that_was_put_in_its_place(role):
    async with end(role) as (ws, peer):
        heard = []
        receive = ws.receive

        async def listening(timeout=None):
            heard.append(await receive(timeout))
            return heard[-1]

        ws.receive = listening
        await peer.send((TEXT, b'one'), (TEXT, b'two'))
        assert await anext(aiter(ws)) == 'one'
        await peer.send((TEXT, b'three'))
        assert [await anext(ws), await anext(ws)] == ['two', 'three']
        assert heard == ['one', 'two', 'three']
        del ws.receive


async def test_a_task_written_in_python_goes_on_with_the_message(role):
    async with end(role) as (ws, peer):
        task = asyncio.tasks._PyTask(ws.receive())
        await asyncio.sleep(0)
        await in_a_callback(ws._link.data_received, peer.frame(TEXT, b'hello'))
        assert await task == 'hello'


@pytest.mark.only('default-codec')
async def test_others_may_wait_for_what_the_task_waits_for(role):
    async with end(role) as (ws, peer):
        wait = anext(aiter(ws))
        future = wait.send(None)
        told = []
        for name in ('one', 'another'):
            future.add_done_callback(lambda _, name=name: told.append(name))
        await in_a_callback(ws._link.data_received, peer.frame(TEXT, b'hello'))
        assert future.done()
        await asyncio.sleep(0)
        assert told == ['one', 'another']
        with pytest.raises(StopIteration) as stopped:
            wait.send(None)
        assert stopped.value.value == 'hello'


@pytest.mark.only('default-codec')
async def test_one_future_serves_for_every_message(role):
    async with end(role) as (ws, peer):
        messages = aiter(ws)
        task, futures = asyncio.create_task(anext(messages)), set()
        for number in (b'one', b'two', b'three'):
            await asyncio.sleep(0)
            futures.add(task._fut_waiter)
            await peer.send((TEXT, number))
            assert await task == number.decode()
            task = asyncio.create_task(anext(messages))
        assert len(futures) == 1 and not futures.pop().done()
        task.cancel()


async def test_a_driver_that_is_no_task_gets_the_message_too(role):
    async with end(role) as (ws, peer):
        wait = anext(aiter(ws))
        future = wait.send(None)
        assert future.get_loop() is asyncio.get_running_loop()
        assert not future.done()
        ws._link.data_received(peer.frame(TEXT, b'hello'))
        assert future.done() and not future.cancelled()
        with pytest.raises(StopIteration) as stopped:
            wait.send(None)
        assert stopped.value.value == 'hello'


async def test_a_wait_can_be_gone_through_step_by_step(role):
    """As ``yield from`` does it."""
    async with end(role) as (ws, peer):
        steps = anext(aiter(ws)).__await__()
        assert not next(steps).done()
        ws._link.data_received(peer.frame(TEXT, b'hello'))
        with pytest.raises(StopIteration) as stopped:
            next(steps)
        assert stopped.value.value == 'hello'


async def test_a_wait_is_over_once(role):
    async with end(role) as (ws, peer):
        wait = anext(aiter(ws))
        task = await waiting(wrapped(wait))
        await peer.send((TEXT, b'hello'))
        assert await task == 'hello'
        with pytest.raises(RuntimeError, match='cannot reuse already awaited'):
            await wait
        await peer.send((TEXT, b'and again'))
        assert await ws.receive(5) == 'and again'
        assert list(ws.input_buffer) == []


async def wrapped(wait):
    return await wait


async def test_a_wait_keeps_its_connection(role):
    async with end(role) as (ws, peer):
        connections = [ws]
        del ws

        async def first():
            return await anext(aiter(connections.pop()))

        task = await waiting(first())
        gc.collect()
        await peer.send((TEXT, b'hello'))
        assert await task == 'hello'


async def test_who_waits_for_the_future_itself_is_told(role):
    """A loop of somebody's own, around a coroutine: it is handed the future."""
    async with end(role) as (ws, peer):
        wait = ws.receive()
        future = wait.send(None)
        told = await waiting(asyncio.wait([future], timeout=5))
        await peer.send((TEXT, b'hello'))
        assert await told == ({future}, set())
        with pytest.raises(StopIteration) as over:
            wait.send(None)
        assert over.value.value == 'hello'


def test_the_way_out_of_the_program_is_not_in_the_loops_way():
    """uvloop keeps what a protocol raises to itself."""

    tasks = []

    async def leave(role):
        async with end(role) as (ws, peer):
            async def echo():
                async for _ in ws:
                    sys.exit(7)

            tasks.append(await waiting(echo()))
            await peer.send((TEXT, b'hello'))
            await asyncio.sleep(5)

    if modes.current().loop == 'uvloop':
        import uvloop

        loop = uvloop.new_event_loop()
    else:
        loop = asyncio.new_event_loop()
    try:
        with pytest.raises(SystemExit) as left:
            loop.run_until_complete(leave('server'))
        assert left.value.code == tasks[0].exception().code == 7
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run_until_complete(asyncio.sleep(0.01))
    finally:
        loop.close()


async def test_a_second_receiver_behind_a_turn_is_one_too_many(role):
    """Who takes from the queue gives the others a turn now and then."""
    async with end(role) as (ws, peer):
        await peer.send(*[(TEXT, b'x')] * 20)
        await ws.receive(5)
        ws._link._in_a_row = 1000

        async def take_all():
            while ws.input_buffer:
                await ws.receive()
            return await ws.receive()

        first = asyncio.ensure_future(ws.receive())  # gives way before it takes one
        second = asyncio.ensure_future(take_all())
        with pytest.raises(SimpleWebsocketError, match='already waiting'):
            await first
        await peer.send((TEXT, b'later'))
        assert await second == 'later'
