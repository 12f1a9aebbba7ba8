"""`snippet`: where the words stand."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rempart.ledger.search.query import parse
from rempart.ledger.search.snippet import snippet


@pytest.mark.parametrize(
    ("texts", "query", "shown"),
    [
        (["nothing", "The REFUND, please."], "refund", "The REFUND, please."),
        (["l'\u00c9t\u00e9 dernier"], "ete", "l'\u00c9t\u00e9 dernier"),
        (["a\n  b\tc"], "c", "a b c"),
        (["refunds"], "refund", ""),
        (["refund"], "outcome:ok", ""),
        ([], "refund", ""),
        (["x " * 50 + "refund " + "y " * 200], "refund", f"\u2026{'x ' * 20}refund {'y ' * 56}y\u2026"),
    ],
)
def test_it_is_around_the_first_of_the_words(texts: list[str], query: str, shown: str) -> None:
    assert snippet(texts, parse(query), 160) == shown


@given(st.lists(st.text()), st.integers(1, 200))
def test_it_is_short_and_on_one_line(texts: list[str], chars: int) -> None:
    shown = snippet(texts, parse("a 1"), chars)
    assert len(shown) <= chars + 2
    assert "\n" not in shown
