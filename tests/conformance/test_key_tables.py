"""Every place where API keys are kept passes the same suite; the shared one shows nothing and takes no forgery."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import psycopg
import pytest

from rempart.errors import ConfigError, KeystoreError, SharedStateUnavailable
from rempart.identity.keys import KeyRow, KeyTable
from rempart.identity.postgres_keys import KEYS_CHANNEL, PostgresKeys
from rempart.identity.shared_secret import derive
from rempart.testing.check_key_table import check_key_table

if TYPE_CHECKING:
    from tests.conftest import Postgres

SECRET = derive(b"0123456789abcdef" * 4)
ROW = KeyRow(id="0123456789ab", name="key of Ada", role="user", actor="a_1")
MAC = bytes(32)


def test_a_file(tmp_path: Path) -> None:
    check_key_table(lambda: KeyTable(tmp_path / "state.db"))


def test_postgresql(postgres: Postgres) -> None:
    conninfo = postgres.database("key_tables")
    check_key_table(lambda: PostgresKeys(conninfo, SECRET))


def test_news_are_what_is_past_a_version_and_are_notified(postgres: Postgres) -> None:
    conninfo = postgres.database("news")
    keys, other = PostgresKeys(conninfo, SECRET, listens=True), PostgresKeys(conninfo, SECRET)
    assert keys.news(0, 0).rows == []
    other.put(ROW, MAC, "Ada Lovelace")
    first = keys.news(0, 60)
    assert [(one.row, one.mac, one.owner) for one in first.rows] == [(ROW, MAC, "Ada Lovelace")]
    other.change(ROW.id, lambda row: msgspec.structs.replace(row, revoked=5), forget=True)
    second = keys.news(first.version, 60)
    assert [(one.row.revoked, one.owner) for one in second.rows] == [(5, "")]
    assert keys.news(second.version, 0).rows == []
    keys.close()
    other.close()


def test_nothing_of_a_key_stands_in_clear(postgres: Postgres) -> None:
    conninfo = postgres.database("clear")
    keys = PostgresKeys(conninfo, SECRET)
    keys.put(ROW, MAC, "Ada Lovelace")
    keys.close()
    with psycopg.connect(conninfo) as connection:
        kept = repr([connection.execute(f"SELECT * FROM rempart_shared.{one}").fetchall() for one in ("keys", "state")])
    for text in ("Ada", "user", "a_1", SECRET.pepper.hex(), SECRET.rows.hex()):
        assert text not in kept
    assert repr(SECRET.pepper)[2:-1] not in kept


def test_whoever_writes_to_the_database_alone_forges_no_key(postgres: Postgres) -> None:
    conninfo = postgres.database("forged")
    keys = PostgresKeys(conninfo, SECRET)
    keys.put(ROW, MAC)
    for forgery in ("mac = 'x'", "version = version + 1", "id = 'other'", "sealed = sealed || 'x'"):
        with psycopg.connect(conninfo) as connection:
            connection.execute("CREATE TABLE IF NOT EXISTS kept AS SELECT * FROM rempart_shared.keys")
            connection.execute(f"UPDATE rempart_shared.keys SET {forgery}")
        with pytest.raises(KeystoreError, match="somebody else changed"):
            keys.all()
        with psycopg.connect(conninfo) as connection:
            connection.execute(
                "UPDATE rempart_shared.keys SET (id, mac, version, sealed) = "
                "(SELECT id, mac, version, sealed FROM kept)"
            )
    assert keys.all() == [(ROW, MAC)]
    keys.close()


def test_another_secret_is_refused(postgres: Postgres) -> None:
    conninfo = postgres.database("secrets")
    PostgresKeys(conninfo, SECRET).close()
    with pytest.raises(ConfigError, match="not the one"):
        PostgresKeys(conninfo, derive(b"f" * 64))


@pytest.mark.parametrize("text", [b"", b"a word", b"0" * 63, b"0" * 65, b"G" * 64])
def test_what_can_be_guessed_is_no_secret(text: bytes) -> None:
    with pytest.raises(ConfigError, match="64 hex digits"):
        derive(text)


def test_a_server_that_is_there_and_silent_is_left_by_whoever_waits(postgres: Postgres) -> None:
    """As `Asking` does it after its deadline."""
    from threading import Timer

    conninfo = postgres.database("silent")
    keys = PostgresKeys(conninfo, SECRET, listens=True)
    with psycopg.connect(conninfo) as blocking:
        blocking.execute("LOCK TABLE rempart_shared.state")
        timer = Timer(0.1, keys.abort)
        timer.start()
        with pytest.raises(SharedStateUnavailable):
            keys.put(ROW, MAC)
        timer.join()
    keys.put(ROW, MAC)
    assert keys.all() == [(ROW, MAC)]
    keys.close()


def test_a_change_that_is_undone_is_not_notified(postgres: Postgres) -> None:
    conninfo = postgres.database("undone")
    keys = PostgresKeys(conninfo, SECRET)
    with psycopg.connect(conninfo, autocommit=True) as listening:
        listening.execute(f"LISTEN {KEYS_CHANNEL}")

        def refuse(row: KeyRow) -> KeyRow:
            raise ZeroDivisionError

        keys.put(ROW, MAC)
        with pytest.raises(ZeroDivisionError):
            keys.change(ROW.id, refuse)
        assert len(list(listening.notifies(timeout=0.2))) == 1
        version = keys.news(0, 0).version
    assert version == 1
    keys.close()
