"""`WitnessCollector.collect`: what the witnesses of this log did, for `/metrics`. Labels are the policy's names."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from rempart.ledger.writing.draft import Witnessed


class WitnessCollector(Collector):
    """Reads the state when it is asked."""

    def __init__(self, witnessed: Callable[[], Witnessed]) -> None:
        self._witnessed = witnessed

    def collect(self) -> Iterator[Metric]:
        state = self._witnessed()
        yield GaugeMetricFamily(
            "rempart_ledger_witnessed_size", "Entries under the newest checkpoint with a quorum.", value=state.size
        )
        failures = CounterMetricFamily(
            "rempart_ledger_witness_failures", "Times that a witness did not cosign.", labels=["witness"]
        )
        for witness, count in state.failures.items():
            failures.add_metric([witness], count)
        yield failures
