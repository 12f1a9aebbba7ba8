"""`draw`: the figures as bars, one panel a measure, as PNG and SVG."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Final

from rempart.bench import measure
from rempart.bench.report import number
from rempart.bench.results import Figure, Results
from rempart.bench.servers import DIRECT, LITELLM, LITELLM_2, NGINX, REMPART

if TYPE_CHECKING:
    from matplotlib.axes import Axes  # type: ignore[import-not-found,unused-ignore]

_COLOURS: Final = {
    REMPART: "#0b6e4f",
    LITELLM: "#c8553d",
    LITELLM_2: "#e29578",
    NGINX: "#8d99ae",
    DIRECT: "#cfd6de",
}
_PANELS: Final = (
    *(measure.REQUESTS, measure.STREAMS, measure.PACED),
    *(measure.ADDED_P50, measure.ADDED_P99, measure.STEADY),
)
_BETTER: Final = {True: "more is better", False: "less is better"}
_MORE: Final = frozenset({measure.REQUESTS, measure.STREAMS, measure.PACED})


class ChartsMissing(Exception):
    """matplotlib is not installed."""


def draw(results: Results, out: Path) -> list[Path]:
    """Write gateway.png and gateway.svg into `out`. Raises `ChartsMissing`."""
    try:
        from matplotlib.figure import Figure as Canvas  # type: ignore[import-not-found,unused-ignore]
    except ImportError as error:
        raise ChartsMissing("matplotlib is not installed: no charts") from error
    canvas = Canvas(figsize=(13, 6.5), layout="constrained")
    axes = canvas.subplots(2, 3)
    for panel, axis in zip(_PANELS, axes.flat, strict=True):
        _panel(axis, panel, [figure for figure in results.figures if figure.measure == panel])
    machine = results.machine
    canvas.suptitle(
        f"One run, side by side: {machine.cores} cores, {results.scale.connections} connections; "
        f"median of {results.scale.rounds}, whiskers from least to most",
        fontsize=11,
    )
    written = [out / "gateway.png", out / "gateway.svg"]
    for path in written:
        canvas.savefig(path, dpi=160)
    return written


def _panel(axis: Axes, name: str, figures: Sequence[Figure]) -> None:
    names = [figure.contender for figure in figures]
    medians = [figure.summary.median for figure in figures]
    below = [figure.summary.median - figure.summary.least for figure in figures]
    above = [figure.summary.most - figure.summary.median for figure in figures]
    colours = [_COLOURS[one] for one in names]
    axis.barh(names, medians, xerr=[below, above], color=colours, ecolor="#444444", capsize=3)
    axis.invert_yaxis()
    for at, figure in enumerate(figures):
        text = number(figure.summary.median)
        axis.annotate(text, (figure.summary.most, at), xytext=(6, 0), textcoords="offset points", va="center")
    axis.margins(x=0.2)
    unit = f"{figures[0].unit}; " if figures else ""
    axis.set_title(f"{name}\n({unit}{_BETTER[name in _MORE]})", fontsize=10)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(axis="y", length=0)
