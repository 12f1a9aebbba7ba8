"""`rempart.ledger.reading.epochs`: an older copy of the keys does not undo an erasure unseen."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from rempart.cli.main import main
from rempart.errors import KeystoreError
from rempart.ledger.erasing.erase import Order, erase
from rempart.ledger.log import entry as entries
from rempart.ledger.reading.entries import EntryReader
from rempart.testing.small_site import SmallSite

ALICE = "alice@hospital.example"


async def _erase(site: SmallSite, name: str) -> int:
    order = Order(scope="subject", name=name, ground="GDPR 17(1)(b)", by="operator", role="operator")
    return (await erase(site.records, order)).certificate.index


def _put_back(site: SmallSite, keys: Path) -> None:
    shutil.rmtree(site.path / "keys")
    shutil.copytree(keys, site.path / "keys")


@pytest.fixture
async def site(tmp_path: Path) -> SmallSite:
    """Somebody was erased after the keys were copied to `old`."""
    site = SmallSite(tmp_path / "data")
    async with site.run():
        await site.exchange("fever", ALICE)
        shutil.copytree(site.path / "keys", tmp_path / "old")
        await _erase(site, ALICE)
        shutil.copytree(site.path / "keys", tmp_path / "new")
    return site


async def test_an_older_copy_of_the_keys_is_refused_and_the_newest_goes_on(site: SmallSite, tmp_path: Path) -> None:
    _put_back(site, tmp_path / "old")
    with pytest.raises(KeystoreError, match="epoch 1, the log was written under epoch 2: an older copy"):
        async with site.run():
            pass
    _put_back(site, tmp_path / "new")
    async with site.run():
        assert site.entries("start")[-1]["epoch"] >= 2


async def test_who_has_no_newer_copy_is_told_what_to_erase_again(
    site: SmallSite, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (certificate,) = [n for n, one in enumerate(_types(site)) if one == "erasure"]
    _put_back(site, tmp_path / "old")
    with pytest.raises(SystemExit) as ended:
        main(["keys", "accept-older", "--data", str(site.path)])
    assert ended.value.code == 0
    assert f"erase or expire again what these entries say: {certificate}\n" in capsys.readouterr().out
    async with site.run():
        await _erase(site, ALICE)
    async with site.run():
        assert [one["epoch"] for one in site.entries("start")][1] == 1
    _put_back(site, tmp_path / "old")
    with pytest.raises(KeystoreError, match="an older copy"):
        async with site.run():
            pass


def _types(site: SmallSite) -> list[str]:

    return [entries.facts(entry).type for _, entry in EntryReader(site.ledger).forward(0)]
