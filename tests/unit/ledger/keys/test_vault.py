"""`rempart.ledger.keys.vault`: keys that no other exchange has, and that can be had again for as long as they exist."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from rempart import limits
from rempart.errors import KeystoreError, LedgerUnavailable
from rempart.ledger.keys.ggm import LEAVES, KeyTree, Node
from rempart.ledger.keys.keystore import Keystore
from rempart.ledger.keys.recalling import RecordKeys, decode_nodes, encode_nodes, recall
from rempart.ledger.keys.vault import Vault

DAY = "2026-11-23"


@pytest.fixture
async def vault(tmp_path: Path) -> AsyncIterator[Vault]:
    made = Vault(Keystore.create(tmp_path / "keys"))
    yield made
    made.close()


def fields(keys: RecordKeys, retention: str = "standard") -> dict[str, Any]:
    named = {"subjects": list(keys.subjects)} if keys.subjects else {}
    return {"seed": keys.seed, "leaf": keys.leaf, "class": retention, "bucket": keys.bucket, **named}


async def recalled(vault: Vault, keys: RecordKeys) -> RecordKeys:
    return await vault.ask(lambda keystore: recall(keystore, fields(keys)))


def drop(tmp_path: Path, kind: str) -> None:
    database = sqlite3.connect(tmp_path / "keys" / "keystore.db")
    with database:
        database.execute("DELETE FROM rows WHERE kind = ?", (kind,))
    database.close()


async def test_no_two_exchanges_share_a_record_key(vault: Vault) -> None:
    many = [await vault.keys("standard", DAY, "", ()) for _ in range(100)]
    assert [keys.leaf for keys in many] == list(range(100))
    assert len({keys.seed for keys in many}) == 1
    assert len({keys.record_key for keys in many}) == 100


async def test_exchanges_of_one_class_and_day_share_their_bucket(vault: Vault) -> None:
    first, second = [await vault.keys("standard", DAY, "", ()) for _ in range(2)]
    tomorrow = await vault.keys("standard", "2026-11-24", "", ())
    other = await vault.keys("short", DAY, "", ())
    assert first.bucket_key == second.bucket_key
    assert len({first.bucket_key, tomorrow.bucket_key, other.bucket_key}) == 3
    assert (first.bucket, tomorrow.bucket) == (DAY, "2026-11-24")


async def test_people_are_named_by_sorted_pseudonyms_each_with_its_key(vault: Vault) -> None:
    subject, key = await vault.ask(lambda keystore: keystore.pseudonym("s", "a caller's own"))
    keys = await vault.keys("standard", DAY, subject, ("Ünal", "Erika", "Ünal"))
    assert len(keys.subjects) == 3
    assert list(keys.subjects) == sorted(keys.subjects)
    assert keys.subject_keys[keys.subjects.index(subject)] == key
    again = await vault.keys("standard", DAY, subject, ("Erika", "Ünal"))
    assert (again.subjects, again.subject_keys) == (keys.subjects, keys.subject_keys)


async def test_the_same_person_seen_twice_at_once_gets_one_pseudonym(vault: Vault) -> None:
    many = await asyncio.gather(*[vault.keys("standard", DAY, "", ("Erika",)) for _ in range(20)])
    assert len({keys.subjects for keys in many}) == 1
    assert len({keys.record_key for keys in many}) == 20


async def test_a_person_who_was_erased_or_never_known_has_no_keys(vault: Vault) -> None:
    with pytest.raises(LedgerUnavailable):
        await vault.keys("standard", DAY, "s_" + "0" * 32, ())


async def test_what_is_known_is_not_asked_again(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    before = await vault.keys("standard", DAY, "", ("Erika",))

    async def asked(question: object) -> None:
        pytest.fail("the keystore was asked")

    monkeypatch.setattr(vault, "ask", asked)
    after = await vault.keys("standard", DAY, "", ("Erika",))
    assert after.subjects == before.subjects


async def test_the_memory_for_people_is_bounded(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "subject_cache_max", 3)
    first = await vault.keys("standard", DAY, "", ("0",))
    for name in "12345":
        await vault.keys("standard", DAY, "", (name,))
    assert list(vault._people) == ["3", "4", "5"]
    assert (await vault.keys("standard", DAY, "", ("0",))).subjects == first.subjects


async def test_a_seed_is_durable_before_its_first_leaf_is_used(vault: Vault, tmp_path: Path) -> None:
    keys = await vault.keys("standard", DAY, "", ())
    other = Keystore.open(tmp_path / "keys")
    row = other.get("seed", keys.seed)
    other.close()
    assert row is not None
    assert KeyTree(decode_nodes(row)).leaf(keys.leaf) == keys.record_key


async def test_every_run_begins_a_seed_of_its_own(vault: Vault, tmp_path: Path) -> None:
    first = await vault.keys("standard", DAY, "", ())
    another = Vault(Keystore.open(tmp_path / "keys"))
    second = await another.keys("standard", DAY, "", ())
    another.close()
    assert first.seed != second.seed
    assert first.bucket_key == second.bucket_key


async def test_a_seed_that_is_used_up_is_followed_by_another(vault: Vault) -> None:
    first = await vault.keys("standard", DAY, "", ())
    vault._next_leaf = LEAVES - 1
    last = await vault.keys("standard", DAY, "", ())
    following = await vault.keys("standard", DAY, "", ())
    assert (last.seed, last.leaf) == (first.seed, LEAVES - 1)
    assert following.seed != first.seed
    assert following.leaf == 0


async def test_many_at_once_at_the_end_of_a_seed_all_get_keys(vault: Vault) -> None:
    await vault.keys("standard", DAY, "", ())
    vault._next_leaf = LEAVES - 2
    many = await asyncio.gather(*[vault.keys("standard", DAY, "", (f"person {number}",)) for number in range(10)])
    assert len({(keys.seed, keys.leaf) for keys in many}) == 10
    assert len({keys.record_key for keys in many}) == 10


async def test_a_keystore_that_fails_stops_what_is_new(vault: Vault, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(self: Keystore, rows: object, *, fresh: bool = False) -> None:
        raise KeystoreError("A key cannot be written.", hint="Look at the disk.")

    with monkeypatch.context() as broken:
        broken.setattr(Keystore, "put", fails)
        with pytest.raises(LedgerUnavailable, match="cannot be written") as caught:
            await vault.keys("standard", DAY, "", ())
        assert caught.value.hint == "Look at the disk."
    assert (await vault.keys("standard", DAY, "", ())).leaf == 0


async def test_keys_are_recalled_from_an_entry(vault: Vault) -> None:
    for people in ((), ("Erika", "Ünal")):
        keys = await vault.keys("standard", DAY, "", people)
        assert await recalled(vault, keys) == keys


@pytest.mark.parametrize("kind", ["seed", "bucket", "subject"])
async def test_keys_are_not_recalled_once_one_of_them_is_destroyed(vault: Vault, tmp_path: Path, kind: str) -> None:
    keys = await vault.keys("standard", DAY, "", ("Erika",))
    drop(tmp_path, kind)
    with pytest.raises(LedgerUnavailable, match="destroyed"):
        await recalled(vault, keys)


async def test_one_leaf_erased_leaves_its_neighbours(vault: Vault) -> None:
    before, erased, after = [await vault.keys("standard", DAY, "", ()) for _ in range(3)]

    def erase(keystore: Keystore) -> None:
        row = keystore.get("seed", erased.seed)
        assert row is not None
        nodes = KeyTree(decode_nodes(row)).without(erased.leaf).nodes
        keystore.put({("seed", erased.seed): encode_nodes(nodes)})

    await vault.ask(erase)
    for keys in (before, after):
        assert await recalled(vault, keys) == keys
    with pytest.raises(LedgerUnavailable, match="erased"):
        await recalled(vault, erased)


async def test_while_it_is_paused_nobody_gets_keys_and_then_fresh_ones(vault: Vault) -> None:
    before = await vault.keys("standard", DAY, "", ("Erika",))
    async with vault.paused():
        waiting = asyncio.create_task(vault.keys("standard", DAY, "", ("Erika",)))
        gone = [("subject", before.subjects[0]), await vault.ask(lambda keystore: keystore.lookup("s", "Erika"))]
        await vault.ask(lambda keystore: keystore.destroy(gone))
        assert not waiting.done()
    after = await waiting
    assert after.seed != before.seed
    assert after.subjects != before.subjects
    assert after.bucket_key == before.bucket_key


async def test_who_was_half_way_when_it_paused_begins_again(vault: Vault) -> None:
    """A key that was read before the destroy is neither used nor remembered after it."""
    before = await vault.keys("standard", DAY, "", ("Erika",))
    gone = [("subject", before.subjects[0]), await vault.ask(lambda keystore: keystore.lookup("s", "Erika"))]
    asking = asyncio.create_task(vault.keys("standard", DAY, "", ("Erika", *(f"new {n}" for n in range(20)))))
    await asyncio.sleep(0)  # it has her key, and waits for the others
    async with vault.paused():
        await vault.ask(lambda keystore: keystore.destroy(gone))
    keys = await asking
    assert before.subjects[0] not in keys.subjects
    assert await recalled(vault, keys) == keys


def test_the_row_of_a_seed_is_read_back() -> None:
    whole = [Node("", bytes(range(32)))]
    assert encode_nodes(whole) == b'[["","%s"]]' % bytes(range(32)).hex().encode()
    for nodes in (whole, list(KeyTree(whole).without(5).nodes), []):
        assert decode_nodes(encode_nodes(nodes)) == nodes
