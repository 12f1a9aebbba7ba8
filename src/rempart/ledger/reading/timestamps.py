"""`check_timestamps`: every time stamp of a log holds, and is on the beginning of this log.

    <data>/ledger/timestamps/<entries, 20 digits>.checkpoint   the signed note that was stamped, as it was
    <data>/ledger/timestamps/<entries, 20 digits>.tst          the authority's TimeStampToken over its bytes (RFC 3161)

1. The note is of this log, and has as many entries as its name says.
2. The token holds for the note's bytes (`Authority.check`).
3. The tree under the log's own checkpoint begins with the tree that the note signs.

A note without its token is what a crash left of a stamp: it is not looked at. That a stamp was taken away cannot be
seen: what is left says what it says.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import datetime
from pathlib import Path
from typing import Final

import msgspec

from rempart import limits
from rempart.errors import ConfigError, LedgerCorrupt
from rempart.ledger.log.checkpoint import parse_note
from rempart.ledger.log.consistency import check_prefix
from rempart.ledger.log.timestamp import Authority
from rempart.ledger.reading.prove import Prover
from rempart.ledger.store.logfiles import previous_directory, previous_logs, read_file

DIRECTORY: Final = "timestamps"
_WHO: Final = "Its authority has stamped"
_TOKEN: Final = re.compile(r"([0-9]{20})\.tst")


class Kept(msgspec.Struct, frozen=True):
    """A stamp as it is kept; nothing is verified yet."""

    size: int
    """Entries under the note, as its name says."""
    note: bytes
    token: bytes


class Stamped(msgspec.Struct, frozen=True, kw_only=True):
    """What stamps that hold say of a log: so many entries existed at that time, at the latest."""

    stamps: int
    first_size: int
    first_time: datetime
    """Of the earliest one."""
    last_size: int
    last_time: datetime
    """Of the one that covers the most."""


def token_path(ledger: Path, size: int) -> Path:
    """`ledger` is `<data>/ledger`."""
    return ledger / DIRECTORY / f"{size:020d}.tst"


def note_path(ledger: Path, size: int) -> Path:
    return ledger / DIRECTORY / f"{size:020d}.checkpoint"


def stamped_sizes(ledger: Path) -> list[int]:
    """Entries under each checkpoint that was stamped, ascending."""
    names = (_TOKEN.fullmatch(path.name) for path in (ledger / DIRECTORY).glob("*.tst"))
    return sorted(int(name[1]) for name in names if name)


def read_kept(ledger: Path, size: int) -> Kept:
    """Raises `LedgerCorrupt`."""
    return Kept(size, read_file(note_path(ledger, size)), read_file(token_path(ledger, size)))


def read_authority(path: Path) -> Authority:
    """`path`: ledger.timestamp_ca_file. Raises `ConfigError`, `MissingDependency`."""
    try:
        with path.open("rb") as file:
            pem = file.read(limits.timestamp_ca_bytes_max + 1)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.", hint="See ledger.timestamp_ca_file.") from error
    if len(pem) > limits.timestamp_ca_bytes_max:
        raise ConfigError(f"{path} is too large.", hint="Give the certificates of the one authority.")
    return Authority.from_pem(pem)


def covering(ledger: Path, indices: Iterable[int], size: int) -> list[Kept]:
    """For each entry the earliest stamp that covers it, and the newest of all; none beyond `size` entries."""
    known = [one for one in stamped_sizes(ledger) if one <= size]
    wanted = {next((one for one in known if one > index), 0) for index in indices} - {0}
    if wanted:
        wanted.add(known[-1])
    return [read_kept(ledger, one) for one in sorted(wanted)]


def check_timestamps(ledger: Path, authority: Authority) -> Stamped | None:
    """`ledger` is `<data>/ledger`; None when it has no stamps. Raises `LedgerCorrupt`, also for a log it continues.

    Whether the log's key signed its own checkpoint is for `verify`; the notes that were stamped need no signature: what
    a stamp proves is when their text existed, and step 3 that it tells of this log.
    """
    for number in previous_logs(ledger):
        _check_log(previous_directory(ledger, number), authority)
    return _check_log(ledger, authority)


def _check_log(ledger: Path, authority: Authority) -> Stamped | None:
    sizes = stamped_sizes(ledger)  # first: the log goes on, so that its head is not behind them
    if not sizes:
        return None
    prover = Prover(ledger / "log")
    told: list[tuple[datetime, int]] = []
    for size in sizes:
        try:
            kept = read_kept(ledger, size)
            _, stamped = parse_note(kept.note)
            if stamped.size != size:
                raise LedgerCorrupt(f"It is of {stamped.size} entries.")
            told.append((authority.check(kept.token, kept.note), size))
            check_prefix(stamped, prover.head, prover.node, _WHO)
        except LedgerCorrupt as error:
            where = token_path(ledger, size).relative_to(ledger.parent)
            raise LedgerCorrupt(f"{error.message} ({where})", hint=error.hint or _HINT) from error
    first, last = min(told), told[-1]
    return Stamped(stamps=len(told), first_size=first[1], first_time=first[0], last_size=last[1], last_time=last[0])


_HINT: Final = "Keep the directory as it is, and compare with a copy; see 'Time stamps' in docs/ledger.md."
