"""Ledgers of earlier releases: verified, read and recovered by this one."""

import shutil
from pathlib import Path

import pytest

from rempart.ledger.keys.configured import open_keystore
from rempart.ledger.log.checkpoint import Verifier
from rempart.ledger.reading.find import find, newest_first
from rempart.ledger.reading.fsck import fsck
from rempart.ledger.reading.verify import verify
from rempart.ledger.writing.opening import open_ledger, read_vkey

GOLDEN = sorted(path for path in (Path(__file__).parents[1] / "golden").iterdir() if path.is_dir())


def _copy(golden: Path, tmp_path: Path) -> Path:
    """Git keeps no owner-only modes."""
    data = tmp_path / "data"
    shutil.copytree(golden, data)
    for path in (data, data / "keys"):
        path.chmod(0o700)
    for path in (data / "keys").iterdir():
        path.chmod(0o600)
    return data


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda path: path.name)
def test_it_verifies_as_it_is(golden: Path) -> None:
    report = verify(golden / "ledger", Verifier.from_vkey(read_vkey(golden)))
    assert report.open == 1
    assert set(report.outcomes) >= {"ok", "failed", "refused", "cancelled"}
    assert fsck(golden / "ledger", Verifier.from_vkey(read_vkey(golden))).faults == []


@pytest.mark.parametrize("golden", GOLDEN, ids=lambda path: path.name)
async def test_it_is_recovered_and_can_be_read(golden: Path, tmp_path: Path) -> None:
    data = _copy(golden, tmp_path)
    journal = await open_ledger(data, open_keystore(data), origin="", strict=False)
    await journal.close()
    report = verify(data / "ledger", Verifier.from_vkey(read_vkey(data)))
    assert report.open == 0
    assert report.outcomes["lost"] == 1
    keystore = open_keystore(data)
    exchanges = {fields["exchange"] for _, fields in newest_first(data / "ledger") if "exchange" in fields}
    for exchange in sorted(exchanges)[-8:]:
        for found in find(data / "ledger", exchange, keystore):
            assert not found.unreadable
            assert found.body is not None
