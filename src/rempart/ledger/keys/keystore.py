"""`Keystore`: the keys of this site, sealed at rest (ADR 0001, "Keys").

`<data>/keys/root.key` seals 256 shard keys, which seal the rows of `keystore.db`. SQLite through one connection, with
its rollback journal and FULL syncs: what `put` returned from is durable. Owner-only modes are checked when it opens.
Not safe for use by several threads at once; the journal gives it a thread of its own.
"""

from __future__ import annotations

import hmac
import os
import secrets
import sqlite3
import stat
from collections.abc import Mapping
from hashlib import sha256
from pathlib import Path
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from rempart.errors import KeystoreError
from rempart.ledger.store.files import make_directory, replace_durably

KEY_BYTES: Final = 32
_NONCE_BYTES: Final = 12
_SHARDS: Final = 256
_SCHEMA: Final = """
CREATE TABLE IF NOT EXISTS shards (number INTEGER PRIMARY KEY, sealed BLOB NOT NULL);
CREATE TABLE IF NOT EXISTS rows (kind TEXT NOT NULL, id TEXT NOT NULL, sealed BLOB NOT NULL, PRIMARY KEY (kind, id))
    WITHOUT ROWID;
"""


class Keystore:
    """Rows by kind and id."""

    def __init__(self, root: AESGCM, database: sqlite3.Connection) -> None:
        self._database = database
        self._shards = [
            AESGCM(_open(root, b"shard/%d" % number, sealed))
            for number, sealed in database.execute("SELECT number, sealed FROM shards ORDER BY number")
        ]
        if len(self._shards) != _SHARDS:
            raise KeystoreError("The keystore is not whole.", hint="Restore keys/ from its backup.")

    @classmethod
    def create(cls, directory: Path) -> Keystore:
        """A new keystore. Raises `KeystoreError` when there is one already."""
        make_directory(directory)
        root_path = directory / "root.key"
        if root_path.exists():
            raise KeystoreError(f"There is a keystore in {directory} already.")
        root_key = secrets.token_bytes(KEY_BYTES)
        root = AESGCM(root_key)
        database = _connect(directory)
        with database:
            for number in range(_SHARDS):
                sealed = _seal(root, b"shard/%d" % number, secrets.token_bytes(KEY_BYTES))
                database.execute("INSERT OR REPLACE INTO shards VALUES (?, ?)", (number, sealed))
        replace_durably({root_path: root_key})  # last: a keystore exists once its root does
        return cls(root, database)

    @classmethod
    def open(cls, directory: Path) -> Keystore:
        """Raises `KeystoreError` when it is missing, damaged, or others may read it."""
        for path in (directory, directory / "root.key", directory / "keystore.db"):
            _check_private(path)
        root_key = (directory / "root.key").read_bytes()
        if len(root_key) != KEY_BYTES:
            raise KeystoreError("root.key is damaged.", hint="Restore keys/ from its backup.")
        try:
            return cls(AESGCM(root_key), _connect(directory))
        except sqlite3.DatabaseError as error:
            raise KeystoreError(f"keystore.db is damaged: {error}.", hint="Restore keys/ from its backup.") from error

    def close(self) -> None:
        self._database.close()

    def get(self, kind: str, id_: str) -> bytes | None:
        """Raises `KeystoreError` when the row does not open."""
        try:
            found = self._database.execute("SELECT sealed FROM rows WHERE kind = ? AND id = ?", (kind, id_))
            row = found.fetchone()
        except sqlite3.Error as error:
            raise KeystoreError(f"A key cannot be read: {error}.", hint="Restore keys/ from its backup.") from error
        return None if row is None else _open(self._shard(kind, id_), _name(kind, id_), row[0])

    def put(self, rows: Mapping[tuple[str, str], bytes]) -> None:
        """Add or replace, all or none, durably. Raises `KeystoreError` when the disk does not take them."""
        try:
            with self._database:
                for (kind, id_), value in rows.items():
                    sealed = _seal(self._shard(kind, id_), _name(kind, id_), value)
                    self._database.execute("INSERT OR REPLACE INTO rows VALUES (?, ?, ?)", (kind, id_, sealed))
        except sqlite3.Error as error:
            raise KeystoreError(f"A key cannot be written: {error}.", hint="Look at the disk of keys/.") from error

    def one(self, name: str) -> bytes:
        """The key of that name; a random one is made at its first use."""
        found = self.get("one", name)
        if found is None:
            found = secrets.token_bytes(KEY_BYTES)
            self.put({("one", name): found})
        return found

    def bucket(self, retention: str, day: str) -> bytes:
        """The key of one retention class and day."""
        id_ = f"{retention}/{day}"
        found = self.get("bucket", id_)
        if found is None:
            found = secrets.token_bytes(KEY_BYTES)
            self.put({("bucket", id_): found})
        return found

    def pseudonym(self, prefix: str, identity: str) -> tuple[str, bytes]:
        """The pseudonym of an identity and its key; both are made when it is first seen.

        `prefix`: `a` for actors, `s` for subjects. The identity itself stands in the sealed row alone.
        """
        mac = hmac.digest(self.one("lookup"), f"{prefix}/{identity}".encode(), "sha256").hex()
        known = self.get("lookup", mac)
        if known is not None:
            name = known.decode()
            return name, self.subject_key(name)
        name, key = f"{prefix}_{secrets.token_hex(16)}", secrets.token_bytes(KEY_BYTES)
        self.put({("lookup", mac): name.encode(), ("subject", name): key + identity.encode()})
        return name, key

    def subject_key(self, pseudonym: str) -> bytes:
        """Raises `KeystoreError` when that person was erased."""
        row = self.get("subject", pseudonym)
        if row is None:
            raise KeystoreError(f"The key of {pseudonym} was destroyed, or is of another keystore.")
        return row[:KEY_BYTES]

    def identity(self, pseudonym: str) -> str:
        """Who that is. Raises `KeystoreError` when that person was erased."""
        row = self.get("subject", pseudonym)
        if row is None:
            raise KeystoreError(f"{pseudonym} names no one any more.")
        return row[KEY_BYTES:].decode()

    def _shard(self, kind: str, id_: str) -> AESGCM:
        return self._shards[sha256(_name(kind, id_)).digest()[0]]


def _name(kind: str, id_: str) -> bytes:
    return f"{kind}/{id_}".encode()


def _seal(key: AESGCM, name: bytes, value: bytes) -> bytes:
    nonce = secrets.token_bytes(_NONCE_BYTES)
    return nonce + key.encrypt(nonce, value, name)


def _open(key: AESGCM, name: bytes, sealed: bytes) -> bytes:
    try:
        return key.decrypt(sealed[:_NONCE_BYTES], sealed[_NONCE_BYTES:], name)
    except (InvalidTag, ValueError) as error:
        raise KeystoreError(
            "A key does not open under root.key.", hint="root.key and keystore.db belong together: restore both."
        ) from error


def _connect(directory: Path) -> sqlite3.Connection:
    path = directory / "keystore.db"
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    database = sqlite3.connect(path, check_same_thread=False)
    database.execute("PRAGMA journal_mode = DELETE")
    database.execute("PRAGMA synchronous = EXTRA")
    database.execute("PRAGMA secure_delete = ON")
    database.executescript(_SCHEMA)
    return database


def _check_private(path: Path) -> None:
    try:
        status = path.stat()
    except OSError as error:
        raise KeystoreError(
            f"{path} cannot be read: {error.strerror}.", hint="Restore keys/ from its backup."
        ) from error
    if status.st_uid != os.geteuid():
        raise KeystoreError(f"{path} belongs to another user.", hint="Run rempart as the owner of the data directory.")
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise KeystoreError(f"{path} can be read by others.", hint=f"Run: chmod go-rwx {path}")
