"""Words and the texts they stand in."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rempart import limits
from rempart.ledger.search.texts import texts
from rempart.ledger.search.words import words


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("L'Été, l’été!", ["l", "ete", "l", "ete"]),
        ("STRASSE straße", ["strasse", "strasse"]),
        ("don't 3.14 FR76-3000", ["don", "t", "3", "14", "fr76", "3000"]),
        ("snake_case/path.py", ["snake", "case", "path", "py"]),
        ("ﬁn ｆｕｌｌ ①", ["fin", "full", "1"]),
        ("Ελλάς ΕΛΛΑΣ", ["ελλασ", "ελλασ"]),
        ("हिन्दी", ["हिनदी"]),
        ("東京へ行く", ["東", "京", "へ", "行", "く"]),
        ("a\u0301b e\u0301", ["ab", "e"]),
        ("", []),
        ("— … !", []),
    ],
)
def test_words_are_folded_without_accents_and_split_at_all_else(text: str, expected: list[str]) -> None:
    assert words(text) == expected


@given(st.text())
def test_words_of_words_are_the_same_words(text: str) -> None:
    found = words(text)
    assert words(" ".join(found)) == found
    assert all(found)
    assert not any(" " in word or ":" in word for word in found)
    assert all(len(word) <= limits.index_word_chars_max for word in found)


def test_a_long_word_is_cut_and_its_neighbours_are_not() -> None:
    long = "x" * 1000
    assert words(f"a {long} b") == ["a", "x" * limits.index_word_chars_max, "b"]


def test_texts_of_a_request_are_what_was_said_and_no_names_of_the_protocol() -> None:
    body = {
        "path": "/v1/chat/completions",
        "request": {
            "model": "m",
            "user": "someone",
            "messages": [
                {"role": "system", "content": "one"},
                {
                    "role": "user",
                    "content": [
                        {"type": "text", "text": "two"},
                        {"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}},
                        {"type": "input_audio", "input_audio": {"data": "BBBB", "format": "wav"}},
                    ],
                },
                {
                    "role": "assistant",
                    "tool_calls": [
                        {"id": "c", "function": {"name": "look_up", "arguments": '{"type":"caf\\u00e9","n":[7,true]}'}}
                    ],
                },
                {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "{not json"}}]},
            ],
        },
    }
    assert texts(body) == ["one", "two", "look_up", "type", "café", "n", "7", "f", "{not json"]


def test_texts_of_responses_prompts_and_inputs_are_found() -> None:
    answer = {"id": "x", "choices": [{"index": 0, "finish_reason": "stop", "message": {"content": "hello"}}]}
    assert texts({"response": answer}) == ["hello"]
    assert texts({"response": {"choices": [{"text": "done"}]}}) == ["done"]
    assert texts({"request": {"prompt": ["a", "b"], "input": "c"}}) == ["a", "b", "c"]
    assert texts({"text": "no json"}) == ["no json"]
    assert texts({"base64": "AAAA"}) == texts([]) == texts(None) == texts("x") == []


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.sampled_from(["arguments", "content"]), inner),
)


@given(JSON)
def test_any_json_gives_strings(value: object) -> None:
    assert all(isinstance(text, str) and text for text in texts({"messages": value}))


def test_texts_are_bounded_in_depth_and_in_characters(monkeypatch: pytest.MonkeyPatch) -> None:
    deep: object = "deep"
    for _ in range(limits.index_text_depth_max + 2):
        deep = [deep]
    assert texts({"prompt": deep}) == []
    arguments = json.dumps(deep)
    assert texts({"messages": [{"arguments": arguments}]}) == []
    monkeypatch.setattr(limits, "index_text_chars_max", 10)
    assert texts({"prompt": ["abcdef", "ghijkl", "mn"]}) == ["abcdef", "ghij"]
