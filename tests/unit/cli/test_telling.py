"""`rempart.cli.telling`: entries for people, whatever stands in them."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rempart.cli.telling import full, hit, line, ranges, story
from rempart.ledger.reading.archive import Hit
from rempart.ledger.reading.find import Found

TIME = "2026-11-25T03:28:14.964491Z"
EXCHANGE = "01a210bf3052333af2266c6804176b71"


def entry(type: str, index: int = 7, body: Any = None, unreadable: str = "", **fields: Any) -> Found:
    return Found(index=index, entry={"type": type, "time": TIME, **fields}, body=body, unreadable=unreadable)


def request(body: Any = None, **fields: Any) -> Found:
    return entry("request", 3, body, exchange=EXCHANGE, role="user", key="k1", model="guide", **fields)


def response(body: Any = None, **fields: Any) -> Found:
    ended = {"outcome": "ok", "tokens_prompt": 12, "tokens_completion": 29, **fields}
    return entry("response", 4, body, exchange=EXCHANGE, role="user", key="k1", model="guide", **ended)


def said(body: Any) -> str:
    """What `story` says below the head."""
    return story([request(body)]).split("\n", 2)[2]


def answered(**body: Any) -> str:
    return story([response(body)]).split("\n", 2)[2]


@pytest.mark.parametrize(
    ("found", "told"),
    [
        (entry("start", version="0.1.0", lost=2), "rempart 0.1.0, 2 exchanges lost"),
        (entry("start", version="0.1", lost=1), "rempart 0.1, 1 exchange lost"),
        (
            entry("read", verb="show", role="auditor", key="k1", second="k2", found=2, bodies=2),
            "show by auditor k1 with k2, 2 found, 2 of them with what was said",
        ),
        (entry("erasure", scope="actor", exchanges=1, bodies=2, ground="f7"), "actor, 1 exchange, 2 bodies, f7"),
        (entry("start", version="0.1", lost=0, clock_behind_s=9), "rempart 0.1, 0 exchanges lost, clock 9 s behind"),
        (entry("stop", boot="b1"), "of the run b1"),
        (entry("key", key="k1", change="created", role="user", tokens_per_day=9), "k1 created, user, 9 tokens/day"),
        (entry("key", key="k1", change="revoked"), "k1 revoked"),
        (entry("meter", totals={"k2": 1_000, "k1": 1}, part=0, parts=1), "k1 1 tokens, k2 1,000 tokens"),
        (entry("refusals", counts={"invalid_api_key": 3}), "invalid_api_key 3"),
        (entry("config", settings={"b.port": 1, "a": "hmac:00", "b.on": True}), "b.on=true b.port=1"),
        (request(), f"{EXCHANGE} guide"),
        (response(error="engine_error", outcome="failed"), f"{EXCHANGE} guide failed engine_error 12 + 29 tokens"),
    ],
)  # fmt: skip
def test_a_line_says_what_the_entry_holds(found: Found, told: str) -> None:
    assert line(found) == f"{found.index:>8}  {TIME}  {found.entry['type']:<9} {told}"


def test_the_head_is_when_who_which_model_how_it_ended_and_what_it_took() -> None:
    head, named = story([request(), response()]).split("\n")
    assert head == f"{TIME} · role user · model guide · outcome ok · 12 + 29 tokens"
    assert named == f"exchange {EXCHANGE} · entries 3, 4 · key k1"


def test_an_exchange_under_way_has_no_outcome_yet() -> None:
    assert "outcome none yet · no tokens" in story([request()])
    assert "· entry 3 ·" in story([request()])


def test_of_an_entry_that_was_asked_for_alone_it_is_not_said_that_there_is_no_other() -> None:
    assert story([request()], whole=False).split("\n")[0] == f"{TIME} · role user · model guide"
    assert "outcome ok · 12 + 29 tokens" in story([response()], whole=False)


def test_who_asked_is_said_where_it_may_be() -> None:
    head = story([request(actor="a_1")], identity="Ada\x1b[2J").split("\n")
    assert head[1:] == [f"exchange {EXCHANGE} · entry 3 · key k1 · actor a_1", "asked with a key of Ada\\x1b[2J"]


@pytest.mark.parametrize(("indices", "told"), [((), ""), ((7,), "7"), ((9, 3, 7, 8), "3, 7 to 9"), ((1, 2), "1 to 2")])
def test_entries_are_named_by_their_ranges(indices: tuple[int, ...], told: str) -> None:
    assert ranges(indices) == told


def test_results_stand_in_columns_whatever_they_lack() -> None:
    fields = {"index": 7, "type": "response", "time": TIME, "exchange": EXCHANGE, "role": "user", "key": "k1"}
    actor = "a_" + "0" * 32
    refused = hit(Hit(model="", outcome="refused", actor=actor, **fields))
    assert refused == f"       7  {TIME}  {EXCHANGE}  refused    {actor}"
    assert hit(Hit(model="guide", outcome="ok", actor=actor, **fields)).index(actor) == refused.index(actor)


def test_what_failed_says_with_what() -> None:
    assert "outcome failed (engine_timeout)" in story([response(outcome="failed", error="engine_timeout")])


def test_of_other_entries_the_line_is_shown() -> None:
    assert story([entry("stop", boot="b1")]) == line(entry("stop", boot="b1"))


def test_messages_and_answers_are_text() -> None:
    asked = {"messages": [{"role": "system", "content": "Be short."}, {"role": "user", "content": "Why?\nNow."}]}
    assert said({"path": "/v1/chat/completions", "request": asked}) == "\nsystem:\nBe short.\n\nuser:\nWhy?\nNow."
    assert answered(response={"choices": [{"message": {"role": "assistant", "content": "So."}}]}) == "\nanswer:\nSo."


def test_several_answers_are_numbered() -> None:
    told = answered(response={"choices": [{"text": "One"}, {"text": "Two"}]})
    assert told == "\nanswer 1:\nOne\n\nanswer 2:\nTwo"


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"prompt": "Once"}, "\nprompt:\nOnce"),
        ({"prompt": ["Once", "Twice"]}, "\nprompt:\nOnce\nTwice"),
        ({"input": "Once"}, "\ninput:\nOnce"),
        ({"messages": [{"role": "user", "content": [{"type": "text", "text": "Once"}]}]}, "\nuser:\nOnce"),
    ],
)
def test_other_shapes_of_the_api_are_text_too(asked: Any, told: str) -> None:
    assert said({"request": asked}) == told


def test_calls_of_tools_are_shown_beside_the_text() -> None:
    told = answered(response={"choices": [{"message": {"content": "Wait.", "tool_calls": [{"id": "c1"}]}}]})
    assert told.startswith("\nanswer:\nWait.\n")
    assert '"c1"' in told


def test_vectors_are_counted() -> None:
    assert answered(response={"object": "list", "data": [{}, {}]}) == "\nanswer:\n2 vectors"


def test_an_error_stands_with_what_was_asked() -> None:
    body = {"request": {"text": "{not json"}, "error": {"message": "It is not JSON.", "code": "invalid_request"}}
    told = story([response(body, outcome="refused")])
    assert "{not json" in told
    assert told.endswith("\nerror:\nIt is not JSON.")


def test_what_cannot_be_read_says_why() -> None:
    told = story([entry("request", exchange=EXCHANGE, unreadable="The seed was destroyed.")])
    assert told.endswith("request: what was said cannot be read: The seed was destroyed.")


def test_no_text_can_move_the_cursor() -> None:
    told = said({"request": {"messages": [{"role": "user", "content": "a\x1b[2Jb\rc\u202ed\te\n"}]}})
    assert told == "\nuser:\na\\x1b[2Jb\\rc\\u202ed\te\n"


_names = st.sampled_from(
    ["request", "response", "error", "messages", "choices", "message", "content", "role", "prompt"]
)
_json = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5) | _names, inner, max_size=4),
    max_leaves=12,
)
_bodies = st.dictionaries(_names, _json, max_size=3) | _json


@given(_bodies, _bodies)
def test_any_body_can_be_told(one: Any, two: Any) -> None:
    found = [request(one), response(two)]
    assert all(char.isprintable() or char in "\n\t" for char in story(found))
    assert full(found[0]).startswith("entry 3\n")
