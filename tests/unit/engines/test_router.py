"""`rempart.engines.router`: engines take turns, nobody waits for one that hangs, and those who wait get their turn."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Sequence

import msgspec
import pytest

from rempart import limits
from rempart.engines.router import Lease, Router
from rempart.errors import EngineError, EngineUnavailable, ModelNotFound, Overloaded
from rempart.routing.ask import Ask, Verdict
from rempart.routing.board import Share
from rempart.wire.job import Capacity, Job, Served, Target
from rempart.wire.requests import parse


class Fake:
    """An engine that lists `names`, or is down for the reason `down`."""

    def __init__(self, name: str, *names: str) -> None:
        self.name = name
        self.names = names
        self.down = ""
        self.asked = 0
        self.closed = False
        self.hangs = False
        self.was_asked = asyncio.Event()

    async def models(self) -> Sequence[Target]:
        self.asked += 1
        self.was_asked.set()
        if self.hangs:
            await asyncio.Event().wait()
        if self.down:
            raise EngineError(self.down)
        return [Target(model=name, served_name=name, digest="", engine=self.name) for name in self.names]

    async def answer(self, job: Job) -> bytes:
        raise AssertionError("a router answers nothing")

    async def stream(self, job: Job) -> AsyncGenerator[list[bytes], None]:
        raise AssertionError("a router answers nothing")
        yield []

    async def served(self) -> Served | None:
        return None

    async def close(self) -> None:
        self.closed = True


def ask(model: str = "a", key: str = "k") -> Ask:
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}], "max_tokens": 10}
    return Ask(call=parse("/v1/chat/completions", msgspec.json.encode(body)), tenant=key)


def lease(router: Router, model: str = "a", key: str = "k", tried: Sequence[str] = ()) -> Lease:
    """At once."""
    found = router.lease(ask(model, key), tried)
    assert isinstance(found, Lease)
    return found


def queued(router: Router, model: str = "a", key: str = "k") -> asyncio.Task[Lease]:
    """In the queue, once the loop has run."""
    waiting = router.lease(ask(model, key))
    assert asyncio.iscoroutine(waiting)
    return asyncio.create_task(waiting)


async def pause() -> None:
    """All that can go on without anything new has gone on."""
    for _ in range(10):
        await asyncio.sleep(0)


def route(router: Router, model: str) -> tuple[Target, Fake]:
    """Of an exchange that is served at once."""
    found = lease(router, model)
    found.end(Verdict.SERVED)
    assert isinstance(found.engine, Fake)
    return found.target, found.engine


def names(router: Router) -> list[str]:
    return [target.model for target in router.models()]


async def test_a_model_is_routed_to_the_engine_that_serves_it() -> None:
    one, two = Fake("one", "a"), Fake("two", "b")
    router = Router([one, two])
    await router.refresh()
    target, engine = route(router, "b")
    assert engine is two
    assert (target.model, target.engine) == ("b", "two")
    assert names(router) == ["a", "b"]
    assert router.states() == {"one": "", "two": ""}


async def test_engines_that_serve_one_model_take_turns() -> None:
    one, two = Fake("one", "a"), Fake("two", "a")
    router = Router([one, two])
    await router.refresh()
    turns = [route(router, "a")[1].name for _ in range(10)]
    assert turns.count("one") == turns.count("two") == 5
    assert all(first != second for first, second in itertools.pairwise(turns))
    assert names(router) == ["a"]


async def test_an_engine_that_is_down_is_passed_over() -> None:
    one, two = Fake("one", "a"), Fake("two", "a")
    router = Router([one, two])
    await router.refresh()
    one.down = "has died"
    await router.refresh()
    assert {route(router, "a")[1].name for _ in range(4)} == {"two"}
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
        route(router, "a")
    assert caught.value.retry_after_s
    assert route(router, "b")[1] is two


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
    assert route(router, "c")[1] is one


async def test_a_model_that_its_engine_no_longer_lists_is_gone() -> None:
    one = Fake("one", "a", "b")
    router = Router([one])
    await router.refresh()
    one.names = ("b",)
    await router.refresh()
    assert names(router) == ["b"]
    with pytest.raises(ModelNotFound):
        route(router, "a")


async def test_a_model_that_nobody_serves_is_not_found() -> None:
    router = Router([Fake("one", "a")])
    await router.refresh()
    with pytest.raises(ModelNotFound, match="'b'") as caught:
        route(router, "b")
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
        route(router, "a")
    one.down = ""
    await router.refresh()
    with pytest.raises(ModelNotFound):
        route(router, "c")
    one.down = "has died"
    await router.refresh()
    with pytest.raises(ModelNotFound):
        route(router, "c")


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


# Engines that hang.


async def test_an_engine_that_hangs_delays_no_word_of_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "engine_ask_s", 0.001)
    one, two = Fake("one", "a"), Fake("two", "a")
    router = Router([one, two])
    await router.start()
    one.hangs = True
    one.was_asked.clear()
    await one.was_asked.wait()
    two.down = "has died"
    for _ in range(3):
        two.was_asked.clear()
        await two.was_asked.wait()
    assert router.states() == {"one": "", "two": "has died"}
    two.down = ""
    for _ in range(3):
        two.was_asked.clear()
        await two.was_asked.wait()
    assert router.states() == {"one": "", "two": ""}
    await router.close()


async def test_an_engine_that_hangs_is_down(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "engine_silent_s", 0.01)
    one = Fake("one", "a")
    router = Router([one])
    one.hangs = True
    await router.refresh()
    assert "is silent" in router.states()["one"]


# Room.


async def test_an_engine_that_tells_its_room_is_given_no_more() -> None:
    class Measured(Fake):
        free = 60

        async def capacity(self) -> Capacity | None:
            if self.free < 0:
                raise EngineError("has no metrics")
            return Capacity(tokens_free=self.free, tokens_total=100)

    one = Measured("one", "a")
    router = Router([one])
    await router.refresh()
    lease(router)
    lease(router)
    waiting = queued(router)
    await pause()
    assert not waiting.done()
    await router.refresh()
    assert (await waiting).engine is one
    one.free = -1
    await router.refresh()
    assert router.states() == {"one": ""}
    lease(router)


def narrow(*engines: Fake, at_once: int = 1, queue_max: int = 10, queue_s: float = 60.0) -> Router:
    shares = {engine.name: Share(max_concurrent=at_once) for engine in engines}
    return Router(engines, shares, queue_max=queue_max, queue_s=queue_s)


async def test_who_finds_no_room_waits_for_it() -> None:
    router = narrow(Fake("one", "a"))
    await router.refresh()
    first = lease(router)
    waiting = queued(router)
    await pause()
    assert router.figures().waiting == 1
    first.end(Verdict.SERVED)
    second = await waiting
    assert router.figures().waiting == 0
    first.end(Verdict.SERVED)
    assert router.figures().engines["one"].outstanding == 1
    second.end(Verdict.SERVED)
    assert router.figures().engines["one"].outstanding == 0


async def test_keys_take_turns_whoever_sent_more() -> None:
    router = narrow(Fake("one", "a"))
    await router.refresh()
    now = lease(router)
    order: list[str] = []
    waiting = [queued(router, key=key) for key in "aaaabbc"]
    for task, key in zip(waiting, "aaaabbc", strict=True):
        task.add_done_callback(lambda _, key=key: order.append(key))  # type: ignore[misc]
    await pause()
    for _ in range(7):
        now.end(Verdict.SERVED)
        await pause()
        now = next(task for task in waiting if task.done()).result()
        waiting = [task for task in waiting if not task.done()]
    assert order == list("abcabaa")


async def test_nobody_overtakes_those_who_wait() -> None:
    router = narrow(Fake("one", "a"), at_once=2)
    await router.refresh()
    held = [lease(router), lease(router)]
    waiting = queued(router)
    await pause()
    held[0].end(Verdict.SERVED)
    assert (await waiting).engine.name == "one"
    late = queued(router)
    await pause()
    assert not late.done()
    late.cancel()


async def test_who_leaves_the_queue_frees_its_place() -> None:
    router = narrow(Fake("one", "a"), queue_max=1)
    await router.refresh()
    held = lease(router)
    waiting = queued(router)
    await pause()
    with pytest.raises(Overloaded):
        await queued(router)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    second = queued(router)
    await pause()
    held.end(Verdict.SERVED)
    assert (await second).engine.name == "one"
    assert router.figures().turned_away == {"full": 1}


async def test_who_leaves_just_as_its_turn_comes_gives_the_place_back() -> None:
    router = narrow(Fake("one", "a"))
    await router.refresh()
    held = lease(router)
    waiting = queued(router)
    await pause()
    held.end(Verdict.SERVED)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert router.figures().engines["one"].outstanding == 0
    lease(router)


async def test_past_its_deadline_it_is_told_to_come_again() -> None:
    router = narrow(Fake("one", "a"), queue_s=0.01)
    await router.refresh()
    lease(router)
    with pytest.raises(Overloaded, match="No engine had room") as caught:
        await queued(router)
    assert (caught.value.http_status, bool(caught.value.retry_after_s)) == (503, True)
    assert (router.figures().waiting, router.figures().turned_away) == (0, {"late": 1})


async def test_a_greedy_key_makes_room_for_another_in_a_full_queue() -> None:
    router = narrow(Fake("one", "a"), queue_max=2)
    await router.refresh()
    held = lease(router)
    greedy = [queued(router, key="a"), queued(router, key="a")]
    await pause()
    other = queued(router, key="b")
    await pause()
    with pytest.raises(Overloaded, match="Too many exchanges of this key"):
        await greedy[1]
    held.end(Verdict.SERVED)
    (await greedy[0]).end(Verdict.SERVED)
    assert (await other).engine.name == "one"


async def test_when_the_last_engine_goes_nobody_waits_for_it() -> None:
    one = Fake("one", "a")
    router = narrow(one)
    await router.refresh()
    lease(router)
    waiting = queued(router)
    await pause()
    one.down = "has died"
    await router.refresh()
    with pytest.raises(EngineUnavailable):
        await waiting


async def test_an_engine_that_comes_back_is_given_to_those_who_wait() -> None:
    one, two = Fake("one", "a"), Fake("two", "a")
    two.down = "is starting"
    router = narrow(one, two)
    await router.refresh()
    lease(router)
    waiting = queued(router)
    await pause()
    two.down = ""
    await router.refresh()
    assert (await waiting).engine is two


async def test_a_breaker_opens_and_heals() -> None:
    now = 0.0
    one = Fake("one", "a")
    router = Router([one], clock=lambda: now)
    await router.refresh()
    for _ in range(limits.breaker_failures):
        lease(router).end(Verdict.GONE)
    with pytest.raises(EngineUnavailable, match="left alone"):
        lease(router)
    now = limits.breaker_open_first_s
    trial = lease(router)
    with pytest.raises(EngineUnavailable):
        lease(router)
    trial.heard()
    lease(router)


async def test_an_engine_that_failed_it_is_not_tried_again() -> None:
    one, two = Fake("one", "a"), Fake("two", "a")
    router = Router([one, two])
    await router.refresh()
    for _ in range(5):
        assert lease(router, tried=["one"]).engine is two
    with pytest.raises(EngineUnavailable):
        lease(router, tried=["one", "two"])
    assert router.figures().retries == {"a": 5}
