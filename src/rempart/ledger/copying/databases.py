"""`copy_database`: an SQLite file as it is at one moment, while others use it (SQLite's online backup)."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from pathlib import Path
from urllib.parse import quote

from rempart import limits
from rempart.errors import KeystoreError
from rempart.ledger.store.files import make_directory, sync_directory


def copy_database(source: Path, to: Path) -> None:
    """`to` is whole and durable when this returns, its owner's alone. Raises `KeystoreError`, `OSError`."""
    make_directory(to.parent)
    beside = to.with_name(to.name + ".new")
    beside.unlink(missing_ok=True)
    os.close(os.open(beside, os.O_RDWR | os.O_CREAT | os.O_TRUNC, 0o600))
    try:
        with (
            contextlib.closing(_connect(source)) as original,
            contextlib.closing(_connect(beside)) as copy,
        ):
            original.backup(copy)
            damage = copy.execute("PRAGMA quick_check").fetchone()[0]
    except sqlite3.Error as error:
        raise KeystoreError(f"{source} cannot be copied: {error}.", hint="Look at the disk; try again.") from error
    if damage != "ok":
        raise KeystoreError(f"{source} is damaged: {damage}.", hint="Restore it from an earlier backup.")
    descriptor = os.open(beside, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.rename(beside, to)
    sync_directory(to.parent)


def _connect(path: Path) -> sqlite3.Connection:
    """An existing file; "rw" lets SQLite undo what a crash cut off, which "ro" could not."""
    return sqlite3.connect(f"file:{quote(str(path))}?mode=rw", uri=True, timeout=limits.keystore_busy_s)
