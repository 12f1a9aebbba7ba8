"""`Manifest`: which runs make up the index, and up to which entry of the log; one file, replaced as a whole.

`<index>/manifest.json` is a line of JSON, then the line's SHA-256 in hex. It is the one switch between an old state
and a new one: runs become durable before it names them, and are destroyed after it has ceased to. A run's file that
it does not name is a leftover of a crash. It says nothing that the names and sizes of files do not say.
"""

from __future__ import annotations

import re
from hashlib import sha256
from pathlib import Path
from typing import Final

import msgspec

from rempart.errors import IndexDamaged, LedgerUnavailable
from rempart.ledger.search.postings import WINDOW_BITS
from rempart.ledger.store.files import replace_durably

_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,64}", re.ASCII)
_DAY: Final = re.compile(r"\d{4}-\d{2}-\d{2}", re.ASCII)


class Partition(msgspec.Struct, frozen=True, order=True):
    """A retention class and one of its buckets, which is a UTC day: what has one key."""

    retention: str
    bucket: str


class Run(msgspec.Struct, frozen=True, order=True):
    """One file of postings."""

    window: int
    """It mentions entries from `window << 16` on, 2^16 at most."""
    number: int
    """Never used twice in a manifest's life."""
    partition: Partition

    @property
    def first(self) -> int:
        """Index of the window's first entry."""
        return self.window << WINDOW_BITS

    def path(self, directory: Path) -> Path:
        return partition_path(directory, self.partition) / f"{self.window:010d}-{self.number:010d}.run"

    @property
    def identity(self) -> bytes:
        """Additional data of each of its blocks."""
        at = self.partition
        return f"{at.retention}/{at.bucket}/{self.window}/{self.number}".encode()


class Gap(msgspec.Struct, frozen=True, order=True):
    """Entries of a partition whose runs were damaged: to be indexed anew."""

    partition: Partition
    first: int
    stop: int
    """Index of the first entry that is not missing."""


class Manifest(msgspec.Struct, frozen=True):
    """A state of the index."""

    v: int = 1
    generation: int = 0
    """Counts replacements."""
    mark: int = 0
    """Index of the first entry of the log that was not looked at yet."""
    next_number: int = 0
    runs: tuple[Run, ...] = ()
    gaps: tuple[Gap, ...] = ()


class _Version(msgspec.Struct):
    v: int


_decoder = msgspec.json.Decoder(Manifest)
_version = msgspec.json.Decoder(_Version)


def read(directory: Path) -> Manifest:
    """An empty one when there is none yet. Raises `IndexDamaged`, and `LedgerUnavailable` when it cannot be known."""
    try:
        data = manifest_path(directory).read_bytes()
    except FileNotFoundError:
        return Manifest()
    except OSError as error:
        raise LedgerUnavailable(f"The search index cannot be read: {error.strerror}.") from error
    line, _, digest = data.partition(b"\n")
    if sha256(line).hexdigest().encode() != digest.strip():
        raise _damaged()
    try:
        if _version.decode(line).v != 1:
            raise LedgerUnavailable(
                "The search index is of a later release.",
                hint="Use that release, or delete ledger/index: it is rebuilt.",
            )
        return _decoder.decode(line)
    except msgspec.DecodeError as error:
        raise _damaged() from error


def write(directory: Path, manifest: Manifest) -> None:
    """Durable when it returns. Raises `OSError`; then either the old one or this one stands."""
    line = msgspec.json.encode(manifest)
    replace_durably({manifest_path(directory): line + b"\n" + sha256(line).hexdigest().encode() + b"\n"})


def manifest_path(directory: Path) -> Path:
    return directory / "manifest.json"


def partition_path(directory: Path, partition: Partition) -> Path:
    return directory / partition.retention / partition.bucket


def partition_of(retention: str, bucket: str) -> Partition:
    """Raises `ValueError` at names that are not safe as names of directories."""
    if _NAME.fullmatch(retention) is None or _DAY.fullmatch(bucket) is None:
        raise ValueError("a partition is a class of letters, digits, _ and -, and a day")
    return Partition(retention, bucket)


def _damaged() -> IndexDamaged:
    return IndexDamaged(
        "The list of the search index's files is damaged.", hint="`rempart ledger index` builds the index anew."
    )
