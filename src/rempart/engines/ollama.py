"""`OllamaEngine`: Ollama by its own API, which tells the digests of models; answers come out in OpenAI's shape.

Source: Ollama, docs/api.md. It has no keys of its own: what its `/api` answers to anyone, it answers to us.
"""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Final

import msgspec

from rempart import limits
from rempart.engines.asking import Asker, Endpoint
from rempart.errors import ContextLengthExceeded, EngineError, EngineRefused
from rempart.wire.answers import nonsense
from rempart.wire.job import Job, Served, Target
from rempart.wire.ollama import Translation, read_line, read_tags, translate

_TOO_LONG: Final = "exceeds the context length"
_LATEST: Final = ":latest"


class _Version(msgspec.Struct):
    version: str


class _Loaded(msgspec.Struct):
    name: str


class _Running(msgspec.Struct):
    models: list[_Loaded] | None


class OllamaEngine:
    """`names`: the name that clients use -> the engine's own; empty: all under their own names, `:latest` left out."""

    def __init__(
        self,
        name: str,
        endpoint: Callable[[], Endpoint],
        *,
        tls: ssl.SSLContext | None = None,
        names: Mapping[str, str] | None = None,
    ) -> None:
        self._asker = Asker(name, endpoint, tls=tls, refusal=_refusal)
        self._names = dict(names or {})

    @property
    def name(self) -> str:
        return self._asker.name

    async def answer(self, job: Job) -> bytes:
        request = translate(job)
        body = await self._asker.whole(request.path, request.body, job.exchange)
        return Translation(request, job.exchange).whole(body)

    async def stream(self, job: Job) -> AsyncGenerator[list[bytes], None]:
        request = translate(job)
        translation = Translation(request, job.exchange)
        response = await self._asker.post(request.path, request.body, job.exchange)
        rest = b""
        try:
            while True:
                data = await response.read()
                if not data:
                    raise EngineError("The engine's stream ended in the middle.", hint="See the engine's log.")
                *whole, rest = (rest + data).split(b"\n")
                if len(rest) > limits.event_bytes_max:
                    raise EngineError("The engine sent an event that is too large.", hint="See the engine's log.")
                lines = [read_line(one) for one in whole if one.strip()]
                payloads = [chunk for line in lines for chunk in translation.chunks(line)]
                if payloads:
                    yield payloads
                if any(line.done for line in lines):
                    return
        finally:
            response.close()

    async def models(self) -> Sequence[Target]:
        tags = {tag.name: tag for tag in read_tags(await self._asker.get("/api/tags"))}
        names = self._names or {own.removesuffix(_LATEST): own for own in tags}
        found: list[Target] = []
        for name, own in names.items():
            tag = tags.get(own) or tags.get(own + _LATEST)
            if tag is not None:
                target = Target(model=name, served_name=own, digest=tag.digest, engine=self.name, created=tag.created)
                found.append(target)
        return found

    async def loaded(self) -> list[str]:
        """Models in memory now, by their own names. Raises `EngineError` and its kin."""
        try:
            running = msgspec.json.decode(await self._asker.get("/api/ps"), type=_Running)
        except (msgspec.DecodeError, RecursionError) as error:
            raise nonsense() from error
        return [model.name for model in running.models or []]

    async def version(self) -> str:
        """Raises `EngineError` and its kin."""
        try:
            return msgspec.json.decode(await self._asker.get("/api/version"), type=_Version).version
        except (msgspec.DecodeError, RecursionError) as error:
            raise nonsense() from error

    async def served(self) -> Served | None:
        """Ollama counts nothing."""
        return None

    async def close(self) -> None:
        self._asker.close()


def _refusal(error: EngineRefused) -> EngineRefused:
    if _TOO_LONG not in error.message:
        return error
    return ContextLengthExceeded(error.message, status=400, hint="Shorten the text.", param=error.param)
