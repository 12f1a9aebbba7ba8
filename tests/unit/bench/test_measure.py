"""How measurements are stepped, repeated and judged, with a generator that is told what to see."""

from collections.abc import Callable

import pytest

from rempart.bench import measure
from rempart.bench.measure import ADDED_P50, ADDED_P99, PACED, REQUESTS, STREAMS, measure_all
from rempart.bench.plan import Load, Outcome, Target
from rempart.bench.results import Collected, Figure, Scale
from rempart.bench.servers import DIRECT, REMPART, Contender

SCALE = Scale(rounds=2, seconds=0.0)


def _contender(name: str) -> Contender:
    return Contender(
        name=name, targets={kind: Target(port=1, path="/", model=name) for kind in ("json", "stream", "paced")}
    )


def _outcome(load: Load, **changed: object) -> Outcome:
    values: dict[str, object] = {
        "seconds": 1.0,
        "answers": 10_000,
        "broken": 0,
        "problem": "",
        "events": 0,
        "cpu_share": 0.1,
        "latencies_ms": [1.0, 2.0, 3.0],
        "first_ms": [1.0],
        "longest_gap_ms": 25.0,
    }
    return Outcome(**{**values, **changed})  # type: ignore[arg-type]


def _measured(monkeypatch: pytest.MonkeyPatch, see: Callable[[Load], Outcome]) -> tuple[dict[str, Figure], list[Load]]:
    """Rempart's figures by measure, and all loads that were asked for."""
    loads: list[Load] = []

    def generate(load: Load) -> Outcome:
        loads.append(load)
        return see(load)

    monkeypatch.setattr(measure, "generate", generate)
    monkeypatch.setattr(measure, "_AFTER_S", 0.0)
    found = Collected()
    measure_all([_contender(DIRECT), _contender(REMPART)], SCALE, found, lambda _: None)
    return {figure.measure: figure for figure in found.figures() if figure.contender == REMPART}, loads


@pytest.mark.parametrize(("sustained", "told"), [(399, 200.0), (400, 400.0), (49, 25.0), (7, 5.0), (4, 0.0)])
def test_paced_streams_are_stepped_to_the_last_that_holds(
    monkeypatch: pytest.MonkeyPatch, sustained: int, told: float
) -> None:
    def see(load: Load) -> Outcome:
        stalls = load.loop == "paced" and load.connections > sustained
        return _outcome(load, longest_gap_ms=150.0 if stalls else 30.0)

    figures, _ = _measured(monkeypatch, see)
    assert figures[PACED].values == [told, told]


@pytest.mark.parametrize("bad", [{"broken": 1, "problem": "cut"}, {"answers": 0}, {"first_ms": [1500.0]}])
def test_a_stall_is_not_the_only_thing_that_does_not_count(
    monkeypatch: pytest.MonkeyPatch, bad: dict[str, object]
) -> None:
    figures, _ = _measured(monkeypatch, lambda load: _outcome(load, **(bad if load.loop == "paced" else {})))
    assert figures[PACED].values == [0.0, 0.0]


def test_a_slow_target_gets_more_time_and_a_rate_that_it_sustains(monkeypatch: pytest.MonkeyPatch) -> None:
    def see(load: Load) -> Outcome:
        slow = load.target.model == REMPART and load.loop == "closed"
        return _outcome(load, answers=80, seconds=2.0) if slow else _outcome(load)

    figures, loads = _measured(monkeypatch, see)
    assert figures[REQUESTS].values == [40.0, 40.0]
    assert sum(load.seconds == SCALE.slow_seconds for load in loads) == 2 * SCALE.rounds
    assert {load.per_s for load in loads if load.loop == "open" and load.target.model == REMPART} == {10.0}
    assert {load.per_s for load in loads if load.loop == "open" and load.target.model == DIRECT} == {10.0, 200.0}
    assert figures[ADDED_P99].notes == ["at 10 requests/s"]


def test_added_latency_is_over_the_upstream_called_directly(monkeypatch: pytest.MonkeyPatch) -> None:
    def see(load: Load) -> Outcome:
        added = 5.0 if load.target.model == REMPART else 0.0
        return _outcome(load, latencies_ms=[1.0 + added, 2.0 + added, 9.0 + 2 * added])

    figures, _ = _measured(monkeypatch, see)
    assert figures[ADDED_P50].values == [5.0, 5.0]
    assert figures[ADDED_P99].values == [10.0, 10.0]


def test_broken_answers_and_a_busy_generator_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    see = {"broken": 3, "problem": "status 500", "cpu_share": 0.95}
    figures, _ = _measured(monkeypatch, lambda load: _outcome(load, **(see if load.loop == "closed" else {})))
    for name in (REQUESTS, STREAMS):
        assert figures[name].notes == [
            "3 answers were broken: status 500",
            "the load generator was the limit: at least this",
        ]
