"""What is left of destroyed keys on the disk opens under no key that can be had from the present root.

Old sealed bytes may lie in free pages, journals, dead rows, write-ahead logs and copies. The tests look for them there,
and try each with every key of the present epoch.
"""

from __future__ import annotations

import shutil
import sqlite3
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from rempart.errors import KeystoreError
from rempart.ledger.keys.epoch import unseal
from rempart.ledger.keys.keystore import Keystore
from rempart.ledger.keys.pkcs11_sealing import Pkcs11Sealing
from rempart.ledger.keys.postgres_rows import PostgresRows
from rempart.ledger.keys.rows import SHARDS, Rows, State, full_name, shard_of
from rempart.ledger.keys.sealing import Sealings
from rempart.ledger.keys.sqlite_rows import SqliteRows

if TYPE_CHECKING:
    from tests.conftest import Postgres, Token

PEOPLE = [f"person {number}" for number in range(50)]


def _remembered(rows: Rows) -> tuple[State, dict[tuple[str, str], bytes]]:
    """All that is sealed."""
    kinds = ("one", "lookup", "subject")
    return rows.state(), {(row.kind, row.id): row.sealed for kind in kinds for row in rows.scan(kind)}


def _assert_closed(root: bytes, now: State, then: State, old: dict[tuple[str, str], bytes]) -> None:
    """Neither the root nor any shard key of now opens an old shard key or an old row of a touched shard."""
    shards = [unseal(AESGCM(root), b"shard/%d" % number, now.shards[number]) for number in range(SHARDS)]
    for key in (root, *shards):
        cipher = AESGCM(key)
        for name, sealed in [(b"shard/%d" % number, blob) for number, blob in then.shards.items()]:
            with pytest.raises(InvalidTag):
                cipher.decrypt(sealed[:12], sealed[12:], name)
        for (kind, id_), sealed in old.items():
            with pytest.raises(InvalidTag):
                cipher.decrypt(sealed[:12], sealed[12:], full_name(kind, id_))


def _destroy_one(keystore: Keystore, rows: Rows) -> tuple[State, dict[tuple[str, str], bytes], list[tuple[str, str]]]:
    """What was sealed before, of the shards touched; the rows that were destroyed; their values."""
    then, sealed = _remembered(rows)
    gone = [("subject", keystore.pseudonym("s", PEOPLE[7])[0]), tuple(keystore.lookup("s", PEOPLE[7]))]
    touched = {shard_of(*name) for name in gone}
    old = {name: blob for name, blob in sealed.items() if shard_of(*name) in touched}
    assert set(gone) <= set(old)
    keystore.destroy(gone)
    return then, old, gone


def _filled(keystore: Keystore) -> None:
    for person in PEOPLE:
        keystore.pseudonym("s", person)


def test_a_file_its_journal_and_its_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    directory, journals = tmp_path / "keys", bytearray()

    class Copying(sqlite3.Connection):
        def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
            if statement == "COMMIT" and (directory / "keystore.db-journal").exists():
                journals.extend((directory / "keystore.db-journal").read_bytes())
            return super().execute(statement, *values)

    connect = sqlite3.connect
    monkeypatch.setattr(sqlite3, "connect", lambda *given, **named: connect(*given, factory=Copying, **named))
    keystore = Keystore.create(directory)
    _filled(keystore)
    old_root = (directory / "root.key").read_bytes()
    reading = SqliteRows(directory / "keystore.db")
    then, old, gone = _destroy_one(keystore, reading)
    now, _ = _remembered(reading)
    root = (directory / "root.key").read_bytes()
    assert sorted(path.name for path in directory.iterdir()) == ["keystore.db", "root.key"]
    assert all(old[name] in journals for name in gone)  # it was there; its blocks on the disk may be still
    _assert_closed(root, now, then, old)
    for data in (journals, *(path.read_bytes() for path in directory.iterdir())):
        assert old_root not in data
    reading.close()
    keystore.close()


def test_the_old_database_under_the_new_root_opens_nothing(tmp_path: Path) -> None:
    directory = tmp_path / "keys"
    keystore = Keystore.create(directory)
    _filled(keystore)
    shutil.copy(directory / "keystore.db", tmp_path / "old.db")
    reading = SqliteRows(directory / "keystore.db")
    _destroy_one(keystore, reading)
    reading.close()
    keystore.close()
    shutil.copy(tmp_path / "old.db", directory / "keystore.db")
    with pytest.raises(KeystoreError, match="does not open"):
        Keystore.open(directory)


def test_a_server_with_its_dead_rows_and_its_log(postgres: Postgres, tmp_path: Path) -> None:
    conninfo = postgres.database("leftovers")
    directory = tmp_path / "keys"
    rows = PostgresRows(conninfo)
    keystore = Keystore.create(directory, rows)
    _filled(keystore)
    reading = PostgresRows(conninfo)
    then, old, gone = _destroy_one(keystore, reading)
    now, _ = _remembered(reading)
    with psycopg.connect(postgres.conninfo, autocommit=True) as connection:
        connection.execute("CHECKPOINT")
    root = (directory / "root.key").read_bytes()
    raw = [path.read_bytes() for path in postgres.directory.rglob("*") if path.is_file()]
    assert any(old[gone[0]] in data for data in raw)  # dead rows and WAL keep it
    assert not any(root in data for data in raw)
    _assert_closed(root, now, then, old)
    assert {path.name for path in directory.iterdir()} == {"root.key"}
    keystore.close()
    reading.close()


def test_copies_of_all_files_and_the_token_of_today_open_nothing(token: Token, tmp_path: Path) -> None:
    directory, copy = tmp_path / "keys", tmp_path / "copy"
    sealings = Sealings(Pkcs11Sealing(token.library, token.label, lambda: token.pin))
    keystore = Keystore.create(directory, sealings=sealings)
    _filled(keystore)
    shutil.copytree(directory, copy)
    Keystore.open(copy, sealings=sealings).close()
    reading = SqliteRows(directory / "keystore.db")
    _destroy_one(keystore, reading)
    reading.close()
    keystore.close()
    with pytest.raises(KeystoreError, match="was destroyed"):
        Keystore.open(copy, sealings=sealings)


def test_the_old_roots_bytes_are_overwritten_where_they_lay(tmp_path: Path) -> None:
    """A second name of the same file shows what became of its blocks."""
    directory = tmp_path / "keys"
    keystore = Keystore.create(directory)
    (tmp_path / "same").hardlink_to(directory / "root.key")
    old = (tmp_path / "same").read_bytes()
    keystore.destroy([])
    assert len((tmp_path / "same").read_bytes()) == len(old)
    assert (tmp_path / "same").read_bytes() not in (old, (directory / "root.key").read_bytes())
    keystore.close()
