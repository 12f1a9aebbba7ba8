"""`rempart.ipc.asking`: one question at a time, errors as they are, and nobody waits longer than was said."""

from __future__ import annotations

import asyncio
import threading

import pytest

from rempart.errors import RempartError, UsageError
from rempart.ipc.asking import Asking, Bound


class Asked:
    """Counts, and hangs until it is aborted."""

    def __init__(self) -> None:
        self.within = 0
        self.most = 0
        self.closed = False
        self.let_go = threading.Event()

    def count(self) -> str:
        self.within += 1
        self.most = max(self.most, self.within)
        self.within -= 1
        return threading.current_thread().name

    def hang(self) -> None:
        assert self.let_go.wait(30)
        self.let_go.clear()

    def close(self) -> None:
        self.closed = True


def late() -> RempartError:
    return UsageError("late")


async def test_questions_are_asked_one_at_a_time_in_a_thread_of_their_own() -> None:
    asked = Asked()
    asking = Asking(asked, "mine")
    names = await asyncio.gather(*(asking.ask(lambda one: one.count()) for _ in range(20)))
    assert len(set(names)) == 1
    assert names[0].startswith("mine")
    assert asked.most == 1
    await asking.close()
    assert asked.closed


async def test_what_it_raises_is_raised() -> None:
    asking = Asking(Asked(), "mine")
    with pytest.raises(ZeroDivisionError):
        await asking.ask(lambda one: 1 / one.within)
    await asking.close()


async def test_who_does_not_answer_in_time_is_aborted_and_can_be_asked_again() -> None:
    asked = Asked()
    asking = Asking(asked, "mine", Bound(within_s=0.05, abort=asked.let_go.set, late=late))
    with pytest.raises(UsageError, match="late"):
        await asking.ask(lambda one: one.hang())
    async with asyncio.timeout(10):
        while True:
            try:
                assert (await asking.ask(lambda one: one.count())).startswith("mine")
                break
            except UsageError:
                continue
    await asking.close()
    assert asked.closed
