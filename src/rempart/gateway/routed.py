"""`RoutingCollector.collect`: what this process routed, for `/metrics`. Labels are engines and models of this site."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from rempart.routing.ask import Figures


class RoutingCollector(Collector):
    """Reads the figures when it is asked. Those of several workers add up."""

    def __init__(self, figures: Callable[[], Figures]) -> None:
        self._figures = figures

    def collect(self) -> Iterator[Metric]:
        found = self._figures()
        yield GaugeMetricFamily("rempart_queue_length", "Exchanges that wait for an engine.", value=found.waiting)
        outstanding = GaugeMetricFamily(
            "rempart_engine_exchanges", "Exchanges that the engine has now.", labels=["engine"]
        )
        breakers = GaugeMetricFamily(
            "rempart_engine_breaker",
            "Workers whose breaker of the engine is in that state.",
            labels=["engine", "state"],
        )
        for engine, state in found.engines.items():
            outstanding.add_metric([engine], state.outstanding)
            for name in ("closed", "half-open", "open"):
                breakers.add_metric([engine, name], float(name == state.breaker))
        yield outstanding
        yield breakers
        turned_away = {(why,): count for why, count in found.turned_away.items()}
        text = "Exchanges that the queue did not take, or kept too long."
        yield _counter("rempart_queue_turned_away", text, ["why"], turned_away)
        retries = {(model,): count for model, count in found.retries.items()}
        text = "Exchanges handed to another engine after one failed."
        yield _counter("rempart_retries", text, ["model"], retries)
        yield _counter("rempart_fallbacks", "Exchanges that another model answered.", ["model", "by"], found.fallbacks)
        yield _counter("rempart_routed", "Exchanges routed, by what chose the engine.", ["model", "why"], found.choices)
        yield _counter(
            "rempart_prefix_blocks",
            "Blocks of prompts asked, and matched by the engine that got them.",
            ["model", "kind"],
            found.blocks,
        )


def _counter(
    name: str, text: str, labels: list[str], counts: Mapping[tuple[str], int] | Mapping[tuple[str, str], int]
) -> Metric:
    family = CounterMetricFamily(name, text, labels=labels)
    for values, count in counts.items():
        family.add_metric(list(values), count)
    return family
