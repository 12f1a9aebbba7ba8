"""Every engine keeps the promises of the port."""

from collections.abc import AsyncIterator
from pathlib import Path

import msgspec
import pytest
import pytest_asyncio

from rempart.engines.embedded import EmbeddedEngine
from rempart.engines.llamacpp import EmbeddedModel
from rempart.errors import ContextLengthExceeded, EngineRefused, EngineUnavailable
from rempart.testing.check_engine import FEATURES, check_engine
from rempart.testing.real_llamacpp import LlamaCppSubject
from rempart.testing.subjects import OllamaSubject, ScriptedSubject
from rempart.wire.job import Job
from rempart.wiring_engines import guide_path


def _guide() -> EmbeddedModel:
    return EmbeddedModel(
        path=guide_path(), name="guide", digest="", created=0, context_tokens=512, parallel=4, threads=0
    )


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def embedded(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[EmbeddedEngine]:
    engine = EmbeddedEngine("embedded", _guide(), tmp_path_factory.mktemp("engine") / "engine.log")
    await engine.start()
    yield engine
    await engine.close()


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize("stream", [False, True])
async def test_embedded_says_that_a_conversation_is_too_long(embedded: EmbeddedEngine, stream: bool) -> None:
    body = {"messages": [{"role": "user", "content": "word " * 600}], "stream": stream}
    job = Job(path="/v1/chat/completions", body=msgspec.json.encode(body), exchange="0" * 32)
    with pytest.raises(ContextLengthExceeded, match=r"has \d+ tokens, the model's context has 512") as refused:
        await (anext(embedded.stream(job)) if stream else embedded.answer(job))
    assert (refused.value.http_status, refused.value.param) == (400, "messages")
    assert refused.value.hint == "Shorten the conversation, or start a new one."


_ASKED = [{"role": "user", "content": "What is Rempart?"}]


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/chat/completions", {"messages": _ASKED, "tools": [{}]}),
        ("/v1/chat/completions", {"messages": _ASKED, "tools": [{"type": "function", "function": {}}]}),
        ("/v1/chat/completions", {"messages": [{"role": "user", "content": [{"type": "text"}]}]}),
        (
            "/v1/chat/completions",
            {
                "messages": [
                    {
                        "role": "user",
                        "content": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA"}}],
                    }
                ]
            },
        ),
        ("/v1/embeddings", {"input": "word " * 2000}),
    ],
)
async def test_a_mistake_that_llama_cpp_takes_for_its_own_is_the_clients(
    embedded: EmbeddedEngine, path: str, body: dict[str, object]
) -> None:
    with pytest.raises(EngineRefused) as caught:
        await embedded.answer(Job(path=path, body=msgspec.json.encode({"model": "guide", **body}), exchange="0" * 32))
    assert caught.value.http_status == 400
    assert caught.value.message


@pytest.mark.asyncio(loop_scope="module")
@pytest.mark.parametrize(
    ("path", "body", "prompt_tokens", "completion_tokens"),
    [
        ("/v1/chat/completions", {"messages": _ASKED, "n": 3}, None, 12),
        ("/v1/completions", {"prompt": "Rempart is", "n": 2}, None, 8),
        ("/v1/completions", {"prompt": ["Rempart is", "Rempart is"]}, 2, 8),
    ],
)
async def test_llama_cpp_counts_all_choices(
    embedded: EmbeddedEngine, path: str, body: dict[str, object], prompt_tokens: int | None, completion_tokens: int
) -> None:
    async def usage(**more: object) -> dict[str, int]:
        asked = {"model": "guide", "max_tokens": 4, "temperature": 0, **body, **more}
        answer = await embedded.answer(Job(path=path, body=msgspec.json.encode(asked), exchange="0" * 32))
        counted: dict[str, int] = msgspec.json.decode(answer)["usage"]
        return counted

    alone = await usage(n=1, **({"prompt": "Rempart is"} if "prompt" in body else {}))
    all_of_them = await usage()
    assert all_of_them["completion_tokens"] == completion_tokens
    assert all_of_them["prompt_tokens"] == alone["prompt_tokens"] * (prompt_tokens or 1)
    assert all_of_them["total_tokens"] == all_of_them["prompt_tokens"] + completion_tokens


@pytest.mark.asyncio(loop_scope="module")
async def test_what_llama_cpp_cannot_stream_is_refused_before_it_is_asked(embedded: EmbeddedEngine) -> None:
    body = msgspec.json.encode({"model": "guide", "prompt": ["a", "b"], "stream": True})
    with pytest.raises(EngineRefused, match="one prompt at a time"):
        embedded.stream(Job(path="/v1/completions", body=body, exchange="0" * 32))


async def test_llama_cpp_conforms(tmp_path: Path) -> None:
    async with LlamaCppSubject(tmp_path) as subject:
        report = await check_engine(subject)
    assert report.failed() == {}


async def test_the_embedded_engine_is_gone_when_it_is_closed(tmp_path: Path) -> None:
    engine = EmbeddedEngine("embedded", _guide(), tmp_path / "engine.log")
    await engine.start()
    job = Job(path="/v1/embeddings", body=b'{"model":"guide","input":"a text"}', exchange="0" * 32)
    assert await engine.answer(job)
    await engine.close()
    with pytest.raises(EngineUnavailable):
        await engine.answer(job)


@pytest.mark.parametrize("kind", [ScriptedSubject, OllamaSubject])
async def test_the_scripted_engines_have_all_features(kind: type[ScriptedSubject | OllamaSubject]) -> None:
    async with kind() as subject:
        report = await check_engine(subject)
    lacking = {"several choices": "skipped: Ollama's API has no n."} if kind is OllamaSubject else {}
    assert report.not_passed() == lacking
    assert tuple(outcome.feature for outcome in report.outcomes) == FEATURES
