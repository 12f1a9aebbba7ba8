"""Statistics of rounds."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rempart.bench.stats import Summary, percentile, ratio, summarise

VALUES = st.lists(st.floats(min_value=-1e6, max_value=1e6), min_size=1, max_size=60)


@given(VALUES)
def test_a_summary_lies_within_its_rounds(values: list[float]) -> None:
    found = summarise(values)
    assert found.least == min(values)
    assert found.most == max(values)
    assert found.least <= found.median <= found.most
    assert found.rounds == len(values)


def test_the_median_of_an_even_number_lies_between() -> None:
    assert summarise([4.0, 1.0, 2.0, 3.0]).median == 2.5


@given(VALUES, st.floats(min_value=0.001, max_value=1.0))
def test_a_percentile_was_measured_and_has_its_share_at_or_below(values: list[float], share: float) -> None:
    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values)
    assert sum(value < found for value in values) < share * len(values)


def test_percentiles_by_nearest_rank() -> None:
    hundred = [float(value) for value in range(100, 0, -1)]
    assert percentile(hundred, 0.5) == 50
    assert percentile(hundred, 0.99) == 99
    assert percentile(hundred, 1.0) == 100
    assert percentile([7.0], 0.01) == 7


@pytest.mark.parametrize("share", [0.0, -0.5, 1.01])
def test_a_percentile_has_a_share(share: float) -> None:
    with pytest.raises(ValueError, match="lies in"):
        percentile([1.0], share)


def test_nothing_has_no_statistics() -> None:
    with pytest.raises(ValueError, match="needs a value"):
        summarise([])
    with pytest.raises(ValueError, match="needs a value"):
        percentile([], 0.5)


def test_a_ratio_is_of_medians_and_nothing_has_none() -> None:
    one, other = summarise([30.0, 10.0, 20.0]), summarise([4.0])
    assert ratio(one, other) == 5
    assert ratio(other, Summary(median=0.0, least=0.0, most=1.0, rounds=2)) is None
