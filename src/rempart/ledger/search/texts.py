"""`texts`: what was said in a body, as strings to be searched (pure).

Of a request its `messages`, `prompt` and `input`, of a response the same beside `choices`, `text` and `output`; below
these every string but names of the protocol and binary data. Arguments of tools are JSON in a string: they are opened,
so that an escaped letter is a letter. Bounded in depth and in characters; what lies beyond is not searched.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import msgspec

from rempart import limits

_SPOKEN: Final = ("messages", "prompt", "input", "choices", "text", "output", "error")
_PROTOCOL: Final = frozenset(
    {"role", "type", "id", "tool_call_id", "call_id", "finish_reason", "status", "object", "format", "detail"}
)
_BINARY: Final = frozenset({"data", "b64_json", "file_data", "embedding", "logprobs", "base64"})


def texts(body: Any) -> list[str]:
    """Of a decoded body: `{"request": …}`, `{"response": …}`, or what stands inside. No string is empty."""
    found: list[str] = []
    left = limits.index_text_chars_max
    for text in _spoken(body):
        found.append(text[:left])
        left -= len(text)
        if left <= 0:
            break
    return found


def _spoken(body: Any) -> Iterator[str]:
    if not isinstance(body, dict):
        return
    for outer in ("request", "response"):
        if outer in body:
            yield from _spoken(body[outer])
    for name in _SPOKEN:
        if name in body:
            yield from _strings(body[name], name, 0)


def _strings(value: Any, name: str, depth: int) -> Iterator[str]:
    """`name` is that of the member in which the value stands."""
    if depth > limits.index_text_depth_max:
        return
    if isinstance(value, str):
        yield from _text(value, name, depth)
    elif isinstance(value, list):
        for inner in value:
            yield from _strings(inner, name, depth + 1)
    elif isinstance(value, dict):
        for inner_name, inner in value.items():
            if inner_name not in _PROTOCOL and inner_name not in _BINARY:
                yield from _strings(inner, inner_name, depth + 1)


def _text(value: str, name: str, depth: int) -> Iterator[str]:
    if not value or (value.startswith("data:") and ";base64," in value[:256]):
        return
    if name == "arguments":
        try:
            opened = msgspec.json.decode(value)
        except (msgspec.DecodeError, UnicodeError, RecursionError):
            yield value  # a model may have written no JSON: then its text is what there is
            return
        if isinstance(opened, dict | list):
            yield from _arguments(opened, depth + 1)
            return
    yield value


def _arguments(value: Any, depth: int) -> Iterator[str]:
    """All strings and names: arguments have no members of the protocol."""
    if depth > limits.index_text_depth_max:
        return
    if isinstance(value, str):
        if value:
            yield value
    elif isinstance(value, list):
        for inner in value:
            yield from _arguments(inner, depth + 1)
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from (name,) if name else ()
            yield from _arguments(inner, depth + 1)
    elif isinstance(value, int | float) and not isinstance(value, bool):
        yield str(value)
