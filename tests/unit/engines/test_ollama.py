"""`rempart.engines.ollama` on a strict fake of Ollama's API, which Ollama's own client drives too."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import ollama
import pytest

from rempart.engines.asking import Endpoint
from rempart.engines.ollama import OllamaEngine
from rempart.errors import ContextLengthExceeded, EngineError, EngineRefused, EngineUnavailable
from rempart.testing.fake_ollama import VERSION, FakeOllama
from rempart.wire.job import Job


@pytest.fixture
async def server() -> AsyncIterator[FakeOllama]:
    async with FakeOllama() as server:
        yield server


@pytest.fixture
async def engine(server: FakeOllama) -> AsyncIterator[OllamaEngine]:
    engine = OllamaEngine("department", lambda: Endpoint(server.url, ""))
    yield engine
    await engine.close()


def job(script: str, **more: Any) -> Job:
    body = {"model": "guide", "messages": [{"role": "user", "content": script}], **more}
    return Job(path="/v1/chat/completions", body=msgspec.json.encode(body), exchange="0" * 32)


async def test_models_have_their_digests_and_are_known_without_latest(server: FakeOllama, engine: OllamaEngine) -> None:
    (target,) = await engine.models()
    assert (target.model, target.served_name) == ("guide", "guide:latest")
    assert target.digest == f"sha256:{server.digests['guide:latest']}"
    assert target.created > 0
    named = OllamaEngine("department", lambda: Endpoint(server.url, ""), names={"ours": "guide", "none": "other"})
    assert [(one.model, one.served_name) for one in await named.models()] == [("ours", "guide")]
    await named.close()


async def test_it_says_its_version_and_what_is_loaded(engine: OllamaEngine) -> None:
    assert await engine.version() == VERSION
    assert await engine.loaded() == []
    await engine.answer(job("hello"))
    assert await engine.loaded() == ["guide:latest"]


@pytest.mark.parametrize(
    ("script", "kind"),
    [
        ("status 404", EngineRefused),
        ("status 500", EngineError),
        ("status 503", EngineUnavailable),
        ("close", EngineUnavailable),
    ],
)
async def test_errors_are_the_ports(engine: OllamaEngine, script: str, kind: type[EngineError]) -> None:
    with pytest.raises(kind):
        await engine.answer(job(script))


@pytest.mark.parametrize("script", ["cut 2", "error-event 2", "nonsense", "not-json", "not-utf8"])
async def test_a_stream_that_goes_wrong_says_so(engine: OllamaEngine, script: str) -> None:
    async def follow() -> None:
        async for payloads in engine.stream(job(script, stream=True)):
            assert payloads

    with pytest.raises(EngineError):
        await follow()


async def test_a_model_that_is_not_there_is_refused_in_ollamas_words(engine: OllamaEngine) -> None:
    with pytest.raises(EngineRefused, match="model 'other' not found"):
        await engine.answer(job("hello", model="other"))


async def test_a_text_that_is_too_long_to_embed_is_not_cut(engine: OllamaEngine) -> None:
    body = msgspec.json.encode({"model": "guide", "input": "word " * 600})
    with pytest.raises(ContextLengthExceeded):
        await engine.answer(Job(path="/v1/embeddings", body=body, exchange="0" * 32))


async def test_ollamas_own_client_takes_the_fake_for_ollama(server: FakeOllama) -> None:
    client = ollama.AsyncClient(host=server.url)
    assert [model.model for model in (await client.list()).models] == ["guide:latest"]
    asked = [{"role": "user", "content": "hello to you"}]
    whole = await client.chat(model="guide", messages=asked, options={"temperature": 0})
    assert (whole.message.content, whole.done_reason, whole.eval_count) == ("hello to you", "stop", 3)
    parts = [part async for part in await client.chat(model="guide", messages=asked, stream=True)]
    assert "".join(part.message.content or "" for part in parts) == "hello to you"
    assert (parts[-1].done, parts[-1].prompt_eval_count) == (True, 3)
    assert (await client.generate(model="guide", prompt="again and again")).response == "again and again"
    assert len((await client.embed(model="guide", input=["a", "b"])).embeddings) == 2
    assert [model.model for model in (await client.ps()).models] == ["guide:latest"]
    assert "tools" in ((await client.show("guide")).capabilities or [])
    with pytest.raises(ollama.ResponseError, match="not found"):
        await client.show("other")


async def test_ollamas_own_client_calls_tools_and_makes_models(server: FakeOllama) -> None:
    client = ollama.AsyncClient(host=server.url)
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object", "properties": {}}}}
    asked = [{"role": "user", "content": "tool weather"}]
    called = await client.chat(model="guide", messages=asked, tools=[tool])
    assert called.message.tool_calls is not None
    assert called.message.tool_calls[0].function.name == "weather"
    digest = f"sha256:{hashlib.sha256(b'weights').hexdigest()}"
    server.blobs.add(digest)
    made = await client.create(model="ours", files={"model.gguf": digest}, stream=False)
    assert made.status == "success"
    assert "ours:latest" in server.digests
    await client.delete("ours")
    assert "ours:latest" not in server.digests
