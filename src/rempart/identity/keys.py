"""`KeyTable`: the API keys of this site in `<data>/state.db`, and `Keys`, the port to wherever they are kept.

No secret is stored, only its MAC.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import quote

import msgspec

from rempart.errors import KeystoreError, NotFound
from rempart.identity.caller import Caller, Limits

_SCHEMA: Final = "CREATE TABLE IF NOT EXISTS keys (id TEXT PRIMARY KEY, mac BLOB NOT NULL, row BLOB NOT NULL)"


class KeyRow(msgspec.Struct, frozen=True, kw_only=True):
    """One key as it is kept. Times are seconds since 1970; 0: never."""

    id: str
    name: str
    role: str
    actor: str
    subject: str = ""
    models: list[str] | None = None
    limits: Limits = Limits()
    trust_subject_header: bool = False
    created: int = 0
    expires: int = 0
    revoked: int = 0

    def caller(self) -> Caller:
        return Caller(
            key=self.id,
            actor=self.actor,
            role=self.role,
            subject=self.subject,
            models=None if self.models is None else frozenset(self.models),
            limits=self.limits,
            trust_subject_header=self.trust_subject_header,
        )


Edit = Callable[[KeyRow], KeyRow]


class Keys(Protocol):
    """Rows of API keys with their MACs. What a method returned from is durable. Used by one thread at a time.

    Raises `KeystoreError` or `SharedStateUnavailable` where what is behind it fails.
    """

    def all(self) -> list[tuple[KeyRow, bytes]]:
        """Oldest first."""
        ...

    def get(self, id_: str) -> tuple[KeyRow, bytes]:
        """Raises `NotFound`."""
        ...

    def put(self, row: KeyRow, mac: bytes, owner: str = "") -> None:
        """Add or replace. `owner`: identity in clear, for an adapter that seals it for other gateways."""
        ...

    def change(self, id_: str, edit: Edit, *, forget: bool = False) -> tuple[KeyRow, bytes]:
        """What `edit` makes of the row as it is kept, in one transaction; nobody's change in between is lost.

        `forget`: nor is its owner kept any more. Raises `NotFound`.
        """
        ...

    def close(self) -> None: ...


_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(KeyRow)


def read_keys(path: Path) -> list[tuple[KeyRow, bytes]]:
    """As `KeyTable.all`, but makes nothing: no keys when there is no such file. Raises `KeystoreError`."""
    if not path.exists():
        return []
    try:
        # "rw" makes no file; it lets SQLite undo what a crash cut off, which "ro" could not.
        with contextlib.closing(sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True)) as database:
            return _all(database)
    except (OSError, sqlite3.Error) as error:
        raise KeystoreError(f"{path} cannot be read: {error}.", hint="Restore it from its backup.") from error


def _all(database: sqlite3.Connection) -> list[tuple[KeyRow, bytes]]:
    found = database.execute("SELECT row, mac FROM keys ORDER BY rowid")
    return [(_decoder.decode(row), mac) for row, mac in found]


class KeyTable:
    """SQLite through one connection, synced in full: what `put` returned from is durable."""

    def __init__(self, path: Path) -> None:
        try:
            path.touch(mode=0o600)
            self._database = sqlite3.connect(path, check_same_thread=False)
            self._database.execute("PRAGMA journal_mode = DELETE")
            self._database.execute("PRAGMA synchronous = EXTRA")
            self._database.execute("PRAGMA secure_delete = ON")  # a name may be a person's
            self._database.execute(_SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise KeystoreError(f"{path} cannot be used: {error}.", hint="Restore it from its backup.") from error

    def close(self) -> None:
        self._database.close()

    def all(self) -> list[tuple[KeyRow, bytes]]:
        """Rows and their MACs, oldest first."""
        return _all(self._database)

    def get(self, id_: str) -> tuple[KeyRow, bytes]:
        """Raises `NotFound`."""
        found = self._database.execute("SELECT row, mac FROM keys WHERE id = ?", (id_,)).fetchone()
        if found is None:
            raise not_found(id_)
        return _decoder.decode(found[0]), found[1]

    def put(self, row: KeyRow, mac: bytes, owner: str = "") -> None:
        """Add or replace; `owner` goes to the keystore alone. Raises `KeystoreError` when the disk does not take it."""
        with self._writing():
            self._put(row, mac)

    def change(self, id_: str, edit: Edit, *, forget: bool = False) -> tuple[KeyRow, bytes]:
        """Raises `NotFound`, `KeystoreError`."""
        with self._writing():
            row, mac = self.get(id_)
            edited = edit(row)
            self._put(edited, mac)
        return edited, mac

    def _put(self, row: KeyRow, mac: bytes) -> None:
        self._database.execute(
            "INSERT INTO keys VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE SET row = excluded.row",
            (row.id, mac, _encoder.encode(row)),
        )

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            with self._database:
                self._database.execute("BEGIN IMMEDIATE")
                yield
        except sqlite3.Error as error:
            raise KeystoreError(f"The key cannot be written: {error}.", hint="Look at the disk of the data.") from error


def not_found(id_: str) -> NotFound:
    return NotFound(f"There is no key {id_!r}.", hint="See 'rempart key list'.")
