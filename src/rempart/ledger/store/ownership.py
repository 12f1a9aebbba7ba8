"""`own`: one process at a time has a data directory, and one at a time takes segments apart in it."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from rempart.errors import ConfigError, DirectoryLocked
from rempart.ledger.store.files import make_directory


@contextlib.contextmanager
def own(data: Path) -> Iterator[None]:
    """Hold the lock of `<data>/run/lock`; the system lets go of it when the process ends, however it ends.

    Raises `DirectoryLocked` when another process holds it.
    """
    try:
        make_directory(data / "run")
        descriptor = os.open(data / "run" / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise ConfigError(
            f"{data} cannot be used as a data directory: {error.strerror}.", hint="Give a directory with --data."
        ) from error
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            owner = os.pread(descriptor, 20, 0).decode(errors="replace").strip()
            raise DirectoryLocked(
                f"Another process{f' ({owner})' if owner else ''} is using {data}.",
                hint="Stop it, or give another directory with --data.",
            ) from error
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode(), 0)
        yield
    finally:
        os.close(descriptor)


@contextlib.contextmanager
def alone(ledger: Path) -> Iterator[None]:
    """Wait for whoever is taking a segment of `<data>/ledger` apart, and keep others from it.

    A child of a server that was killed may still be at it when the next server starts.
    """
    descriptor = os.open(ledger, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)
