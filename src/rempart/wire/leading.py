"""`leading_text`: how the text of a prompt begins, the same however its JSON is written (pure).

Engines put tools before the messages into their templates, so they come first here. What has no prompt has no text.
"""

from __future__ import annotations

from typing import Any, Final

import msgspec

from rempart.wire.requests import Call

_END: Final = b"\x1e"
_WITHIN: Final = "\x1f"


class _Prompt(msgspec.Struct):
    """A body that was understood before."""

    tools: list[msgspec.Raw] | None = None
    messages: list[msgspec.Raw] | None = None
    prompt: Any = None


class _Plain(msgspec.Struct, forbid_unknown_fields=True):
    """What nearly all messages are."""

    role: str
    content: str


_prompt = msgspec.json.Decoder(_Prompt)
_plain = msgspec.json.Decoder(_Plain)
_any = msgspec.json.Decoder()
_sorted = msgspec.json.Encoder(order="sorted")


def leading_text(call: Call, bytes_max: int) -> bytes:
    """At most so many bytes of it."""
    if call.operation == "embedding":
        return b""
    found = _prompt.decode(call.received)
    if call.operation == "completion":
        prompt = found.prompt
        return (prompt.encode() if isinstance(prompt, str) else _sorted.encode(prompt))[:bytes_max]
    parts: list[bytes] = []
    length = 0
    for raw in (*(found.tools or []), *(found.messages or [])):
        parts.append(_canonical(raw))
        length += len(parts[-1])
        if length >= bytes_max:
            break
    return b"".join(parts)[:bytes_max]


def _canonical(raw: msgspec.Raw) -> bytes:
    try:
        message = _plain.decode(raw)
    except msgspec.ValidationError:
        return _sorted.encode(_any.decode(raw)) + _END
    return f"{message.role}{_WITHIN}{message.content}".encode() + _END
