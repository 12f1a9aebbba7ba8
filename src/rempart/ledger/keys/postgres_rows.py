"""`PostgresRows`: the rows of one keystore in PostgreSQL, in the schema `rempart_keys` of a database of its own.

Every call is one short transaction on one connection (`postgres.session`). The row of `epoch` is what a `put` shares
and a `rewrite` has alone: who reads it with a lock waits for a commit that is still under way on the server though its
client has lost it. A standby that takes over must be synchronous: it may lack an epoch whose root is all that is left.

A keystore is never shared (ADR 0006): the gateway that owns it holds an advisory lock while its connection lives, and
takes it again before anything else when it has to connect again.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from typing import TYPE_CHECKING, Any, Final, TypeVar

from rempart import limits
from rempart.errors import KeystoreAway, KeystoreError, KeystoreTaken
from rempart.ledger.keys.rows import Rewrite, Row, State, require_epoch, shard_of
from rempart.postgres.session import Session

if TYPE_CHECKING:
    import psycopg

_ADVISORY_LOCK: Final = 0x52454D50  # any fixed number: the schema is made by one at a time
_OWNERS_LOCK: Final = 0x52454D51  # and this one is the owner's
_SCHEMA: Final = (
    "CREATE SCHEMA IF NOT EXISTS rempart_keys",
    "CREATE TABLE IF NOT EXISTS rempart_keys.epoch (one boolean PRIMARY KEY DEFAULT true CHECK (one),"
    " number bigint NOT NULL)",
    "CREATE TABLE IF NOT EXISTS rempart_keys.shards (number int PRIMARY KEY, sealed bytea NOT NULL)",
    'CREATE TABLE IF NOT EXISTS rempart_keys.rows (kind text COLLATE "C" NOT NULL, id text COLLATE "C" NOT NULL,'
    " sealed bytea NOT NULL, shard int NOT NULL, PRIMARY KEY (kind, id)) WITH (fillfactor = 80)",
    "CREATE INDEX IF NOT EXISTS rows_by_shard ON rempart_keys.rows (shard)",
    "INSERT INTO rempart_keys.epoch (number) VALUES (0) ON CONFLICT DO NOTHING",
)
_VALUES: Final = "SELECT * FROM unnest(%s::text[], %s::text[], %s::bytea[], %s::int[])"
_PUT: Final = (
    f"INSERT INTO rempart_keys.rows (kind, id, sealed, shard) {_VALUES}"
    " ON CONFLICT (kind, id) DO UPDATE SET sealed = excluded.sealed"
)
_PUT_FRESH: Final = f"INSERT INTO rempart_keys.rows (kind, id, sealed, shard) {_VALUES} ON CONFLICT DO NOTHING"
_RESEAL: Final = (
    "UPDATE rempart_keys.rows r SET sealed = g.sealed FROM unnest(%s::text[], %s::text[], %s::bytea[])"
    " AS g (kind, id, sealed) WHERE r.kind = g.kind AND r.id = g.id"
)
_DELETE: Final = (
    "DELETE FROM rempart_keys.rows r USING unnest(%s::text[], %s::text[]) AS g (kind, id)"
    " WHERE r.kind = g.kind AND r.id = g.id"
)
_SHARDS: Final = (
    "INSERT INTO rempart_keys.shards SELECT * FROM unnest(%s::int[], %s::bytea[])"
    " ON CONFLICT (number) DO UPDATE SET sealed = excluded.sealed"
)
_PAGE: Final = (
    "SELECT kind, id, sealed FROM rempart_keys.rows WHERE kind = %s AND id {after} %s AND id < %s ORDER BY id LIMIT %s"
)
_AFTER_EVERY_TEXT: Final = "\U0010ffff"


class PostgresRows:
    """Rows in the schema `rempart_keys` of one database, made at first; the contract is that of `Rows`."""

    def __init__(self, conninfo: str, *, owner: bool = False) -> None:
        """`conninfo` as libpq reads it; its password belongs in a passfile. `owner`: of the data directory, and so of
        these rows; who only reads beside the owner is none.

        Raises `KeystoreError`, `KeystoreTaken` when another gateway owns them.
        """
        opened = _take if owner else None
        self._session = Session(conninfo, _failed, call_s=limits.keystore_call_s, opened=opened)
        self._transaction = self._session.transaction
        with self._transaction() as connection:
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (_ADVISORY_LOCK,))
            if connection.execute("SELECT to_regclass('rempart_keys.rows_by_shard')").fetchone() == (None,):
                for statement in _SCHEMA:
                    connection.execute(statement)

    def state(self, *, durable: bool = False) -> State:
        if durable:
            with self._transaction("BEGIN", limits.keystore_rewrite_s) as connection:
                # Waits for who is about to count it up. What others can see of a commit is flushed already.
                connection.execute("SELECT number FROM rempart_keys.epoch FOR UPDATE")
                return _state(connection)
        with self._transaction("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY") as connection:
            return _state(connection)

    def get(self, kind: str, id_: str) -> bytes | None:
        with self._session.connection() as connection:
            query = "SELECT sealed FROM rempart_keys.rows WHERE kind = %s AND id = %s"
            found = connection.execute(query, (kind, id_), binary=True).fetchone()
        return None if found is None else bytes(found[0])

    def put(self, rows: Mapping[tuple[str, str], bytes], *, epoch: int, fresh: bool = False) -> bool:
        with self._transaction() as connection:
            found = connection.execute("SELECT number FROM rempart_keys.epoch FOR SHARE").fetchone()
            require_epoch(_one(found), epoch)
            done = sum(connection.execute(_PUT_FRESH if fresh else _PUT, page).rowcount for page in _pages(rows))
            if fresh and done < len(rows):
                connection.execute("ROLLBACK")
                return False
        return True

    def scan(self, kind: str, prefix: str = "") -> Iterator[Row]:
        after, compare = prefix, ">="
        while True:
            with self._session.connection() as connection:
                values = (kind, after, prefix + _AFTER_EVERY_TEXT, limits.keystore_page_rows)
                page = connection.execute(_PAGE.format(after=compare), values, binary=True).fetchall()
            yield from (Row(*found) for found in page)
            if len(page) < limits.keystore_page_rows:
                return
            after, compare = page[-1][1], ">"

    def rewrite(self, change: Rewrite) -> None:
        with self._transaction("BEGIN", limits.keystore_rewrite_s) as connection:
            found = connection.execute("SELECT number FROM rempart_keys.epoch FOR UPDATE").fetchone()
            require_epoch(_one(found), change.epoch)
            gone = [*change.delete, *change.put]
            connection.execute(_DELETE, ([kind for kind, _ in gone], [id_ for _, id_ in gone]))
            for shard in sorted(change.touched):
                query = "SELECT kind, id, sealed FROM rempart_keys.rows WHERE shard = %s"
                kept = connection.execute(query, (shard,), binary=True).fetchall()
                for some in _batches(kept):
                    resealed = [change.reseal(Row(*row)) for row in some]
                    connection.execute(_RESEAL, ([row[0] for row in some], [row[1] for row in some], resealed))
            for page in _pages(change.put):
                connection.execute(_PUT, page)
            connection.execute(_SHARDS, (list(change.shards), list(change.shards.values())))
            connection.execute("UPDATE rempart_keys.epoch SET number = %s", (change.epoch + 1,))

    def close(self) -> None:
        self._session.close()


def _failed(message: str, hint: str) -> KeystoreAway:
    return KeystoreAway(message, hint=hint)


def _take(connection: psycopg.Connection[Any]) -> None:
    """Waits for a moment: what is left of the owner's own last connection may not have ended yet."""
    import psycopg

    connection.execute(f"SET lock_timeout = '{limits.keystore_owned_s}s'")
    try:
        connection.execute("SELECT pg_advisory_lock(%s)", (_OWNERS_LOCK,))
    except psycopg.errors.LockNotAvailable as error:
        raise KeystoreTaken(
            "Another gateway uses the keystore in keys.database.",
            hint="A keystore belongs to one log: give each gateway a database of its own (several share [shared]).",
        ) from error
    connection.execute("RESET lock_timeout")


def _one(found: tuple[Any, ...] | None) -> int:
    if found is None:
        raise KeystoreError("The keystore's epoch is missing.", hint="Restore the database from its backup.")
    return int(found[0])


def _state(connection: psycopg.Connection[Any]) -> State:
    number = _one(connection.execute("SELECT number FROM rempart_keys.epoch").fetchone())
    shards = connection.execute("SELECT number, sealed FROM rempart_keys.shards ORDER BY number", binary=True)
    return State(number, dict(shards.fetchall()))


T = TypeVar("T")


def _batches(many: Iterable[T]) -> Iterator[list[T]]:
    rest = iter(many)
    while batch := list(islice(rest, limits.keystore_page_rows)):
        yield batch


def _pages(rows: Mapping[tuple[str, str], bytes]) -> Iterator[Sequence[list[Any]]]:
    """Columns of at most a page of rows each."""
    for page in _batches(rows.items()):
        kinds, ids = [name[0] for name, _ in page], [name[1] for name, _ in page]
        sealed = [value for _, value in page]
        yield kinds, ids, sealed, [shard_of(kind, id_) for kind, id_ in zip(kinds, ids, strict=True)]
