"""Every system call on files fails while a backup is restored: the data directory is there whole, or not at all."""

from __future__ import annotations

import contextlib
import itertools
import os
import shutil
from pathlib import Path

import pytest

from rempart import limits
from rempart.errors import RempartError
from rempart.ledger.copying.backup import Made, Places
from rempart.ledger.copying.restore import Order, restore
from rempart.ledger.reading.previous import verify_chain
from rempart.testing.backed_up import Installation
from rempart.testing.calls import HOW, Calls

POINTS = int(os.environ.get("REMPART_CRASH_POINTS", "800")) // 4


@pytest.fixture
def place(memory: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(limits, "segment_bytes", 1 << 16)
    monkeypatch.setattr(limits, "integrate_s", 0.01)
    return memory


async def _backup(place: Path) -> tuple[Installation, Made]:
    site = Installation(place / "data")
    async with site.open() as journal:
        for _ in range(3):
            await site.exchange(journal)
        await site.exchange(journal, answered=False)
        to = Places(data=place / "backup", keys=place / "keys", same_device=True)
        return site, await site.back_up(journal, to)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("new_log", [False, True])
async def test_whatever_fails_nothing_or_all_is_restored_and_the_next_try_brings_it_back(
    place: Path, new_log: bool
) -> None:
    site, made = await _backup(place)
    order = Order(backup=Path(made.data), keys=Path(made.keys), data=place / "restored", new_log=new_log)
    with pytest.MonkeyPatch.context() as patch:
        calls = Calls(patch)
        restore(order)
        total = calls.count
    shutil.rmtree(order.data)
    points = list(itertools.product(range(1, total + 1), (True, False), HOW))
    assert len(points) > 400
    step = max(len(points) / POINTS, 1.0)
    for number in range(min(POINTS, len(points))):
        at, once, how = points[int(number * step)]
        with pytest.MonkeyPatch.context() as patch:
            Calls(patch, at, how, once=once)
            with contextlib.suppress(OSError, RempartError):
                restore(order)
        if not order.data.exists():
            restore(order)
        restored = Installation(order.data)
        verify_chain(restored.ledger, restored.verifier)
        async with restored.open():
            pass
        examined = verify_chain(restored.ledger, restored.verifier)
        assert examined.open == 0, (at, once, how)
        for exchange, said in site.answered.items():
            assert restored.read(exchange) == said, (at, once, how)
        shutil.rmtree(order.data)
    assert not order.data.with_name("restored.restoring").exists()
