"""`Source`: where a replica is copied from: a ledger on a disk here, or one behind a gateway (port and values).

What is offered is what stands in the files of a ledger: a signed tree, entries, and bodies that are encrypted. A name
that is not one of these files is refused, so that no source ever gives a key away.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Final, Protocol

import msgspec

from rempart.errors import LedgerUnavailable, NotFound, UsageError
from rempart.ledger.reading.handovers import handover_indices
from rempart.ledger.reading.timestamps import stamped_sizes
from rempart.ledger.store.bodies import (
    HELD,
    BodyStore,
    bodies_directory,
    body_path,
    bucket_directory,
    first_indices,
    held_directory,
)
from rempart.ledger.store.logfiles import previous_logs
from rempart.ledger.store.segments import numbers

_PREVIOUS: Final = r"(?:previous/[1-9][0-9]{0,5}/)"
_NUMBER: Final = r"(?:x[0-9]{3}/){0,6}[0-9]{3}"
_TILE: Final = rf"log/tile/(?:entries|[0-9]|[1-5][0-9]|6[0-3])/{_NUMBER}(?:\.p/[1-9][0-9]{{0,2}})?"
_BODIES: Final = r"bodies/(?:held/)?[A-Za-z0-9][A-Za-z0-9-]{0,63}/[A-Za-z0-9][A-Za-z0-9-]{0,63}/[0-9]{20}\.bod"
_STAMP: Final = r"timestamps/[0-9]{20}\.(?:checkpoint|tst)"
_HANDOVER: Final = r"handovers/[0-9]{20}\.tlog-proof"
_OFFERED: Final = re.compile(
    rf"{_PREVIOUS}?(?:log\.vkey|log/checkpoint|witnessed/checkpoint|segments/[0-9]{{10}}\.seg|"
    rf"{_TILE}|{_BODIES}|{_STAMP}|{_HANDOVER})",
    re.ASCII,
)
_PREVIOUS_NAME: Final = re.compile(_PREVIOUS, re.ASCII)


class BodiesFile(msgspec.Struct, frozen=True):
    """One file of bodies."""

    retention: str
    bucket: str
    first_index: int
    size: int
    """Bytes."""
    held: bool = False
    """A hold keeps these beyond their bucket."""

    @property
    def name(self) -> str:
        root = Path("bodies") / HELD if self.held else Path("bodies")
        return str(body_path(root / self.retention / self.bucket, self.first_index))


class Inventory(msgspec.Struct, frozen=True, kw_only=True):
    """What there is, beside the log itself. The segments are listed first: what leaves them is in `bodies` before."""

    segments: list[int]
    """Their numbers, ascending."""
    bodies: list[BodiesFile]
    previous: list[int]
    """Numbers of the logs that this one continues, ascending."""
    timestamps: list[int] = []
    """Entries under each checkpoint that was time-stamped, ascending."""
    handovers: list[int] = []
    """Entries with which the log's key was changed, ascending."""


class Gone(NotFound):
    """A file has just been replaced by another: the ledger goes on while it is read."""


class Source(Protocol):
    """A ledger to be read. Both raise `LedgerUnavailable` when the disk or the other side fails."""

    def inventory(self) -> Inventory: ...

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        """Bytes of a file below the ledger, from `offset` on, at most `length`; fewer at its end. Raises `Gone`."""
        ...

    def previous(self, number: int) -> Source:
        """A log that this one continues."""
        ...


def segment_name(number: int) -> str:
    return f"segments/{number:010d}.seg"


def check_offered(name: str) -> None:
    """Raises `UsageError` unless it is the name of a file that may be copied."""
    if not _OFFERED.fullmatch(name):
        raise UsageError("That is no file of a ledger.", hint="See docs/backup.md for what there is.")


class FolderSource:
    """`<data>/ledger` on a disk of this machine; a server may be writing it."""

    def __init__(self, ledger: Path) -> None:
        self._ledger = ledger

    def inventory(self) -> Inventory:
        segments = numbers(self._ledger / "segments")
        return Inventory(
            segments=segments,
            bodies=self._bodies(),
            previous=previous_logs(self._ledger),
            timestamps=stamped_sizes(self._ledger),
            handovers=handover_indices(self._ledger),
        )

    def inventory_of(self, prefix: str) -> Inventory:
        """`prefix`: empty, or `previous/<number>/`. Raises `UsageError` when it is neither."""
        if prefix and not _PREVIOUS_NAME.fullmatch(prefix):
            raise UsageError("That is no ledger.", hint="See docs/backup.md for what there is.")
        return FolderSource(self._ledger / prefix).inventory()

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        descriptor = self.open(name)
        try:
            wanted = os.fstat(descriptor).st_size - offset if length is None else length
            return os.pread(descriptor, max(wanted, 0), offset)
        except OSError as error:
            raise LedgerUnavailable(f"{name} cannot be read: {error.strerror}.", hint="Look at the disk.") from error
        finally:
            os.close(descriptor)

    def open(self, name: str) -> int:
        """Its descriptor, which the caller closes. Raises `Gone`, or `UsageError` when it is no file of a ledger."""
        check_offered(name)
        try:
            return os.open(self._ledger / name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise Gone(f"There is no {name}.", hint="Ask for the inventory again.") from error
        except OSError as error:
            raise LedgerUnavailable(f"{name} cannot be opened: {error.strerror}.", hint="Look at the disk.") from error

    def previous(self, number: int) -> FolderSource:
        return FolderSource(self._ledger / "previous" / str(number))

    def _bodies(self) -> list[BodiesFile]:
        """Those that are held last: what goes from a bucket is held before."""
        found: list[BodiesFile] = []
        for held, root in ((False, bodies_directory(self._ledger)), (True, held_directory(self._ledger))):
            for retention, bucket in BodyStore(root).buckets():
                directory = bucket_directory(root, retention, bucket)
                for first in first_indices(directory):
                    try:
                        size = body_path(directory, first).stat().st_size
                    except FileNotFoundError:
                        continue  # its bucket has just gone
                    found.append(BodiesFile(retention, bucket, first, size, held))
        return found
