"""`rempart.identity.keys`: what `put` returned from is there after a reopen, and the file holds no secret."""

from __future__ import annotations

import sqlite3
import stat
from pathlib import Path

import msgspec
import pytest

from rempart.errors import KeystoreError, NotFound
from rempart.identity.apikey import SECRET_CHARS, ApiKey
from rempart.identity.caller import Limits
from rempart.identity.keys import KeyRow, KeyTable, read_keys

KEY = ApiKey("0123456789ab", "s" * SECRET_CHARS)
MAC = KEY.mac(b"pepper")
ROW = KeyRow(
    id=KEY.id,
    name="nightly \u00e9tude",
    role="user",
    actor="a_1",
    subject="s_1",
    models=["guide"],
    limits=Limits(requests_per_minute=2, tokens_per_day=3),
    trust_subject_header=True,
    created=10,
    expires=20,
)


def other(id_: str) -> KeyRow:
    return msgspec.structs.replace(ROW, id=id_)


def test_a_row_is_the_same_after_a_reopen(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    table = KeyTable(path)
    table.put(ROW, MAC)
    table.close()
    assert KeyTable(path).all() == [(ROW, MAC)]


def test_a_row_is_durable_without_closing(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    table = KeyTable(path)
    table.put(ROW, MAC)
    assert KeyTable(path).get(KEY.id) == (ROW, MAC)
    table.close()


def test_a_key_that_changes_stays_in_its_place(tmp_path: Path) -> None:
    table = KeyTable(tmp_path / "state.db")
    for id_ in ("bbbbbbbbbbbb", "aaaaaaaaaaaa"):
        table.put(other(id_), MAC)
    table.put(msgspec.structs.replace(other("bbbbbbbbbbbb"), revoked=30), MAC)
    assert [(row.id, row.revoked) for row, _ in table.all()] == [("bbbbbbbbbbbb", 30), ("aaaaaaaaaaaa", 0)]


def test_what_is_not_there_is_not_found(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="0123456789ab"):
        KeyTable(tmp_path / "state.db").get(KEY.id)


def test_reading_gives_the_rows_and_makes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "with ? and #" / "state.db"
    assert read_keys(path) == []
    assert list(tmp_path.iterdir()) == []
    path.parent.mkdir()
    table = KeyTable(path)
    table.put(ROW, MAC)
    before = path.read_bytes()
    assert read_keys(path) == [(ROW, MAC)]
    assert path.read_bytes() == before
    assert list(path.parent.iterdir()) == [path]
    table.close()


def test_reading_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(b"not a database, but long enough to look like one" * 100)
    with pytest.raises(KeystoreError, match="cannot be read"):
        read_keys(path)


def test_no_secret_is_in_the_folder(tmp_path: Path) -> None:
    table = KeyTable(tmp_path / "state.db")
    table.put(ROW, MAC)
    table.close()
    for path in tmp_path.iterdir():
        content = path.read_bytes()
        assert KEY.secret.encode() not in content
        assert KEY.text().encode() not in content


def test_only_the_owner_may_read_the_file(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    KeyTable(path).close()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(b"not a database, but long enough to look like one" * 100)
    with pytest.raises(KeystoreError, match="cannot be used"):
        KeyTable(path)


def test_a_folder_that_is_missing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(KeystoreError, match="cannot be used"):
        KeyTable(tmp_path / "gone" / "state.db")


def test_a_disk_that_does_not_take_the_row_is_told(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    table = KeyTable(path)
    blocking = sqlite3.connect(path)
    blocking.execute("DROP TABLE keys")
    with pytest.raises(KeystoreError, match="cannot be written"):
        table.put(ROW, MAC)
    blocking.close()
