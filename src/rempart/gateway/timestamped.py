"""`TimestampCollector.collect`: what the time-stamping authority did for this log, for `/metrics`."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from rempart.ledger.writing.draft import Timestamped


class TimestampCollector(Collector):
    """Reads the state when it is asked."""

    def __init__(self, timestamped: Callable[[], Timestamped]) -> None:
        self._timestamped = timestamped

    def collect(self) -> Iterator[Metric]:
        state = self._timestamped()
        yield GaugeMetricFamily(
            "rempart_ledger_timestamped_size", "Entries under the newest time-stamped checkpoint.", value=state.size
        )
        yield GaugeMetricFamily(
            "rempart_ledger_timestamp_seconds", "When it was stamped, since 1970; 0 before the first.", value=state.time
        )
        yield CounterMetricFamily("rempart_ledger_timestamps", "Time stamps since the start.", value=state.stamps)
        yield CounterMetricFamily(
            "rempart_ledger_timestamp_failures", "Times that no time stamp came that holds.", value=state.failures
        )
