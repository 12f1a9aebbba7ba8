"""`RootFile`: `root.key` and, while an epoch changes, `root.key.new` beside it (ADR 0003, "Keystore").

`root.key.new` is a root that may not hold yet; which of the two holds is told by the shards that it opens. Old bytes
are overwritten in place before they are replaced: where the disk writes in place, they are gone. Whoever reads both
files to decide, or changes one, has the directory's lock, so that no one finishes what another is just doing.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import stat
import time
from collections.abc import Iterator
from pathlib import Path

from rempart import limits
from rempart.errors import KeystoreError
from rempart.ledger.store.files import make_directory, sync_directory, write_all

_POLL_S = 0.05


class RootFile:
    """The two files of one directory. Each failure is a `KeystoreError`."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.path = directory / "root.key"
        self.staged_path = directory / "root.key.new"

    def make(self) -> None:
        """The directory, durably, for its owner alone."""
        with _mapped(self.directory):
            make_directory(self.directory)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """flock(2) on the directory; waits for who has it, at most `limits.keystore_lock_s`."""
        check_private(self.directory)
        with _mapped(self.directory):
            descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            until = time.monotonic() + limits.keystore_lock_s
            while not _locks(descriptor, self.directory):
                if time.monotonic() > until:
                    raise KeystoreError(
                        f"{self.directory} is being changed by another process.", hint="Wait for its erasure to end."
                    )
                time.sleep(_POLL_S)
            yield
        finally:
            os.close(descriptor)

    def current(self) -> bytes | None:
        """`root.key`, None where there is none. Raises when others may read it."""
        return _read(self.path)

    def staged(self) -> bytes | None:
        """`root.key.new`, None where there is none."""
        return _read(self.staged_path)

    def stage(self, sealed: bytes) -> None:
        """Durably beside; `root.key` stays as it is."""
        with _mapped(self.staged_path):
            _write(self.staged_path, sealed, os.O_CREAT | os.O_TRUNC)
            sync_directory(self.directory)

    def promote(self) -> None:
        """The staged root takes the place of the old one, whose bytes are overwritten first; again is no error."""
        with _mapped(self.path):
            _overwrite(self.path)
            os.rename(self.staged_path, self.path)
            sync_directory(self.directory)

    def discard(self) -> None:
        """The staged root goes, its bytes overwritten first."""
        with _mapped(self.staged_path):
            _overwrite(self.staged_path)
            self.staged_path.unlink(missing_ok=True)
            sync_directory(self.directory)


def check_private(path: Path) -> None:
    """Raises `KeystoreError` when it is missing, another user's, or others may read it."""
    with _mapped(path, "Restore keys/ from its backup."):
        status = path.stat()
    if status.st_uid != os.geteuid():
        raise KeystoreError(f"{path} belongs to another user.", hint="Run rempart as the owner of the data directory.")
    if stat.S_IMODE(status.st_mode) & 0o077:
        raise KeystoreError(f"{path} can be read by others.", hint=f"Run: chmod go-rwx {path}")


def _locks(descriptor: int, directory: Path) -> bool:
    with _mapped(directory, "Keep the data directory on a local disk."):
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True


def _read(path: Path) -> bytes | None:
    if not path.exists():
        return None
    check_private(path)
    with _mapped(path), path.open("rb") as file:
        return file.read(limits.root_bytes_max + 1)


def _overwrite(path: Path) -> None:
    if path.exists():
        _write(path, secrets.token_bytes(path.stat().st_size), 0)


def _write(path: Path, data: bytes, flags: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | flags, 0o600)
    try:
        write_all(descriptor, data, 0)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def _mapped(path: Path, hint: str = "Look at the disk of keys/, and its rights.") -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise KeystoreError(f"{path} cannot be read or written: {error.strerror}.", hint=hint) from error
