"""`fsck`: name all that is wrong with a ledger and the logs that it continues, and write anew what can be derived.

Repair writes hash tiles, and bundles of which a segment still holds every entry; only bytes whose hashes lead to the
root that the checkpoint signs, and only where they are missing or damaged. Entries, bodies, segments and the checkpoint
are never touched.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import msgspec

from rempart import limits
from rempart.errors import LedgerCorrupt
from rempart.ledger.log import tiles
from rempart.ledger.log.checkpoint import Verifier
from rempart.ledger.reading.examine import Examined, Progress, examine
from rempart.ledger.reading.faults import NOTHING, RESTORE, Fault
from rempart.ledger.reading.previous import Continued, continued, examine_previous
from rempart.ledger.store.files import replace_durably

_LOG_MODE: Final = 0o644


class Checked(msgspec.Struct, frozen=True, kw_only=True):
    """What was found and what was done."""

    examined: Examined
    faults: list[Fault]
    """At most `limits.faults_told_max`; what does no harm is not grave."""
    more: int
    """Faults beyond these."""
    repaired: list[str]
    """Files below `<data>/ledger` that were written anew."""

    @property
    def holds(self) -> bool:
        return not self.more and not any(fault.grave for fault in self.faults)


class _Faults:
    """Collects, within a bound."""

    def __init__(self) -> None:
        self.told: list[Fault] = []
        self.more = 0

    def __call__(self, fault: Fault) -> None:
        if len(self.told) < limits.faults_told_max:
            self.told.append(fault)
        else:
            self.more += 1


def fsck(ledger: Path, verifier: Verifier, progress: Progress | None = None, *, repair: bool = False) -> Checked:
    """`ledger` is `<data>/ledger`; with `repair` the caller owns it. Raises `OSError` when a file cannot be written."""
    checked, derived = _check(ledger, verifier, progress)
    if not repair or not derived:
        return checked
    replace_durably(derived, _LOG_MODE)
    again, _ = _check(ledger, verifier, progress)
    repaired = sorted(str(path.relative_to(ledger)) for path in derived)
    return msgspec.structs.replace(again, repaired=repaired)


def _check(ledger: Path, verifier: Verifier, progress: Progress | None) -> tuple[Checked, dict[Path, bytes]]:
    faults = _Faults()
    examined, derived = examine(ledger, verifier, faults, progress)
    for where, what in (*_beyond(ledger, examined.size), *_unfinished(ledger, examined.retired)):
        faults(Fault(kind="left", where=where, what=what, remedy=NOTHING, grave=False))
    files = derived.files | examine_previous(ledger, _continued(ledger, examined, faults), faults, progress)
    return Checked(examined=examined, faults=faults.told, more=faults.more, repaired=[]), files


def _continued(ledger: Path, examined: Examined, faults: _Faults) -> Continued:
    try:
        return continued(ledger, examined)
    except LedgerCorrupt as error:
        if not any(fault.grave for fault in faults.told):  # else why it cannot be read has been told
            what = f"Which log this one continues cannot be read: {error.message}"
            faults(Fault(kind="previous", where="", what=what, remedy=error.hint or RESTORE))
        return Continued(known=False)


def _beyond(ledger: Path, size: int) -> list[tuple[str, str]]:
    """Bundles that reach further than the checkpoint."""
    number, width = divmod(size, tiles.TILE_WIDTH)
    found = [
        tiles.bundle_path(one) for one in (number, number + 1) if (ledger / "log" / tiles.bundle_path(one)).exists()
    ]
    partial = f"{tiles.bundle_path(number)}.p"
    widths = [int(path.name) for path in (ledger / "log" / partial).glob("*") if re.fullmatch(r"[0-9]+", path.name)]
    found += [f"{partial}/{one}" for one in sorted(widths) if one > width]
    what = f"It holds entries from {size} on: a crash came before their checkpoint, or the checkpoint was put back."
    return [(f"log/{name}", what) for name in found]


def _unfinished(ledger: Path, retired: int) -> list[tuple[str, str]]:
    """What a crash left of a file in the making, or of a segment that was being taken apart."""
    found = [(path, "It was not finished.") for path in (ledger / "segments").glob("*.new")]
    for path in (ledger / "bodies").glob("*/*/*"):
        if path.name.endswith(".new"):
            found.append((path, "It was not finished."))
        elif path.suffix == ".bod" and path.stem.isdecimal() and int(path.stem) >= retired:
            found.append((path, "Its segment is still there: taking it apart was not finished."))
    return [(str(path.relative_to(ledger)), what) for path, what in sorted(found)]
