"""`LlamaCppEngine`: a llama.cpp server that runs somewhere: what it answers is made to be as the API says.

The process that started the embedded one, and every other worker of the site, ask it in this way too.
"""

from __future__ import annotations

import contextlib
import re
import ssl
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from pathlib import Path
from typing import Final

import msgspec

from rempart.engines.asking import Endpoint
from rempart.engines.openai import OpenAIEngine
from rempart.engines.recount import as_stream, check_stream, model_of, recount
from rempart.errors import ContextLengthExceeded, EngineError, EngineRefused, EngineUnavailable
from rempart.wire.assemble import Assembler
from rempart.wire.job import Job, Served, Target
from rempart.wire.requests import OPERATIONS

_TOO_LONG: Final = re.compile(r"request \((\d+) tokens\) exceeds the available context size \((\d+) tokens\)")

_COUNTER: Final = re.compile(
    r"^llamacpp:(prompt_tokens|prompt_tokens_cached|tokens_predicted)_total ([0-9.e+]+)$", re.MULTILINE
)

# llama.cpp answers these with status 500.
_MISTAKES: Final = ("Failed to parse", "is not supported", "is too large to process")


class EmbeddedModel(msgspec.Struct, frozen=True, kw_only=True):
    """A GGUF and how to serve it."""

    path: Path
    name: str
    digest: str
    """`sha256:<hex>` of the file."""
    created: int
    """Unix seconds: when the file was last changed."""
    context_tokens: int
    parallel: int
    threads: int


class LlamaCppEngine:
    """`where` is asked at each request: it raises `EngineUnavailable` while there is none."""

    def __init__(
        self,
        name: str,
        where: Callable[[], Endpoint],
        *,
        model: EmbeddedModel | None = None,
        tls: ssl.SSLContext | None = None,
        names: Mapping[str, str] | None = None,
    ) -> None:
        self._model = model
        """What this site started it with; none: it is somebody else's, who also knows what it counted."""
        self._where = where
        self._http = OpenAIEngine(
            name, where, tls=tls, names=names, mistakes=_MISTAKES, refusal=_refusal, health="/health"
        )

    @property
    def name(self) -> str:
        return self._http.name

    async def answer(self, job: Job) -> bytes:
        """Asked for as a stream wherever that can be: while llama.cpp works on a whole answer it does not notice that
        nobody waits for it any more."""
        streamed = as_stream(job)
        body = await self._http.answer(job) if streamed is None else await self._assembled(streamed)
        return await recount(job, body, self._http.answer)

    def stream(self, job: Job) -> AsyncGenerator[list[bytes], None]:
        check_stream(job)
        return self._http.stream(job)

    async def _assembled(self, job: Job) -> bytes:
        assembler = Assembler(OPERATIONS[job.path], model_of(job), wants_usage=True)
        async with contextlib.aclosing(self._http.stream(job)) as batches:
            async for payloads in batches:
                broken = assembler.feed(payloads).broken
                if broken is not None:
                    raise broken
        return assembler.whole()

    async def models(self) -> Sequence[Target]:
        model = self._model
        if model is None:
            return await self._http.models()
        self._where()
        return [
            Target(
                model=model.name, served_name=model.name, digest=model.digest, engine=self.name, created=model.created
            )
        ]

    async def served(self) -> Served | None:
        """By llama.cpp's own counters: of the process that runs now."""
        return None if self._model is None else _served(await self._http.metrics())

    async def close(self) -> None:
        await self._http.close()


def not_there(name: str, why: str) -> EngineUnavailable:
    """`why` goes on from the engine's name."""
    return EngineUnavailable(f"The engine {name} {why}.", hint="Try again in a moment; see /readyz.", retry_after_s=2)


def _served(metrics: str) -> Served:
    """Prometheus' text format. A prompt that was read from the cache was served, too."""
    found = {name: int(float(value)) for name, value in _COUNTER.findall(metrics)}
    try:
        return Served(
            tokens_prompt=found["prompt_tokens"] + found.get("prompt_tokens_cached", 0),
            tokens_completion=found["tokens_predicted"],
        )
    except KeyError as error:
        raise EngineError(
            "llama.cpp tells no counters.", hint="Use the version of xllamacpp that is locked."
        ) from error


def _refusal(error: EngineRefused) -> EngineRefused:
    """llama.cpp says "try increasing it", which whoever asked cannot."""
    found = _TOO_LONG.search(error.message)
    if found is None:
        return error
    return ContextLengthExceeded(
        f"The request has {found[1]} tokens, the model's context has {found[2]}.",
        status=400,
        hint="Shorten the conversation, or start a new one.",
        param="messages",
    )
