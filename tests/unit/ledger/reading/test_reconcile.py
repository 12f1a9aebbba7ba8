"""`reconcile`: every lack is named, and nothing that is as it should be."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rempart import limits
from rempart.ledger.reading.reconcile import Reconciled, reconcile
from rempart.testing.small_ledger import SmallLedger

_ZERO = {"dispatched": 0, "answered": 0, "failed": 0, "running": 0, "tokens_prompt": 0, "tokens_completion": 0}


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallLedger:
    monkeypatch.setattr(limits, "segment_bytes", 1 << 20)
    return SmallLedger(tmp_path / "ledger")


async def beat(small: SmallLedger, up_s: int, served: tuple[int, int] | None = None, **counts: Any) -> None:
    keys = counts.pop("keys", {})
    engines = {f"vllm.{name}": count for name, count in {**_ZERO, **counts}.items()}
    if served is not None:
        engines |= {"vllm.served_prompt": served[0], "vllm.served_completion": served[1]}
    await small.event("heartbeat", up_s=up_s, engines=engines, keys=keys, part=0, parts=1)


async def exchange(small: SmallLedger, outcome: str = "ok", source: str = "engine", **asked: Any) -> None:
    """10 tokens asked, 20 answered."""
    id_ = f"{int(small.now * 1000):012x}{'0' * 20}"
    parameters = {name: asked[name] for name in ("n", "max_tokens") if name in asked}
    request = await small.write("request", b"", "", exchange=id_, engine="vllm", key="k", parameters=parameters)
    done = {"tokens_prompt": 10, "tokens_completion": 20, "tokens_source": source, "request": request.index}
    await small.write("response", b"", "", exchange=id_, engine="vllm", key="k", outcome=outcome, **done)


def told(small: SmallLedger) -> list[str]:
    return [gap.kind for gap in found(small).gaps]


def found(small: SmallLedger) -> Reconciled:
    return reconcile(small.path)


DONE = {"dispatched": 2, "answered": 2, "tokens_prompt": 20, "tokens_completion": 40, "keys": {"k": 2}}


async def day(small: SmallLedger, served: tuple[int, int] | None = (25, 40), **counts: Any) -> None:
    """Two exchanges between two heartbeats; the engine had served 5 and 0 tokens before."""
    async with small.run():
        await beat(small, 0, None if served is None else (5, 0))
        await exchange(small)
        await exchange(small)
        small.now += 60
        await beat(small, 60, served, **{**DONE, **counts})
        await small.event("stop")


async def test_a_sound_run_has_no_gap(small: SmallLedger) -> None:
    await day(small)
    report = found(small)
    assert report.holds
    (row,) = report.engines
    assert row.recorded == row.counted
    assert row.served == {"prompt": 20, "completion": 40}
    assert (row.compared, report.heartbeats, report.boots) == (2, 2, 1)


async def test_an_engine_that_says_nothing_is_held_to_what_was_counted(small: SmallLedger) -> None:
    await day(small, None)
    assert found(small).holds
    assert found(small).engines[0].served is None


@pytest.mark.parametrize(("served", "gaps"), [((26, 40), 1), ((25, 41), 1), ((30, 50), 2), ((6, 40), 0), ((25, 0), 0)])
async def test_an_engine_that_served_more_than_the_ledger_holds_is_named(
    small: SmallLedger, served: tuple[int, int], gaps: int
) -> None:
    await day(small, served)
    assert told(small) == ["served"] * gaps


@pytest.mark.parametrize(
    ("counts", "kinds"),
    [
        ({"dispatched": 3}, ["recorded"]),
        ({"answered": 3}, ["recorded"]),
        ({"failed": 1}, ["recorded"]),
        ({"tokens_prompt": 21}, ["recorded"]),
        ({"tokens_completion": 41}, ["recorded"]),
        ({"keys": {"k": 3}}, ["key"]),
        ({"keys": {"other": 1}}, ["key"]),
        ({"dispatched": 1, "answered": 1, "keys": {"k": 1}}, []),
    ],
)
async def test_what_was_counted_and_is_not_recorded_is_named(
    small: SmallLedger, counts: dict[str, Any], kinds: list[str]
) -> None:
    await day(small, **counts)
    assert told(small) == kinds


async def test_a_lack_is_told_once_though_every_heartbeat_shows_it(small: SmallLedger) -> None:
    async with small.run():
        for minute in range(5):
            await beat(small, 60 * minute, dispatched=1, failed=1)
            small.now += 60
    assert told(small) == ["recorded", "recorded"]


async def test_while_something_runs_the_engine_is_not_held_to_it(small: SmallLedger) -> None:
    await day(small, (500, 500), dispatched=2, answered=1, running=1)
    assert found(small).holds
    assert found(small).engines[0].compared == 1


@pytest.mark.parametrize(
    ("outcome", "source", "asked", "allowed"),
    [
        ("cancelled", "counted", {"max_tokens": 100}, 80),
        ("failed", "counted", {}, 4_096 - 20),
        ("cut", "engine", {"max_tokens": 50, "n": 2}, 80),
        ("ok", "counted", {"max_tokens": 30}, 10),
        ("ok", "engine", {"n": 2}, 37),
        ("ok", "engine", {}, 0),
    ],
)
async def test_what_has_no_exact_count_gets_an_allowance(
    small: SmallLedger, outcome: str, source: str, asked: dict[str, int], allowed: int
) -> None:
    async with small.run():
        await beat(small, 0, (0, 0))
        await exchange(small, outcome, source, **asked)
        small.now += 60
        await beat(small, 60, (10, 20 + allowed))
        assert told(small) == []
        small.now += 60
        await beat(small, 120, (10, 20 + allowed + 1))
        assert told(small) == ["served"]
    assert found(small).engines[0].allowance["completion"] == allowed


async def test_a_minute_without_a_heartbeat_is_named(small: SmallLedger) -> None:
    async with small.run():
        await beat(small, 0)
        small.now += 180
        await beat(small, 180)
        small.now += 100
        await small.event("stop")
    assert told(small) == ["heartbeat", "heartbeat"]


async def test_a_command_on_the_directory_needs_no_heartbeat(small: SmallLedger) -> None:
    async with small.run():
        await small.event("key")
        await small.event("stop")
    assert found(small).holds


@pytest.mark.parametrize("jump", [-30.0, 30.0])
async def test_a_clock_that_jumps_is_named(small: SmallLedger, jump: float) -> None:
    async with small.run():
        await beat(small, 0)
        small.now += 60 + jump
        await beat(small, 60)
    assert told(small) == ["clock"]


async def test_a_clock_that_was_set_back_between_runs_is_named(small: SmallLedger) -> None:
    await day(small)
    small.now -= 3_600
    async with small.run():
        await small.event("stop")
    assert told(small) == ["clock"]


async def test_runs_before_a_time_are_left_out(small: SmallLedger) -> None:
    await day(small, (500, 500))
    small.now += 86_400
    await day(small)
    assert len(reconcile(small.path).gaps) == 2
    later = reconcile(small.path, "2026-11-24")
    assert (later.holds, later.boots) == (True, 1)


async def test_what_a_crash_cut_off_is_closed_in_the_next_run_and_counted_in_none(small: SmallLedger) -> None:
    async with small.run():
        await beat(small, 0, (0, 0))
        await small.write("request", b"", "", exchange="0" * 32, engine="vllm", key="k", parameters={})
    async with small.run():
        await small.write("response", b"", "", exchange="0" * 32, engine="vllm", key="k", outcome="lost", request=2)
        await beat(small, 0, (0, 0))
        small.now += 60
        await beat(small, 60, (0, 5))
    assert told(small) == ["served"]


@pytest.mark.parametrize(
    ("served", "gaps"), [((64 + 5, 100), []), ((64 + 5, 101), ["served"]), ((64 + 6, 0), ["served"])]
)
async def test_what_was_lost_with_a_worker_of_a_run_that_went_on_is_allowed_for(
    small: SmallLedger, served: tuple[int, int], gaps: list[str]
) -> None:
    async with small.run():
        await beat(small, 0, (0, 0))
        asked = {"exchange": "0" * 32, "engine": "vllm", "key": "k", "parameters": {"max_tokens": 100}, "body_bytes": 5}
        request = await small.write("request", b"", "", **asked)
        lost = {"exchange": "0" * 32, "engine": "vllm", "key": "k", "outcome": "lost", "request": request.index}
        await small.write("response", b"", "", **lost)
        small.now += 60
        await beat(small, 60, served)
    assert told(small) == gaps


def test_the_first_entry_may_be_all_there_is(small: SmallLedger) -> None:
    small.path.mkdir()
    run: Callable[[Path], Reconciled] = reconcile
    assert run(small.path).holds
