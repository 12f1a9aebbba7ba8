"""`TransformersEngine`: Hugging Face transformers, the plain baseline, behind our own small `transformers_child`."""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from typing import Final

from rempart.engines.asking import Endpoint
from rempart.engines.openai import OpenAIEngine
from rempart.errors import ContextLengthExceeded, EngineRefused

_TOO_LONG: Final = "maximum context length"


class TransformersEngine(OpenAIEngine):
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
    if _TOO_LONG not in error.message:
        return error
    return ContextLengthExceeded(
        error.message, status=400, hint="Shorten the conversation, or ask for fewer tokens.", param="messages"
    )
