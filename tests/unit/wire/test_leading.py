"""`rempart.wire.leading`: the beginning of a prompt, however it is written."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from rempart.wire.leading import leading_text
from rempart.wire.requests import parse

CHAT, COMPLETION = "/v1/chat/completions", "/v1/completions"


def text(path: str, body: Any, bytes_max: int = 1_000) -> bytes:
    raw = body if isinstance(body, bytes) else msgspec.json.encode({"model": "m", **body})
    return leading_text(parse(path, raw), bytes_max)


def user(content: Any, **more: Any) -> dict[str, Any]:
    return {"role": "user", "content": content, **more}


def test_it_does_not_depend_on_how_the_json_is_written() -> None:
    one = b'{"model":"m","messages":[{"role":"user","content":"h\\u0065llo"}]}'
    two = b'{"messages" : [ {"content" : "hello", "role" : "user"} ], "temperature": 1, "model":"m"}'
    assert text(CHAT, one) == text(CHAT, two) != b""


@pytest.mark.parametrize("content", ["hello", [{"type": "text", "text": "hello"}], None])
def test_a_longer_conversation_begins_as_the_shorter_one(content: Any) -> None:
    first = [user(content)]
    longer = [*first, {"role": "assistant", "content": "hi", "tool_calls": []}, user("more")]
    assert text(CHAT, {"messages": longer}).startswith(text(CHAT, {"messages": first}))


def test_what_one_says_and_who_says_it_are_kept_apart() -> None:
    assert text(CHAT, {"messages": [user("a"), user("b")]}) != text(CHAT, {"messages": [user("ab")]})
    assert text(CHAT, {"messages": [user("a")]}) != text(CHAT, {"messages": [{"role": "system", "content": "a"}]})


def test_tools_come_first() -> None:
    tools = [{"type": "function", "function": {"name": "f"}}]
    with_tools = text(CHAT, {"messages": [user("a")], "tools": tools})
    assert with_tools.endswith(text(CHAT, {"messages": [user("a")]}))
    assert text(CHAT, {"messages": [user("a")], "tools": None}) == text(CHAT, {"messages": [user("a")]})


@pytest.mark.parametrize("prompt", ["hello", ["hello", "you"], [1, 2, 3]])
def test_completions_have_their_prompt(prompt: Any) -> None:
    assert text(COMPLETION, {"prompt": prompt})


def test_embeddings_have_none() -> None:
    assert text("/v1/embeddings", {"input": "hello"}) == b""


def test_it_is_bounded() -> None:
    assert len(text(CHAT, {"messages": [user("x" * 100)] * 9}, 150)) == 150
    assert len(text(COMPLETION, {"prompt": "x" * 1_000}, 150)) == 150
