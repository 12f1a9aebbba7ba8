"""`rempart.gateway.admission`: who may, in order: room, allow-list, route, quota; and what was used is counted once."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Awaitable, Mapping, Sequence

import msgspec
import pytest

from rempart.errors import EngineUnavailable, ModelNotFound, Overloaded, QuotaExceeded, RateLimited
from rempart.gateway.admission import Admission
from rempart.gateway.ports import Lease
from rempart.identity.caller import Caller, Limits
from rempart.identity.quota import Meter
from rempart.routing.ask import Ask, Figures, Verdict
from rempart.wire.job import Job, Target
from rempart.wire.requests import Call, parse

TARGET = Target(model="guide", served_name="guide", digest="", engine="one")


class FakeEngine:
    name = "one"

    async def answer(self, job: Job) -> bytes:
        raise AssertionError("admission asks no engine")

    async def stream(self, job: Job) -> AsyncGenerator[list[bytes], None]:
        raise AssertionError("admission asks no engine")
        yield []


class FakeLease:
    target = TARGET
    engine = FakeEngine()
    others = 1

    def __init__(self) -> None:
        self.ended: list[Verdict] = []
        self.was_heard = 0

    def heard(self) -> None:
        self.was_heard += 1

    def end(self, verdict: Verdict) -> None:
        self.ended.append(verdict)


class FakeRouter:
    """Serves `guide`, also called `default`; `unavailable` while its engine is down, `full` while it has no room."""

    def __init__(self) -> None:
        self.unavailable = False
        self.full = False
        self.asked: list[Ask] = []
        self.leased: list[FakeLease] = []
        self.tried: list[tuple[str, ...]] = []

    def named(self, model: str) -> str:
        return "guide" if model == "default" else model

    def check(self, ask: Ask) -> str:
        self.asked.append(ask)
        if self.named(ask.call.model) != TARGET.model:
            raise ModelNotFound("There is none.", param="model")
        if self.unavailable:
            raise EngineUnavailable("It is down.")
        return TARGET.model

    def lease(self, ask: Ask, tried: Sequence[str]) -> FakeLease | Awaitable[FakeLease]:
        self.tried.append(tuple(tried))
        return self._later() if self.full else self._leased()

    async def _later(self) -> FakeLease:
        return self._leased()

    def _leased(self) -> FakeLease:
        self.leased.append(FakeLease())
        return self.leased[-1]

    def figures(self) -> Figures:
        raise AssertionError("admission counts nothing")

    def models(self) -> Sequence[Target]:
        return [TARGET]

    def states(self) -> Mapping[str, str]:
        return {}


class Room:
    def __init__(self, full: bool = False) -> None:
        self.is_full = full

    def full(self) -> bool:
        return self.is_full


class Desk:
    """What admissions share."""

    def __init__(self) -> None:
        self.meter = Meter()
        self.router = FakeRouter()
        self.room = Room()

    def admission(self, models: frozenset[str] | None = None, **limits: int) -> Admission:
        caller = Caller(key="one", actor="a", role="user", models=models, limits=Limits(**limits))
        return Admission(caller, self.meter, self.router, self.room)


async def wait(leased: Awaitable[Lease]) -> Lease:
    return await leased


def call(model: str = "guide", max_tokens: int = 10) -> Call:
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}], "max_tokens": max_tokens}
    return parse("/v1/chat/completions", msgspec.json.encode(body))


async def test_who_may_gets_the_target_and_its_engine() -> None:
    desk = Desk()
    admission = desk.admission(frozenset({"guide"}))
    assert admission.model == ""
    lease = await admission.admit(call(), wait)
    assert (lease.target, lease.engine.name) == (TARGET, "one")
    assert admission.model == "guide"


async def test_who_has_to_wait_is_waited_for_in_the_way_that_is_given() -> None:
    desk = Desk()
    desk.router.full = True
    waited = 0

    async def counted(leased: Awaitable[Lease]) -> Lease:
        nonlocal waited
        waited += 1
        return await leased

    admission = desk.admission()
    await admission.admit(call(), counted)
    assert waited == 1


async def test_after_a_failure_another_engine_is_asked_for_and_the_quota_is_not() -> None:
    desk = Desk()
    admission = desk.admission(requests_per_minute=1)
    await admission.admit(call(), wait)
    admission.end(Verdict.GONE)
    await admission.again(call(), wait)
    assert desk.router.tried == [(), ("one",)]
    assert [lease.ended for lease in desk.router.leased] == [[Verdict.GONE], []]


async def test_what_has_no_engine_has_nothing_to_end() -> None:
    desk = Desk()
    admission = desk.admission()
    admission.heard()
    admission.end(Verdict.NOTHING)
    await admission.admit(call(), wait)
    admission.heard()
    assert desk.router.leased[0].was_heard == 1


async def test_an_alias_may_be_used_by_whoever_may_use_its_model_or_it() -> None:
    for allowed in ("guide", "default"):
        await Desk().admission(frozenset({allowed})).admit(call("default"), wait)
    with pytest.raises(ModelNotFound):
        await Desk().admission(frozenset({"default"})).admit(call("guide"), wait)


async def test_the_router_is_told_whose_it_is_and_what_it_belongs_to() -> None:
    desk = Desk()
    admission = desk.admission(frozenset({"guide"}))
    admission.session = "s"
    await admission.admit(call(), wait)
    [ask] = desk.router.asked
    assert (ask.tenant, ask.session, ask.models) == ("one", "s", frozenset({"guide"}))


async def test_when_it_is_full_nobody_is_asked() -> None:
    desk = Desk()
    desk.room.is_full = True
    with pytest.raises(Overloaded) as caught:
        await desk.admission(requests_per_minute=1).admit(call(), wait)
    assert caught.value.retry_after_s
    assert desk.router.asked == []
    desk.room.is_full = False
    await desk.admission(requests_per_minute=1).admit(call(), wait)


async def test_a_model_that_is_not_on_the_keys_list_is_not_found_and_not_looked_up() -> None:
    desk = Desk()
    admission = desk.admission(frozenset({"other"}))
    with pytest.raises(ModelNotFound, match="for this key") as caught:
        await admission.admit(call(), wait)
    assert caught.value.param == "model"
    assert desk.router.asked == []
    assert admission.model == ""


async def test_an_empty_list_allows_no_model() -> None:
    with pytest.raises(ModelNotFound):
        await Desk().admission(frozenset()).admit(call(), wait)


async def test_a_model_that_nobody_serves_never_becomes_a_label() -> None:
    admission = Desk().admission()
    with pytest.raises(ModelNotFound):
        await admission.admit(call("x" * 100), wait)
    assert admission.model == ""


async def test_an_engine_that_is_down_costs_no_request() -> None:
    desk = Desk()
    desk.router.unavailable = True
    with pytest.raises(EngineUnavailable):
        await desk.admission(requests_per_minute=1).admit(call(), wait)
    desk.router.unavailable = False
    await desk.admission(requests_per_minute=1).admit(call(), wait)


async def test_the_requests_of_the_minute_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_000_000.0)
    desk = Desk()
    await desk.admission(requests_per_minute=1).admit(call(), wait)
    with pytest.raises(RateLimited):
        await desk.admission(requests_per_minute=1).admit(call(), wait)


async def test_the_tokens_asked_for_are_reserved_until_it_is_settled() -> None:
    desk = Desk()
    first = desk.admission(tokens_per_day=100)
    await first.admit(call(max_tokens=60), wait)
    with pytest.raises(QuotaExceeded):
        await desk.admission(tokens_per_day=100).admit(call(max_tokens=60), wait)
    await first.settle(3, 4)
    await desk.admission(tokens_per_day=100).admit(call(max_tokens=60), wait)


async def test_what_was_used_is_counted_once() -> None:
    desk = Desk()
    admission = desk.admission()
    await admission.admit(call(), wait)
    await admission.settle(3, 4)
    await admission.settle(3, 4)
    assert desk.meter.totals(time.time()) == {"one": 7}


async def test_who_was_not_admitted_has_nothing_to_settle() -> None:
    desk = Desk()
    admission = desk.admission(frozenset())
    with pytest.raises(ModelNotFound):
        await admission.admit(call(), wait)
    await admission.settle(3, 4)
    assert desk.meter.totals(time.time()) == {}
