"""`json_answer`, `stream_answer`, `paced_chunks`: what the upstreams say, in OpenAI's shape (pure)."""

from __future__ import annotations

from typing import Any, Final

import msgspec

STREAM_CHUNKS: Final = 100
PACED_DELTAS: Final = 64
PACE_S: Final = 0.020
LAST_WORD: Final = "forty-two"
PROMPT: Final = "What is the answer to the question of life, the universe and everything?"
_SENTENCE: Final = "The answer was long in coming, and those who had asked were gone. "


def request_body(model: str, *, stream: bool) -> bytes:
    """One chat request."""
    asked: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": PROMPT}], "max_tokens": 128}
    if stream:
        asked["stream"] = True
    return msgspec.json.encode(asked)


def json_answer(model: str) -> bytes:
    """An answer of about 600 bytes."""
    content = _SENTENCE * 4 + LAST_WORD
    return msgspec.json.encode(
        {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": model,
            "choices": [
                {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"},
            ],
            "usage": {"prompt_tokens": 10, "completion_tokens": 60, "total_tokens": 70},
        }
    )


def stream_answer(model: str, chunks: int = STREAM_CHUNKS) -> bytes:
    """That many events, the last of them with the finish reason, and [DONE]."""
    return b"".join(_events(model, chunks))


def paced_chunks(model: str, deltas: int = PACED_DELTAS) -> list[bytes]:
    """That many deltas, each a chunk of HTTP/1.1's chunked coding; the last holds the end as well."""
    events = _events(model, deltas + 1)
    events[-3:] = [b"".join(events[-3:])]
    coded = [b"%x\r\n%b\r\n" % (len(event), event) for event in events]
    coded[-1] += b"0\r\n\r\n"
    return coded


def models_answer(model: str) -> bytes:
    return msgspec.json.encode({"object": "list", "data": [{"id": model, "object": "model", "created": 1}]})


def _events(model: str, count: int) -> list[bytes]:
    words = [f"word{number} " for number in range(count - 2)] + [LAST_WORD]
    deltas: list[tuple[dict[str, str], str | None]] = [({"content": word}, None) for word in words]
    deltas.append(({}, "stop"))
    events = [_event(model, delta, finish) for delta, finish in deltas]
    return [*events, b"data: [DONE]\n\n"]


def _event(model: str, delta: dict[str, str], finish: str | None) -> bytes:
    chunk = {
        "id": "chatcmpl-1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": model,
        "choices": [{"index": 0, "delta": delta, "finish_reason": finish}],
    }
    return b"data: " + msgspec.json.encode(chunk) + b"\n\n"
