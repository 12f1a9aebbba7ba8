"""`SqliteRows`: the rows of a keystore in `keystore.db`, for one machine.

One connection, the rollback journal and EXTRA syncs: a commit is durable with the unlinking of its journal. A file as
the first release wrote it gets the column `shard` and the table `epoch` when it is opened; its rows stay as they are.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from rempart import limits
from rempart.errors import KeystoreError
from rempart.ledger.keys.rows import Rewrite, Row, State, require_epoch, shard_of

_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS shards (number INTEGER PRIMARY KEY, sealed BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS rows (kind TEXT NOT NULL, id TEXT NOT NULL, sealed BLOB NOT NULL, shard INTEGER NOT NULL,
    PRIMARY KEY (kind, id)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS epoch (one INTEGER PRIMARY KEY CHECK (one = 1), number INTEGER NOT NULL);
"""
_INDEX: Final = "CREATE INDEX IF NOT EXISTS rows_by_shard ON rows (shard)"
_PUT: Final = "INSERT OR REPLACE INTO rows (kind, id, sealed, shard) VALUES (?, ?, ?, ?)"
_PUT_FRESH: Final = "INSERT INTO rows (kind, id, sealed, shard) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING"
_RESEAL: Final = "UPDATE rows SET sealed = ? WHERE kind = ? AND id = ?"
_AFTER_EVERY_TEXT: Final = "\U0010ffff"
_CACHE_KIB: Final = 32 * 1024


class SqliteRows:
    """Rows in one file; the contract is that of `Rows`."""

    def __init__(self, path: Path) -> None:
        """Made when it is missing, for its owner alone. Raises `KeystoreError` when it is damaged."""
        self._path = path
        try:
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
        except OSError as error:
            raise KeystoreError(f"{path} cannot be opened: {error.strerror}.", hint="Check the path.") from error
        self._database = self._connect()

    def _connect(self) -> sqlite3.Connection:
        try:
            database = sqlite3.connect(
                self._path, check_same_thread=False, isolation_level=None, timeout=limits.keystore_busy_s
            )
            database.execute("PRAGMA journal_mode = DELETE")
            database.execute("PRAGMA synchronous = EXTRA")
            database.execute("PRAGMA secure_delete = ON")
            database.execute(f"PRAGMA cache_size = -{_CACHE_KIB}")
            _migrate(database)
        except sqlite3.Error as error:
            raise KeystoreError(
                f"{self._path.name} is damaged: {error}.", hint="Restore keys/ from its backup."
            ) from error
        return database

    def state(self, *, durable: bool = False) -> State:
        with _mapped("read"):
            if not durable:
                with _transaction(self._database, "BEGIN"):
                    return _state(self._database)
            self._database.close()  # a commit that failed half-way: SQLite's own recovery decides at the next opening
        self._database = self._connect()
        with _mapped("read"), _transaction(self._database):
            found = _state(self._database)
            # A real commit, so that a journal which was unlinked, but not durably, cannot come back.
            self._database.execute("INSERT OR REPLACE INTO epoch VALUES (1, ?)", (found.epoch,))
            return found

    def get(self, kind: str, id_: str) -> bytes | None:
        with _mapped("read"):
            found = self._database.execute("SELECT sealed FROM rows WHERE kind = ? AND id = ?", (kind, id_)).fetchone()
        return None if found is None else bytes(found[0])

    def put(self, rows: Mapping[tuple[str, str], bytes], *, epoch: int, fresh: bool = False) -> bool:
        values = [(kind, id_, sealed, shard_of(kind, id_)) for (kind, id_), sealed in rows.items()]
        with _mapped("written"), _transaction(self._database):
            require_epoch(_epoch(self._database), epoch)
            done = self._database.executemany(_PUT_FRESH if fresh else _PUT, values).rowcount
            if fresh and done < len(values):
                self._database.execute("ROLLBACK")
                return False
        return True

    def scan(self, kind: str, prefix: str = "") -> Iterator[Row]:
        after = None
        while True:
            with _mapped("read"):
                page = self._database.execute(
                    f"SELECT kind, id, sealed FROM rows WHERE kind = ? AND id {'>=' if after is None else '>'} ?"
                    " AND id < ? ORDER BY id LIMIT ?",
                    (kind, prefix if after is None else after, prefix + _AFTER_EVERY_TEXT, limits.keystore_page_rows),
                ).fetchall()
            yield from (Row(*found) for found in page)
            if len(page) < limits.keystore_page_rows:
                return
            after = page[-1][1]

    def rewrite(self, change: Rewrite) -> None:
        database = self._database
        with _mapped("written"), _transaction(database):
            require_epoch(_epoch(database), change.epoch)
            database.executemany("DELETE FROM rows WHERE kind = ? AND id = ?", [*change.delete, *change.put])
            for shard in sorted(change.touched):
                kept = database.execute("SELECT kind, id, sealed FROM rows WHERE shard = ?", (shard,)).fetchall()
                database.executemany(_RESEAL, ((change.reseal(Row(*row)), row[0], row[1]) for row in kept))
            database.executemany(
                _PUT, [(kind, id_, sealed, shard_of(kind, id_)) for (kind, id_), sealed in change.put.items()]
            )
            database.executemany("INSERT OR REPLACE INTO shards VALUES (?, ?)", change.shards.items())
            database.execute("INSERT OR REPLACE INTO epoch VALUES (1, ?)", (change.epoch + 1,))

    def close(self) -> None:
        self._database.close()


@contextlib.contextmanager
def _transaction(database: sqlite3.Connection, begin: str = "BEGIN IMMEDIATE") -> Iterator[None]:
    try:
        database.execute(begin)
        yield
        if database.in_transaction:
            database.execute("COMMIT")
    except BaseException:
        if database.in_transaction:
            database.execute("ROLLBACK")
        raise


@contextlib.contextmanager
def _mapped(done: str) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        hint = "Look at the disk of keys/." if done == "written" else "Restore keys/ from its backup."
        raise KeystoreError(f"A key cannot be {done}: {error}.", hint=hint) from error


def _epoch(database: sqlite3.Connection) -> int:
    found = database.execute("SELECT number FROM epoch").fetchone()
    return 0 if found is None else int(found[0])


def _state(database: sqlite3.Connection) -> State:
    return State(_epoch(database), dict(database.execute("SELECT number, sealed FROM shards ORDER BY number")))


def _migrate(database: sqlite3.Connection) -> None:
    """Nothing is written to a file that has all of it."""
    known = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
    if {"shards", "rows", "epoch", "rows_by_shard"} <= known:
        return
    with _transaction(database):
        for statement in _SCHEMA.split(";"):
            database.execute(statement)
        if "shard" not in {column[1] for column in database.execute("PRAGMA table_info(rows)")}:
            database.execute("ALTER TABLE rows ADD COLUMN shard INTEGER NOT NULL DEFAULT -1")
            names = database.execute("SELECT kind, id FROM rows").fetchall()
            database.executemany(
                "UPDATE rows SET shard = ? WHERE kind = ? AND id = ?",
                [(shard_of(kind, id_), kind, id_) for kind, id_ in names],
            )
        database.execute(_INDEX)
