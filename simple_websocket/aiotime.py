"""Waiting for a task with a limit, and for nobody.

``asyncio.wait_for`` of Python 3.10 and 3.11 swallows a cancellation that comes in the
turn in which the work is done.
"""

from __future__ import annotations

import asyncio
from typing import Any, TypeVar

_Result = TypeVar('_Result')


async def in_time(task: asyncio.Future[_Result], seconds: float | None) -> _Result:
    """Wait for a task.

    :param seconds: to wait at most, before it is cancelled; None for no limit.
    :returns: its result.
    :raises asyncio.TimeoutError: when the time is over; the task has ended then.
    :raises asyncio.CancelledError: when the caller is cancelled, whatever the task has
                                    come to; it is cancelled too.
    """
    task.add_done_callback(retrieve)
    try:
        await asyncio.wait({task}, timeout=seconds)
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
            raise asyncio.TimeoutError
        return task.result()
    except asyncio.CancelledError:
        task.cancel()
        raise
    finally:
        del task  # it has what is raised, whose traceback leads back to here


def retrieve(done: asyncio.Future[Any]) -> None:
    """Keep asyncio from complaining about an error that nobody waits for any more."""
    if not done.cancelled():
        done.exception()
