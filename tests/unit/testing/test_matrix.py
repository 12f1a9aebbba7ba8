"""`rempart.testing.matrix`: the page says what the run found."""

import pytest

from rempart.testing.conformance import Outcome, Report
from rempart.testing.matrix import BEGIN, END, matrix, placed


def report(engine: str, *outcomes: Outcome) -> Report:
    return Report(engine=engine, version="1", outcomes=outcomes)


def test_what_is_not_green_has_its_reason_below() -> None:
    why = "it cannot"
    skipped = [Outcome(feature=feature, state="skipped", reason=why) for feature in ("x", "y")]
    table = matrix(
        [
            report("a", Outcome(feature="x", state="passed", seconds=0.123), Outcome(feature="y", state="passed")),
            report("b", skipped[0], Outcome(feature="y", state="failed", reason="it broke")),
            report("c", *skipped),
        ]
    )
    assert table.splitlines() == [
        "| | a 1 | b 1 | c 1 |",
        "|---|---|---|---|",
        "| x | 🟩 0.12 s | 🟥 [1] | 🟥 [1] |",
        "| y | 🟩 | 🟥 failed [2] | 🟥 [1] |",
        "",
        "1. it cannot",
        "2. it broke",
    ]


def test_the_table_stands_between_its_marks() -> None:
    page = placed(f"before\n{BEGIN}\nold\n{END}\nafter\n", "new")
    assert page == f"before\n{BEGIN}\nnew\n{END}\nafter\n"
    assert placed(page, "new") == page
    with pytest.raises(ValueError, match="no place"):
        placed("a page", "new")
