"""`matrix`: reports of conformance runs as the table of `docs/engines.md` (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rempart.testing.conformance import Outcome, Report

BEGIN: Final = "<!-- made by tools/engine_matrix.py -->"
END: Final = "<!-- end -->"
_CELLS: Final = {"passed": "🟩", "failed": "🟥 failed", "skipped": "🟥"}


def matrix(reports: Sequence[Report]) -> str:
    """Features down, engines across; what is not green has a number, and below the table its reason."""
    reasons: list[str] = []
    lines = [
        f"| | {' | '.join(f'{report.engine} {report.version}' for report in reports)} |",
        f"|---|{'---|' * len(reports)}",
    ]
    for row in zip(*(report.outcomes for report in reports), strict=True):
        assert len({outcome.feature for outcome in row}) == 1, "reports of one suite"
        cells = [_cell(outcome, reasons) for outcome in row]
        lines.append(f"| {row[0].feature} | {' | '.join(cells)} |")
    notes = [f"{number}. {reason}" for number, reason in enumerate(reasons, 1)]
    return "\n".join([*lines, "", *notes])


def placed(page: str, table: str) -> str:
    """The page with another table between its two marks. Raises `ValueError` when it has none."""
    before, _, rest = page.partition(BEGIN)
    _, found, after = rest.partition(END)
    if not found:
        raise ValueError("the page has no place for the matrix")
    return f"{before}{BEGIN}\n{table}\n{END}{after}"


def _cell(outcome: Outcome, reasons: list[str]) -> str:
    if outcome.state == "passed":
        return _CELLS["passed"] + (f" {outcome.seconds:.2f} s" if outcome.seconds is not None else "")
    if outcome.reason not in reasons:
        reasons.append(outcome.reason)
    return f"{_CELLS[outcome.state]} [{reasons.index(outcome.reason) + 1}]"
