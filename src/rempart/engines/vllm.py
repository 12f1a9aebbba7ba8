"""`VLLMEngine`: vLLM's own server. It speaks OpenAI's API; what it says of itself, and its refusals, are its own.

Source: vLLM 0.32, `vllm/entrypoints/openai`: `/health` fails once the process that computes is gone.
"""

from __future__ import annotations

import re
import ssl
from collections.abc import Callable, Mapping
from typing import Final

from rempart.engines.asking import Endpoint
from rempart.engines.openai import OpenAIEngine
from rempart.errors import ContextLengthExceeded, EngineRefused

_NO_ROUTE: Final = "Not Found"
"""FastAPI's words: vLLM opens only the paths that its model can answer."""
_TOO_LONG: Final = re.compile(r"max(?:imum|_)? ?(?:model_len|context length)")


class VLLMEngine(OpenAIEngine):
    """`endpoint` is as `OpenAIEngine` has it."""

    def __init__(
        self,
        name: str,
        endpoint: Callable[[], Endpoint],
        *,
        tls: ssl.SSLContext | None = None,
        names: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(name, endpoint, tls=tls, names=names, refusal=_refusal, health="/health")


def _refusal(error: EngineRefused) -> EngineRefused:
    if error.message == _NO_ROUTE:
        return EngineRefused(
            "vLLM does not serve this with this model: it answers 404 Not Found.",
            status=404,
            hint="For embeddings, run a vLLM with --runner pooling beside this one.",
        )
    if error.http_status != 400 or not _TOO_LONG.search(error.message):
        return error
    return ContextLengthExceeded(
        error.message, status=400, hint="Shorten the conversation, or ask for fewer tokens.", param=error.param
    )
