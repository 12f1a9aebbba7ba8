"""What cannot be recorded is not shown: reads of a ledger whose disk fails."""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rempart.config.settings import Engine, Keys, Ledger, Settings
from rempart.errors import LedgerUnavailable
from rempart.identity.issue import KeyOrder
from rempart.ledger.search.following import index_ledger
from rempart.testing.small_ledger import until
from rempart.wiring import Site, open_site

EXCHANGE = f"{1:012x}{7:020x}"


class Asked(msgspec.Struct):
    """A site, and an auditor's key of it."""

    site: Site
    key: str

    async def get(self, path: str, query: str = "") -> tuple[int, dict[str, Any]]:
        return await self._ask("GET", path, query, b"")

    async def post(self, path: str, body: object) -> tuple[int, dict[str, Any]]:
        return await self._ask("POST", path, "", msgspec.json.encode(body))

    async def _ask(self, method: str, path: str, query: str, body: bytes) -> tuple[int, dict[str, Any]]:
        sent: list[Any] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": body}

        async def send(message: Any) -> None:
            sent.append(message)

        headers = [(b"host", b"localhost"), (b"authorization", f"Bearer {self.key}".encode())]
        path = f"/rempart/v1/ledger/{path}"
        scope = {"type": "http", "method": method, "path": path, "query_string": query.encode(), "headers": headers}
        await self.site.gateway(scope, receive, send)
        return sent[0]["status"], msgspec.json.decode(sent[1]["body"])


@pytest.fixture
async def asked(tmp_path: Path) -> AsyncIterator[Asked]:
    """A ledger with one exchange, which is in the index."""
    engine = Engine(name="far", kind="openai", url="http://127.0.0.1:9", models={"m": "m"})
    settings = Settings(data=tmp_path / "data", ledger=Ledger(index=False), engines=(engine,))
    with contextlib.suppress(LedgerUnavailable):  # it cannot record its end
        async with open_site(settings) as site:
            key, _ = await site.administration.create_key(KeyOrder(name="audit", role="auditor"))
            given: dict[str, Any] = {"actor": "a_1", "role": "user", "key": "k", "subject": "", "people": ()}
            record = await site.journal.open(EXCHANGE, retention="standard", **given)
            request = await record.request({"model": "m", "operation": "chat"}, b'{"request":{"prompt":"a secret"}}')
            facts = {"model": "m", "operation": "chat", "outcome": "ok", "request": request.index, "status": 200}
            response = await record.response(facts, b'{"response":{"choices":[{"text":"an answer"}]}}')
            await until(lambda: site.journal.state().tree_size > response.index)
            index_ledger(str(settings.data), Keys(), False, False)
            yield Asked(site, key)


async def test_while_the_disk_is_sound_it_is_shown(asked: Asked) -> None:
    status, found = await asked.get("search", "q=secret")
    assert (status, [one["exchange"] for one in found["results"]]) == (200, [EXCHANGE])
    assert (await asked.get(f"exchanges/{EXCHANGE}"))[0] == 200
    status, told = await asked.post(f"exchanges/{EXCHANGE}/bodies", {"reason": "r"})
    assert (status, told["bodies"][0]["body"]["request"]["prompt"]) == (200, "a secret")
    status, found = await asked.post("search", {"q": "secret", "reason": "r"})
    assert (status, found["results"][0]["snippet"]) == (200, "a secret")


async def test_when_it_cannot_be_recorded_nothing_is_shown(asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(descriptor: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fdatasync", fail)
    for _ in range(2):  # the one that meets the failure, and one that comes later
        for ask in (
            asked.get("search", "q=secret"),
            asked.get(f"exchanges/{EXCHANGE}"),
            asked.get(f"exchanges/{'0' * 32}"),
            asked.post(f"exchanges/{EXCHANGE}/bodies", {"reason": "r"}),
            asked.post("search", {"q": "secret", "reason": "r"}),
        ):
            status, told = await ask
            assert (status, list(told), told["error"]["code"]) == (503, ["error"], "ledger_unavailable")
