"""An erasure, an expiry or a release that ends at any of its steps is whole or not begun after the next start.

A step is a call that changes something durable: rows and root of the keystore, the index, bodies, the log. It fails
before or after it was done, and so does everything after it, as in a crash. Then a new start must leave all as it was,
or all destroyed with exactly one certificate, and nothing pending.
"""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rempart import limits
from rempart.errors import KeystoreError, LedgerUnavailable
from rempart.ledger.erasing import clearing, pending
from rempart.ledger.erasing.erase import Order, erase
from rempart.ledger.erasing.expire import expire
from rempart.ledger.erasing.hold import Order as HoldOrder
from rempart.ledger.erasing.hold import begin_hold, release
from rempart.ledger.keys.rootfile import RootFile
from rempart.ledger.keys.sqlite_rows import SqliteRows
from rempart.ledger.search import writer
from rempart.ledger.search.writer import IndexWriter
from rempart.ledger.store.bodies import BodyStore
from rempart.ledger.writing.journal import Journal
from rempart.testing.small_ledger import until
from rempart.testing.small_site import DAY_S, SmallSite

ALICE = "alice@hospital.example"
ADMIN, AUDITOR = "a_" + "1" * 32, "a_" + "2" * 32


class Steps:
    """Counts steps; from one of them on none succeeds."""

    def __init__(self, patch: pytest.MonkeyPatch, at: int = 0, *, done: bool = False) -> None:
        self.count = 0
        self._at, self._done = at, done
        for owner, name, error in (
            (SqliteRows, "put", KeystoreError("The disk failed.")),
            (SqliteRows, "rewrite", KeystoreError("The disk failed.")),
            (RootFile, "stage", KeystoreError("The disk failed.")),
            (RootFile, "promote", KeystoreError("The disk failed.")),
            (IndexWriter, "erase", OSError("The disk failed.")),
            (IndexWriter, "drop", OSError("The disk failed.")),
            (writer, "destroy", OSError("The disk failed.")),
            (clearing, "prune", OSError("The disk failed.")),
            (BodyStore, "unlink", OSError("The disk failed.")),
        ):
            patch.setattr(owner, name, self._wrap(getattr(owner, name), error))
        patch.setattr(Journal, "event", self._wrap_event(Journal.event))

    def _fails(self) -> bool:
        self.count += 1
        return bool(self._at) and self.count >= self._at

    def _wrap(self, real: Any, error: Exception) -> Any:
        def call(*arguments: Any, **named: Any) -> Any:
            if not self._fails():
                return real(*arguments, **named)
            if self._done and self.count == self._at:
                real(*arguments, **named)
            raise error

        return call

    def _wrap_event(self, real: Any) -> Any:
        async def call(*arguments: Any) -> Any:
            if not self._fails():
                return await real(*arguments)
            if self._done and self.count == self._at:
                await real(*arguments)
            raise LedgerUnavailable("The disk failed.")

        return call


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.setattr(limits, "segment_bytes", 1 << 20)
    monkeypatch.setattr(limits, "integrate_s", 0.02)
    shared = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=shared if shared.is_dir() else None) as folder:
        yield Path(folder)


Do = Callable[[SmallSite], Awaitable[object]]


async def _each_crash(template: SmallSite, place: Path, do: Do, check: Callable[[SmallSite, int], None]) -> None:
    """`check` gets the site after its recovery, and how many certificates there must be: 0 or 1."""
    with pytest.MonkeyPatch.context() as patch:
        async with _copy(template, place) as site:
            steps = Steps(patch)
            await do(site)
            total = steps.count
    assert total > 5
    seen = set()
    for at in range(1, total + 1):
        for done in (False, True):
            path = place / "tried"
            with pytest.MonkeyPatch.context() as patch:
                async with _copy(template, place, keep=True) as site:
                    Steps(patch, at, done=done)
                    with contextlib.suppress(KeystoreError, LedgerUnavailable, OSError):
                        await do(site)
            begun = at > 1 or done
            again = SmallSite(path, site.now)
            async with again.run():
                assert await again.records.ask(pending.unfinished) == []
                check(again, int(begun))
            again.check()
            async with again.run():
                check(again, int(begun))
            seen.add(begun)
            shutil.rmtree(path)
    assert seen == {False, True}


@contextlib.asynccontextmanager
async def _copy(template: SmallSite, place: Path, *, keep: bool = False) -> AsyncIterator[SmallSite]:
    site = SmallSite(place / "tried", template.now)
    shutil.copytree(template.path, site.path)
    async with site.run():
        yield site
    if not keep:
        shutil.rmtree(site.path)


async def _fill(site: SmallSite) -> None:
    segments = site.ledger / "segments"
    number = max(int(path.stem) for path in segments.glob("[0-9]*.seg"))
    while number == max(int(path.stem) for path in segments.glob("[0-9]*.seg")):
        await site.exchange("y" * 100_000)
    await until(lambda: not (segments / f"{number:010d}.seg").exists())


@pytest.mark.timeout(300)
@pytest.mark.parametrize("scope", ["subject", "exchange", "actor"])
async def test_an_erasure(place: Path, scope: Any) -> None:
    template = SmallSite(place / "template")
    async with template.run():
        actor = await template.pseudonym("a", ALICE)
        hers = await template.exchange("fever", ALICE, actor=actor, retention="own")
        his = await template.exchange("fever", "bob")
        template.index()
    name = hers if scope == "exchange" else ALICE
    order = Order(scope=scope, name=name, ground="GDPR 17(1)(b)", by="operator", role="operator")

    def check(site: SmallSite, certificates: int) -> None:
        assert len(site.entries("erasure")) == certificates
        assert site.readable(hers) == (not certificates)
        assert len(site.found("fever")) == (2 if certificates else 4)
        assert site.readable(his)

    await _each_crash(template, place, lambda site: erase(site.records, order), check)


@pytest.mark.timeout(300)
async def test_an_expiry_with_a_hold(place: Path) -> None:
    template = SmallSite(place / "template")
    async with template.run():
        kept = await template.exchange("fever", ALICE, retention="short")
        gone = await template.exchange("cough", "bob", retention="short")
        hold = HoldOrder(id="case-7", ground="file 7", scope="subject", names=(ALICE,), by="operator", role="operator")
        await begin_hold(template.records, hold)
        await _fill(template)
        template.index()
    template.now += 3 * DAY_S

    def check(site: SmallSite, certificates: int) -> None:
        assert len(site.entries("expiry")) == certificates
        assert site.readable(kept)
        assert site.readable(gone) == (not certificates)
        assert (site.ledger / "bodies" / "short" / "2026-11-23").exists() == (not certificates)
        assert site.found("cough") == (
            [] if certificates else site.find(gone) and [one.index for one in site.find(gone)]
        )

    await _each_crash(template, place, lambda site: expire(site.records), check)


@pytest.mark.timeout(300)
async def test_a_release(place: Path) -> None:
    template = SmallSite(place / "template")
    async with template.run():
        kept = await template.exchange("fever", ALICE)
        hold = HoldOrder(id="case-7", ground="file 7", scope="exchange", names=(kept,), by="operator", role="operator")
        await begin_hold(template.records, hold)
        order = Order(scope="subject", name=ALICE, ground="GDPR 17(1)(b)", by="operator", role="operator")
        await erase(template.records, order)
        await release(template.records, "case-7", ADMIN, "admin")
        template.index()

    def check(site: SmallSite, certificates: int) -> None:
        assert [one["change"] for one in site.entries("hold")] == ["begun", "agreed", *["released"] * certificates]
        assert site.readable(kept) == (not certificates)

    await _each_crash(template, place, lambda site: release(site.records, "case-7", AUDITOR, "auditor"), check)
