"""Every step of copying the keys fails: a copy bears its id only when it is whole, and says of which epoch it is."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from rempart.errors import KeystoreChanged, KeystoreError, RempartError
from rempart.ledger.copying import databases
from rempart.ledger.copying import keys as key_copies
from rempart.ledger.copying.backup import NOTE, Backup, Made, Places, Recorded
from rempart.ledger.copying.keys import DATABASE, ROOT
from rempart.ledger.keys.configured import open_keystore
from rempart.testing.backed_up import Installation
from rempart.testing.calls import HOW, Calls

POINTS = int(os.environ.get("REMPART_CRASH_POINTS", "800")) // 2


@pytest.fixture
async def site(memory: Path) -> Installation:
    """It has answered once, so that its keystore has rows of each kind."""
    made = Installation(memory / "data")
    async with made.open() as journal:
        await made.exchange(journal)
    return made


EPOCH = 1
"""Of a new keystore."""


def log_key(data: Path) -> tuple[bytes, int]:
    """Of the keys in `<data>/keys`: the log's own, and their epoch."""
    keystore = open_keystore(data)
    try:
        return keystore.one("log-key"), keystore.epoch
    finally:
        keystore.close()


def create(site: Installation, to: Path, epoch: int = EPOCH) -> Made:
    """Of the keys alone."""
    backup = Backup(site.data, site.verifier, lambda *_: Recorded(index=1, epoch=epoch))
    return backup.create(Places(data=None, keys=to, same_device=True))


def look(to: Path, whole: tuple[bytes, int], what: object) -> list[str]:
    """Ids of the copies in `to`, each of which must open; so must all that a restoration would take for keys."""
    found = []
    for place in to.iterdir() if to.exists() else ():
        if place.suffix != ".new":
            note = msgspec.json.decode((place / NOTE).read_bytes(), type=Made)
            assert (note.backup, note.epoch) == (place.name, whole[1]), what
            assert (place / "keys" / ROOT).exists(), what
            found.append(place.name)
        if (place / "keys" / ROOT).exists():
            assert log_key(place) == whole, what
    return found


@pytest.mark.timeout(600)
async def test_whatever_fails_no_half_copy_of_the_keys_is_taken_for_a_whole_one(
    site: Installation, memory: Path
) -> None:
    to, whole = memory / "copies", log_key(site.data)
    with pytest.MonkeyPatch.context() as patch:
        calls = Calls(patch)
        create(site, to)
        total = calls.count
    assert len(look(to, whole, "no fault")) == 1
    shutil.rmtree(to)
    points = list(itertools.product(range(1, total + 1), (True, False), HOW))
    assert len(points) > 100
    step = max(len(points) / POINTS, 1.0)
    for number in range(min(POINTS, len(points))):
        what = at, once, how = points[int(number * step)]
        made = None
        with pytest.MonkeyPatch.context() as patch:
            Calls(patch, at, how, once=once)
            with contextlib.suppress(OSError, RempartError):
                made = create(site, to)
        found = look(to, whole, what)
        assert made is None or found == [made.backup], what
        again = create(site, to)
        assert again.backup in look(to, whole, what), what
        assert log_key(site.data) == whole, what
        shutil.rmtree(to)


class _Cut(sqlite3.Connection):
    """A database whose copying ends after its first page."""

    def backup(self, target: sqlite3.Connection, **_: object) -> None:
        super().backup(target, pages=1, progress=_fail)


def _fail(*_: int) -> None:
    raise sqlite3.OperationalError("disk I/O error")


def _cut(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, factory=_Cut)


def _torn(copy: Callable[[Path, Path], None]) -> Callable[[Path, Path], None]:
    """The copy is done, and a page of it is lost."""

    def torn(source: Path, to: Path) -> None:
        copy(source, to)
        os.truncate(to, 4096)

    return torn


async def test_a_database_that_is_cut_off_leaves_no_copy(site: Installation, memory: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(databases, "_connect", _cut)
        with pytest.raises(KeystoreError, match="cannot be copied"):
            create(site, memory / "copies")
    assert list((memory / "copies").iterdir()) == []


async def test_a_copy_whose_pages_were_lost_is_told_and_not_kept(site: Installation, memory: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(key_copies, "copy_database", _torn(databases.copy_database))
        with pytest.raises(KeystoreError):
            create(site, memory / "copies")
    assert list((memory / "copies").iterdir()) == []


async def test_keys_that_were_destroyed_after_the_entry_leave_no_copy(site: Installation, memory: Path) -> None:
    with pytest.raises(KeystoreChanged):
        create(site, memory / "copies", epoch=7)
    assert list((memory / "copies").iterdir()) == []
    assert (site.data / "keys" / DATABASE).exists()
