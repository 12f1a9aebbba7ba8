"""`Keystore.destroy`: what goes is gone, what stays is as it was, for this process and for all others."""

from __future__ import annotations

import os
import shutil
import sqlite3
import stat
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from rempart import limits
from rempart.errors import KeystoreError
from rempart.ledger.keys.keystore import Keystore
from rempart.ledger.keys.postgres_rows import PostgresRows
from rempart.ledger.keys.rootfile import RootFile
from rempart.ledger.keys.rows import Rewrite, Rows, shard_of
from rempart.ledger.keys.sqlite_rows import SqliteRows

if TYPE_CHECKING:
    from tests.conftest import Postgres

MANY = {("kind", str(number)): b"value %d" % number for number in range(2_000)}


class Place:
    """One keystore; each `opened` is as another process has it."""

    def __init__(self, directory: Path, rows: Callable[[], Rows]) -> None:
        self.directory, self.rows = directory, rows
        self._made: list[Keystore] = []
        directory.mkdir(mode=0o700)

    def created(self) -> Keystore:
        return self._kept(Keystore.create(self.directory, self.rows()))

    def opened(self) -> Keystore:
        return self._kept(Keystore.open(self.directory, self.rows()))

    def _kept(self, keystore: Keystore) -> Keystore:
        self._made.append(keystore)
        return keystore

    def close(self) -> None:
        for keystore in self._made:
            keystore.close()


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Place]:
    directory = tmp_path / "keys"
    if request.param == "sqlite":
        made = Place(directory, lambda: SqliteRows(directory / "keystore.db"))
    else:
        postgres: Postgres = request.getfixturevalue("postgres")
        conninfo = postgres.database(f"destroy{os.urandom(8).hex()}")
        made = Place(directory, lambda: PostgresRows(conninfo))
    yield made
    made.close()


def test_rows_are_deleted_and_replaced_and_all_others_stay(place: Place) -> None:
    keystore = place.created()
    keystore.put(MANY)
    gone, changed, new = ("kind", "3"), ("kind", "4"), ("kind", "new")
    before = keystore.epoch
    assert keystore.destroy([gone], {changed: b"another", new: b"one"}) == before + 1
    wanted = {**MANY, changed: b"another", new: b"one"}
    del wanted[gone]
    for one in (keystore, place.opened()):
        assert {("kind", id_): value for id_, value in one.scan("kind")} == wanted
        assert one.get(*gone) is None
        assert one.epoch == before + 1


def test_files_stay_the_owners_alone_and_the_root_is_another(place: Place) -> None:
    keystore = place.created()
    root = (place.directory / "root.key").read_bytes()
    keystore.destroy([("kind", "none")])
    assert (place.directory / "root.key").read_bytes() != root
    assert not (place.directory / "root.key.new").exists()
    assert stat.S_IMODE((place.directory / "root.key").stat().st_mode) == 0o600


def test_one_who_was_erased_is_someone_new_when_seen_again(place: Place) -> None:
    keystore = place.created()
    name, key = keystore.pseudonym("s", "Erika")
    other = keystore.pseudonym("s", "Ünal")
    keystore.destroy([("subject", name), keystore.lookup("s", "Erika")])
    with pytest.raises(KeystoreError, match="destroyed"):
        keystore.subject_key(name)
    with pytest.raises(KeystoreError, match="no one"):
        keystore.identity(name)
    again = keystore.pseudonym("s", "Erika")
    assert again[0] != name
    assert again[1] != key
    assert keystore.pseudonym("s", "Ünal") == other


def test_only_touched_shards_get_new_keys(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    keystore = place.created()
    keystore.put(MANY)
    rewrite, seen = keystore._rows.rewrite, []

    def watched(change: Rewrite) -> None:
        seen.append(change)
        rewrite(change)

    monkeypatch.setattr(keystore._rows, "rewrite", watched)
    sealed = {row.id: row.sealed for row in keystore._rows.scan("kind")}
    keystore.destroy([("kind", "3")], {("kind", "4"): b"4"}, drop=[("kind", "5"), ("kind", "6")])
    touched = {shard_of("kind", "3"), shard_of("kind", "4")}
    assert [set(change.touched) for change in seen] == [touched]
    assert [len(change.shards) for change in seen] == [256]
    after = {row.id: row.sealed for row in keystore._rows.scan("kind")}
    assert {"3", "5", "6"}.isdisjoint(after)
    for id_, blob in after.items():
        assert (blob == sealed[id_]) is (shard_of("kind", id_) not in touched)


def test_another_process_reads_and_writes_on_after_a_destroy(place: Place) -> None:
    first = place.created()
    first.put(MANY)
    second = place.opened()
    name = ("kind", "7")
    beside = next(one for one in MANY if shard_of(*one) == shard_of(*name) and one != name)
    first.destroy([name])
    assert second.get(*beside) == MANY[beside]  # its shard has another key now
    first.destroy([("kind", "8")])
    second.put({name: b"again"})  # under the epoch of now, or it would be lost
    assert first.get(*name) == place.opened().get(*name) == b"again"
    first.destroy([name])
    assert len(dict(second.scan("kind"))) == len(MANY) - 2


def test_destroys_of_two_processes_come_one_after_the_other(place: Place) -> None:
    place.created().put(MANY)
    both = [place.opened(), place.opened()]
    before = both[0].epoch

    def destroys(number: int) -> None:
        for id_ in range(number, 20, 2):
            both[number].destroy([("kind", str(id_))])

    with ThreadPoolExecutor(2) as threads:
        list(threads.map(destroys, [0, 1]))
    last = place.opened()
    assert last.epoch == before + 20
    assert {("kind", id_) for id_, _ in last.scan("kind")} == set(MANY) - {("kind", str(n)) for n in range(20)}


def test_opening_while_another_destroys_finishes_nothing_of_it(place: Place) -> None:
    keystore = place.created()
    keystore.put(MANY)

    def destroys() -> None:
        for id_ in range(20):
            keystore.destroy([("kind", str(id_))])

    with ThreadPoolExecutor(1) as threads:
        done = threads.submit(destroys)
        while not done.done():
            one = place.opened()
            assert one.get("kind", "1999") == MANY["kind", "1999"]
            one.close()
        done.result()
    assert place.opened().get("kind", "19") is None


def test_people_who_are_seen_first_by_two_gateways_at_once_get_one_pseudonym(place: Place) -> None:
    place.created()
    both = [place.opened(), place.opened()]
    people = [f"person {number}" for number in range(40)]

    def sees(keystore: Keystore) -> list[tuple[str, bytes]]:
        return [keystore.pseudonym("s", person) for person in people]

    with ThreadPoolExecutor(2) as threads:
        first, second = threads.map(sees, both)
        days = list(threads.map(lambda one: [one.bucket("standard", str(n)) for n in range(20)], both))
    assert first == second
    assert days[0] == days[1]
    assert len(set(both[0].ids("subject"))) == len(people)


def test_a_damaged_row_stops_the_destroy_of_its_shard(place: Place) -> None:
    keystore = place.created()
    keystore.put(MANY)
    name = ("kind", "7")
    beside = next(one for one in MANY if shard_of(*one) == shard_of(*name) and one != name)
    place.rows().put({beside: b"damaged"}, epoch=keystore.epoch)
    before = keystore.epoch
    with pytest.raises(KeystoreError, match="does not open"):
        keystore.destroy([name])
    assert (keystore.epoch, keystore.get(*name)) == (before, MANY[name])
    assert not (place.directory / "root.key.new").exists()
    assert keystore.destroy([name, beside]) == before + 1


def test_a_gateway_whose_root_is_old_is_stopped_and_loses_nothing(postgres: Postgres, tmp_path: Path) -> None:
    """Another machine, with a copy of the root from before and the same database."""
    conninfo = postgres.database("elsewhere")
    keystore = Keystore.create(tmp_path / "keys", PostgresRows(conninfo))
    shutil.copytree(tmp_path / "keys", tmp_path / "elsewhere")
    other = Keystore.open(tmp_path / "elsewhere", PostgresRows(conninfo))
    keystore.put({("kind", "kept"): b"kept"})
    keystore.destroy([("kind", "gone")])
    with pytest.raises(KeystoreError, match="does not open"):
        other.put({("kind", "late"): b"late"})
    with pytest.raises(KeystoreError):
        other.destroy([("kind", "kept")])
    assert (keystore.get("kind", "late"), keystore.get("kind", "kept")) == (None, b"kept")
    for one in (keystore, other):
        one.close()


def test_who_waits_too_long_for_the_directory_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keystore = Keystore.create(tmp_path / "keys")
    monkeypatch.setattr(limits, "keystore_lock_s", 0.0)
    with RootFile(tmp_path / "keys").locked(), pytest.raises(KeystoreError, match="another process"):
        keystore.destroy([("kind", "id")])
    assert keystore.destroy([("kind", "id")]) == keystore.epoch
    keystore.close()


def test_a_staged_root_that_others_may_read_is_refused(tmp_path: Path) -> None:
    Keystore.create(tmp_path / "keys").close()
    staged = tmp_path / "keys" / "root.key.new"
    staged.write_bytes(bytes(32))
    staged.chmod(0o644)
    with pytest.raises(KeystoreError, match="read by others"):
        Keystore.open(tmp_path / "keys")


def test_a_staged_root_that_never_held_goes(tmp_path: Path) -> None:
    Keystore.create(tmp_path / "keys").close()
    staged = tmp_path / "keys" / "root.key.new"
    for data in (bytes(32), b"", b"half a li", b"\xff" * 5_000):
        staged.write_bytes(data)
        staged.chmod(0o600)
        Keystore.open(tmp_path / "keys").close()
        assert not staged.exists()


@pytest.mark.parametrize("left", [bytes(32), b"", b"half a li"])
def test_a_making_that_the_first_release_left_with_a_staged_root_is_made_again(tmp_path: Path, left: bytes) -> None:
    """It wrote the shards, and then the root, by way of `root.key.new`."""
    directory = tmp_path / "keys"
    Keystore.create(directory).close()
    database = sqlite3.connect(directory / "keystore.db")
    with database:
        database.execute("DELETE FROM rows")
    database.close()
    (directory / "root.key").unlink()
    (directory / "root.key.new").write_bytes(left)
    (directory / "root.key.new").chmod(0o600)
    keystore = Keystore.create(directory)
    keystore.put({("kind", "id"): b"value"})
    keystore.close()
    assert not (directory / "root.key.new").exists()
    opened = Keystore.open(directory)
    assert opened.get("kind", "id") == b"value"
    opened.close()


def test_a_keystore_that_cannot_be_begun_says_why_and_can_be_begun_later(tmp_path: Path) -> None:
    directory = tmp_path / "keys"
    directory.mkdir(mode=0o700)

    class Full(SqliteRows):
        def rewrite(self, change: Rewrite) -> None:
            raise KeystoreError("A key cannot be written: the disk is full.")

    with pytest.raises(KeystoreError, match="disk is full"):
        Keystore.create(directory, Full(directory / "keystore.db"))
    assert not (directory / "root.key").exists()
    Keystore.create(directory).close()


def test_a_rotation_gives_every_shard_a_new_key_and_keeps_every_row(place: Place) -> None:
    keystore = place.created()
    keystore.put(MANY)
    before = keystore._keys()
    assert keystore.rotate() == before.epoch + 1
    assert not set(keystore._keys().keys) & set(before.keys)
    opened = place.opened()
    assert {name: opened.get(*name) for name in MANY} == MANY
