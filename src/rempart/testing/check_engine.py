"""`check_engine`: the conformance suite of the port `rempart.engines.port.Engine`. Every adapter passes it, the
scripted one too."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec

from rempart.engines.port import Engine
from rempart.errors import EngineRefused, EngineUnavailable
from rempart.wire.answers import parse_answer
from rempart.wire.assemble import Assembler
from rempart.wire.job import Job

_CHAT = "/v1/chat/completions"


async def check_engine(engine: Engine, *, embeddings: bool = True) -> None:
    """Raises `AssertionError` at the first promise that the engine does not keep. Closes it at the end."""
    model = await _check_models(engine)
    await _check_answer(engine, model)
    await _check_stream(engine, model)
    if embeddings:
        await _check_embeddings(engine, model)
    await _check_refusal(engine, model)
    await _check_side_by_side(engine, model)
    await _check_cancelled(engine, model)
    await _check_closed(engine, model)


def _job(path: str, **body: Any) -> Job:
    return Job(path=path, body=msgspec.json.encode(body), exchange="0" * 32)


def _chat(model: str, text: str = "Say something.", **more: Any) -> Job:
    return _job(_CHAT, model=model, messages=[{"role": "user", "content": text}], max_tokens=16, **more)


async def _check_models(engine: Engine) -> str:
    targets = await engine.models()
    assert targets, "an engine that is ready serves a model"
    assert all(target.engine == engine.name for target in targets)
    return targets[0].served_name


async def _check_answer(engine: Engine, model: str) -> None:
    answer = parse_answer("chat", await engine.answer(_chat(model)))
    assert answer.usage is not None
    assert (answer.usage.prompt_tokens or 0) > 0, "a prompt has tokens"
    assert answer.finish[0] in ("stop", "length")


async def _check_stream(engine: Engine, model: str) -> None:
    assembler = Assembler("chat", model, wants_usage=True)
    job = _chat(model, stream=True, stream_options={"include_usage": True})
    async for payloads in engine.stream(job):
        assert payloads, "a batch is never empty"
        assembler.feed(payloads)
    assert assembler.usage is not None, "the count was asked for"
    assert assembler.finish[0] in ("stop", "length")


async def _check_embeddings(engine: Engine, model: str) -> None:
    body = await engine.answer(_job("/v1/embeddings", model=model, input="a text"))
    parse_answer("embedding", body)
    assert msgspec.json.decode(body)["data"][0]["embedding"]


async def _check_refusal(engine: Engine, model: str) -> None:
    why = ""
    try:
        await engine.answer(_job(_CHAT, model=model, messages="wrong"))
    except EngineRefused as refused:
        why = refused.message
    assert why, "a request that makes no sense is refused, and the refusal says why"


async def _check_side_by_side(engine: Engine, model: str) -> None:
    answers = await asyncio.gather(*(engine.answer(_chat(model, f"Number {number}.")) for number in range(8)))
    for answer in answers:
        parse_answer("chat", answer)


async def _check_cancelled(engine: Engine, model: str) -> None:
    """Leaving in the middle does no harm to what comes next."""
    batches = engine.stream(_chat(model, "words 500", stream=True))
    await anext(batches)
    await batches.aclose()
    waiting = asyncio.create_task(engine.answer(_chat(model, "slow 200")))
    await asyncio.sleep(0)
    waiting.cancel()
    await asyncio.gather(waiting, return_exceptions=True)
    assert waiting.cancelled()
    parse_answer("chat", await engine.answer(_chat(model)))


async def _check_closed(engine: Engine, model: str) -> None:
    await engine.close()
    try:
        await engine.answer(_chat(model))
    except EngineUnavailable:
        return
    raise AssertionError("a closed engine answered")
