"""`rempart.routing.lines`: keys take turns, and none can keep the others out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rempart.errors import Overloaded
from rempart.routing.lines import Lines


def served(lines: Lines[str], model: str, count: int) -> list[str]:
    found = []
    for _ in range(count):
        key, ticket = next(lines.firsts(model))
        lines.take(model, key, ticket)
        found.append(ticket)
    return found


def test_keys_take_turns_and_each_keeps_its_order() -> None:
    lines = Lines[str](10)
    for ticket in ("a1", "a2", "a3", "b1", "c1", "b2"):
        lines.join("m", ticket[0], ticket)
    assert served(lines, "m", 6) == ["a1", "b1", "c1", "a2", "b2", "a3"]
    assert not lines.holds("m")
    assert len(lines) == 0


def test_models_take_turns_too() -> None:
    lines = Lines[str](10)
    for model, ticket in (("m", "a1"), ("m", "a2"), ("n", "a3")):
        lines.join(model, "a", ticket)
    assert lines.models() == ["m", "n"]
    served(lines, "m", 1)
    assert lines.models() == ["n", "m"]


def test_a_full_queue_takes_nobody_who_has_as_many_places_as_others() -> None:
    lines = Lines[str](2)
    lines.join("m", "a", "a1")
    lines.join("m", "b", "b1")
    with pytest.raises(Overloaded) as caught:
        lines.join("m", "a", "a2")
    assert (caught.value.http_status, bool(caught.value.retry_after_s)) == (503, True)
    with pytest.raises(Overloaded):
        lines.join("m", "c", "c1")
    assert len(lines) == 2


def test_in_a_full_queue_the_greediest_key_loses_its_newest_place() -> None:
    lines = Lines[str](3)
    for model, ticket in (("m", "a1"), ("n", "a2"), ("m", "a3")):
        assert lines.join(model, "a", ticket) is None
    assert lines.join("m", "b", "b1") == "a3"
    assert served(lines, "m", 2) == ["a1", "b1"]


def test_who_leaves_frees_a_place_once() -> None:
    lines = Lines[str](1)
    lines.join("m", "a", "a1")
    lines.leave("m", "a", "a1")
    lines.leave("m", "a", "a1")
    assert len(lines) == 0
    assert lines.join("m", "a", "a2") is None


@given(st.lists(st.tuples(st.sampled_from("mn"), st.sampled_from("abc"), st.booleans()), max_size=60))
def test_nobody_is_lost_or_served_twice(steps: list[tuple[str, str, bool]]) -> None:
    lines = Lines[int](8)
    waiting: dict[int, tuple[str, str]] = {}
    for number, (model, key, joins) in enumerate(steps):
        if joins:
            try:
                lost = lines.join(model, key, number)
            except Overloaded:
                continue
            waiting[number] = (model, key)
            if lost is not None:
                del waiting[lost]
        elif lines.holds(model):
            first, ticket = next(lines.firsts(model))
            lines.take(model, first, ticket)
            assert waiting.pop(ticket) == (model, first)
        assert len(lines) == len(waiting) <= 8
        assert set(lines.models()) == {model for model, _ in waiting.values()}


@given(st.integers(min_value=1, max_value=5), st.integers(min_value=0, max_value=20))
def test_a_key_waits_at_most_one_turn_of_each_other(others: int, greed: int) -> None:
    lines = Lines[str](1_000)
    for number in range(greed):
        for other in range(others):
            lines.join("m", f"k{other}", f"k{other}.{number}")
    lines.join("m", "mine", "mine")
    assert "mine" in served(lines, "m", min(others * greed, others) + 1)
