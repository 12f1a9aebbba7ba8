"""The measurement of the search index runs and tells what it measured."""

import json

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
    assert found["entries"] == 300
    assert found["bytes"] > 0
    phrase = next(one for one in found["queries"] if one["kind"] == "phrase of three")
    assert phrase["found"] >= 1
    absent = next(one for one in found["queries"] if one["kind"] == "word that is not there")
    assert absent["found"] == 0
