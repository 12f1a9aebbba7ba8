"""The index: what is found, what is not, and what its files show."""

import os
import random
import re
from pathlib import Path

import pytest

from rempart import limits
from rempart.errors import DirectoryLocked, IndexDamaged, LedgerUnavailable
from rempart.ledger.search import index as index_module
from rempart.ledger.search import manifest as manifests
from rempart.ledger.search.blocks import Reading
from rempart.ledger.search.build import build
from rempart.ledger.search.index import Index
from rempart.ledger.search.query import parse
from rempart.ledger.search.terms import TermKeys
from rempart.ledger.search.writer import IndexWriter
from rempart.testing.search import Log, entry, key, mentioned, run_files

SMALL = Log(
    [
        entry(3, "Refund the invoice", "of March", actor="a_1", model="Qwen3", outcome="ok"),
        entry(4, "the March refund", actor="a_2", outcome="refused", finding=["iban", "email"], hour=17),
        (5, {"type": "stop"}, ()),
        entry(70_000, "credit note", day=2, actor="a_1", outcome="ok"),
        entry(70_001, "note the credit", "note", day=2, hour=23, **{"class": "long"}),
        entry(200_000, "Été", day=3, outcome="ok"),
    ]
)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    SMALL.build(tmp_path / "index")
    return tmp_path / "index"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("refund", (4, 3)),
        ("refund invoice", (3,)),
        ('"march refund"', (4,)),
        ('"refund of"', ()),
        ('"credit note"', (70_000,)),
        ("ete", (200_000,)),
        ("actor:a_1", (70_000, 3)),
        ("model:qwen3", (3,)),
        ("outcome:ok outcome:refused refund", (4, 3)),
        ("finding:email", (4,)),
        ("class:long", (70_001,)),
        ("class:long note", (70_001,)),
        ("after:2026-11-02", (200_000, 70_001, 70_000)),
        ("after:2026-11-02T23", (200_000, 70_001)),
        ("before:2026-11-02", (4, 3)),
        ("before:2026-11-01T17", (3,)),
        ("note after:2026-11-02 before:2026-11-02T23", (70_000,)),
        ("absent", ()),
        ("class:absent", ()),
    ],
)
def test_what_was_said_is_found_newest_first(directory: Path, text: str, expected: tuple[int, ...]) -> None:
    found = SMALL.search(directory, text)
    assert found.entries == expected == SMALL.scan(text)
    assert (found.next, found.destroyed, found.missing, found.unreadable) == (None, 0, 0, 0)
    assert found.mark == 200_001


def test_the_limit_stops_a_search_which_says_where_to_go_on(directory: Path) -> None:
    found = SMALL.search(directory, "outcome:ok", limit=2)
    assert (found.entries, found.next) == ((200_000, 70_000), 4)
    found = SMALL.search(directory, "outcome:ok", limit=2, below=found.next)
    assert (found.entries, found.next) == ((3,), None)
    found = SMALL.search(directory, "outcome:ok", limit=3)
    assert (found.entries, found.next) == ((200_000, 70_000, 3), None)


def test_an_index_that_was_never_built_finds_nothing(tmp_path: Path) -> None:
    found = SMALL.search(tmp_path, "refund")
    assert (found.entries, found.mark) == ((), 0)


def test_a_build_goes_on_where_the_last_one_ended(tmp_path: Path) -> None:
    log = Log([entry(number, f"w{number} all") for number in range(10)])
    for stop in (0, 3, 4, 10):
        part = Log([(index, *rest) for index, rest in log.entries.items() if index < stop])
        part.build(tmp_path)
        assert log.search(tmp_path, "all").entries == tuple(range(stop - 1, -1, -1))
        assert log.search(tmp_path, "all").mark == stop


def test_runs_of_one_window_are_merged(tmp_path: Path) -> None:
    log = Log([entry(number, f"w{number} all") for number in range(40)])
    for number in range(40):
        with IndexWriter(tmp_path, key) as writer:
            writer.add(*entry(number, f"w{number} all"))
            writer.commit(number + 1)
    assert len(run_files(tmp_path)) <= 6
    assert log.search(tmp_path, "all").entries == log.scan("all")
    assert log.search(tmp_path, "w7").entries == (7,)


def test_memory_is_bounded_by_runs_that_are_written_before_the_commit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "index_memory_bytes", 5000)
    log = Log([entry(number, f"w{number} all") for number in range(50)])
    with IndexWriter(tmp_path, key) as writer:
        for one in log.follow(0):
            writer.add(*one)
        assert len(run_files(tmp_path)) > 1
        assert log.search(tmp_path, "all").entries == ()
        writer.commit(50)
    assert log.search(tmp_path, "all").entries == log.scan("all")


def test_a_partition_whose_key_is_gone_is_skipped_and_counted(directory: Path) -> None:
    def lost(retention: str, bucket: str) -> bytes | None:
        return None if bucket == "2026-11-02" else key(retention, bucket)

    found = Index(directory, lost).search(parse("note"), limit=10, texts=SMALL.texts)
    assert (found.entries, found.destroyed) == ((), 2)
    with IndexWriter(directory, lost) as writer:
        writer.add(*entry(200_001, "note", day=2))
        writer.commit(200_002)
        assert writer.keyless == 1
        assert writer.erase([70_000]) == 0
        assert writer.check() == 2


def test_an_entry_with_too_many_words_keeps_its_first_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "index_words_max", 10)
    log = Log([entry(0, "a b c", " ".join(f"w{number}" for number in range(100)), actor="a_1")])
    built = build(tmp_path, key, log.follow)
    assert built.cut == 1
    assert log.search(tmp_path, "a b c w0 actor:a_1").entries == (0,)
    assert log.search(tmp_path, "w99").entries == ()


def test_a_phrase_is_confirmed_only_by_what_can_be_read(tmp_path: Path) -> None:
    log = Log([entry(number, "one two") for number in range(3)])
    log.build(tmp_path)
    log.erased.add(1)
    found = log.search(tmp_path, '"one two"')
    assert (found.entries, found.unreadable) == ((2, 0), 1)


def test_a_phrase_with_many_candidates_is_looked_for_in_several_steps(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "phrase_candidates_max", 3)
    log = Log([entry(number, "one two" if number in (1, 8) else "two one") for number in range(10)])
    log.build(tmp_path)
    steps: list[tuple[tuple[int, ...], int | None]] = []
    below: int | None = 10
    while below is not None:
        found = log.search(tmp_path, '"one two"', below=below)
        steps.append((found.entries, below := found.next))
    assert steps == [((8,), 7), ((), 4), ((1,), 1), ((), None)]


# What the files show.


def test_no_word_no_pseudonym_and_no_name_of_a_term_stands_in_the_files(tmp_path: Path) -> None:
    log = Log([entry(number, f"confidential surname{number}", actor=f"a_{number:032x}") for number in range(300)])
    log.build(tmp_path)
    files = b"".join(path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    names = TermKeys(key("standard", "2026-11-01"))
    for term in ("confidential", "surname7", f"actor:a_{7:032x}", "all:", "hour:2026-11-01T00", "2026-11-01T00:30"):
        assert term.encode() not in files
        assert names.name(term).to_bytes(8, "little") not in files
        assert names.name(term).to_bytes(8, "big") not in files


def test_two_corpora_of_one_size_with_other_frequencies_have_files_of_the_same_sizes(tmp_path: Path) -> None:
    draw = random.Random(2)
    even = [entry(number, " ".join(f"a{(number * 8 + k) % 400}" for k in range(8))) for number in range(4000)]
    # The same number of different words and of postings, but 7 words are in nearly every entry.
    rest = [f"b{number}" for number in range(393)]
    skewed = [
        entry(
            number, " ".join([f"c{k}" for k in range(7)] + [rest[number % 393] if number < 3930 else draw.choice(rest)])
        )
        for number in range(4000)
    ]
    sizes = []
    for name, entries in (("even", even), ("skewed", skewed)):
        Log(entries).build(tmp_path / name)
        sizes.append([(path.name, path.stat().st_size) for path in run_files(tmp_path / name)])
        manifest = (tmp_path / name / "manifest.json").read_bytes()
        sizes[-1].append(("manifest", len(manifest)))
    assert sizes[0] == sizes[1]


def test_directories_and_files_are_the_owners_alone(directory: Path) -> None:
    for path in [directory, *directory.rglob("*")]:
        assert path.stat().st_mode & 0o077 == 0, path


# Erasure.


def test_erasure_leaves_no_trace_under_the_live_key_and_no_old_bytes(tmp_path: Path) -> None:
    log = Log([entry(number, f"all w{number}", day=1 + number // 500) for number in range(1000)])
    log.build(tmp_path)
    old = {path: (os.open(path, os.O_RDONLY), path.read_bytes()) for path in run_files(tmp_path)}
    gone = {3, 4, 499, 777}
    with IndexWriter(tmp_path, key) as writer:
        assert writer.erase(gone) == 2
        assert writer.erase(gone) == 0
    assert mentioned(tmp_path) == set(range(1000)) - gone
    assert log.search(tmp_path, "w777").entries == ()
    for path, (descriptor, before) in old.items():
        assert not path.exists()
        assert os.pread(descriptor, len(before), 0) == bytes(len(before))
        os.close(descriptor)


def test_erasure_of_all_entries_of_a_run_leaves_no_run(tmp_path: Path) -> None:
    Log([entry(0, "one"), entry(1, "two")]).build(tmp_path)
    with IndexWriter(tmp_path, key) as writer:
        writer.erase([0, 1])
    assert run_files(tmp_path) == []


def test_what_is_not_committed_cannot_be_erased_and_entries_ascend(tmp_path: Path) -> None:
    with IndexWriter(tmp_path, key) as writer:
        writer.add(*entry(5, "one"))
        with pytest.raises(ValueError, match="committed"):
            writer.erase([5])
        with pytest.raises(ValueError, match="ascending"):
            writer.add(*entry(5, "one"))


def test_an_expired_partition_is_dropped_with_its_directory(directory: Path) -> None:
    with IndexWriter(directory, key) as writer:
        writer.drop("standard", "2026-11-01")
    assert not (directory / "standard" / "2026-11-01").exists()
    assert SMALL.search(directory, "refund").entries == ()
    assert SMALL.search(directory, "note").entries == (70_001, 70_000)


# Damage.


def damage(path: Path, place: int = 0) -> None:
    data = bytearray(path.read_bytes())
    data[place * limits.index_block_bytes + 100] ^= 1
    path.write_bytes(data)


def test_a_damaged_block_is_a_clear_error_and_is_built_anew(directory: Path) -> None:
    damage(run_files(directory)[1])
    with pytest.raises(IndexDamaged, match="index of standard/2026-11-01 is damaged") as caught:
        SMALL.search(directory, "refund")
    assert "rempart ledger index --check" in caught.value.hint
    built = build(directory, key, SMALL.follow, check=True)
    assert "standard/2026-11-01" in built.damaged[0]
    assert SMALL.search(directory, "refund").entries == (4, 3)
    assert SMALL.search(directory, "refund").missing == 0


def test_a_file_that_is_gone_is_damage_too(directory: Path) -> None:
    run_files(directory)[1].unlink()
    with pytest.raises(IndexDamaged, match="cannot be opened"):
        SMALL.search(directory, "refund")
    SMALL.build(directory, check=True)
    assert SMALL.search(directory, "refund").entries == (4, 3)


def test_what_is_missing_until_it_is_built_anew_is_counted(directory: Path) -> None:
    damage(run_files(directory)[1])
    with IndexWriter(directory, key) as writer:
        writer.check()
        assert len(writer.gaps) == 1
    assert SMALL.search(directory, "refund").missing == 1
    assert SMALL.search(directory, "refund class:long").missing == 0
    SMALL.build(directory)
    assert SMALL.search(directory, "refund").entries == (4, 3)


def test_damage_met_while_merging_or_erasing_leads_to_a_rebuild(tmp_path: Path) -> None:
    log = Log([entry(number, f"w{number} all") for number in range(3)])
    Log(list(log.follow(0))[:2]).build(tmp_path)
    damage(run_files(tmp_path)[0])
    built = build(tmp_path, key, log.follow)
    assert len(built.damaged) == 1
    assert log.search(tmp_path, "all").entries == (2, 1, 0)
    damage(run_files(tmp_path)[0])
    log.erased.add(1)
    with IndexWriter(tmp_path, key) as writer:
        assert writer.erase([1]) == 1
    assert run_files(tmp_path) == []
    log.build(tmp_path)
    assert log.search(tmp_path, "all").entries == (2, 0)


def test_a_damaged_manifest_leads_to_a_whole_rebuild(directory: Path) -> None:
    path = manifests.manifest_path(directory)
    path.write_bytes(path.read_bytes().replace(b'"mark":2', b'"mark":3'))
    with pytest.raises(IndexDamaged, match="list of the search index's files"):
        SMALL.search(directory, "refund")
    built = build(directory, key, SMALL.follow)
    assert len(built.damaged) == 1
    assert SMALL.search(directory, "refund").entries == (4, 3)


def test_an_index_of_a_later_release_is_left_alone(directory: Path) -> None:
    manifests.write(directory, manifests.Manifest(v=2))
    before = run_files(directory)
    with pytest.raises(LedgerUnavailable, match="later release"):
        SMALL.build(directory)
    assert run_files(directory) == before


# Several at once.


def test_a_second_writer_waits_and_then_gives_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "index_lock_s", 0.0)
    with IndexWriter(tmp_path, key), pytest.raises(DirectoryLocked):
        IndexWriter(tmp_path, key)
    IndexWriter(tmp_path, key).close()


def test_a_search_begins_again_when_its_runs_are_replaced_under_it(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, seen = index_module.open_run, []

    def replaced(*arguments: object) -> object:
        if not seen:
            seen.append(arguments)
            with IndexWriter(directory, key) as writer:
                writer.erase([3])
        return real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(index_module, "open_run", replaced)
    assert SMALL.search(directory, "refund").entries == (4,)


def test_a_search_begins_again_when_a_file_that_it_reads_is_overwritten(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, seen = Reading.find, []

    def overwritten(reading: Reading, name: int) -> object:
        if not seen:
            seen.append(name)
            with IndexWriter(directory, key) as writer:
                writer.erase([200_000, 4])
        return real(reading, name)

    monkeypatch.setattr(Reading, "find", overwritten)
    assert SMALL.search(directory, "outcome:ok").entries == (70_000, 3)


def test_names_of_classes_that_would_leave_the_directory_are_refused() -> None:
    for name in ("..", "a/b", "", "x" * 65, "é"):
        with pytest.raises(ValueError, match="partition"):
            manifests.partition_of(name, "2026-11-01")
    with pytest.raises(ValueError, match="partition"):
        manifests.partition_of("standard", "../2026-11")


def test_the_manifest_says_nothing_that_the_names_of_files_do_not(directory: Path) -> None:
    text = manifests.manifest_path(directory).read_text()
    assert set(re.findall(r'"([a-z_]+)":', text)) == {
        *("v", "generation", "mark", "next_number", "runs", "gaps", "window", "number", "partition"),
        *("retention", "bucket"),
    }
