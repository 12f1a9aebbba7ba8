"""`rempart.ledger.keys.keystore`: rows open under their own name and root alone; files are for their owner alone."""

from __future__ import annotations

import os
import sqlite3
import stat
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from rempart.errors import KeystoreError
from rempart.ledger.keys.keystore import KEY_BYTES, Keystore

SECRET = b"a value that must not stand on the disk in clear"


@pytest.fixture
def keystore(tmp_path: Path) -> Iterator[Keystore]:
    made = Keystore.create(tmp_path / "keys")
    yield made
    made.close()


def on_disk(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(directory.iterdir()))


def shard(kind: str, id_: str) -> int:
    return sha256(f"{kind}/{id_}".encode()).digest()[0]


def change(directory: Path, statement: str, *values: object) -> None:
    database = sqlite3.connect(directory / "keystore.db")
    with database:
        database.execute(statement, values)
    database.close()


def test_files_and_directory_are_the_owners_alone(keystore: Keystore, tmp_path: Path) -> None:
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700
    for name in ("root.key", "keystore.db"):
        assert stat.S_IMODE((tmp_path / "keys" / name).stat().st_mode) == 0o600
    assert len((tmp_path / "keys" / "root.key").read_bytes()) == KEY_BYTES


@pytest.mark.parametrize("name", ["", "root.key", "keystore.db"])
@pytest.mark.parametrize("more", [0o040, 0o004, 0o020, 0o002, 0o010, 0o001])
def test_what_others_may_use_is_refused(keystore: Keystore, tmp_path: Path, name: str, more: int) -> None:
    path = tmp_path / "keys" / name
    path.chmod(stat.S_IMODE(path.stat().st_mode) | more)
    with pytest.raises(KeystoreError, match="can be read by others") as caught:
        Keystore.open(tmp_path / "keys")
    assert "chmod go-rwx" in caught.value.hint


def test_what_belongs_to_another_user_is_refused(
    keystore: Keystore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = os.geteuid() + 1
    monkeypatch.setattr(os, "geteuid", lambda: other)
    with pytest.raises(KeystoreError, match="another user"):
        Keystore.open(tmp_path / "keys")


@pytest.mark.parametrize("name", ["root.key", "keystore.db"])
def test_a_file_that_is_missing_is_told(keystore: Keystore, tmp_path: Path, name: str) -> None:
    (tmp_path / "keys" / name).unlink()
    with pytest.raises(KeystoreError, match=name):
        Keystore.open(tmp_path / "keys")


def test_there_is_nothing_to_open_where_nothing_was_made(tmp_path: Path) -> None:
    with pytest.raises(KeystoreError, match="cannot be read"):
        Keystore.open(tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def test_a_keystore_is_not_made_twice(keystore: Keystore, tmp_path: Path) -> None:
    root = (tmp_path / "keys" / "root.key").read_bytes()
    with pytest.raises(KeystoreError, match="already"):
        Keystore.create(tmp_path / "keys")
    assert (tmp_path / "keys" / "root.key").read_bytes() == root


def test_one_whose_making_was_cut_off_is_made_again(keystore: Keystore, tmp_path: Path) -> None:
    """The first release wrote the shards, and then the root."""
    keystore.close()
    (tmp_path / "keys" / "root.key").unlink()
    change(tmp_path / "keys", "DELETE FROM rows")
    again = Keystore.create(tmp_path / "keys")
    again.put({("kind", "id"): SECRET})
    again.close()
    opened = Keystore.open(tmp_path / "keys")
    assert opened.get("kind", "id") == SECRET
    opened.close()


def test_keys_whose_root_is_missing_are_not_replaced(keystore: Keystore, tmp_path: Path) -> None:
    keystore.close()
    (tmp_path / "keys" / "root.key").unlink()
    with pytest.raises(KeystoreError, match=r"holds keys, but .*root\.key is missing"):
        Keystore.create(tmp_path / "keys")


@pytest.mark.parametrize("root", [b"", bytes(31), bytes(33), bytes(32)])
def test_another_root_opens_nothing(keystore: Keystore, tmp_path: Path, root: bytes) -> None:
    (tmp_path / "keys" / "root.key").write_bytes(root)
    with pytest.raises(KeystoreError, match=r"root\.key"):
        Keystore.open(tmp_path / "keys")


def test_a_shard_that_is_missing_is_told(keystore: Keystore, tmp_path: Path) -> None:
    keystore.close()
    change(tmp_path / "keys", "DELETE FROM shards WHERE number = 7")
    with pytest.raises(KeystoreError, match="not whole"):
        Keystore.open(tmp_path / "keys")


@pytest.mark.parametrize("data", [b"no database" * 100, b"SQLite format 3\x00" + b"\xff" * 4_096])
def test_a_file_that_is_no_database_is_told(keystore: Keystore, tmp_path: Path, data: bytes) -> None:
    keystore.close()
    (tmp_path / "keys" / "keystore.db").write_bytes(data)
    with pytest.raises(KeystoreError, match="damaged"):
        Keystore.open(tmp_path / "keys")


def test_a_row_that_sqlite_cannot_read_is_told(keystore: Keystore, tmp_path: Path) -> None:
    ids = [str(number) for number in range(200)]
    keystore.put({("kind", id_): bytes(1_000) for id_ in ids})
    keystore.close()
    path = tmp_path / "keys" / "keystore.db"
    data = bytearray(path.read_bytes())
    data[80_000:] = b"\xff" * (len(data) - 80_000)
    path.write_bytes(data)
    opened = Keystore.open(tmp_path / "keys")
    with pytest.raises(KeystoreError):
        [opened.get("kind", id_) for id_ in ids]
    opened.close()


def test_rows_are_kept_and_replaced(keystore: Keystore, tmp_path: Path) -> None:
    keystore.put({("a", "1"): b"one", ("a", "2"): b"two", ("b", "1"): b""})
    keystore.put({("a", "2"): b"another"})
    keystore.close()
    opened = Keystore.open(tmp_path / "keys")
    assert [opened.get(*name) for name in (("a", "1"), ("a", "2"), ("b", "1"), ("b", "2"))] == [
        b"one",
        b"another",
        b"",
        None,
    ]
    opened.close()


def test_rows_do_not_stand_on_the_disk_in_clear(keystore: Keystore, tmp_path: Path) -> None:
    keystore.put({("kind", "id"): SECRET})
    key = keystore.one("pepper")
    name, subject_key = keystore.pseudonym("s", "Erika Mustermann")
    data = on_disk(tmp_path / "keys")
    assert name.encode() in data  # names of rows are no secret
    for secret in (SECRET, SECRET[:8], key, subject_key, b"Erika", b"Mustermann"):
        assert secret not in data


def test_the_same_value_is_never_sealed_alike(keystore: Keystore, tmp_path: Path) -> None:
    for id_ in ("1", "2", "1"):
        keystore.put({("kind", id_): SECRET})
    keystore.close()
    database = sqlite3.connect(tmp_path / "keys" / "keystore.db")
    sealed = [row[0] for row in database.execute("SELECT sealed FROM rows WHERE kind = 'kind'")]
    database.close()
    assert len(set(sealed)) == len(sealed) == 2


def test_a_row_moved_to_another_name_does_not_open(keystore: Keystore, tmp_path: Path) -> None:
    mine = "0"
    other = next(id_ for id_ in map(str, range(1, 10_000)) if shard("kind", id_) == shard("kind", mine))
    keystore.put({("kind", mine): SECRET})
    keystore.close()
    change(tmp_path / "keys", "INSERT INTO rows SELECT kind, ?, sealed, shard FROM rows WHERE kind = 'kind'", other)
    opened = Keystore.open(tmp_path / "keys")
    assert opened.get("kind", mine) == SECRET
    with pytest.raises(KeystoreError, match="does not open"):
        opened.get("kind", other)
    opened.close()


@pytest.mark.parametrize("sealed", [b"", bytes(11), bytes(12), bytes(100)])
def test_a_damaged_row_does_not_open(keystore: Keystore, tmp_path: Path, sealed: bytes) -> None:
    keystore.put({("kind", "id"): SECRET})
    change(tmp_path / "keys", "UPDATE rows SET sealed = ? WHERE kind = 'kind'", sealed)
    with pytest.raises(KeystoreError, match="does not open"):
        keystore.get("kind", "id")


def test_all_rows_are_written_or_none(keystore: Keystore, tmp_path: Path) -> None:
    change(
        tmp_path / "keys",
        "CREATE TRIGGER full BEFORE INSERT ON rows WHEN NEW.id = 'last' BEGIN SELECT RAISE(ABORT, 'disk'); END",
    )
    with pytest.raises(KeystoreError, match="cannot be written") as caught:
        keystore.put({("kind", "first"): b"1", ("kind", "last"): b"2"})
    assert caught.value.hint
    assert keystore.get("kind", "first") is None


def test_keys_of_one_kind_are_made_once(keystore: Keystore, tmp_path: Path) -> None:
    keys = [keystore.one("log-key"), keystore.one("pepper")]
    buckets = [keystore.bucket("standard", "2026-11-23"), keystore.bucket("standard", "2026-11-24")]
    other = keystore.bucket("short", "2026-11-23")
    assert len({*keys, *buckets, other}) == 5
    assert {len(key) for key in (*keys, *buckets)} == {KEY_BYTES}
    keystore.close()
    opened = Keystore.open(tmp_path / "keys")
    assert [opened.one("log-key"), opened.one("pepper")] == keys
    assert opened.bucket("standard", "2026-11-24") == buckets[1]
    opened.close()


def test_a_person_has_one_pseudonym_of_each_kind(keystore: Keystore) -> None:
    subject, key = keystore.pseudonym("s", "Ünal")
    actor, _ = keystore.pseudonym("a", "Ünal")
    assert keystore.pseudonym("s", "Ünal") == (subject, key)
    assert keystore.pseudonym("s", "ünal")[0] != subject
    assert (subject[:2], len(subject), actor[:2], len(actor)) == ("s_", 34, "a_", 34)
    assert subject[2:] != actor[2:]
    assert keystore.subject_key(subject) == key
    assert keystore.identity(subject) == keystore.identity(actor) == "Ünal"


def test_pseudonyms_of_two_sites_have_nothing_in_common(keystore: Keystore, tmp_path: Path) -> None:
    other = Keystore.create(tmp_path / "other")
    assert other.pseudonym("s", "Ünal")[0] != keystore.pseudonym("s", "Ünal")[0]
    other.close()


def test_one_who_is_not_known_has_neither_key_nor_name(keystore: Keystore) -> None:
    with pytest.raises(KeystoreError, match="destroyed"):
        keystore.subject_key("s_" + "0" * 32)
    with pytest.raises(KeystoreError, match="no one"):
        keystore.identity("s_" + "0" * 32)
