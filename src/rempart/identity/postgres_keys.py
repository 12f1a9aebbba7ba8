"""`PostgresKeys`: API keys that several gateways share, in the schema `rempart_shared` of one database (ADR 0006).

A row is its key's id and MAC, and sealed under the gateways' shared secret all else: name, role, limits, and the
owner's identity, of which each gateway makes pseudonyms of its own. Each change counts the version of the whole up by
one, under one row lock, so that versions are committed in order and whoever reads what is past one misses nothing; and
it is notified. Owner and name of a key that is to be forgotten leave the row at once, and dead rows at the next vacuum.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import msgspec

from rempart import limits
from rempart.errors import ConfigError, SharedStateUnavailable
from rempart.identity.keys import Edit, KeyRow, not_found
from rempart.identity.shared_secret import NONCE_BYTES, SharedSecret
from rempart.postgres.session import Session

if TYPE_CHECKING:
    import psycopg

KEYS_CHANNEL: Final = "rempart_keys"
RECALL_CHANNEL: Final = "rempart_recall"
_ADVISORY_LOCK: Final = 0x52454D52  # any fixed number: the schema is made by one at a time
_SCHEMA: Final = (
    "CREATE SCHEMA IF NOT EXISTS rempart_shared",
    "CREATE TABLE IF NOT EXISTS rempart_shared.keys (id text PRIMARY KEY, number bigint GENERATED ALWAYS AS IDENTITY,"
    " version bigint NOT NULL, mac bytea NOT NULL, sealed bytea NOT NULL)",
    "CREATE INDEX IF NOT EXISTS keys_by_version ON rempart_shared.keys (version)",
    "CREATE TABLE IF NOT EXISTS rempart_shared.used (key text NOT NULL, kind text NOT NULL, span bigint NOT NULL,"
    " taken bigint NOT NULL, granted bigint NOT NULL, PRIMARY KEY (key, kind)) WITH (fillfactor = 50)",
    "CREATE TABLE IF NOT EXISTS rempart_shared.held (gateway text NOT NULL, key text NOT NULL, kind text NOT NULL,"
    " span bigint NOT NULL, amount bigint NOT NULL, PRIMARY KEY (gateway, key, kind)) WITH (fillfactor = 50)",
    "CREATE TABLE IF NOT EXISTS rempart_shared.state (one boolean PRIMARY KEY DEFAULT true CHECK (one),"
    " version bigint NOT NULL, proof bytea NOT NULL)",
)
_ROWS: Final = "SELECT id, version, mac, sealed FROM rempart_shared.keys"
_COUNT_UP: Final = "UPDATE rempart_shared.state SET version = version + 1 RETURNING version"
_PUT: Final = (
    "INSERT INTO rempart_shared.keys (id, version, mac, sealed) VALUES (%s, %s, %s, %s)"
    " ON CONFLICT (id) DO UPDATE SET version = excluded.version, mac = excluded.mac, sealed = excluded.sealed"
)


class Stored(msgspec.Struct, frozen=True):
    """One key as it is kept."""

    row: KeyRow
    """Its pseudonyms are those of the gateway that made it, and hold here only where it has no owner."""
    mac: bytes
    owner: str
    """Identity in clear; empty when it has none, or is forgotten."""


class News(msgspec.Struct, frozen=True, kw_only=True):
    """What there is since a version."""

    version: int
    rows: list[Stored]
    """In the order of their changes."""
    recalled: frozenset[str]
    """Keys of which other gateways want back what is lent and not used."""
    asked: float
    """Steady seconds, before the database was asked: what it said was true then or later."""
    database_now: float
    """Seconds since 1970 by the database's clock."""


class _Content(msgspec.Struct, frozen=True):
    row: KeyRow
    owner: str


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(_Content)


def shared_session(conninfo: str, *, listens: bool = False) -> Session:
    """To the database of what is shared."""
    return Session(conninfo, _failed, call_s=limits.shared_call_s, opened=_listen if listens else None)


class PostgresKeys:
    """The contract is that of `identity.keys.Keys`; the schema is made at first."""

    def __init__(self, conninfo: str, secret: SharedSecret, *, listens: bool = False) -> None:
        """`listens`: `news` will be asked for again and again, so that what is notified does not pile up.

        Raises `SharedStateUnavailable`, `ConfigError` when the database was begun with another secret."""
        self._secret = secret
        self._session = shared_session(conninfo, listens=listens)
        with self._session.transaction() as connection:
            connection.execute("SELECT pg_advisory_xact_lock(%s)", (_ADVISORY_LOCK,))
            if connection.execute("SELECT to_regclass('rempart_shared.state')").fetchone() == (None,):
                for statement in _SCHEMA:
                    connection.execute(statement)
            begun = "INSERT INTO rempart_shared.state (version, proof) VALUES (0, %s) ON CONFLICT DO NOTHING"
            connection.execute(begun, (secret.proof,))
            found = connection.execute("SELECT proof FROM rempart_shared.state", binary=True).fetchone()
        if found is None or bytes(found[0]) != secret.proof:
            raise ConfigError(
                "The secret in shared.secret_file is not the one that shared.database was begun with.",
                hint="Give this gateway the file of the others.",
            )

    def all(self) -> list[tuple[KeyRow, bytes]]:
        return [(one.row, one.mac) for one in self.stored()]

    def stored(self) -> list[Stored]:
        """All of them with their owners, oldest first."""
        with self._session.connection() as connection:
            return [self._opened(*found) for found in connection.execute(f"{_ROWS} ORDER BY number", binary=True)]

    def get(self, id_: str) -> tuple[KeyRow, bytes]:
        with self._session.connection() as connection:
            found = connection.execute(f"{_ROWS} WHERE id = %s", (id_,), binary=True).fetchone()
        if found is None:
            raise not_found(id_)
        one = self._opened(*found)
        return one.row, one.mac

    def put(self, row: KeyRow, mac: bytes, owner: str = "") -> None:
        with self._changing() as (connection, version):
            self._write(connection, version, Stored(row, mac, owner))

    def change(self, id_: str, edit: Edit, *, forget: bool = False) -> tuple[KeyRow, bytes]:
        with self._changing() as (connection, version):
            found = connection.execute(f"{_ROWS} WHERE id = %s", (id_,), binary=True).fetchone()
            if found is None:
                raise not_found(id_)
            before = self._opened(*found)
            after = Stored(edit(before.row), before.mac, "" if forget else before.owner)
            self._write(connection, version, after)
        return after.row, after.mac

    def news(self, version: int, wait_s: float) -> News:
        """What is past `version`; waits for a notification until then, at most `wait_s`."""
        with self._session.connection() as connection:
            told = list(connection.notifies(timeout=wait_s, stop_after=1)) if wait_s else []
            asked = time.monotonic()
            query = "SELECT version, extract(epoch FROM clock_timestamp())::float8 FROM rempart_shared.state"
            found = connection.execute(query).fetchone()
            if found is None:
                raise _gone()
            rows: list[Stored] = []
            if found[0] != version:
                query = f"{_ROWS} WHERE version > %s ORDER BY version"
                rows = [self._opened(*one) for one in connection.execute(query, (version,), binary=True)]
            told += connection.notifies(timeout=0)
        recalled = frozenset(one.payload for one in told if one.channel == RECALL_CHANNEL)
        return News(version=found[0], rows=rows, recalled=recalled, asked=asked, database_now=found[1])

    def abort(self) -> None:
        """Whoever waits for the database fails now; may be called from another thread."""
        self._session.abort()

    def close(self) -> None:
        self._session.close()

    @contextmanager
    def _changing(self) -> Iterator[tuple[psycopg.Connection[Any], int]]:
        """One at a time, each with the next version."""
        with self._session.transaction() as connection:
            found = connection.execute(_COUNT_UP).fetchone()
            if found is None:
                raise _gone()
            yield connection, found[0]
            connection.execute("SELECT pg_notify(%s, '')", (KEYS_CHANNEL,))

    def _write(self, connection: psycopg.Connection[Any], version: int, one: Stored) -> None:
        content = _encoder.encode(_Content(one.row, one.owner))
        sealed = self._secret.seal(_name(one.row.id, version, one.mac), content, os.urandom(NONCE_BYTES))
        connection.execute(_PUT, (one.row.id, version, one.mac, sealed))

    def _opened(self, id_: str, version: int, mac: bytes, sealed: bytes) -> Stored:
        """Raises `KeystoreError`."""
        content = _decoder.decode(self._secret.unseal(_name(id_, version, bytes(mac)), bytes(sealed)))
        return Stored(content.row, bytes(mac), content.owner)


def _name(id_: str, version: int, mac: bytes) -> bytes:
    """What a row is sealed for: moved to another key, version or MAC it does not open."""
    return b"key/%s/%d/%s" % (id_.encode(), version, mac)


def _listen(connection: psycopg.Connection[Any]) -> None:
    connection.execute(f"LISTEN {KEYS_CHANNEL}")
    connection.execute(f"LISTEN {RECALL_CHANNEL}")


def _gone() -> SharedStateUnavailable:
    return _failed("The state of the shared keys is gone.", "Restore rempart_shared from its backup.")


def _failed(message: str, hint: str) -> SharedStateUnavailable:
    return SharedStateUnavailable(message, hint=hint, retry_after_s=1)
