"""`write_run`, `open_run` and `destroy`: files of runs on the disk.

A file that is destroyed is overwritten with zeros and synced before it is unlinked, since its key lives on for the
others of its partition. Where a file system copies on write or a drive remaps, old bytes may outlive this; they are
encrypted, and go for good with the key of the bucket.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

from rempart.errors import IndexDamaged
from rempart.ledger.search import blocks
from rempart.ledger.search.manifest import Run
from rempart.ledger.search.terms import TermKeys
from rempart.ledger.store.files import make_directory, sync_directory, write_all

_WRITE_BLOCKS: Final = 256
_ZEROS: Final = bytes(1024 * 1024)


def write_run(directory: Path, run: Run, stream: blocks.Stream, keys: TermKeys, random: Callable[[int], bytes]) -> None:
    """The file and its name are durable when it returns. Raises `OSError`."""
    path = run.path(directory)
    make_directory(path.parent)
    salt = random(blocks.SALT_BYTES)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        offset, gathered = 0, bytearray()
        for block in blocks.seal(stream, salt, keys.run_key(salt), run.identity, random):
            gathered += block
            if len(gathered) == _WRITE_BLOCKS * blocks.BLOCK:
                write_all(descriptor, bytes(gathered), offset)
                offset += len(gathered)
                gathered.clear()
        write_all(descriptor, bytes(gathered), offset)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    sync_directory(path.parent)


@contextlib.contextmanager
def open_run(directory: Path, run: Run, keys: TermKeys) -> Iterator[blocks.Reading]:
    """Raises `IndexDamaged`, also when the file is gone; it names the class and the day."""
    where = f"{run.partition.retention}/{run.partition.bucket}"
    try:
        descriptor = os.open(run.path(directory), os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise damaged(run, f"A file of the search index of {where} cannot be opened: {error.strerror}.") from error
    try:
        yield blocks.Reading(
            lambda place: os.pread(descriptor, blocks.BLOCK, place * blocks.BLOCK), keys.run_key, run.identity
        )
    except IndexDamaged as error:
        raise damaged(run, f"The search index of {where} is damaged: {error.message}") from error
    except OSError as error:
        raise damaged(run, f"The search index of {where} cannot be read: {error.strerror}.") from error
    finally:
        os.close(descriptor)


def damaged(run: Run, message: str) -> IndexDamaged:
    where = run.partition
    return IndexDamaged(
        message, hint=f"`rempart ledger index --check` builds the index of {where.retention}/{where.bucket} anew."
    )


def destroy(path: Path) -> None:
    """Overwrite, sync, unlink; nothing when it is gone already. The directory is not synced. Raises `OSError`."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return
    try:
        size = os.fstat(descriptor).st_size
        for offset in range(0, size, len(_ZEROS)):
            write_all(descriptor, memoryview(_ZEROS)[: size - offset], offset)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    os.unlink(path)
