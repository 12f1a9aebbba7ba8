"""`report`: the results as text, one table a measure (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rempart.bench.results import Figure, Results
from rempart.bench.servers import REMPART
from rempart.bench.stats import Summary, ratio

_HEADS: Final = ("", "median", "least – most", "Rempart ÷ it", "notes")
_LOADED: Final = 0.25


def report(results: Results) -> str:
    """Markdown, aligned for a terminal."""
    machine = results.machine
    versions = ", ".join(f"{name} {version}" for name, version in results.versions.items())
    head = [
        f"{machine.processor}, {machine.cores} cores, Linux {machine.kernel}, Python {machine.python}, "
        f"ledger on {machine.file_system}",
        f"{versions}",
        f"{results.scale.rounds} rounds of {results.scale.seconds:g} s, {results.scale.connections} connections, "
        f"{results.began}, took {results.seconds:.0f} s",
    ]
    if machine.load_average > _LOADED:
        head.append(
            f"The machine was busy with other things: load average {machine.load_average:.2f} before the run. "
            "Ratios hold better than figures."
        )
    parts = ["\n".join(head)]
    for measure in dict.fromkeys(figure.measure for figure in results.figures):
        rows = [figure for figure in results.figures if figure.measure == measure]
        unit = f" ({rows[0].unit})" if rows[0].unit else ""
        left = results.missing if len(rows) > 1 else {}
        parts.append(f"{measure}{unit}\n\n{_table(rows, left)}")
    return "\n\n".join(parts) + "\n"


def _table(rows: Sequence[Figure], missing: dict[str, str]) -> str:
    ours = next((row.summary for row in rows if row.contender == REMPART), None)
    cells = [_HEADS]
    for row in rows:
        cells.append(
            (
                row.contender,
                number(row.summary.median),
                f"{number(row.summary.least)} – {number(row.summary.most)}",
                _times(ours, row),
                "; ".join(row.notes),
            )
        )
    cells += [(name, "none", "", "", why) for name, why in missing.items()]
    widths = [max(len(row[at]) for row in cells) for at in range(len(_HEADS))]
    lines = [_line(row, widths) for row in cells]
    return "\n".join([lines[0], _line(["-" * width for width in widths], widths), *lines[1:]])


def _times(ours: Summary | None, row: Figure) -> str:
    if ours is None or row.contender == REMPART or row.summary.median <= 0:
        return ""
    times = ratio(ours, row.summary)
    return "" if times is None else f"{number(times)}×"


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    aligned = [
        cell.rjust(width) if 0 < at < len(cells) - 1 else cell.ljust(width)
        for at, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return f"| {' | '.join(aligned)} |"


def number(value: float) -> str:
    """Three significant digits, whole from a hundred on."""
    if abs(value) >= 100:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 10 else f"{value:.2f}"
