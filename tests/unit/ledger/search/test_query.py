"""The language of queries."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rempart import limits
from rempart.errors import InvalidRequest
from rempart.ledger.search.query import Query, parse


def test_a_query_of_all_parts() -> None:
    query = parse(
        'Refund "Crédit Note" actor:A_1 model:"My Model" outcome:ok outcome:cut finding:iban class:Standard '
        'after:2026-11-01 before:2026-11-23T17 "single"'
    )
    assert query == Query(
        words=("refund", "single"),
        phrases=(("credit", "note"),),
        fields=(("actor", ("a_1",)), ("model", ("my model",)), ("outcome", ("ok", "cut")), ("finding", ("iban",))),
        classes=("Standard",),
        after=datetime(2026, 11, 1, tzinfo=UTC),
        before=datetime(2026, 11, 23, 17, tzinfo=UTC),
    )
    assert query.all_words == ("credit", "refund", "single", "note")


def test_a_name_keeps_its_capitals_and_a_pseudonym_has_none() -> None:
    assert parse('actor:"Ada Lovelace" actor:A_1F').fields == (("actor", ("Ada Lovelace", "a_1f")),)


def test_a_word_with_an_apostrophe_is_two() -> None:
    assert parse("l'été 10:30").words == ("l", "ete", "10", "30")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "empty"),
        ("   ", "empty"),
        ('ab "cd ef', "character 4 is not closed"),
        ("ab -- cd", "at character 4"),
        ('ab ""', "at character 4"),
        ("ab http://x", "`http` at character 4 is not a field"),
        ("actor:", "`actor:` at character 1 has no value"),
        ("x outcome:bad", "`bad` at character 3 is no outcome"),
        ("x after:yesterday", "`after:` at character 3 is no day"),
        ("x before:2026-02-30", "`before:` at character 3 is no day of the calendar"),
        ("x before:2026-11-23T25", "calendar"),
        ("after:0001-01-01", "calendar"),
        ("after:2026-01-01 after:2026-01-02", "character 18 is there a second time"),
        ("after:2026-01-02 before:2026-01-02", "Nothing lies between"),
        ("x " * 600, "at most 1024 characters"),
        ("x y " * 20, "at most 32 words"),
    ],
)
def test_what_is_wrong_is_said_with_its_place(text: str, said: str) -> None:
    with pytest.raises(InvalidRequest, match=said) as caught:
        parse(text)
    assert caught.value.param == "query"


@given(st.text(max_size=60) | st.text(alphabet=' ":aé-0_2', max_size=40))
def test_any_text_is_a_query_or_a_clear_error(text: str) -> None:
    try:
        query = parse(text)
    except InvalidRequest:
        return
    assert query.all_words or query.fields or query.classes or query.after or query.before
    assert len(query.all_words) <= limits.query_terms_max
