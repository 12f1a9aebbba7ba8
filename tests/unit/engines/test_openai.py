"""`rempart.engines.openai`: whatever an engine does, only the errors of the port come out."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from rempart import limits
from rempart.engines.asking import Endpoint
from rempart.engines.openai import OpenAIEngine
from rempart.errors import EngineError, EngineRefused, EngineTimeout, EngineUnavailable, RempartError
from rempart.testing.scripted import ScriptedServer
from rempart.wire.answers import parse_answer
from rempart.wire.job import Job


@pytest.fixture
async def server() -> AsyncIterator[ScriptedServer]:
    async with ScriptedServer() as server:
        yield server


@pytest.fixture
async def engine(server: ScriptedServer) -> AsyncIterator[OpenAIEngine]:
    engine = OpenAIEngine("far", lambda: Endpoint(server.url, ""))
    yield engine
    await engine.close()


def job(script: str, **more: Any) -> Job:
    body = {"model": "scripted", "messages": [{"role": "user", "content": script}], **more}
    return Job(path="/v1/chat/completions", body=msgspec.json.encode(body), exchange="0" * 32)


async def raised(engine: OpenAIEngine, script: str) -> RempartError:
    with pytest.raises(EngineError) as caught:
        parse_answer("chat", await engine.answer(job(script)))
    return caught.value


async def raised_by_stream(engine: OpenAIEngine, script: str) -> tuple[list[bytes], RempartError]:
    """What came before the error, and the error."""
    came: list[bytes] = []

    async def follow() -> None:
        async for payloads in engine.stream(job(script, stream=True)):
            came.extend(payloads)

    with pytest.raises(EngineError) as caught:
        await follow()
    return came, caught.value


@pytest.mark.parametrize(
    ("status", "kind", "http_status"),
    [
        (400, EngineRefused, 400),
        (404, EngineRefused, 404),
        (413, EngineRefused, 413),
        (422, EngineRefused, 422),
        (429, EngineRefused, 429),
        (402, EngineRefused, 502),
        (409, EngineRefused, 502),
        (401, EngineError, 502),
        (403, EngineError, 502),
        (500, EngineError, 502),
        (501, EngineError, 502),
        (502, EngineError, 502),
        (503, EngineUnavailable, 503),
        (302, EngineError, 502),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
async def test_a_status_becomes_the_error_it_means(
    engine: OpenAIEngine, status: int, kind: type[EngineError], http_status: int, stream: bool
) -> None:
    script = f"status {status}"
    error = (await raised_by_stream(engine, script))[1] if stream else await raised(engine, script)
    assert type(error) is kind
    assert error.http_status == http_status
    assert bool(error.retry_after_s) is (status == 503)


async def test_a_refusal_says_what_the_engine_said(engine: OpenAIEngine) -> None:
    assert (await raised(engine, "status 422")).message == "scripted 422"


async def test_what_only_the_operator_can_mend_is_not_repeated_to_the_client(engine: OpenAIEngine) -> None:
    for status in (401, 403, 500):
        assert "scripted" not in (await raised(engine, f"status {status}")).message


async def test_a_connection_closed_without_an_answer_is_unavailable(engine: OpenAIEngine) -> None:
    assert isinstance(await raised(engine, "close"), EngineUnavailable)
    assert isinstance((await raised_by_stream(engine, "close"))[1], EngineUnavailable)


async def test_a_stream_that_is_cut_gives_what_came_and_an_error(engine: OpenAIEngine) -> None:
    came, error = await raised_by_stream(engine, "cut 3")
    assert len(came) == 3
    assert error.http_status in (502, 503)


async def test_an_answer_over_every_limit_is_refused(engine: OpenAIEngine) -> None:
    assert "too large" in (await raised(engine, "large")).message


@pytest.mark.parametrize("script", ["nonsense", "not-json", "not-utf8"])
async def test_nonsense_is_an_error(engine: OpenAIEngine, script: str) -> None:
    assert type(await raised(engine, script)) is EngineError


async def test_a_whole_answer_where_a_stream_was_asked_for_is_an_error(engine: OpenAIEngine) -> None:
    asked = job("hello")
    with pytest.raises(EngineError):
        await anext(engine.stream(asked))


async def test_a_stream_gives_its_payloads_without_the_done(engine: OpenAIEngine) -> None:
    batches = [payloads async for payloads in engine.stream(job("words 5", stream=True))]
    assert all(batches)
    payloads = [msgspec.json.decode(payload) for batch in batches for payload in batch]
    assert [chunk["choices"][0]["delta"].get("content") for chunk in payloads] == [
        "w0 ",
        "w1 ",
        "w2 ",
        "w3 ",
        "w4 ",
        None,
    ]


async def test_silence_before_an_answer_is_a_timeout(server: ScriptedServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "engine_first_byte_s", 0.05)
    engine = OpenAIEngine("far", lambda: Endpoint(server.url, ""))
    assert isinstance(await raised(engine, "hang"), EngineTimeout)
    await engine.close()


async def test_silence_within_a_stream_is_a_timeout(engine: OpenAIEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "engine_between_bytes_s", 0.05)
    came, error = await raised_by_stream(engine, "hang-after 2")
    assert len(came) == 2
    assert isinstance(error, EngineTimeout)


async def test_leaving_a_stream_ends_the_engines_work(server: ScriptedServer, engine: OpenAIEngine) -> None:
    batches = engine.stream(job("hang-after 1", stream=True))
    await anext(batches)
    await batches.aclose()
    await server.idle()
    assert server.running == 0


async def test_nobody_there_is_unavailable() -> None:
    async with ScriptedServer() as gone:
        url = gone.url
    engine = OpenAIEngine("far", lambda: Endpoint(url, ""))
    with pytest.raises(EngineUnavailable, match="far cannot be reached"):
        await engine.answer(job("hello"))
    with pytest.raises(EngineUnavailable):
        await engine.models()
    await engine.close()


async def test_a_closed_engine_is_unavailable(engine: OpenAIEngine) -> None:
    await engine.close()
    for _ in range(2):
        with pytest.raises(EngineUnavailable, match="is closed"):
            await engine.answer(job("hello"))
        with pytest.raises(EngineUnavailable, match="is closed"):
            await engine.models()
        await engine.close()


async def test_models_are_listed_under_their_own_names(engine: OpenAIEngine) -> None:
    (target,) = await engine.models()
    assert (target.model, target.served_name, target.engine, target.created) == ("scripted", "scripted", "far", 1)


async def test_models_are_listed_under_the_names_of_the_configuration(server: ScriptedServer) -> None:
    names = {"small": "scripted", "tiny": "scripted", "large": "not there"}
    engine = OpenAIEngine("far", lambda: Endpoint(server.url, ""), names=names)
    assert [(target.model, target.served_name) for target in await engine.models()] == [
        ("small", "scripted"),
        ("tiny", "scripted"),
    ]
    await engine.close()


def test_an_endpoint_does_not_show_its_key() -> None:
    assert "secret" not in repr(Endpoint("http://10.0.0.7", "secret"))
