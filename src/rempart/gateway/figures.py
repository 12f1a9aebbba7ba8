"""`summed`: figures of several processes as those of one: counters, histograms and gauges of what they do add up."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import msgspec
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector


class Sample(msgspec.Struct, frozen=True, array_like=True):
    """One line of `/metrics`."""

    name: str
    labels: dict[str, str]
    value: float


class Family(msgspec.Struct, frozen=True, array_like=True):
    """The samples of one metric."""

    name: str
    kind: str
    """`counter`, `gauge` or `histogram`."""
    help: str
    samples: list[Sample]


def taken(registry: CollectorRegistry) -> list[Family]:
    """As it stands now."""
    return [
        Family(
            metric.name,
            metric.type,
            metric.documentation,
            [Sample(one.name, dict(one.labels), one.value) for one in metric.samples],
        )
        for metric in registry.collect()
    ]


def summed(processes: Iterable[Sequence[Family]]) -> CollectorRegistry:
    """In the order of the first process that has each."""
    registry = CollectorRegistry()
    registry.register(_Sums(merged(processes)))
    return registry


def merged(processes: Iterable[Sequence[Family]]) -> list[Family]:
    """Samples of one name and the same labels become one."""
    families: dict[str, Family] = {}
    values: dict[str, dict[tuple[str, tuple[tuple[str, str], ...]], float]] = {}
    for process in processes:
        for family in process:
            families.setdefault(family.name, family)
            sums = values.setdefault(family.name, {})
            for one in family.samples:
                key = (one.name, tuple(one.labels.items()))
                sums[key] = sums.get(key, 0.0) + one.value
    return [
        msgspec.structs.replace(
            family, samples=[Sample(name, dict(labels), value) for (name, labels), value in values[family.name].items()]
        )
        for family in families.values()
    ]


class _Sums(Collector):
    def __init__(self, families: Sequence[Family]) -> None:
        self._families = families

    def collect(self) -> Iterator[Metric]:
        for family in self._families:
            metric = Metric(family.name, family.help, family.kind)
            for one in family.samples:
                metric.add_sample(one.name, one.labels, one.value)
            yield metric
