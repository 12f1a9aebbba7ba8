"""`TritonEngine`: NVIDIA Triton by its own HTTP protocols: `generate_stream` for text, V2 inference for vectors.

Source: Triton 2.51, docs/protocol. It answers nearly every error with status 400, its own failures too: what they say
tells them apart.
"""

from __future__ import annotations

import contextlib
import ssl
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from typing import Final

import msgspec

from rempart import limits
from rempart.engines.asking import Asker, Endpoint
from rempart.engines.openai import targets
from rempart.errors import ContextLengthExceeded, EngineError, EngineRefused, EngineUnavailable
from rempart.wire.answers import nonsense
from rempart.wire.job import Job, Served, Target
from rempart.wire.sse import Decoder
from rempart.wire.triton import Request, Shape, Translation, read_index, read_shape, shape_path, translate

_AWAY: Final = ("is not healthy", "is not ready", "is not available")
_FAILED: Final = ("the model failed", "Failed to process the request")
_TOO_LONG: Final = "maximum context length"


class _Asked(msgspec.Struct):
    model: str


_asked = msgspec.json.Decoder(_Asked)


class TritonEngine:
    """`names`: the name that clients use -> the model's own; empty: all that are ready, under their own names."""

    def __init__(
        self,
        name: str,
        endpoint: Callable[[], Endpoint],
        *,
        tls: ssl.SSLContext | None = None,
        names: Mapping[str, str] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._asker = Asker(name, endpoint, tls=tls, refusal=_refusal)
        self._names = dict(names or {})
        self._clock = clock
        self._shapes: dict[str, Shape] = {}
        """Of models that were asked for; forgotten whenever the server is not ready."""

    @property
    def name(self) -> str:
        return self._asker.name

    async def answer(self, job: Job) -> bytes:
        request, translation = await self._translate(job)
        if request.path.endswith("/infer"):
            return translation.embeddings(await self._asker.whole(request.path, request.body, job.exchange))
        total = 0
        async with contextlib.aclosing(self._events(request, job.exchange)) as batches:
            async for payloads in batches:
                total += sum(map(len, payloads))
                if total > limits.answer_bytes_max:
                    raise EngineError("The engine's answer is too large.", hint="Ask for fewer tokens.")
                for payload in payloads:
                    translation.take(payload)
        return translation.whole()

    async def stream(self, job: Job) -> AsyncGenerator[list[bytes], None]:
        request, translation = await self._translate(job)
        async with contextlib.aclosing(self._events(request, job.exchange)) as batches:
            async for payloads in batches:
                yield [translation.chunk(payload) for payload in payloads]
        yield translation.last()

    async def _translate(self, job: Job) -> tuple[Request, Translation]:
        request = translate(job, await self._shape(job))
        return request, Translation(request, job.exchange, int(self._clock()))

    async def _events(self, request: Request, exchange: str) -> AsyncGenerator[list[bytes], None]:
        response = await self._asker.post(request.path, request.body, exchange)
        try:
            if response.content_type != b"text/event-stream":
                raise nonsense()
            decoder = Decoder()
            while data := await response.read():
                payloads = decoder.feed(data)
                if payloads:
                    yield payloads
        finally:
            response.close()

    async def models(self) -> Sequence[Target]:
        try:
            await self._asker.get("/v2/health/ready")
            if self._names:
                ready = [own for own in self._names.values() if await self._is_ready(own)]
            else:
                ready = read_index(await self._asker.tell("/v2/repository/index", b"{}"))
        except EngineError:
            self._shapes.clear()
            raise
        return targets(self.name, dict.fromkeys(ready, 0), self._names)

    async def served(self) -> Served | None:
        """Another one may serve others than us."""
        return None

    async def close(self) -> None:
        self._asker.close()

    async def _is_ready(self, model: str) -> bool:
        """Asked one by one: the index may be closed to us (`--http-restricted-api`)."""
        try:
            await self._asker.get(f"{shape_path(model)}/ready")
        except EngineRefused:
            return False
        return True

    async def _shape(self, job: Job) -> Shape:
        model = _asked.decode(job.body).model
        if model not in self._shapes:
            self._shapes[model] = read_shape(await self._asker.get(shape_path(model)))
        return self._shapes[model]


def _refusal(error: EngineRefused) -> EngineError:
    if any(words in error.message for words in _AWAY):
        return EngineUnavailable("The engine's model is not ready.", hint="See the engine's log.", retry_after_s=2)
    if any(words in error.message for words in _FAILED):
        return EngineError("The engine's model failed.", hint="See the engine's log.")
    if _TOO_LONG in error.message:
        return ContextLengthExceeded(
            error.message, status=400, hint="Shorten the conversation, or ask for fewer tokens.", param="messages"
        )
    return error
