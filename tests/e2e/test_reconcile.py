"""A real server and its real engine: what passes through the gateway is in the ledger, and what does not is noticed."""

from __future__ import annotations

import asyncio
import json
import time
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import openai
import pytest

from rempart.config.settings import Settings
from rempart.engines.embedded import EmbeddedEngine
from rempart.gateway.server import Address, Stop, bind, serve
from rempart.identity.issue import KeyOrder
from rempart.ledger.reading.reconcile import reconcile
from rempart.wiring import Site, open_site

QUESTION: dict[str, Any] = {"model": "guide", "messages": [{"role": "user", "content": "What is Rempart?"}]}


class Served:
    """A site that listens, and a key for it."""

    def __init__(self, site: Site, port: int, key: str) -> None:
        self.site = site
        self.url = f"http://127.0.0.1:{port}"
        self.key = key
        self.client = openai.AsyncOpenAI(base_url=f"{self.url}/v1", api_key=key, max_retries=0)

    async def ask(self, **options: Any) -> None:
        await self.client.chat.completions.create(**QUESTION, max_tokens=8, **options)

    async def count(self) -> dict[str, Any]:
        return await asyncio.to_thread(fetch, f"{self.url}/rempart/v1/count", self.key, None)


def fetch(url: str, key: str, body: dict[str, Any] | None) -> dict[str, Any]:
    data = None if body is None else json.dumps(body).encode()
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=30) as answer:
        found: dict[str, Any] = json.load(answer)
        return found


@pytest.fixture
async def served(tmp_path: Path) -> AsyncIterator[Served]:
    address = Address(host="127.0.0.1", port=0)
    sock = bind(address)
    stop = Stop(drain=asyncio.Event(), cut=asyncio.Event(), draining=lambda _: None)
    listening = asyncio.Event()

    async def ready() -> None:
        listening.set()

    async with open_site(Settings(data=tmp_path / "data")) as site:
        key, _ = await site.administration.create_key(KeyOrder(name="test"))
        serving = asyncio.create_task(serve(site.gateway, sock, address, stop=stop, ready=ready))
        await listening.wait()
        yield Served(site, sock.getsockname()[1], key)
        stop.drain.set()
        await serving


def engine_of(served: Served) -> EmbeddedEngine:
    return served.site.embedded["embedded"]


async def test_what_was_asked_through_the_gateway_is_all_that_the_engine_served(served: Served, tmp_path: Path) -> None:
    for _ in range(3):
        await served.ask()
    stream = await served.client.chat.completions.create(**QUESTION, max_tokens=8, stream=True)
    async for _ in stream:
        pass
    await served.ask(n=2)
    await served.client.embeddings.create(model="guide", input="What is Rempart?")
    await served.client.completions.create(model="guide", prompt=["What is", "Rempart is a"], max_tokens=4)
    await served.site.gateway.beat()
    found = reconcile(tmp_path / "data" / "ledger")
    assert found.gaps == []
    (row,) = found.engines
    assert row.recorded == row.counted
    assert (row.counted["dispatched"], row.compared) == (7, 2)
    assert row.served is not None
    assert row.served["completion"] > 0


async def test_a_request_made_behind_the_gateways_back_is_noticed(served: Served, tmp_path: Path) -> None:
    await served.ask()
    endpoint = engine_of(served)._where()
    answer = await asyncio.to_thread(
        fetch, f"{endpoint.url}/v1/chat/completions", endpoint.api_key, {**QUESTION, "max_tokens": 1}
    )
    await served.ask()
    await served.site.gateway.beat()
    found = reconcile(tmp_path / "data" / "ledger")
    assert {gap.kind for gap in found.gaps} == {"served"}
    assert any(
        f"served {answer['usage']['completion_tokens']} tokens of answers more" in gap.what for gap in found.gaps
    )


async def test_a_client_can_compare_what_it_sent_with_what_was_recorded(served: Served) -> None:
    before = await served.count()
    assert (before["since_boot"], before["today"]) == (0, 0)
    for _ in range(2):
        await served.ask()
    with pytest.raises(openai.NotFoundError):
        await served.client.chat.completions.create(model="nothing", messages=QUESTION["messages"])
    found = await served.count()
    assert (found["since_boot"], found["today"]) == (3, 3)
    assert found["key"] == served.key.split("_")[1]
    assert len(found["boot"]) == 32


async def test_what_was_counted_today_outlives_the_server(tmp_path: Path) -> None:
    settings = Settings(data=tmp_path / "data")
    async with open_site(settings) as site:
        site.gateway.counts.recorded("k", time.time())
    async with open_site(settings) as site:
        assert site.gateway.counts.of_key("k", time.time()) == (0, 1)
