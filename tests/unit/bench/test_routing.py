"""`rempart.bench.routing`: it measures each policy, and prefix-aware routing is worth having."""

from __future__ import annotations

import msgspec
from click.testing import CliRunner

from rempart.bench.routing import Workload, hit_rates, main


def test_it_measures_each_policy() -> None:
    result = CliRunner().invoke(main, ["--json", "--decisions", "20"])
    told = msgspec.json.decode(result.stdout)
    assert {one["policy"] for one in told["decisions"]} == {"least-outstanding", "prefix", "session"}
    assert {one["engines"] for one in told["decisions"]} == {1, 20, 200}
    assert len(told["hits"]) == 4


def test_following_prefixes_doubles_the_hits_of_taking_turns() -> None:
    rates = {one.policy: one.rate for one in hit_rates(Workload(exchanges=3_000))}
    assert rates["prefix"] >= 2 * rates["round-robin"]
