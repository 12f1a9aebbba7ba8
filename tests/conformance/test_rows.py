"""Every place where a keystore's rows are kept passes the same suite, the first release's file among them."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING

import psycopg
import pytest

from rempart.errors import KeystoreError, KeystoreTaken
from rempart.ledger.keys.keystore import Keystore
from rempart.ledger.keys.postgres_rows import PostgresRows
from rempart.ledger.keys.rows import Rewrite, Row, Rows
from rempart.ledger.keys.sqlite_rows import SqliteRows
from rempart.testing.check_rows import check_rows

if TYPE_CHECKING:
    from tests.conftest import Postgres

GOLDEN = Path(__file__).parents[1] / "golden" / "0.1.0" / "keys"


def test_sqlite(tmp_path: Path) -> None:
    check_rows(lambda: SqliteRows(tmp_path / "keystore.db"))


def test_postgresql(postgres: Postgres) -> None:
    conninfo = postgres.database("conformance")
    check_rows(lambda: PostgresRows(conninfo))


def test_the_tables_of_the_first_release_are_used_as_they_are(tmp_path: Path) -> None:
    database = sqlite3.connect(tmp_path / "keystore.db")
    database.executescript(
        "CREATE TABLE shards (number INTEGER PRIMARY KEY, sealed BLOB NOT NULL);"
        "CREATE TABLE rows (kind TEXT NOT NULL, id TEXT NOT NULL, sealed BLOB NOT NULL, PRIMARY KEY (kind, id))"
        " WITHOUT ROWID;"
    )
    database.close()
    check_rows(lambda: SqliteRows(tmp_path / "keystore.db"))


def test_the_first_releases_keystore_opens_and_can_destroy(tmp_path: Path) -> None:
    directory = tmp_path / "keys"
    shutil.copytree(GOLDEN, directory)
    directory.chmod(0o700)
    for path in directory.iterdir():
        path.chmod(0o600)
    keystore = Keystore.open(directory)
    assert keystore.epoch == 0
    kinds = ("one", "bucket", "subject", "lookup", "seed")
    values = {(kind, id_): value for kind in kinds for id_, value in keystore.scan(kind)}
    assert {kind for kind, _ in values} == set(kinds)
    gone = next(name for name in values if name[0] == "subject")
    assert keystore.destroy([gone]) == 1
    keystore.close()
    again = Keystore.open(directory)
    assert {(kind, id_): value for kind in kinds for id_, value in again.scan(kind)} == {
        name: value for name, value in values.items() if name != gone
    }
    again.close()


def test_two_gateways_begin_at_once_on_one_empty_database(postgres: Postgres) -> None:
    conninfo = postgres.database("beginning")
    with ThreadPoolExecutor(4) as threads:
        for rows in threads.map(PostgresRows, [conninfo] * 4):
            assert rows.state().epoch == 0
            rows.close()


def test_a_lost_connection_fails_one_call_and_no_more(postgres: Postgres) -> None:
    rows = PostgresRows(postgres.database("lost"))
    rows.put({("kind", "id"): b"kept"}, epoch=0)
    with psycopg.connect(postgres.conninfo, autocommit=True) as connection:
        connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'lost'")
    with pytest.raises(KeystoreError, match="PostgreSQL failed") as caught:
        rows.get("kind", "id")
    assert "next call" in caught.value.hint
    assert rows.get("kind", "id") == b"kept"
    rows.close()


def test_one_owner_has_the_rows_and_others_read_beside_it(postgres: Postgres) -> None:
    conninfo = postgres.database("owned")
    owner, reader = PostgresRows(conninfo, owner=True), PostgresRows(conninfo)
    assert reader.state().epoch == 0
    with pytest.raises(KeystoreTaken, match="Another gateway uses the keystore"):
        PostgresRows(conninfo, owner=True)
    owner.close()
    second = PostgresRows(conninfo, owner=True)
    with pytest.raises(KeystoreTaken):
        owner.state()
    second.close()
    assert owner.state().epoch == 0
    owner.close()
    reader.close()


def test_whoever_destroyed_keys_beside_the_owner_is_noticed(postgres: Postgres, tmp_path: Path) -> None:
    conninfo = postgres.database("noticed")
    keystore = Keystore.create(tmp_path / "keys", PostgresRows(conninfo))
    keystore.check_current()
    shutil.copytree(tmp_path / "keys", tmp_path / "copy")
    other = Keystore.open(tmp_path / "copy", PostgresRows(conninfo))
    other.rotate()
    with pytest.raises(KeystoreTaken, match="destroyed keys"):
        keystore.check_current()
    other.check_current()
    keystore.close()
    other.close()


def test_a_server_that_crashed_has_kept_what_was_put(postgres: Postgres) -> None:
    rows = PostgresRows(postgres.database("crashed"))
    rows.put({("kind", "id"): b"kept"}, epoch=0)
    rows.rewrite(Rewrite(epoch=0, shards={7: b"seven"}, reseal=lambda row: row.sealed))
    postgres.control("stop", "-m", "immediate")
    with pytest.raises(KeystoreError):
        rows.get("kind", "id")
    with pytest.raises(KeystoreError, match="PostgreSQL failed"):
        rows.state()
    postgres.control("start")
    assert rows.get("kind", "id") == b"kept"
    assert rows.state().shards == {7: b"seven"}
    rows.close()


def test_a_server_that_may_forget_is_refused(postgres: Postgres) -> None:
    postgres.control("restart", "-o", "-c fsync=off")
    try:
        with pytest.raises(KeystoreError, match="fsync"):
            PostgresRows(postgres.conninfo)
    finally:
        postgres.control("restart", "-o", "-c fsync=on")


def test_commits_wait_for_the_disk_whatever_the_server_does_by_default(postgres: Postgres) -> None:
    rows = PostgresRows(postgres.database("lazy") + " options='-c synchronous_commit=off'")
    with rows._session.connection() as connection:
        assert connection.execute("SHOW synchronous_commit").fetchone() == ("on",)
    rows.close()


def test_a_commit_in_doubt_is_waited_for(postgres: Postgres) -> None:
    """Another session is between its first statement and its commit: the durable reading comes after it."""
    conninfo = postgres.database("doubt")
    rows = PostgresRows(conninfo)
    with psycopg.connect(conninfo) as other:
        other.execute("UPDATE rempart_keys.epoch SET number = 1")
        assert rows.state().epoch == 0
        with psycopg.connect(conninfo, autocommit=True) as asking, pytest.raises(psycopg.errors.LockNotAvailable):
            asking.execute("SELECT number FROM rempart_keys.epoch FOR UPDATE NOWAIT")
        other.commit()
    assert rows.state(durable=True).epoch == 1
    rows.close()


def test_no_row_is_put_between_the_reading_and_the_end_of_a_rewrite_in_a_file(tmp_path: Path) -> None:
    def asks() -> None:
        database = sqlite3.connect(tmp_path / "keystore.db", timeout=0)
        with pytest.raises(sqlite3.OperationalError, match="locked"):
            database.execute("BEGIN IMMEDIATE")
        database.close()

    _while_rewriting(SqliteRows(tmp_path / "keystore.db"), asks)


def test_no_row_is_put_between_the_reading_and_the_end_of_a_rewrite_on_a_server(postgres: Postgres) -> None:
    conninfo = postgres.database("between")

    def asks() -> None:
        with psycopg.connect(conninfo, autocommit=True) as asking, pytest.raises(psycopg.errors.LockNotAvailable):
            asking.execute("SELECT number FROM rempart_keys.epoch FOR SHARE NOWAIT")

    _while_rewriting(PostgresRows(conninfo), asks)


def _while_rewriting(rows: Rows, asks: Callable[[], None]) -> None:
    rows.put({("kind", "id"): b"old"}, epoch=0)

    def reseal(row: Row) -> bytes:
        asks()
        return b"new"

    rows.rewrite(Rewrite(epoch=0, shards={}, touched=range(256), reseal=reseal))
    assert rows.get("kind", "id") == b"new"
    rows.close()
