"""`FolderSource`: only files of a ledger can be named. `RemoteSource`: where a key goes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rempart.errors import UsageError
from rempart.ledger.copying.remote import RemoteSource
from rempart.ledger.copying.source import FolderSource, Gone, check_offered
from rempart.ledger.log.tiles import bundle_path, tile_path

OFFERED = [
    "log.vkey",
    "log/checkpoint",
    "log/tile/0/000",
    "log/tile/entries/x001/x234/067.p/255",
    "log/tile/63/000.p/1",
    "segments/0000000000.seg",
    "bodies/standard/2026-11-23/00000000000000000000.bod",
    "witnessed/checkpoint",
    "previous/1/log/checkpoint",
    "previous/12/bodies/medical-6y/2026-11-23/00000000000000000012.bod",
]
REFUSED = [
    *("", "/", "log", "log/", "log//checkpoint", "/log/checkpoint", "log/checkpoint/", "log/checkpoint\n"),
    *("../keys/root.key", "log/../../keys/root.key", "bodies/../../keys/root.key", "log/tile/64/000"),
    *("log/tile/0/000.p/0", "log/tile/0/00", "log/tile/entries/x00/000", "log/checkpoint.new"),
    *("segments/0.seg", "segments/spare", "segments/0000000000.seg.new", "keys/root.key", "state.db"),
    *("bodies/./x/00000000000000000000.bod", "bodies/../x/00000000000000000000.bod"),
    *("bodies/standard/2026-11-23/00000000000000000000.bod.new", "previous/0/log.vkey"),
    *("previous/1/previous/1/log.vkey", "previous/1/inventory"),
    *("log/tile/0/٠٠٠", "segments/٠٠٠٠٠٠٠٠٠٠.seg"),
]  # fmt: skip


@pytest.mark.parametrize("name", OFFERED)
def test_files_of_a_ledger_are_offered(name: str) -> None:
    check_offered(name)


@pytest.mark.parametrize("name", REFUSED)
def test_nothing_else_is(name: str) -> None:
    with pytest.raises(UsageError):
        check_offered(name)


@given(st.integers(0, 63), st.integers(0, 10**15), st.integers(1, 256))
def test_every_tile_and_bundle_is_offered(level: int, number: int, width: int) -> None:
    check_offered(f"log/{tile_path(level, number, width)}")
    check_offered(f"log/{bundle_path(number, width)}")


@given(st.text())
def test_no_name_leads_out_of_the_ledger(name: str) -> None:
    try:
        check_offered(name)
    except UsageError:
        return
    assert ".." not in name
    assert not name.startswith("/")


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(b"key")
    (tmp_path / "log").mkdir()
    (tmp_path / "log" / "checkpoint").symlink_to(tmp_path / "secret")
    source = FolderSource(tmp_path)
    with pytest.raises(Exception, match="cannot be opened"):
        source.read("log/checkpoint")
    with pytest.raises(Gone):
        source.read("log.vkey")


@pytest.mark.parametrize(
    ("url", "taken"),
    [
        ("http://127.0.0.1:8080", True),
        ("http://127.8.0.1:8080", True),
        ("http://[::1]:8080", True),
        ("http://localhost:8080", True),
        ("https://llm.hospital.example", True),
        ("http://llm.hospital.example", False),
        ("http://10.0.0.7:8080", False),
        ("http://127.0.0.1.example:8080", False),
    ],
)
def test_a_key_is_sent_in_clear_to_this_machine_alone(url: str, taken: bool) -> None:
    if taken:
        RemoteSource(url, "key").close()
        return
    with pytest.raises(UsageError, match="in clear"):
        RemoteSource(url, "key")
