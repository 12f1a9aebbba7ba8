"""`Follower` and `index_ledger`: what of a real log comes into the index, and what does not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rempart.config.settings import Keys
from rempart.errors import InvalidRequest, KeystoreError
from rempart.ledger.keys.keystore import Keystore
from rempart.ledger.reading.archive import Archive
from rempart.ledger.reading.entries import EntryReader
from rempart.ledger.reading.said import Said
from rempart.ledger.search.following import Follower, index_ledger, key_of
from rempart.ledger.search.manifest import read, write
from rempart.ledger.search.writer import IndexWriter
from rempart.ledger.writing.journal import Journal
from rempart.ledger.writing.opening import open_ledger
from rempart.testing.small_ledger import until


class Life(msgspec.Struct):
    """A running ledger."""

    data: Path
    journal: Journal

    async def exchange(self, number: int, asked: str, answered: str, **more: Any) -> int:
        """Index of its response."""
        given = {"actor": "a_1", "role": "user", "key": "k", "subject": "", "people": (), **more}
        record = await self.journal.open(f"{number:032x}", retention="standard", **given)
        body = msgspec.json.encode({"request": {"messages": [{"role": "user", "content": asked}]}})
        request = await record.request({"model": "m", "operation": "chat"}, body)
        body = msgspec.json.encode({"response": {"choices": [{"message": {"content": answered}}]}})
        facts = {"model": "m", "operation": "chat", "outcome": "ok", "request": request.index, "status": 200}
        return (await record.response(facts, body)).index

    async def read(self, query: str) -> int:
        record = await self.journal.open(
            f"{99:032x}", actor="a_9", role="auditor", key="k9", subject="", people=(), retention="audit"
        )
        return (await record.remark("read", {"verb": "search", "found": 1, "bodies": 0}, query.encode())).index

    async def covered(self, index: int) -> None:
        await until(lambda: self.journal.state().tree_size > index)

    def search(self, query: str) -> list[int]:
        index_ledger(str(self.data), Keys(), False, False)
        archive = Archive(self.data / "ledger", Keystore.open(self.data / "keys"))
        try:
            return [one.index for one in archive.search(query, limit=10).results]
        finally:
            archive.close()


@pytest.fixture
async def life(tmp_path: Path) -> AsyncIterator[Life]:
    data = tmp_path / "data"
    keystore = Keystore.create(data / "keys")
    journal = await open_ledger(data, keystore, origin="", strict=False)
    try:
        yield Life(data, journal)
    finally:
        await journal.close()


async def test_an_exchange_is_found_by_both_its_sides_once(life: Life) -> None:
    first = await life.exchange(1, "Where is the heron?", "In the marsh.")
    second = await life.exchange(2, "And the marsh?", "Behind the dunes.")
    await life.covered(second)
    assert life.search("heron") == life.search("heron marsh") == [first]
    assert life.search("marsh") == [second, first]
    assert life.search("actor:a_1") == [second, first]
    assert life.search('"heron in"') == []


async def test_an_actor_is_found_by_name_until_that_person_is_erased(life: Life) -> None:
    keystore = Keystore.open(life.data / "keys")
    actor, _ = keystore.pseudonym("a", "Ada Lovelace")
    index = await life.exchange(1, "Where is the heron?", "In the marsh.", actor=actor)
    await life.covered(await life.exchange(2, "And the heron's nest?", "There."))
    assert life.search('heron actor:"Ada Lovelace"') == life.search(f"actor:{actor}") == [index]
    with pytest.raises(InvalidRequest, match="No key's owner is known as 'Ada'"):
        life.search("actor:Ada")
    keystore.destroy([keystore.lookup("a", "Ada Lovelace")])
    with pytest.raises(InvalidRequest, match="or no longer"):
        life.search('actor:"Ada Lovelace"')
    assert life.search(f"actor:{actor}") == [index]


async def test_of_a_read_its_fields_are_found_and_not_what_it_asked_for(life: Life) -> None:
    index = await life.read("heron")
    await life.covered(index)
    assert life.search("heron") == []
    assert life.search("actor:a_9 class:audit") == [index]


async def test_whoever_was_erased_is_not_indexed(life: Life) -> None:
    index = await life.exchange(1, "Where is the heron?", "There.", people=("Ada",))
    await life.covered(index)
    keystore = Keystore.open(life.data / "keys")
    name, _ = keystore.pseudonym("s", "Ada")
    keystore.destroy([("subject", name)])
    assert life.search("heron") == life.search("outcome:ok") == []


async def test_a_keystore_that_fails_is_not_taken_for_an_erasure(life: Life) -> None:
    index = await life.exchange(1, "Where is the heron?", "There.")
    await life.covered(index)
    keystore = Keystore.open(life.data / "keys")
    follower = Follower(life.data / "ledger", keystore)
    keystore.close()
    with pytest.raises(KeystoreError):
        list(follower.follow(0))


async def test_what_was_destroyed_meanwhile_is_not_read_from_a_cache(life: Life) -> None:
    first = await life.exchange(1, "The heron.", "Yes.", people=("Ada",))
    last = await life.exchange(2, "The stork.", "Yes.", people=("Ada",))
    await life.covered(last)
    keystore = Keystore.open(life.data / "keys")
    followed = Follower(life.data / "ledger", keystore).follow(0)
    assert next(texts for index, _, texts in followed if index == first) == ["The heron.", "Yes."]
    other = Keystore.open(life.data / "keys")
    other.destroy([("subject", other.pseudonym("s", "Ada")[0])])
    assert next((fields, texts) for index, fields, texts in followed if index == last) == ({"type": "response"}, ())


async def test_bodies_are_read_in_any_order_while_the_log_grows(life: Life) -> None:
    said = Said(life.data / "ledger", Keystore.open(life.data / "keys"))
    indices = [await life.exchange(number, f"question {number}", f"answer {number}") for number in range(20)]
    await life.covered(indices[-1])
    reader = EntryReader(life.data / "ledger", beyond=False)
    for number in (19, 3, 11, 0):
        assert said.texts(reader, indices[number]) == [f"question {number}", f"answer {number}"]
    more = await life.exchange(20, "question 20", "answer 20")
    await life.covered(more)
    assert said.texts(EntryReader(life.data / "ledger", beyond=False), more) == ["question 20", "answer 20"]


async def test_an_index_of_a_longer_log_is_built_anew(life: Life) -> None:
    index = await life.exchange(1, "The heron.", "Yes.")
    await life.covered(index)
    assert life.search("heron") == [index]
    directory = life.data / "ledger" / "index"
    size = read(directory).mark
    write(directory, msgspec.structs.replace(read(directory), mark=size + 1_000))
    built = index_ledger(str(life.data), Keys(), False, False)
    assert built.added >= size
    assert any("longer log" in text for text in built.damaged)
    assert life.search("heron") == [index]


async def test_what_the_index_does_not_mention_is_found_by_a_check(life: Life) -> None:
    first = await life.exchange(1, "The heron.", "Yes.")
    last = await life.exchange(2, "The heron.", "No.")
    await life.covered(last)
    assert life.search("heron") == [last, first]
    keystore = Keystore.open(life.data / "keys")
    with IndexWriter(life.data / "ledger" / "index", key_of(keystore)) as writer:
        assert writer.erase([first]) == 1
    assert life.search("heron") == [last]
    told = index_ledger(str(life.data), Keys(), True, False).damaged
    assert told == ("The index did not mention 1 entries of the log.",)
    assert life.search("heron") == [last, first]
    assert index_ledger(str(life.data), Keys(), True, False).damaged == ()


async def test_what_the_log_has_not_is_found_by_a_check(life: Life) -> None:
    index = await life.exchange(1, "The heron.", "Yes.")
    await life.covered(index)
    day = EntryReader(life.data / "ledger").read(index).split(b'"bucket":"')[1][:10].decode()
    keystore = Keystore.open(life.data / "keys")
    with IndexWriter(life.data / "ledger" / "index", key_of(keystore)) as writer:
        writer.add(0, {"class": "standard", "bucket": day}, ["stork"])
        writer.commit(0)
    told = index_ledger(str(life.data), Keys(), True, False).damaged
    assert told == ("The index mentioned 1 entries that the log has not there.",)
    assert life.search("stork") == []
    assert life.search("heron") == [index]


async def test_an_erasure_is_no_fault_of_the_index(life: Life) -> None:
    index = await life.exchange(1, "Where is the heron?", "There.", people=("Ada",))
    await life.covered(index)
    assert life.search("heron") == [index]
    keystore = Keystore.open(life.data / "keys")
    keystore.destroy([("subject", keystore.pseudonym("s", "Ada")[0])])
    with IndexWriter(life.data / "ledger" / "index", key_of(keystore)) as writer:
        writer.erase([index])
    assert index_ledger(str(life.data), Keys(), True, False).damaged == ()


async def test_rebuilt_it_says_the_same(life: Life) -> None:
    index = await life.exchange(1, "The heron.", "Yes.")
    await life.covered(index)
    before = life.search("heron")
    assert index_ledger(str(life.data), Keys(), True, True).added > index
    assert life.search("heron") == before == [index]


def test_without_keys_nothing_is_made(tmp_path: Path) -> None:
    with pytest.raises(KeystoreError):
        index_ledger(str(tmp_path), Keys(), False, False)
    assert list(tmp_path.iterdir()) == []


def test_the_program_ends_when_its_server_is_another(tmp_path: Path) -> None:
    Keystore.create(tmp_path / "keys").close()
    command = [sys.executable, "-m", "rempart.ledger.search.following", str(tmp_path), "0.1", "1", "{}"]
    assert subprocess.run(command, check=False, timeout=60).returncode == 0
