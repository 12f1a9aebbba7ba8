"""`rempart.engines.router`: engines take turns, and a model does not vanish with the engine that serves it."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Sequence

import pytest

from rempart import limits
from rempart.engines.router import Router
from rempart.errors import EngineError, EngineUnavailable, ModelNotFound
from rempart.wire.job import Job, Target


class Fake:
    """An engine that lists `names`, or is down for the reason `down`."""

    def __init__(self, name: str, *names: str) -> None:
        self.name = name
        self.names = names
        self.down = ""
        self.asked = 0
        self.closed = False
        self.was_asked = asyncio.Event()

    async def models(self) -> Sequence[Target]:
        self.asked += 1
        self.was_asked.set()
        if self.down:
            raise EngineError(self.down)
        return [Target(model=name, served_name=name, digest="", engine=self.name) for name in self.names]

    async def answer(self, job: Job) -> bytes:
        raise AssertionError("a router answers nothing")

    async def stream(self, job: Job) -> AsyncGenerator[list[bytes], None]:
        raise AssertionError("a router answers nothing")
        yield []

    async def close(self) -> None:
        self.closed = True


def names(router: Router) -> list[str]:
    return [target.model for target in router.models()]


async def test_a_model_is_routed_to_the_engine_that_serves_it() -> None:
    one, two = Fake("one", "a"), Fake("two", "b")
    router = Router([one, two])
    await router.refresh()
    target, engine = router.route("b")
    assert engine is two
    assert (target.model, target.engine) == ("b", "two")
    assert names(router) == ["a", "b"]
    assert router.states() == {"one": "", "two": ""}


async def test_engines_that_serve_one_model_take_turns() -> None:
    one, two = Fake("one", "a"), Fake("two", "a")
    router = Router([one, two])
    await router.refresh()
    turns = [router.route("a")[1].name for _ in range(10)]
    assert turns.count("one") == turns.count("two") == 5
    assert all(first != second for first, second in itertools.pairwise(turns))
    assert names(router) == ["a"]


async def test_an_engine_that_is_down_is_passed_over() -> None:
    one, two = Fake("one", "a"), Fake("two", "a")
    router = Router([one, two])
    await router.refresh()
    one.down = "has died"
    await router.refresh()
    assert {router.route("a")[1].name for _ in range(4)} == {"two"}
    assert router.states() == {"one": "has died", "two": ""}


async def test_a_model_stays_listed_while_its_engine_is_down() -> None:
    one, two = Fake("one", "a"), Fake("two", "b")
    router = Router([one, two])
    await router.refresh()
    one.down = "has died"
    for _ in range(3):
        await router.refresh()
    assert names(router) == ["a", "b"]
    with pytest.raises(EngineUnavailable, match="'a'") as caught:
        router.route("a")
    assert caught.value.retry_after_s
    assert router.route("b")[1] is two


async def test_an_engine_that_comes_back_serves_again() -> None:
    one = Fake("one", "a")
    router = Router([one])
    await router.refresh()
    one.down = "has died"
    await router.refresh()
    assert all(router.states().values())
    one.down, one.names = "", ("a", "c")
    await router.refresh()
    assert not all(router.states().values())
    assert router.route("c")[1] is one


async def test_a_model_that_its_engine_no_longer_lists_is_gone() -> None:
    one = Fake("one", "a", "b")
    router = Router([one])
    await router.refresh()
    one.names = ("b",)
    await router.refresh()
    assert names(router) == ["b"]
    with pytest.raises(ModelNotFound):
        router.route("a")


async def test_a_model_that_nobody_serves_is_not_found() -> None:
    router = Router([Fake("one", "a")])
    await router.refresh()
    with pytest.raises(ModelNotFound, match="'b'") as caught:
        router.route("b")
    assert (caught.value.param, caught.value.http_status) == ("model", 404)


async def test_before_it_is_asked_an_engine_is_down() -> None:
    router = Router([Fake("one", "a")])
    assert router.states() == {"one": "not asked yet"}


async def test_while_an_engine_has_not_come_up_a_model_may_still_come() -> None:
    one, two = Fake("one", "a"), Fake("two", "b")
    one.down = "is starting"
    router = Router([one, two])
    await router.refresh()
    assert names(router) == ["b"]
    with pytest.raises(EngineUnavailable, match="one has not come up yet"):
        router.route("a")
    one.down = ""
    await router.refresh()
    with pytest.raises(ModelNotFound):
        router.route("c")
    one.down = "has died"
    await router.refresh()
    with pytest.raises(ModelNotFound):
        router.route("c")


async def test_each_change_of_an_engine_is_logged_once(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO", "rempart.engines")
    one, two = Fake("one", "a"), Fake("two", "b")
    one.down = "cannot be reached"
    router = Router([one, two])
    for down in ("cannot be reached", "cannot be reached", "", "", "has died"):
        one.down = down
        await router.refresh()
    changes = [(record.message, record.__dict__["engine"], record.__dict__.get("reason")) for record in caplog.records]
    assert changes == [
        ("engine down", "one", "cannot be reached"),
        ("engine up", "one", None),
        ("engine down", "one", "has died"),
    ]


async def test_the_states_given_are_a_copy() -> None:
    router = Router([Fake("one")])
    given = router.states()
    await router.refresh()
    assert given == {"one": "not asked yet"}


async def test_engines_are_asked_again_until_it_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "engine_ask_s", 0.001)
    one = Fake("one", "a")
    router = Router([one])
    await router.start()
    assert not all(router.states().values())
    one.down = "has died"
    for _ in range(3):
        one.was_asked.clear()
        await one.was_asked.wait()
    assert router.states() == {"one": "has died"}
    await router.close()
    assert one.closed
    asked = one.asked
    for _ in range(10):
        await asyncio.sleep(0)
    assert one.asked == asked
