"""`Results`: all that one run found, as it stands in results.json."""

from __future__ import annotations

import msgspec

from rempart.bench.stats import Summary, summarise


class Scale(msgspec.Struct, frozen=True, kw_only=True):
    """How much is measured. The defaults are those of a full run."""

    rounds: int = 3
    seconds: float = 2.0
    """Of one measurement."""
    slow_seconds: float = 8.0
    """Of one that is repeated because its target is slow."""
    connections: int = 32
    rate_per_s: int = 200
    """Of the open loop; less for a target that does not reach four times as much."""
    rate_seconds: float = 4.0
    paced_steps: tuple[int, ...] = (5, 10, 25, 50, 100, 200, 400, 800, 1600)
    paced_first: int = 50
    stall_ms: float = 100.0
    ledger_callers: int = 512
    ledger_body_bytes: int = 600
    ledger_entry_bytes: int = 450
    """About what entries of exchanges have."""
    ledger_group: int = 64
    ledger_rate_per_s: int = 2_000
    """Exchanges, in the open loop."""


QUICK = Scale(rounds=1, seconds=1.0, slow_seconds=5.0, rate_seconds=2.0, paced_steps=(5, 10, 25, 50, 100, 200))


class Figure(msgspec.Struct, frozen=True, kw_only=True):
    """One figure of one contender."""

    measure: str
    contender: str
    unit: str
    values: list[float]
    """One a round."""
    summary: Summary
    notes: list[str]
    """What a reader must know to judge it."""


class Machine(msgspec.Struct, frozen=True, kw_only=True):
    processor: str
    cores: int
    kernel: str
    python: str
    file_system: str
    load_average: float
    """Of the minute before the run: what else the machine was doing."""


class Results(msgspec.Struct, frozen=True, kw_only=True):
    began: str
    seconds: float
    """The run took."""
    versions: dict[str, str]
    machine: Machine
    scale: Scale
    missing: dict[str, str]
    """Contenders without figures, and why."""
    figures: list[Figure]


class Collected:
    """Figures under way: values are added round by round."""

    def __init__(self) -> None:
        self._values: dict[tuple[str, str], list[float]] = {}
        self._units: dict[str, str] = {}
        self._notes: dict[tuple[str, str], list[str]] = {}

    def add(self, measure: str, contender: str, value: float, unit: str) -> None:
        self._units[measure] = unit
        self._values.setdefault((measure, contender), []).append(value)

    def note(self, measure: str, contender: str, text: str) -> None:
        """Once each."""
        notes = self._notes.setdefault((measure, contender), [])
        if text not in notes:
            notes.append(text)

    def last(self, measure: str, contender: str) -> float | None:
        values = self._values.get((measure, contender))
        return values[-1] if values else None

    def figures(self) -> list[Figure]:
        return [
            Figure(
                measure=measure,
                contender=contender,
                unit=self._units[measure],
                values=values,
                summary=summarise(values),
                notes=self._notes.get((measure, contender), []),
            )
            for (measure, contender), values in self._values.items()
        ]
