"""`Metrics`: what `/metrics` tells Prometheus. Labels are bounded: models of this site, outcomes, operations."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from time import perf_counter

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

from rempart.gateway.figures import Family, summed, taken
from rempart.gateway.routed import RoutingCollector
from rempart.gateway.timestamped import TimestampCollector
from rempart.gateway.witnessed import WitnessCollector
from rempart.ledger.writing.draft import LogState, Timestamped, Witnessed
from rempart.routing.ask import Figures

_LATENCY_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)
_TOKEN_S = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5)


class _Series:
    """The children of one label set, looked up once."""

    __slots__ = ("duration", "requests", "tokens_completion", "tokens_prompt", "ttft")

    def __init__(self, metrics: Metrics, model: str, operation: str, outcome: str) -> None:
        self.requests = metrics.requests.labels(model, operation, outcome)
        self.duration = metrics.duration.labels(model, operation)
        self.tokens_prompt = metrics.tokens.labels(model, "prompt")
        self.tokens_completion = metrics.tokens.labels(model, "completion")
        self.ttft = metrics.ttft.labels(model)

    def count(self, prompt: int, completion: int) -> None:
        self.tokens_prompt.inc(prompt)
        self.tokens_completion.inc(completion)


class Pace:
    """When pieces of one stream were relayed."""

    __slots__ = ("_gaps", "_metrics", "first", "last")

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._gaps: Histogram | None = None
        self.first = 0.0
        """`perf_counter` of the first piece; 0 before it."""
        self.last = 0.0
        """Of the last one so far."""

    def mark(self, model: str) -> None:
        now = perf_counter()
        if self._gaps is None:
            self.first = now
            self._gaps = self._metrics.inter_token.labels(model)
        else:
            self._gaps.observe(now - self.last)
        self.last = now


class Metrics:
    """The gateway's figures. One per process."""

    def __init__(
        self,
        ledger: Callable[[], LogState],
        witnessed: Callable[[], Witnessed] = Witnessed,
        reviewed: Callable[[], float] = lambda: math.nan,
        timestamped: Callable[[], Timestamped] = Timestamped,
        routed: Callable[[], Figures] | None = None,
    ) -> None:
        """`reviewed`: days since the last review of the ledger."""
        disable_created_metrics()  # type: ignore[no-untyped-call]
        registry = CollectorRegistry()
        self._exchanges = registry
        self._site = CollectorRegistry()
        """Of the site, whichever worker is asked; the rest are this process's own."""
        self.requests = Counter(
            "rempart_requests", "Exchanges ended.", ["model", "operation", "outcome"], registry=registry
        )
        self.refused = Counter(
            "rempart_unauthenticated", "Requests refused before any exchange existed.", ["code"], registry=registry
        )
        self.tokens = Counter("rempart_tokens", "Tokens counted.", ["model", "kind"], registry=registry)
        self.duration = Histogram(
            "rempart_exchange_seconds",
            "From the whole request to the end of the answer.",
            ["model", "operation"],
            buckets=_LATENCY_S,
            registry=registry,
        )
        self.ttft = Histogram(
            "rempart_time_to_first_token_seconds",
            "From the whole request to the first relayed piece of a stream.",
            ["model"],
            buckets=_LATENCY_S,
            registry=registry,
        )
        self.inter_token = Histogram(
            "rempart_inter_token_seconds",
            "Between relayed pieces of a stream.",
            ["model"],
            buckets=_TOKEN_S,
            registry=registry,
        )
        self.running = Gauge("rempart_exchanges_running", "Exchanges under way (the queue).", registry=registry)
        Gauge("rempart_workers", "Processes that answer.", registry=registry).set(1)
        self._gauges(ledger)
        if routed is not None:
            registry.register(RoutingCollector(routed))
        self._site.register(WitnessCollector(witnessed))
        self._site.register(TimestampCollector(timestamped))
        since_review = Gauge("rempart_ledger_review_days", "Days since the last review.", registry=self._site)
        since_review.set_function(reviewed)
        self._series: dict[tuple[str, str, str], _Series] = {}

    def _gauges(self, ledger: Callable[[], LogState]) -> None:
        facts: tuple[tuple[str, str, Callable[[LogState], float]], ...] = (
            ("rempart_ledger_entries", "Entries acknowledged.", lambda s: float(s.entries)),
            ("rempart_ledger_tree_size", "Entries under the last checkpoint.", lambda s: float(s.tree_size)),
            ("rempart_ledger_lag_seconds", "Age of the oldest entry that no checkpoint covers.", lambda s: s.lag_s),
            ("rempart_ledger_syncs", "fdatasync calls since the start.", lambda s: float(s.syncs)),
            ("rempart_ledger_failed", "1 when nothing can be recorded.", lambda s: float(bool(s.failure))),
        )
        for name, text, read in facts:
            gauge = Gauge(name, text, registry=self._site)
            gauge.set_function(lambda read=read: read(ledger()))  # type: ignore[misc]

    def series(self, model: str, operation: str, outcome: str) -> _Series:
        """The counters of one kind of exchange. `model` must be one of this site's names, or empty."""
        key = (model, operation, outcome)
        found = self._series.get(key)
        if found is None:
            found = self._series[key] = _Series(self, model, operation, outcome)
        return found

    def own(self) -> list[Family]:
        """What this process did."""
        return taken(self._exchanges)

    def text(self, elsewhere: Sequence[Sequence[Family]] = ()) -> bytes:
        """The Prometheus text exposition format 0.0.4. `elsewhere`: what other workers did."""
        exchanges = summed([self.own(), *elsewhere]) if elsewhere else self._exchanges
        return generate_latest(exchanges) + generate_latest(self._site)
