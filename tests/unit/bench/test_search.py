"""The measurement of the search index runs and tells what it measured."""

import json
from pathlib import Path

from click.testing import CliRunner

from rempart.bench.search import main

SMALL = ["--entries", "300", "--days", "3", "--vocabulary", "1000", "--rounds", "2"]


def test_a_small_run_prints_all_figures() -> None:
    shown = CliRunner().invoke(main, SMALL).output
    assert "300 entries of 50 words over 3 days" in shown
    for kind in ("rare word", "common word", "two words", "word and field", "phrase of three", "all of these"):
        assert kind in shown


def test_figures_as_json_are_whole() -> None:
    found = json.loads(CliRunner().invoke(main, [*SMALL, "--json"]).stdout)
    assert found["built"]["entries"] == 300
    assert found["built"]["build_cpu_s"] > 0
    assert found["bytes"] > 0
    phrase = next(one for one in found["queries"] if one["kind"] == "phrase of three")
    assert phrase["found"] >= 1
    absent = next(one for one in found["queries"] if one["kind"] == "word that is not there")
    assert absent["found"] == 0


def test_a_kept_index_is_asked_again_and_not_built(tmp_path: Path) -> None:
    kept = [*SMALL, "--keep", str(tmp_path / "kept"), "--json"]
    first = json.loads(CliRunner().invoke(main, kept).stdout)
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "kept").rglob("*")}
    again = json.loads(CliRunner().invoke(main, kept).stdout)
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "kept").rglob("*")} == before
    assert (first["asked_again"], again["asked_again"]) == (False, True)
    assert again["built"] == first["built"]
    assert [one["found"] for one in again["queries"]] == [one["found"] for one in first["queries"]]
    assert "; an earlier run" in CliRunner().invoke(main, kept[:-1]).output


def test_a_kept_index_of_another_corpus_is_not_asked(tmp_path: Path) -> None:
    CliRunner().invoke(main, [*SMALL, "--keep", str(tmp_path)])
    refused = CliRunner().invoke(main, ["--entries", "301", *SMALL[2:], "--keep", str(tmp_path)])
    assert refused.exit_code == 2
    assert "--entries 300 --days 3 --vocabulary 1000" in refused.output


def test_a_directory_with_something_else_is_not_built_in(tmp_path: Path) -> None:
    (tmp_path / "index").mkdir()
    refused = CliRunner().invoke(main, [*SMALL, "--keep", str(tmp_path)])
    assert refused.exit_code == 2
    assert list((tmp_path / "index").iterdir()) == []
    (tmp_path / "built.json").write_bytes(b"{")
    assert "damaged" in CliRunner().invoke(main, [*SMALL, "--keep", str(tmp_path)]).output
