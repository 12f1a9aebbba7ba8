"""`copy_keys`: `keys/` of one epoch, root and database together, while a server uses them."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path
from typing import Final

from rempart.errors import KeystoreChanged, KeystoreError
from rempart.ledger.copying.databases import copy_database
from rempart.ledger.keys.rootfile import RootFile
from rempart.ledger.keys.sealing import kind_of
from rempart.ledger.store.files import replace_durably

DATABASE: Final = "keystore.db"
ROOT: Final = "root.key"
_ELSEWHERE: Final = "pkcs11"
"""What such a root needs to open stays in the token."""


def root_is_in_copies(keys: Path) -> bool:
    """Whether a copy of this directory opens by itself, or with a passphrase. Raises `KeystoreError`."""
    root = RootFile(keys).current()
    if root is None:
        raise KeystoreError(f"{keys / ROOT} is missing.", hint="Restore keys/ from its backup.")
    return kind_of(root) != _ELSEWHERE


def copy_keys(keys: Path, to: Path, epoch: int | None = None) -> None:
    """`to` gets root and database. The lock of `keys` keeps others from destroying keys between the two.

    Raises `KeystoreChanged` when the epoch is not the one that is wanted, `KeystoreError`, `OSError`.
    """
    if not (keys / DATABASE).exists() and not (keys / ROOT).exists():
        raise KeystoreError(
            f"There are no keys in {keys}.",
            hint="Give the directory of one backup in it; it is named by the backup's id.",
        )
    if not (keys / DATABASE).exists():
        raise KeystoreError(
            f"There is no {DATABASE} in {keys}: the rows are in a database server.",
            hint="Back that database up with its own tools, and root.key with it, at one epoch.",
        )
    files = RootFile(keys)
    with files.locked():
        root = files.current()
        if root is None or files.staged() is not None:
            raise KeystoreChanged("Keys are just being destroyed, or that was cut off.", hint="Try again.")
        copy_database(keys / DATABASE, to / DATABASE)
        replace_durably({to / ROOT: root})
    found = _epoch(to / DATABASE)
    if epoch not in (None, found):
        os.unlink(to / ROOT)
        os.unlink(to / DATABASE)
        raise KeystoreChanged(f"Keys were destroyed meanwhile: the epoch is {found}, not {epoch}.", hint="Try again.")


def _epoch(database: Path) -> int:
    try:
        with contextlib.closing(sqlite3.connect(database)) as connection:
            found = connection.execute("SELECT number FROM epoch").fetchone()
    except sqlite3.Error as error:
        raise KeystoreError(f"{database} cannot be read: {error}.", hint="Try again.") from error
    return 0 if found is None else int(found[0])
