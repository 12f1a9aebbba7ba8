"""`rempart.ledger.erasing.hold`: what is held can be read, whatever is erased, until two people let it go."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rempart import limits
from rempart.errors import ErasureRefused, NotFound, UsageError
from rempart.ledger.copying.replicate import Replicator
from rempart.ledger.copying.source import FolderSource
from rempart.ledger.erasing.erase import Order as Erasure
from rempart.ledger.erasing.erase import erase
from rempart.ledger.erasing.expire import expire
from rempart.ledger.erasing.fulfil import Fulfilled
from rempart.ledger.erasing.hold import Order, begin_hold, release, standing
from rempart.ledger.keys.configured import open_keystore
from rempart.ledger.keys.holds import held
from rempart.ledger.log.checkpoint import Verifier
from rempart.ledger.reading.fsck import fsck
from rempart.ledger.reading.said import Said
from rempart.ledger.writing.opening import read_vkey
from rempart.testing.small_ledger import until
from rempart.testing.small_site import DAY_S, SmallSite

ALICE, BOB = "alice@hospital.example", "bob@hospital.example"
ADMIN, AUDITOR = "a_" + "1" * 32, "a_" + "2" * 32


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "segment_bytes", 1 << 20)


@pytest.fixture
def site(tmp_path: Path) -> SmallSite:
    return SmallSite(tmp_path / "data")


async def begun(site: SmallSite, scope: Any, *names: str, id_: str = "case-7") -> Fulfilled:
    order = Order(id=id_, ground="file 7/26", scope=scope, names=names, by="operator", role="operator")
    return await begin_hold(site.records, order)


async def erased(site: SmallSite, name: str, scope: Any = "subject") -> Fulfilled:
    order = Erasure(scope=scope, name=name, ground="GDPR 17(1)(b)", by="operator", role="operator")
    return (await erase(site.records, order)).certificate


async def released(site: SmallSite, id_: str = "case-7") -> Fulfilled:
    await release(site.records, id_, ADMIN, "admin")
    done, last = await release(site.records, id_, AUDITOR, "auditor")
    assert last
    return done


async def test_a_hold_wins_over_an_erasure_and_covers_what_came_since(site: SmallSite) -> None:
    async with site.run():
        before = await site.exchange("fever", ALICE)
        done = await begun(site, "subject", ALICE)
        assert done.counts == {"exchanges": 1}
        since = await site.exchange("cough", ALICE, BOB)
        under_way, record = await site.begin("rash", ALICE)
        site.index()
        certificate = await erased(site, ALICE)
        assert certificate.kept == {"case-7": 3}
        await site.answer(record, "rash")
        assert [site.readable(one) for one in (before, since, under_way)] == [True] * 3
        assert site.found("fever") == []
        after = await site.exchange("late", ALICE)
        assert site.readable(after)
        assert [one.exchanges for one in await standing(site.records)] == [3]
    site.check()


async def test_a_request_that_was_not_written_yet_is_held_too(site: SmallSite) -> None:
    async with site.run():
        await site.exchange("fever", ALICE)
        await begun(site, "subject", ALICE)
        id_ = f"{int(site.now * 1000):012x}" + "7" * 20
        record = await site.journal.open(
            id_, actor="a_" + "0" * 32, role="user", key="k", subject="", people=[ALICE], retention="standard"
        )
        await erased(site, ALICE)
        facts = {"operation": "chat", "model": "m", "model_digest": "", "engine": "e"}
        await record.request(facts, b'{"request":{"messages":[]}}')
        await site.answer(record, "rash")
        assert site.readable(id_)


async def test_two_different_people_release_and_then_it_ends(site: SmallSite) -> None:
    async with site.run():
        exchange, free = await site.exchange("fever", ALICE), await site.exchange("cough", BOB)
        await begun(site, "subject", ALICE)
        await erased(site, ALICE)
        with pytest.raises(ErasureRefused, match="two people"):
            await release(site.records, "case-7", "operator", "operator")
        with pytest.raises(ErasureRefused, match="two people"):
            await release(site.records, "case-7", ADMIN, "user")
        _, last = await release(site.records, "case-7", ADMIN, "admin")
        assert not last
        with pytest.raises(ErasureRefused, match="the same person"):
            await release(site.records, "case-7", ADMIN, "admin")
        assert site.readable(exchange)
        done, last = await release(site.records, "case-7", AUDITOR, "auditor")
        assert last
        assert done.counts == {"exchanges": 1}
        assert (site.readable(exchange), site.readable(free)) == (False, True)
        assert await standing(site.records) == []
        changes = [(one["change"], one["by"], one["role"]) for one in site.entries("hold")]
        assert changes == [
            ("begun", "operator", "operator"),
            ("agreed", ADMIN, "admin"),
            ("released", AUDITOR, "auditor"),
        ]
        with pytest.raises(NotFound):
            await release(site.records, "case-7", ADMIN, "admin")
    site.check()


async def test_what_only_a_hold_kept_leaves_the_index_with_it(site: SmallSite) -> None:
    async with site.run():
        await site.exchange("fever", ALICE)
        stays = await site.exchange("fever", BOB)
        await begun(site, "subject", ALICE)
        await begun(site, "exchange", stays, id_="other")
        await erased(site, ALICE)
        site.index()  # held words may come into an index that is built anew
        await released(site)
        assert len(site.found("fever")) == 2
        assert site.readable(stays)


async def test_chosen_exchanges_are_held_and_no_others(site: SmallSite) -> None:
    async with site.run():
        many = [await site.exchange(f"word{n}", ALICE) for n in range(4)]
        await begun(site, "exchange", many[1], many[2])
        await erased(site, ALICE)
        assert [site.readable(one) for one in many] == [False, True, True, False]
        with pytest.raises(UsageError, match="already"):
            await begun(site, "exchange", many[1])
        with pytest.raises(NotFound, match="1 of these"):
            await begun(site, "exchange", many[0], many[1], id_="other")


async def test_two_holds_are_released_one_by_one(site: SmallSite) -> None:
    async with site.run():
        exchange = await site.exchange("fever", ALICE, actor=ADMIN)
        await begun(site, "subject", ALICE, id_="one")
        await begun(site, "actor", ADMIN, id_="two")
        await erased(site, ALICE)
        await released(site, "one")
        assert site.readable(exchange)
        await released(site, "two")
        assert not site.readable(exchange)


async def test_what_is_held_outlives_its_bucket(site: SmallSite) -> None:
    async with site.run():
        kept = await site.exchange("fever " + "x" * 1000, ALICE, retention="short")
        gone = await site.exchange("cough", BOB, retention="short")
        await begun(site, "subject", ALICE)
        await _retire_all(site)
        assert list((site.ledger / "bodies" / "short").glob("*/*.bod"))
        site.now += 3 * DAY_S
        (expired,) = await expire(site.records)
        assert expired.certificate.kept == {"case-7": 1}
        assert (site.readable(kept), site.readable(gone)) == (True, False)
        assert not list((site.ledger / "bodies" / "short").glob("*/*.bod"))
        assert len(list((site.ledger / "bodies" / "held" / "short").glob("*/*.bod"))) == 1
        site.check()
        await released(site)
        assert not site.readable(kept)
        assert not list((site.ledger / "bodies" / "held").glob("*/*/*.bod"))
    site.check()


async def test_what_is_kept_apart_is_checked_copied_and_found(site: SmallSite, tmp_path: Path) -> None:
    async with site.run():
        kept = await site.exchange("fever " + "x" * 1000, ALICE, retention="short")
        await begun(site, "subject", ALICE)
        await _retire_all(site)
        site.now += 3 * DAY_S
        await expire(site.records)
        last = site.find(kept)[-1]
        keystore = open_keystore(site.path)
        said = Said(site.ledger, keystore)
        assert said.content(last.index, last.entry) == last.body
        said.close()
        keystore.close()
    assert site.check().examined.bodies == len(site.entries("request")) + len(site.entries("response"))
    (file,) = (site.ledger / "bodies" / "held").glob("*/*/*.bod")
    verifier, copy = Verifier.from_vkey(read_vkey(site.path)), tmp_path / "copy" / "ledger"
    replicator = Replicator(FolderSource(site.ledger), copy, verifier)
    replicator.round()
    replicator.close()
    assert fsck(copy, verifier).faults == []
    copied = copy / file.relative_to(site.ledger)
    assert copied.read_bytes() == file.read_bytes()
    whole = file.read_bytes()
    file.write_bytes(whole[:-900] + bytes([whole[-900] ^ 1]) + whole[-899:])
    assert [fault.where for fault in fsck(site.ledger, verifier).faults] == [str(file.relative_to(site.ledger))]


async def _retire_all(site: SmallSite) -> None:
    """Fill the segment, so that what stands in it is taken apart."""
    number = min(int(path.stem) for path in (site.ledger / "segments").glob("[0-9]*.seg"))
    while number == max(int(path.stem) for path in (site.ledger / "segments").glob("[0-9]*.seg")):
        await site.exchange("y" * 100_000)
    await until(lambda: not (site.ledger / "segments" / f"{number:010d}.seg").exists())


async def test_held_keys_are_those_that_are_asked_for(site: SmallSite) -> None:
    async with site.run():
        exchange = await site.exchange("fever", ALICE)
        await site.exchange("cough", BOB)
        await begun(site, "subject", ALICE)
        assert await site.records.ask(lambda keystore: held(keystore, "case-7")) == [exchange]
