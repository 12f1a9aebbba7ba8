"""`rempart.ledger.reading.usage`: a start counts what the day's last meter says and the responses since."""

from __future__ import annotations

import itertools
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rempart import limits
from rempart.errors import LedgerCorrupt
from rempart.ledger.keys.configured import open_keystore
from rempart.ledger.reading.usage import used_of_day
from rempart.ledger.writing.journal import Journal
from rempart.ledger.writing.opening import open_ledger
from rempart.wire.facts import Fact

NOON = 1_795_435_200.0  # 2026-11-23T12:00:00Z
DAY_S = 86_400.0


class Clock:
    """Stands where a test puts it."""

    def __init__(self) -> None:
        self.now = NOON

    def __call__(self) -> float:
        return self.now


class Day:
    """A ledger, and what happens in it."""

    def __init__(self, journal: Journal, clock: Clock, segments: Path, first: int = 1) -> None:
        self.journal = journal
        self.clock = clock
        self._segments = segments
        self._ids = (f"{number:032x}" for number in itertools.count(first))

    async def answer(self, key: str, prompt: int, completion: int, body: bytes = b"{}") -> None:
        record = await self.journal.open(
            next(self._ids), actor="a_0", role="user", key=key, subject="", people=(), retention="standard"
        )
        asked = await record.request({"operation": "chat", "model": "m"}, b"{}")
        facts: dict[str, Fact] = {
            "outcome": "ok",
            "status": 200,
            "tokens_prompt": prompt,
            "tokens_completion": completion,
        }
        await record.response({**facts, "request": asked.index}, body)

    async def meter(self, totals: dict[str, int], part: int = 0, parts: int = 1) -> None:
        await self.journal.event("meter", {"totals": totals, "part": part, "parts": parts})

    def used(self) -> dict[str, int]:
        return used_of_day(self._segments.parent, self.clock.now).tokens


@pytest.fixture
async def day(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Day]:
    monkeypatch.setattr(limits, "segment_bytes", 1 << 20)
    clock = Clock()
    journal = await open_ledger(tmp_path, open_keystore(tmp_path), origin="", strict=False, clock=clock)
    yield Day(journal, clock, tmp_path / "ledger" / "segments")
    await journal.close()


async def test_a_day_on_which_nothing_was_said(day: Day) -> None:
    assert day.used() == {}


def test_a_ledger_without_segments(tmp_path: Path) -> None:
    assert used_of_day(tmp_path, NOON).tokens == {}


async def test_responses_are_added_up_by_key(day: Day) -> None:
    await day.answer("k1", 10, 5)
    await day.answer("k2", 1, 2)
    await day.answer("k1", 100, 50)
    assert day.used() == {"k1": 165, "k2": 3}


async def test_a_request_without_its_response_counts_nothing(day: Day) -> None:
    record = await day.journal.open(
        "f" * 32, actor="a_0", role="user", key="k1", subject="", people=(), retention="standard"
    )
    await record.request({"operation": "chat", "model": "m", "tokens_prompt": 7}, b"{}")
    assert day.used() == {}
    await record.response({"outcome": "cancelled", "status": 499}, b"{}")
    assert day.used() == {"k1": 0}


async def test_the_last_meter_stands_for_all_before_it(day: Day) -> None:
    await day.answer("k1", 10, 5)
    await day.meter({"k1": 15})
    await day.answer("k1", 1, 1)
    await day.meter({"k1": 1_000, "k3": 9})
    await day.answer("k1", 20, 2)
    await day.answer("k2", 3, 4)
    assert day.used() == {"k1": 1_022, "k2": 7, "k3": 9}


async def test_a_meter_in_parts_is_read_whole(day: Day) -> None:
    await day.meter({"k1": 999, "k9": 999})
    await day.answer("k1", 500, 500)
    for part, totals in enumerate(({"k1": 1}, {"k2": 2}, {"k3": 3})):
        await day.meter(totals, part, parts=3)
    await day.answer("k2", 10, 10)
    assert day.used() == {"k1": 1, "k2": 22, "k3": 3}


async def test_yesterday_is_not_counted(day: Day) -> None:
    await day.answer("k1", 10, 5)
    await day.meter({"k1": 15, "k2": 7})
    day.clock.now += DAY_S
    assert day.used() == {}
    await day.answer("k2", 1, 1)
    assert day.used() == {"k2": 2}


async def test_the_day_begins_at_midnight_utc(day: Day) -> None:
    day.clock.now = NOON + DAY_S / 2 - 0.001
    await day.answer("k1", 1, 0)
    assert day.used() == {"k1": 1}
    day.clock.now = NOON + DAY_S / 2
    assert day.used() == {}
    await day.answer("k1", 2, 0)
    assert day.used() == {"k1": 2}


async def test_other_entries_do_not_matter(day: Day) -> None:
    await day.answer("k1", 10, 5)
    await day.journal.event("refusals", {"counts": {"k1": 12}})
    await day.journal.event("config", {"key": "k1"})
    assert day.used() == {"k1": 15}


async def test_what_one_segment_does_not_hold_is_read_from_those_before(day: Day) -> None:
    await day.meter({"k0": 5})
    for _ in range(8):
        await day.answer("k1", 5, 5, bytes(200_000))
    assert len(list(day._segments.glob("*.seg"))) > 1
    assert day.used() == {"k0": 5, "k1": 80}


async def test_a_restart_counts_alike(tmp_path: Path) -> None:
    clock = Clock()
    for tokens in (7, 14, 21):
        journal = await open_ledger(tmp_path, open_keystore(tmp_path), origin="", strict=False, clock=clock)
        day = Day(journal, clock, tmp_path / "ledger" / "segments", first=tokens)
        await day.answer("k1", 5, 2)
        assert day.used() == {"k1": tokens}
        await journal.close()
        assert day.used() == {"k1": tokens}


async def test_damage_is_told_and_not_counted_around(day: Day) -> None:
    for _ in range(3):
        await day.answer("k1", 10, 5)
    path = day._segments / "0000000000.seg"
    data = bytearray(path.read_bytes())
    data[300] ^= 1
    path.write_bytes(data)
    with pytest.raises(LedgerCorrupt):
        day.used()
