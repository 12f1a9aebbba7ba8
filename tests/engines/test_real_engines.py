"""Every adapter on its real engine, serving the guide: the conformance suite, and an exchange through the gateway.

`make test-engines` makes the environments, and of the reports the matrix in `docs/engines.md`. Ollama has no package:
its fake stands in, and says so.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec
import pytest
import pytest_asyncio

from rempart.bench.running import Running, disclosed, running
from rempart.testing.check_engine import FEATURES, check_engine
from rempart.testing.conformance import Subject
from rempart.testing.real_llamacpp import LlamaCppSubject
from rempart.testing.real_transformers import TransformersSubject
from rempart.testing.real_triton import TritonSubject
from rempart.testing.real_vllm import VLLMSubject
from rempart.testing.subjects import OllamaSubject

REPORTS: Final = Path(__file__).resolve().parents[2] / "build" / "engines"
SUBJECTS: Final[dict[str, Any]] = {
    "llamacpp": LlamaCppSubject,
    "transformers": TransformersSubject,
    "triton": TritonSubject,
    "vllm": VLLMSubject,
    "ollama": lambda _: OllamaSubject(),
}
SETTINGS: Final = """
[[engines]]
name = "{kind}"
kind = "{kind}"
url = "{url}"
{more}
"""
FAULT_S: Final = 60.0

pytestmark = [pytest.mark.asyncio(loop_scope="module"), pytest.mark.timeout(900)]


@pytest_asyncio.fixture(loop_scope="module", scope="module", params=SUBJECTS)
async def subject(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Subject]:
    async with SUBJECTS[request.param](tmp_path_factory.mktemp(request.param)) as subject:
        yield subject


@pytest_asyncio.fixture(loop_scope="module")
async def site(subject: Subject, tmp_path: Path) -> AsyncIterator[Running]:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    key = tmp_path / "engine.key"
    key.touch(mode=0o600)
    key.write_text(getattr(subject, "api_key", str)())
    settings = SETTINGS.format(kind=subject.name, url=subject.url, more=f'api_key_file = "{key}"')
    (data / "rempart.toml").write_text(settings)
    context = running(data)
    server = await asyncio.to_thread(context.__enter__)
    try:
        yield server
    finally:
        await asyncio.to_thread(context.__exit__, None, None, None)


async def test_an_exchange_through_the_gateway_is_answered_and_in_the_ledger(subject: Subject, site: Running) -> None:
    asked = {"model": await _model(site), "messages": [{"role": "user", "content": "What is Rempart?"}]}
    headers = {"Authorization": f"Bearer {site.key}"}
    async with aiohttp.ClientSession(site.url, headers=headers) as http:
        async with http.post("/v1/chat/completions", json={**asked, "max_tokens": 24}) as response:
            answer = await response.json()
            assert response.status == 200, answer
            whole = response.headers["x-rempart-exchange"]
        async with http.post("/v1/chat/completions", json={**asked, "max_tokens": 24, "stream": True}) as response:
            events = (await response.read()).decode()
            assert response.status == 200, events
            streamed = response.headers["x-rempart-exchange"]
    assert events.rstrip().endswith("data: [DONE]")
    said = answer["choices"][0]["message"]["content"]
    assert said
    entry = await _response(site, whole)
    assert (entry["entry"]["outcome"], entry["entry"]["engine"]) == ("ok", subject.name)
    assert entry["body"]["response"]["choices"][0]["message"]["content"] == said
    assert entry["entry"]["tokens_completion"] == answer["usage"]["completion_tokens"] > 0
    entry = await _response(site, streamed)
    chunks = [json.loads(line[6:]) for line in events.splitlines() if line.startswith("data: {")]
    text = "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks)
    assert entry["entry"]["outcome"] == "ok"
    assert entry["body"]["response"]["choices"][0]["message"]["content"] == text


async def test_a_client_that_leaves_stops_the_engine_and_is_in_the_ledger(subject: Subject, site: Running) -> None:
    asked = {
        "model": await _model(site),
        "messages": [{"role": "user", "content": subject.long_prompt}],
        **{"max_tokens": 400, "ignore_eos": True, "stream": True},
    }
    headers = {"Authorization": f"Bearer {site.key}"}
    exchanges: list[str] = []

    async def leave() -> None:
        async with (
            aiohttp.ClientSession(site.url, headers=headers) as http,
            http.post("/v1/chat/completions", json=asked) as response,
        ):
            assert response.status == 200
            exchanges.append(response.headers["x-rempart-exchange"])
            await response.content.readline()

    before = await subject.load()
    async with asyncio.timeout(FAULT_S):
        await asyncio.gather(*(leave() for _ in range(4)))
        while (await subject.load()).running:
            await asyncio.sleep(0.02)
    said = (await subject.load()).generated - before.generated
    entries = [await _response(site, exchange) for exchange in exchanges]
    outcomes = {entry["entry"]["outcome"] for entry in entries}
    assert "cancelled" in outcomes, outcomes
    assert said < 4 * 400, "whoever left was served to the end"


async def test_the_engine_conforms(subject: Subject) -> None:
    """Last: it kills the engine and starts it again."""
    report = await check_engine(subject)
    REPORTS.mkdir(parents=True, exist_ok=True)
    (REPORTS / f"{subject.name}.json").write_bytes(msgspec.json.encode(report))
    assert report.failed() == {}
    assert tuple(outcome.feature for outcome in report.outcomes) == FEATURES


async def _model(site: Running) -> str:
    """The one that can talk; an engine may list others beside it."""
    headers = {"Authorization": f"Bearer {site.key}"}
    async with aiohttp.ClientSession(site.url, headers=headers) as http, http.get("/v1/models") as response:
        names = [model["id"] for model in (await response.json())["data"]]
    assert "guide" in names
    return "guide"


async def _response(site: Running, exchange: str) -> dict[str, Any]:
    """The response entry of an exchange with what was said, once it is there."""
    async with asyncio.timeout(FAULT_S):
        while True:
            shown = await asyncio.to_thread(disclosed, exchange, "--json", data=site.data)
            lines: list[dict[str, Any]] = [json.loads(line) for line in shown.stdout.splitlines()]
            if lines and lines[-1]["entry"]["type"] == "response":
                return lines[-1]
            await asyncio.sleep(0.1)
