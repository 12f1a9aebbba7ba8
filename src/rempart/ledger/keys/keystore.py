"""`Keystore`: the keys of this site, sealed at rest, and how some of them are destroyed (ADR 0001, ADR 0003).

The root in `<data>/keys/root.key` seals 256 shard keys, which seal the rows; rows are in `keystore.db`, or wherever an
adapter of `Rows` keeps them. What `put` and `destroy` returned from is durable. Owner-only modes are checked when it
opens. Not safe for use by several threads at once; the journal gives it a thread of its own.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Final

from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from rempart.errors import KeystoreChanged, KeystoreError, KeystoreTaken
from rempart.ledger.keys.epoch import Opened, Wanted, begin, change, seal, settle, unseal
from rempart.ledger.keys.rootfile import RootFile, check_private
from rempart.ledger.keys.rows import SHARDS, Name, Row, Rows, full_name, shard_of
from rempart.ledger.keys.sealing import KEY_BYTES, FileSealing, Sealings
from rempart.ledger.keys.sqlite_rows import SqliteRows

__all__ = ["KEY_BYTES", "Keystore"]

_DATABASE: Final = "keystore.db"
_TRIES: Final = 3


class Keystore:
    """Rows by kind and id."""

    def __init__(self, files: RootFile, rows: Rows, sealings: Sealings) -> None:
        """Raises `KeystoreError`. See `create` and `open`."""
        self._files = files
        self._rows = rows
        self._sealings = sealings
        self._opened: Opened | None = None
        self._load()

    @classmethod
    def create(cls, directory: Path, rows: Rows | None = None, sealings: Sealings | None = None) -> Keystore:
        """A new keystore; one whose making a crash cut off is finished. Raises `KeystoreError` when there is one."""
        files, sealings = RootFile(directory), sealings or Sealings(FileSealing())
        files.make()
        if files.path.exists():
            raise KeystoreError(f"There is a keystore in {directory} already.")
        rows = rows or SqliteRows(directory / _DATABASE)
        try:
            with files.locked():
                begin(files, rows, sealings)
            return cls(files, rows, sealings)
        except BaseException:
            rows.close()
            raise

    @classmethod
    def open(cls, directory: Path, rows: Rows | None = None, sealings: Sealings | None = None) -> Keystore:
        """Raises `KeystoreError` when it is missing, damaged, or others may read it.

        Without `rows` they are in the directory; without `sealings` the root is a file as it is.
        """
        check_private(directory)
        if rows is None:
            check_private(directory / _DATABASE)
            rows = SqliteRows(directory / _DATABASE)
        try:
            return cls(RootFile(directory), rows, sealings or Sealings(FileSealing()))
        except BaseException:
            rows.close()
            raise

    def close(self) -> None:
        self._rows.close()

    @property
    def epoch(self) -> int:
        """How often keys were destroyed."""
        return self._keys().epoch

    def check_current(self) -> None:
        """Raises `KeystoreTaken` when another gateway has the rows or has destroyed some: those in memory may be gone.

        Raises `KeystoreAway` when that cannot be told now.
        """
        if self._rows.state().epoch != self.epoch:
            raise KeystoreTaken(
                "Another gateway destroyed keys in this keystore's database.",
                hint="A keystore belongs to one log: find out which gateway uses keys.database too.",
            )

    def get(self, kind: str, id_: str) -> bytes | None:
        """Raises `KeystoreError` when the row does not open."""
        for _ in range(_TRIES):
            opened = self._keys()
            sealed = self._rows.get(kind, id_)
            if sealed is None:
                return None
            try:
                return _open_row(opened, Row(kind, id_, sealed))
            except KeystoreError:
                if not self._was_changed(opened):
                    raise
        raise KeystoreChanged("Keys are being destroyed faster than they can be read.", hint="Try again.")

    def scan(self, kind: str, prefix: str = "") -> Iterator[tuple[str, bytes]]:
        """(id, value) of a kind's rows whose id begins with `prefix`, by id. Raises `KeystoreError`."""
        for row in self._rows.scan(kind, prefix):
            try:
                value: bytes | None = _open_row(self._keys(), row)
            except KeystoreError:
                value = self.get(row.kind, row.id)
            if value is not None:
                yield row.id, value

    def ids(self, kind: str, prefix: str = "") -> Iterator[str]:
        """Ids alone: nothing is opened."""
        return (row.id for row in self._rows.scan(kind, prefix))

    def put(self, rows: Mapping[tuple[str, str], bytes], *, fresh: bool = False) -> bool:
        """Add or replace, all or none, durably. Raises `KeystoreError` when the disk does not take them.

        `fresh`: False, and nothing written, when one of them exists.
        """
        for _ in range(_TRIES):
            opened = self._keys()
            try:
                return self._rows.put(_sealed(opened.keys, rows), epoch=opened.epoch, fresh=fresh)
            except KeystoreChanged:
                self._load()
        raise KeystoreChanged("Keys are being destroyed faster than they can be written.", hint="Try again.")

    def destroy(
        self,
        delete: Collection[tuple[str, str]],
        replace: Mapping[tuple[str, str], bytes] | None = None,
        *,
        drop: Collection[tuple[str, str]] = (),
    ) -> int:
        """Delete rows and replace others, so that no copy of the database holds their old values under the new root.

        `drop`: rows deleted with them that open only under a row of `delete`: their shards need no new keys. Returns
        the epoch that holds then. Raises `KeystoreError`; then nothing was destroyed, or, when the database does not
        answer, this is told by the next call that it answers.
        """
        return self._change(Wanted(delete=frozenset(delete), replace=replace or {}, drop=frozenset(drop)))

    def rotate(self) -> int:
        """A new root and new keys of all shards; every row is sealed anew. The epoch that holds then."""
        return self._change(Wanted(renew=frozenset(range(SHARDS))))

    def reseal(self, sealings: Sealings) -> int:
        """From now on the root is kept that way, and it is a new one: copies of the old open no later database."""
        self._sealings = Sealings(*sealings.known, *self._sealings.known)
        return self._change(Wanted())

    def one(self, name: str) -> bytes:
        """The key of that name; a random one is made at its first use."""
        return self._made("one", name)

    def bucket(self, retention: str, day: str) -> bytes:
        """The key of one retention class and day."""
        return self._made("bucket", f"{retention}/{day}")

    def pseudonym(self, prefix: str, identity: str) -> tuple[str, bytes]:
        """The pseudonym of an identity and its key; both are made when it is first seen.

        `prefix`: `a` for actors, `s` for subjects. The identity itself stands in the sealed row alone. Of two
        processes that see one identity first at once, both get the pseudonym that was durable first.
        """
        lookup = self.lookup(prefix, identity)
        for _ in range(_TRIES):
            known = self.get(*lookup)
            if known is not None:
                name = known.decode()
                return name, self.subject_key(name)
            name, key = f"{prefix}_{secrets.token_hex(16)}", secrets.token_bytes(KEY_BYTES)
            if self.put({lookup: name.encode(), Name("subject", name): key + identity.encode()}, fresh=True):
                return name, key
        raise KeystoreChanged("A pseudonym is made and destroyed again and again.", hint="Try again.")

    def lookup(self, prefix: str, identity: str) -> Name:
        """The name of the row that leads from an identity to its pseudonym: a keyed hash."""
        return Name("lookup", hmac.digest(self.one("lookup"), f"{prefix}/{identity}".encode(), "sha256").hex())

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

    def _made(self, kind: str, id_: str) -> bytes:
        for _ in range(_TRIES):
            found = self.get(kind, id_)
            if found is not None:
                return found
            key = secrets.token_bytes(KEY_BYTES)
            if self.put({(kind, id_): key}, fresh=True):
                return key
        raise KeystoreChanged("A key is made and destroyed again and again.", hint="Try again.")

    def _change(self, wanted: Wanted) -> int:
        with self._files.locked():
            before = self._settle()
            self._opened = None  # until it is known what became of it
            self._opened = change(self._files, self._rows, self._sealings, before, wanted)
            return self._opened.epoch

    def _keys(self) -> Opened:
        return self._opened or self._load()

    def _load(self) -> Opened:
        with self._files.locked():
            return self._settle()

    def _settle(self) -> Opened:
        self._opened = settle(self._files, self._rows, self._sealings)
        return self._opened

    def _was_changed(self, opened: Opened) -> bool:
        return self._load().epoch != opened.epoch


def _sealed(keys: tuple[bytes, ...], rows: Mapping[tuple[str, str], bytes]) -> dict[tuple[str, str], bytes]:
    return {
        (kind, id_): seal(AESGCM(keys[shard_of(kind, id_)]), full_name(kind, id_), value)
        for (kind, id_), value in rows.items()
    }


def _open_row(opened: Opened, row: Row) -> bytes:
    name = full_name(row.kind, row.id)
    return unseal(AESGCM(opened.keys[shard_of(row.kind, row.id)]), name, row.sealed)
