"""`OpenAIEngine`: any server that speaks OpenAI's API over HTTP. The adapters to its kin are built on it."""

from __future__ import annotations

import ssl
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence

import msgspec

from rempart.engines.asking import Asker, Endpoint
from rempart.errors import EngineError, EngineRefused
from rempart.wire.answers import nonsense
from rempart.wire.job import Job, Served, Target
from rempart.wire.sse import DONE, Decoder


class _Model(msgspec.Struct):
    id: str
    created: int = 0


class _Models(msgspec.Struct):
    data: list[_Model]


class OpenAIEngine:
    """`endpoint`, `mistakes` and `refusal` are as `Asker` has them."""

    def __init__(
        self,
        name: str,
        endpoint: Callable[[], Endpoint],
        *,
        tls: ssl.SSLContext | None = None,
        names: Mapping[str, str] | None = None,
        mistakes: tuple[str, ...] = (),
        refusal: Callable[[EngineRefused], EngineError] = lambda error: error,
        health: str = "",
    ) -> None:
        self._asker = Asker(name, endpoint, tls=tls, mistakes=mistakes, refusal=refusal)
        self._names = dict(names or {})
        """The name that clients use -> the engine's own; empty: all under their own names."""
        self._health = health
        """A path that answers 200 while the engine can work; without one, that it lists its models has to do."""

    @property
    def name(self) -> str:
        return self._asker.name

    async def answer(self, job: Job) -> bytes:
        return await self._asker.whole(job.path, job.body, job.exchange)

    async def stream(self, job: Job) -> AsyncGenerator[list[bytes], None]:
        response = await self._asker.post(job.path, job.body, job.exchange)
        try:
            if response.content_type != b"text/event-stream":
                raise nonsense()
            decoder = Decoder()
            while True:
                data = await response.read()
                if not data:
                    raise EngineError("The engine's stream ended in the middle.", hint="See the engine's log.")
                payloads = decoder.feed(data)
                if DONE in payloads:
                    last = payloads[: payloads.index(DONE)]
                    if last:
                        yield last
                    return
                if payloads:
                    yield payloads
        finally:
            response.close()

    async def models(self) -> Sequence[Target]:
        if self._health:
            await self._asker.get(self._health)
        body = await self._asker.get("/v1/models")
        try:
            listed = {model.id: model.created for model in msgspec.json.decode(body, type=_Models).data}
        except (msgspec.DecodeError, RecursionError) as error:
            raise nonsense() from error
        return targets(self.name, listed, self._names)

    async def served(self) -> Served | None:
        """Another engine may serve others than us: what it counts would say nothing of the ledger."""
        return None

    async def metrics(self) -> str:
        """What `GET /metrics` answers, for engines that have it. Raises `EngineError` and its kin."""
        return (await self._asker.get("/metrics")).decode("utf-8", "replace")

    async def close(self) -> None:
        self._asker.close()


def targets(engine: str, listed: Mapping[str, int], names: Mapping[str, str]) -> list[Target]:
    """`listed`: the engine's own names, and when each was made (Unix seconds); `names`: the configuration's."""
    return [
        Target(model=name, served_name=own, digest="", engine=engine, created=listed[own])
        for name, own in (names or {own: own for own in listed}).items()
        if own in listed
    ]
