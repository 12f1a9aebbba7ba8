"""A small ledger to be copied."""

from __future__ import annotations

from pathlib import Path

import pytest

from rempart import limits
from rempart.testing.small_ledger import SmallLedger


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> SmallLedger:
    """Its segments are small, its checkpoints come soon."""
    monkeypatch.setattr(limits, "segment_bytes", 1 << 20)
    monkeypatch.setattr(limits, "integrate_s", 0.02)
    return SmallLedger(tmp_path / "source" / "ledger")
