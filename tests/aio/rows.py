"""Tests on asyncio that are rows of a table."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest


def each_section(rows: Sequence[Any]) -> Callable[..., Any]:
    """A test for each section that the rows name: an event loop for all of its
    rows, which the test is called with one by one."""

    def decorate(check: Callable[[Any], Any]) -> Any:
        @pytest.mark.parametrize('section', dict.fromkeys(row.section for row in rows))
        async def test(section: str) -> None:
            for row in rows:
                if row.section == section:
                    try:
                        await check(row)
                    except Exception as error:
                        raise AssertionError(row.name) from error

        return test

    return decorate
