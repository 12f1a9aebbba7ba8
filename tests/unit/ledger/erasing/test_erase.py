"""`rempart.ledger.erasing.erase`: what was said and who it was end with their keys, and the ledger holds as before."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from rempart import limits
from rempart.config.settings import Keys
from rempart.errors import ErasureRefused, KeystoreError, NotFound, UsageError
from rempart.ledger.erasing.erase import Erased, Order, erase, forget_backup, plan
from rempart.ledger.keys.keystore import Keystore
from rempart.ledger.keys.rows import full_name
from rempart.ledger.keys.sqlite_rows import SqliteRows
from rempart.testing.small_site import DAY_S, SmallSite, crowd

if TYPE_CHECKING:
    from tests.conftest import Postgres

ALICE, BOB = "alice@hospital.example", "bob@hospital.example"
GROUND = "GDPR 17(1)(b)"


@pytest.fixture(autouse=True)
def _small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "segment_bytes", 1 << 20)


@pytest.fixture
def site(tmp_path: Path) -> SmallSite:
    return SmallSite(tmp_path / "data")


def order(scope: Any, name: str, ground: str = GROUND) -> Order:
    return Order(scope=scope, name=name, ground=ground, by="operator", role="operator")


async def erased(site: SmallSite, scope: str, name: str) -> Erased:
    return await erase(site.records, order(scope, name))


def raw(site: SmallSite) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(site.path.rglob("*")) if path.is_file())


async def test_of_a_person_every_body_ends_and_nothing_of_others(site: SmallSite) -> None:
    async with site.run():
        hers = [await site.exchange("fever", ALICE) for _ in range(3)]
        his = await site.exchange("cough", BOB)
        nobodys = await site.exchange("weather")
        site.index()
        assert len(site.found("fever")) == 6
        planned = await plan(site.records, order("subject", ALICE))
        done = await erased(site, "subject", ALICE)
        assert planned.counts == done.certificate.counts == {"exchanges": 3, "bodies": 6, "others": 0}
        assert [site.readable(one) for one in (*hers, his, nobodys)] == [False] * 3 + [True] * 2
        assert site.found("fever") == []
        assert len(site.found("cough")) == 2
        (entry,) = site.entries("erasure")
        assert entry["epoch"] == done.certificate.epoch
        assert (entry["scope"], entry["ground"], entry["by"]) == ("subject", GROUND, "operator")
        assert {name: entry[name] for name in ("exchanges", "bodies", "others", "kept")} == {
            "exchanges": 3,
            "bodies": 6,
            "others": 0,
            "kept": {},
        }
        with pytest.raises(NotFound, match="or no longer"):
            await erased(site, "subject", ALICE)
    site.check()


async def test_a_person_who_comes_back_is_somebody_else(site: SmallSite) -> None:
    async with site.run():
        before = await site.exchange("fever", ALICE)
        name = await site.pseudonym("s", ALICE)
        await erased(site, "subject", ALICE)
        after = await site.exchange("cough", ALICE)
        assert await site.pseudonym("s", ALICE) != name
        assert not site.readable(before)
        assert site.readable(after)
    site.check()


async def test_a_pseudonym_will_do_and_no_entry_names_anybody(site: SmallSite) -> None:
    async with site.run():
        exchange = await site.exchange("fever", ALICE)
        name = await site.pseudonym("s", ALICE)
        await erased(site, "subject", name)
        assert not site.readable(exchange)
        for type_ in ("erasure", "hold", "expiry"):
            assert all(ALICE not in str(one) and name not in str(one) for one in site.entries(type_))


async def test_what_is_about_several_people_ends_with_one_of_them(site: SmallSite) -> None:
    async with site.run():
        both = await site.exchange("fever", ALICE, BOB)
        his = await site.exchange("cough", BOB)
        done = await erased(site, "subject", ALICE)
        assert done.certificate.counts["others"] == 1
        assert (site.readable(both), site.readable(his)) == (False, True)


async def test_of_an_exchange_its_own_key_ends_and_its_neighbours_stay(site: SmallSite) -> None:
    async with site.run():
        many = [await site.exchange(f"word{n}") for n in range(5)]
        site.index()
        done = await erased(site, "exchange", many[2])
        assert done.certificate.counts == {"exchanges": 1, "bodies": 2, "others": 0}
        assert [site.readable(one) for one in many] == [True, True, False, True, True]
        assert (site.found("word2"), len(site.found("word3"))) == ([], 2)
        again = await erased(site, "exchange", many[2])
        assert again.certificate.counts["exchanges"] == 0
        later = await site.exchange("later")
        assert site.readable(later)
        with pytest.raises(NotFound):
            await erased(site, "exchange", "0" * 32)
        with pytest.raises(NotFound):
            await erased(site, "exchange", ALICE)
    site.check()


async def test_of_an_owner_the_name_ends_and_bodies_only_where_the_class_says_so(site: SmallSite) -> None:
    async with site.run():
        actor = await site.pseudonym("a", ALICE)
        usual = await site.exchange("fever", actor=actor)
        own = await site.exchange("cough", actor=actor, retention="own")
        others = await site.exchange("weather", retention="own")
        done = await erased(site, "actor", ALICE)
        assert done.certificate.counts == {"exchanges": 1, "bodies": 2, "others": 0}
        assert [site.readable(one) for one in (usual, own, others)] == [True, False, True]
        assert site.revoked == [actor]
        with pytest.raises(KeystoreError, match="names no one"):
            _identity(site, actor)
    site.check()


def _identity(site: SmallSite, pseudonym: str) -> str:
    keystore = Keystore.open(site.path / "keys")
    try:
        return keystore.identity(pseudonym)
    finally:
        keystore.close()


async def test_what_must_be_kept_refuses_the_whole_with_the_reason_and_the_last_day(site: SmallSite) -> None:
    async with site.run():
        free = await site.exchange("cough", ALICE)
        kept = await site.exchange("fever", ALICE, retention="worm")
        for scope, name in (("subject", ALICE), ("exchange", kept)):
            with pytest.raises(ErasureRefused, match=r"2026-12-03: 17 CFR 240\.17a-4") as caught:
                await erased(site, scope, name)
            assert "2026-12-03" in caught.value.hint
        with pytest.raises(ErasureRefused, match="1 of 2 exchanges"):
            await erased(site, "subject", ALICE)
        assert site.readable(free)
        assert site.readable(kept)
        assert site.entries("erasure") == []
        site.now += 11 * DAY_S
        await erased(site, "subject", ALICE)
        assert not site.readable(kept)


async def test_a_class_that_is_not_in_the_settings_any_more_is_not_erased(site: SmallSite) -> None:
    async with site.run():
        exchange = await site.exchange("fever", ALICE, retention="forgotten")
        with pytest.raises(ErasureRefused, match="not in the settings"):
            await erased(site, "subject", ALICE)
        assert site.readable(exchange)


@pytest.mark.parametrize("ground", ["", "x" * 65, "Élise", 'a "quote"', "a\nb"])
async def test_a_ground_is_a_clause_and_no_prose(site: SmallSite, ground: str) -> None:
    async with site.run():
        await site.exchange("fever", ALICE)
        with pytest.raises(UsageError, match="A ground"):
            await erase(site.records, order("subject", ALICE, ground))


async def test_an_exchange_under_way_ends_under_its_own_key_and_then_nobody_reads_it(site: SmallSite) -> None:
    async with site.run():
        id_, record = await site.begin("fever", ALICE)
        await erased(site, "subject", ALICE)
        await site.answer(record, "fever")
        assert not site.readable(id_)
        assert [one.entry["type"] for one in site.find(id_)] == ["request", "response"]
    site.check()


async def test_nothing_of_an_erased_person_is_left_in_the_vault(site: SmallSite) -> None:
    async with site.run():
        exchange = await site.exchange("fever", ALICE)
        vault = site.journal.vault
        assert vault._people
        assert vault._tree is not None
        await erased(site, "exchange", exchange)
        assert (vault._people, vault._pseudonyms, vault._buckets, vault._tree) == ({}, {}, {}, None)


async def test_exchanges_that_begin_meanwhile_wait_and_get_keys_that_last(site: SmallSite) -> None:
    async with site.run():
        await site.exchange("fever", ALICE)
        async with asyncio.TaskGroup() as tasks:
            erasing = tasks.create_task(erased(site, "subject", ALICE))
            meanwhile = [tasks.create_task(site.exchange(f"late{n}", ALICE, BOB)) for n in range(50)]
        assert erasing.result().certificate.index
        readable = [site.readable(one.result()) for one in meanwhile]
        name = await site.pseudonym("s", ALICE)
        subjects = [site.find(one.result())[0].entry["subjects"] for one in meanwhile]
        # Those of before the erasure are erased, those of after it are about somebody whom nobody knew before.
        assert readable == [name in some for some in subjects]
    site.check()


# What is left on the disk.


async def test_without_the_old_root_no_byte_can_be_had_and_with_it_all(site: SmallSite, tmp_path: Path) -> None:
    async with site.run():
        hers = await site.exchange("fever", ALICE)
        his = await site.exchange("cough", BOB)
        site.index()
    shutil.copytree(site.path, tmp_path / "old")
    async with site.run():
        await erased(site, "subject", ALICE)
    for text in (ALICE, "fever", "answer to fever"):
        assert text.encode() not in raw(site)
    # Today's directory with the database of before, under the root of today.
    mixed = SmallSite(tmp_path / "mixed")
    shutil.copytree(site.path, mixed.path)
    shutil.copy(tmp_path / "old" / "keys" / "keystore.db", mixed.path / "keys" / "keystore.db")
    with pytest.raises(KeystoreError, match="does not open"):
        mixed.find(hers)
    _assert_opens_nothing(tmp_path / "old" / "keys" / "keystore.db", site.path / "keys")
    # With the old root as well, all of it: that is why copies of keys/ are listed.
    shutil.copy(tmp_path / "old" / "keys" / "root.key", mixed.path / "keys" / "root.key")
    assert mixed.readable(hers)
    assert mixed.readable(his)
    assert not site.readable(hers)
    assert site.readable(his)


def _assert_opens_nothing(old: Path, keys: Path) -> None:
    """No row of before that has to do with her opens under any key of today."""
    keystore = Keystore.open(keys)
    today = [AESGCM(key) for key in (*keystore._keys().keys, (keys / "root.key").read_bytes())]
    names = {(kind, id_) for kind in ("subject", "lookup") for id_ in keystore.ids(kind)}
    keystore.close()
    then = SqliteRows(old)
    gone = [row for kind in ("subject", "lookup") for row in then.scan(kind) if (row.kind, row.id) not in names]
    then.close()
    assert len(gone) == 2
    for row in gone:
        for cipher in today:
            with pytest.raises(InvalidTag):
                cipher.decrypt(row.sealed[:12], row.sealed[12:], full_name(row.kind, row.id))


async def test_one_among_many_touches_a_bounded_part_of_the_keystore(
    site: SmallSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with site.run():
        await crowd(site, 600)
        sealed: list[int] = []
        real = SqliteRows.rewrite

        def rewrite(rows: SqliteRows, change: Any) -> None:
            sealed.append(len(change.touched))
            real(rows, change)

        monkeypatch.setattr(SqliteRows, "rewrite", rewrite)
        await erased(site, "subject", "person 300")
        # Two rows of it, then the pending row, for which no shard is touched.
        assert len(sealed) == 2
        assert sealed[0] <= 2
        assert sealed[1] == 0


async def test_rows_in_postgresql_end_as_those_in_a_file_do(postgres: Postgres, tmp_path: Path) -> None:
    given = dict(part.split("=") for part in postgres.database("erasure").split())
    address = f"postgresql:///{given['dbname']}?host={given['host']}&user={given['user']}"
    site = SmallSite(tmp_path / "data", keys=Keys(database=address))
    async with site.run():
        hers, his = await site.exchange("fever", ALICE), await site.exchange("cough", BOB)
        await erased(site, "subject", ALICE)
        assert (site.readable(hers), site.readable(his)) == (False, True)
        assert not (site.path / "keys" / "keystore.db").exists()
    site.check()


# Backups.


async def test_older_backups_are_listed_until_somebody_says_that_they_are_gone(site: SmallSite) -> None:
    async with site.run():
        await site.exchange("fever", ALICE)
        await site.exchange("cough", BOB)
        epoch = await site.records.ask(lambda keystore: keystore.epoch)
        await site.journal.event("backup", {"backup": "b-1", "epoch": epoch, "with_root": True})
        first = await erased(site, "subject", ALICE)
        assert [(one.backup, one.with_root) for one in first.backups] == [("b-1", True)]
        later = await site.records.ask(lambda keystore: keystore.epoch)
        await site.journal.event("backup", {"backup": "b-2", "epoch": later, "with_root": False})
        await forget_backup(site.records, "b-1", "operator", "operator")
        with pytest.raises(NotFound):
            await forget_backup(site.records, "b-1", "operator", "operator")
        second = await erased(site, "subject", BOB)
        assert [one.backup for one in second.backups] == ["b-2"]
    site.check()
