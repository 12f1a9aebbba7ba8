"""`error_body`: an error as OpenAI's clients expect it (pure)."""

from __future__ import annotations

import msgspec

from rempart.errors import RempartError

_json = msgspec.json.Encoder()


def error_body(error: RempartError) -> bytes:
    """`{"error": {"message", "type", "param", "code"}}`; the message tells what happened, why, and what to do."""
    message = f"{error.message} {error.hint}" if error.hint else error.message
    return _json.encode(
        {"error": {"message": message, "type": error.openai_type, "param": error.param, "code": error.code}}
    )
