"""`rempart.gateway.figures`: figures of several processes as those of one."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, disable_created_metrics, generate_latest

from rempart.gateway.figures import Family, merged, summed, taken


class Process:
    def __init__(self, *models: str, running: int = 0) -> None:
        disable_created_metrics()
        self.registry = CollectorRegistry()
        counter = Counter("asked", "Asked.", ["model"], registry=self.registry)
        histogram = Histogram("seconds", "Time.", ["model"], buckets=(1.0, 5.0), registry=self.registry)
        Gauge("running", "Running.", registry=self.registry).set(running)
        for model in models:
            counter.labels(model).inc()
            histogram.labels(model).observe(2.0)

    def text(self) -> str:
        return generate_latest(self.registry).decode()


def test_sums_are_what_one_process_that_did_all_of_it_would_tell() -> None:
    first, second = Process("a", "b", "a", running=2), Process("b", "c", running=3)
    both = generate_latest(summed([taken(first.registry), taken(second.registry)])).decode()
    assert sorted(both.splitlines()) == sorted(Process("a", "b", "a", "b", "c", running=5).text().splitlines())


def test_one_process_alone_tells_the_same() -> None:
    alone = Process("a", "b", running=1)
    assert generate_latest(summed([taken(alone.registry), []])).decode() == alone.text()


def test_sums_may_be_summed_again() -> None:
    some = [taken(Process("a", running=1).registry) for _ in range(3)]
    assert merged([merged(some[:2]), some[2]]) == merged(some)


def test_nothing_adds_up_to_nothing() -> None:
    assert merged([]) == merged([[], []]) == []
    empty: list[Family] = []
    assert generate_latest(summed([empty])) == b""
