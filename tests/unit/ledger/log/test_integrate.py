"""`rempart.ledger.log.integrate`: the log on disk, also when a crash comes between two of its writes."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from rempart.errors import LedgerCorrupt
from rempart.ledger.log import integrate
from rempart.ledger.log.checkpoint import Checkpoint, Signer
from rempart.ledger.log.integrate import Integrator
from rempart.ledger.log.merkle import EMPTY_ROOT, leaf_hash, root_of
from rempart.ledger.log.tiles import decode_bundle, decode_tile, encode_bundle

SIGNER = Signer("rempart.test/log", bytes(32))
# What a batch leaves: a partial tile only; the first full tile; more than one; just full.
BATCHES = [(0, 1), (0, 255), (0, 256), (0, 600), (100, 50), (100, 156), (100, 300), (256, 1), (255, 2), (300, 512)]


def entries(first: int, count: int) -> list[bytes]:
    return [b'{"n":%d}' % number for number in range(first, first + count)]


def root(size: int) -> bytes:
    return root_of([leaf_hash(entry) for entry in entries(0, size)])


def files(directory: Path) -> dict[str, bytes]:
    return {str(path.relative_to(directory)): path.read_bytes() for path in directory.rglob("*") if path.is_file()}


def grown(directory: Path, size: int) -> Integrator:
    log = Integrator.open(directory, SIGNER)
    if size:
        log.add(0, entries(0, size))
    return log


def test_a_new_log_has_the_checkpoint_of_the_empty_tree(tmp_path: Path) -> None:
    log = Integrator.open(tmp_path / "log", SIGNER)
    assert (log.head.size, log.head.root) == (0, EMPTY_ROOT)
    checkpoint = SIGNER.verifier.open((tmp_path / "log" / "checkpoint").read_bytes())
    assert (checkpoint.size, checkpoint.root) == (0, EMPTY_ROOT)
    assert list(files(tmp_path / "log")) == ["checkpoint"]


@pytest.mark.parametrize(("before", "count"), BATCHES)
def test_the_head_and_the_checkpoint_cover_what_was_added(tmp_path: Path, before: int, count: int) -> None:
    log = grown(tmp_path, before)
    head = log.add(before, entries(before, count))
    assert head == log.head
    assert (head.size, head.root) == (before + count, root(before + count))
    checkpoint = SIGNER.verifier.open((tmp_path / "checkpoint").read_bytes())
    assert (checkpoint.size, checkpoint.root) == (head.size, head.root)


def test_tiles_and_bundles_hold_the_entries(tmp_path: Path) -> None:
    grown(tmp_path, 600)
    assert sorted(files(tmp_path)) == [
        "checkpoint",
        "tile/0/000",
        "tile/0/001",
        "tile/0/002.p/88",
        "tile/1/000.p/2",
        "tile/entries/000",
        "tile/entries/001",
        "tile/entries/002.p/88",
    ]
    hashes = [leaf_hash(entry) for entry in entries(0, 600)]
    found = files(tmp_path)
    assert decode_tile(found["tile/0/001"], 256) == hashes[256:512]
    assert decode_tile(found["tile/0/002.p/88"], 88) == hashes[512:]
    assert decode_tile(found["tile/1/000.p/2"], 2) == [root_of(hashes[:256]), root_of(hashes[256:512])]
    assert decode_bundle(found["tile/entries/000"], 256) == entries(0, 256)
    assert decode_bundle(found["tile/entries/002.p/88"], 88) == entries(512, 88)


def test_partial_tiles_go_when_the_full_one_is_there(tmp_path: Path) -> None:
    log = grown(tmp_path, 100)
    log.add(100, entries(100, 100))
    assert {"tile/0/000.p/100", "tile/0/000.p/200", "tile/entries/000.p/200"} <= files(tmp_path).keys()
    log.add(200, entries(200, 56))
    assert sorted(files(tmp_path)) == ["checkpoint", "tile/0/000", "tile/1/000.p/1", "tile/entries/000"]


def test_what_is_added_in_any_parts_leaves_the_same_tiles(tmp_path: Path) -> None:
    log = grown(tmp_path / "parts", 0)
    for first, count in ((0, 1), (1, 254), (255, 2), (257, 255), (512, 1), (513, 0)):
        log.add(first, entries(first, count))
    grown(tmp_path / "once", 513)
    once, parts = files(tmp_path / "once"), files(tmp_path / "parts")
    assert {name: parts[name] for name in once} == once
    assert all(name.startswith("tile/1/000.p/") for name in parts.keys() - once.keys())


def test_nothing_unfinished_is_left(tmp_path: Path) -> None:
    log = grown(tmp_path, 300)
    log.add(300, entries(300, 300))
    assert not list(tmp_path.rglob("*.new"))


@pytest.mark.parametrize("first", [0, 9, 11])
def test_entries_are_added_without_a_gap(tmp_path: Path, first: int) -> None:
    log = grown(tmp_path, 10)
    with pytest.raises(LedgerCorrupt, match="cannot follow"):
        log.add(first, [b"{}"])


def test_a_log_opened_again_goes_on(tmp_path: Path) -> None:
    grown(tmp_path, 300)
    log = Integrator.open(tmp_path, SIGNER)
    assert (log.head.size, log.head.root) == (300, root(300))
    assert log.add(300, entries(300, 400)).root == root(700)


# A crash.


@pytest.mark.parametrize(("before", "count"), BATCHES)
def test_a_crash_between_tiles_and_checkpoint_changes_nothing(tmp_path: Path, before: int, count: int) -> None:
    """The tiles of the batch are there, the checkpoint is the one before: the same entries write the same bytes."""
    log = grown(tmp_path / "log", before)
    shutil.copytree(tmp_path / "log", tmp_path / "crashed")
    log.add(before, entries(before, count))
    for name, data in files(tmp_path / "log").items():
        if name != "checkpoint":
            (tmp_path / "crashed" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "crashed" / name).write_bytes(data)
    again = Integrator.open(tmp_path / "crashed", SIGNER)
    assert (again.head.size, again.head.root) == (before, root(before))
    assert again.add(before, entries(before, count)) == log.head
    assert files(tmp_path / "crashed") == files(tmp_path / "log")


@pytest.mark.parametrize("more", [0, 1, 300])
def test_after_a_crash_more_entries_may_follow_at_once(tmp_path: Path, more: int) -> None:
    log = grown(tmp_path / "log", 200)
    shutil.copy(tmp_path / "log" / "checkpoint", tmp_path / "before")
    shutil.copytree(tmp_path / "log" / "tile", tmp_path / "tiles")
    log.add(200, entries(200, 10))
    shutil.copy(tmp_path / "before", tmp_path / "log" / "checkpoint")
    again = Integrator.open(tmp_path / "log", SIGNER)
    assert again.add(200, entries(200, 10 + more)).root == root(210 + more)
    assert Integrator.open(tmp_path / "log", SIGNER).head == again.head


def test_a_failed_write_is_followed_by_a_new_beginning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    log = grown(tmp_path, 200)
    with monkeypatch.context() as broken:

        def fails(found: dict[Path, bytes], mode: int = 0) -> None:
            raise OSError

        broken.setattr(integrate, "replace_durably", fails)
        with pytest.raises(OSError):  # noqa: PT011 -- as it comes
            log.add(200, entries(200, 100))
    log = log.reopen()
    assert (log.head.size, log.head.root) == (200, root(200))
    assert log.add(200, entries(200, 100)).root == root(300)


def test_partial_tiles_left_by_a_crash_after_the_checkpoint_go_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = grown(tmp_path, 200)
    with monkeypatch.context() as crash:
        crash.setattr(integrate, "remove_partials", lambda directory: None)
        log.add(200, entries(200, 100))
    again = Integrator.open(tmp_path, SIGNER)
    again.add(300, entries(300, 1))
    assert not (tmp_path / "tile" / "0" / "000.p").exists()
    assert not (tmp_path / "tile" / "entries" / "000.p").exists()


# Damage.


@pytest.mark.parametrize("name", ["tile/0/001.p/44", "tile/1/000.p/1", "tile/entries/001.p/44"])
def test_a_file_of_the_edge_that_is_missing_is_told(tmp_path: Path, name: str) -> None:
    grown(tmp_path, 300)
    (tmp_path / name).unlink()
    with pytest.raises(LedgerCorrupt, match="missing"):
        Integrator.open(tmp_path, SIGNER)


@pytest.mark.parametrize("name", ["tile/0/001.p/44", "tile/1/000.p/1", "checkpoint"])
@pytest.mark.parametrize("cut", [0, 1])
def test_a_damaged_edge_is_refused(tmp_path: Path, name: str, cut: int) -> None:
    grown(tmp_path, 300)
    data = bytearray((tmp_path / name).read_bytes())
    data[20] ^= 1
    (tmp_path / name).write_bytes(data[: len(data) - 2 * cut])
    with pytest.raises(LedgerCorrupt):
        Integrator.open(tmp_path, SIGNER)


def test_a_damaged_partial_bundle_is_not_written_on(tmp_path: Path) -> None:
    """Else the full bundle would hold what no leaf stands for."""
    grown(tmp_path, 44)
    wrong = encode_bundle([*entries(0, 43), b'{"n":99}'])
    (tmp_path / "tile" / "entries" / "000.p" / "44").write_bytes(wrong)
    with pytest.raises(LedgerCorrupt):
        Integrator.open(tmp_path, SIGNER).add(44, entries(44, 212))


@pytest.mark.parametrize("signer", [Signer("rempart.test/log", bytes(31) + b"\x01"), Signer("other", bytes(32))])
def test_the_log_of_another_key_or_name_is_refused(tmp_path: Path, signer: Signer) -> None:
    grown(tmp_path, 3)
    with pytest.raises(LedgerCorrupt):
        Integrator.open(tmp_path, signer)


def test_a_checkpoint_of_another_origin_is_refused(tmp_path: Path) -> None:
    grown(tmp_path, 0)
    foreign = Checkpoint("another.test/log", 0, EMPTY_ROOT)
    (tmp_path / "checkpoint").write_bytes(SIGNER.sign(foreign))
    with pytest.raises(LedgerCorrupt, match="another log"):
        Integrator.open(tmp_path, SIGNER)
