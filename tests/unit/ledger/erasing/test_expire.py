"""`rempart.ledger.erasing.expire`: days whose class is over end as a whole, and the ledger says so."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from rempart import limits
from rempart.errors import LedgerUnavailable
from rempart.ledger.erasing import expire as expiring
from rempart.ledger.erasing.expire import due, expire, expire_daily
from rempart.testing.small_ledger import until
from rempart.testing.small_site import DAY_S, SmallSite


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "segment_bytes", 1 << 20)
    monkeypatch.setattr(limits, "integrate_s", 0.05)


@pytest.fixture
def site(tmp_path: Path) -> SmallSite:
    return SmallSite(tmp_path / "data")


async def fill(site: SmallSite) -> None:
    """Leave the segment that is being written."""
    segments = site.ledger / "segments"
    number = max(int(path.stem) for path in segments.glob("[0-9]*.seg"))
    while number == max(int(path.stem) for path in segments.glob("[0-9]*.seg")):
        await site.exchange("y" * 100_000)
    await until(lambda: not (segments / f"{number:010d}.seg").exists())


async def test_a_day_ends_when_its_class_is_over_and_not_before(site: SmallSite) -> None:
    async with site.run():
        short = await site.exchange("fever", "alice", retention="short")
        usual = await site.exchange("cough", "alice")
        site.index()
        site.now += 2 * DAY_S
        assert await expire(site.records) == []
        tomorrow = await site.exchange("rash", retention="short")
        site.now += DAY_S
        assert (await due(site.records)).buckets == [("short", "2026-11-23")]
        (one,) = await expire(site.records)
        assert (one.retention, one.bucket) == ("short", "2026-11-23")
        assert [site.readable(exchange) for exchange in (short, usual, tomorrow)] == [False, True, True]
        assert (site.found("fever"), len(site.found("cough"))) == ([], 2)
        (entry,) = site.entries("expiry")
        wanted = {"class": "short", "bucket": "2026-11-23", "basis": "GDPR art. 5(1)(e)", "exchanges": 1, "bodies": 2}
        assert wanted.items() <= entry.items()
        assert await expire(site.records) == []
        assert len(site.entries("expiry")) == 1
    site.check()


async def test_bodies_leave_the_disk_and_fsck_counts_them_as_expired(site: SmallSite) -> None:
    async with site.run():
        await site.exchange("fever", retention="short")
        await fill(site)
        assert list((site.ledger / "bodies" / "short").rglob("*.bod"))
        site.now += 3 * DAY_S
        await expire(site.records)
        assert not (site.ledger / "bodies" / "short" / "2026-11-23").exists()
    assert site.check().examined.expired == 2


async def test_bodies_that_a_segment_brings_back_leave_again(site: SmallSite) -> None:
    async with site.run():
        await site.exchange("fever", retention="short")
        site.now += 3 * DAY_S
        await expire(site.records)
        await fill(site)
        assert (await due(site.records)).late == [("short", "2026-11-23")]
        assert await expire(site.records) == []
        assert not (site.ledger / "bodies" / "short" / "2026-11-23").exists()
        assert len(site.entries("expiry")) == 1
    site.check()


async def test_a_class_that_the_settings_do_not_have_stays_and_is_named(site: SmallSite) -> None:
    async with site.run():
        exchange = await site.exchange("fever", retention="forgotten")
        site.now += 4_000 * DAY_S
        found = await due(site.records)
        assert found.unknown == ["forgotten"]
        await expire(site.records)
        assert site.readable(exchange)


async def test_a_worm_class_expires_like_any_other(site: SmallSite) -> None:
    async with site.run():
        exchange = await site.exchange("fever", retention="worm")
        site.now += 11 * DAY_S
        await expire(site.records)
        assert not site.readable(exchange)


async def test_the_daily_task_expires_at_once_and_on_each_new_day(
    site: SmallSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expiring, "_LOOK_S", 0.01)
    async with site.run():
        await site.exchange("fever", retention="short")
        site.now += 3 * DAY_S
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(expire_daily(site.records, stop))
            await until(lambda: len(site.entries("expiry")) == 1)
            await site.exchange("cough", retention="short")
            site.now += 3 * DAY_S
            await until(lambda: len(site.entries("expiry")) == 2)
            stop.set()


async def test_a_failure_is_tried_again(site: SmallSite, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(expiring, "_LOOK_S", 0.01)
    failures = [LedgerUnavailable("The disk is full.")]
    wanted = expiring.due

    async def due_(records: expiring.Records) -> expiring.Due:
        if failures:
            raise failures.pop()
        return await wanted(records)

    monkeypatch.setattr(expiring, "due", due_)
    async with site.run():
        await site.exchange("fever", retention="short")
        site.now += 3 * DAY_S
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(expire_daily(site.records, stop))
            await until(lambda: len(site.entries("expiry")) == 1)
            stop.set()
    assert failures == []


@pytest.mark.parametrize("keeps", [20, 4_000])
async def test_a_clock_that_leapt_ahead_ends_nothing_until_it_has_lived(
    site: SmallSite, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, keeps: int
) -> None:
    monkeypatch.setattr(expiring, "_LOOK_S", 0.01)
    async with site.run():
        kept = await site.exchange("fever", retention="worm")
        site.now += keeps * DAY_S
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(expire_daily(site.records, stop))
            await until(lambda: "ahead of the last entries" in caplog.text)
            await site.exchange("cough")
            assert site.readable(kept)
            site.now += DAY_S
            await site.exchange("cough")
            assert site.entries("expiry") == []
            site.now += DAY_S
            await until(lambda: not site.readable(kept))
            stop.set()


async def test_a_clock_that_leapt_and_came_back_did_no_harm(
    site: SmallSite, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(expiring, "_LOOK_S", 0.01)
    async with site.run():
        kept = await site.exchange("fever", retention="worm")
        stop = asyncio.Event()
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(expire_daily(site.records, stop))
            site.now += 4_000 * DAY_S
            await until(lambda: "ahead of the last entries" in caplog.text)
            site.now -= 4_000 * DAY_S
            assert (await expire(site.records)) == []
            assert site.readable(kept)
            stop.set()
