"""`rempart.gateway.admission`: who may, in order: room, allow-list, route, quota; and what was used is counted once."""

from __future__ import annotations

import time
from collections.abc import AsyncGenerator, Mapping, Sequence

import msgspec
import pytest

from rempart.errors import EngineUnavailable, ModelNotFound, Overloaded, QuotaExceeded, RateLimited
from rempart.gateway.admission import Admission
from rempart.identity.caller import Caller, Limits
from rempart.identity.quota import Meter
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


class FakeRouter:
    """Serves `guide`; `unavailable` while its engine is down."""

    def __init__(self) -> None:
        self.engine = FakeEngine()
        self.unavailable = False
        self.asked: list[str] = []

    def route(self, model: str) -> tuple[Target, FakeEngine]:
        self.asked.append(model)
        if model != TARGET.model:
            raise ModelNotFound("There is none.", param="model")
        if self.unavailable:
            raise EngineUnavailable("It is down.")
        return TARGET, self.engine

    def models(self) -> Sequence[Target]:
        return [TARGET]

    def up(self) -> bool:
        return not self.unavailable

    def down(self) -> Mapping[str, str]:
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


def call(model: str = "guide", max_tokens: int = 10) -> Call:
    body = {"model": model, "messages": [{"role": "user", "content": "hello"}], "max_tokens": max_tokens}
    return parse("/v1/chat/completions", msgspec.json.encode(body))


async def test_who_may_gets_the_target_and_its_engine() -> None:
    desk = Desk()
    admission = desk.admission(frozenset({"guide"}))
    assert admission.model == ""
    assert await admission.admit(call()) == (TARGET, desk.router.engine)
    assert admission.model == "guide"


async def test_when_it_is_full_nobody_is_asked() -> None:
    desk = Desk()
    desk.room.is_full = True
    with pytest.raises(Overloaded) as caught:
        await desk.admission(requests_per_minute=1).admit(call())
    assert caught.value.retry_after_s
    assert desk.router.asked == []
    desk.room.is_full = False
    await desk.admission(requests_per_minute=1).admit(call())


async def test_a_model_that_is_not_on_the_keys_list_is_not_found_and_not_looked_up() -> None:
    desk = Desk()
    admission = desk.admission(frozenset({"other"}))
    with pytest.raises(ModelNotFound, match="for this key") as caught:
        await admission.admit(call())
    assert caught.value.param == "model"
    assert desk.router.asked == []
    assert admission.model == ""


async def test_an_empty_list_allows_no_model() -> None:
    with pytest.raises(ModelNotFound):
        await Desk().admission(frozenset()).admit(call())


async def test_a_model_that_nobody_serves_never_becomes_a_label() -> None:
    admission = Desk().admission()
    with pytest.raises(ModelNotFound):
        await admission.admit(call("x" * 100))
    assert admission.model == ""


async def test_an_engine_that_is_down_costs_no_request() -> None:
    desk = Desk()
    desk.router.unavailable = True
    with pytest.raises(EngineUnavailable):
        await desk.admission(requests_per_minute=1).admit(call())
    desk.router.unavailable = False
    await desk.admission(requests_per_minute=1).admit(call())


async def test_the_requests_of_the_minute_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", lambda: 1_000_000.0)
    desk = Desk()
    await desk.admission(requests_per_minute=1).admit(call())
    with pytest.raises(RateLimited):
        await desk.admission(requests_per_minute=1).admit(call())


async def test_the_tokens_asked_for_are_reserved_until_it_is_settled() -> None:
    desk = Desk()
    first = desk.admission(tokens_per_day=100)
    await first.admit(call(max_tokens=60))
    with pytest.raises(QuotaExceeded):
        await desk.admission(tokens_per_day=100).admit(call(max_tokens=60))
    await first.settle(3, 4)
    await desk.admission(tokens_per_day=100).admit(call(max_tokens=60))


async def test_what_was_used_is_counted_once() -> None:
    desk = Desk()
    admission = desk.admission()
    await admission.admit(call())
    await admission.settle(3, 4)
    await admission.settle(3, 4)
    assert desk.meter.totals(time.time()) == {"one": 7}


async def test_who_was_not_admitted_has_nothing_to_settle() -> None:
    desk = Desk()
    admission = desk.admission(frozenset())
    with pytest.raises(ModelNotFound):
        await admission.admit(call())
    await admission.settle(3, 4)
    assert desk.meter.totals(time.time()) == {}
