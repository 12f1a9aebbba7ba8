"""`kill -9` under load, at random moments: nothing that a client read is lost, and the ledger holds.

REMPART_KILLS says how many times (the default keeps the whole test run short).
"""

import asyncio
import os
import random
from pathlib import Path

import aiohttp
import pytest

from rempart.bench.running import Running, disclosed, rempart, start
from rempart.ledger.reading.find import newest_first
from rempart.testing.scripted import ScriptedServer

KILLS = int(os.environ.get("REMPART_KILLS", "8"))
CLIENTS = 16
SETTINGS = '[[engines]]\nname = "scripted"\nkind = "openai"\nurl = "{url}"\n'


class Seen:
    """What clients read."""

    def __init__(self) -> None:
        self.whole: dict[str, str] = {}
        """Exchange -> text of an answer received in full."""
        self.partly: dict[str, str] = {}
        """Exchange -> text of a stream that broke off."""


@pytest.mark.timeout(60 + 30 * KILLS)
async def test_kill_under_load(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    chance = random.Random(0)
    seen = Seen()
    key = ""
    async with ScriptedServer() as engine:
        (data / "rempart.toml").write_text(SETTINGS.format(url=engine.url))
        for turn in range(KILLS):
            server = await asyncio.to_thread(start, data)
            key = key or server.key
            await _load_until_killed(server, key, seen, chance.uniform(0.05, 0.6))
            verified = await asyncio.to_thread(rempart, "ledger", "verify", data=data)
            assert verified.returncode == 0, f"after kill {turn}: {verified.stderr}"
        server = await asyncio.to_thread(start, data)
        assert server.stop() == 0
    verified = await asyncio.to_thread(rempart, "ledger", "verify", data=data)
    assert verified.returncode == 0
    assert ", 0 without a response" in verified.stdout
    _check_nothing_is_lost(data, seen)


async def test_it_can_be_verified_while_it_is_written(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    async with ScriptedServer() as engine:
        (data / "rempart.toml").write_text(SETTINGS.format(url=engine.url))
        server = await asyncio.to_thread(start, data)
        async with aiohttp.ClientSession(server.url, headers={"Authorization": f"Bearer {server.key}"}) as http:
            clients = [asyncio.create_task(_client(http, number, Seen())) for number in range(CLIENTS)]
            for _ in range(6):
                verified = await asyncio.to_thread(rempart, "ledger", "verify", data=data)
                assert verified.returncode == 0, verified.stderr
            server.kill()
            await asyncio.gather(*clients)
        assert server.process.stdout is not None
        server.process.stdout.close()


async def _load_until_killed(server: Running, key: str, seen: Seen, after_s: float) -> None:
    async with aiohttp.ClientSession(server.url, headers={"Authorization": f"Bearer {key}"}) as http:
        clients = [asyncio.create_task(_client(http, number, seen)) for number in range(CLIENTS)]
        await asyncio.sleep(after_s)
        server.kill()
        await asyncio.gather(*clients)
    assert server.process.stdout is not None
    server.process.stdout.close()


async def _client(http: aiohttp.ClientSession, number: int, seen: Seen) -> None:
    try:
        while True:
            await _ask(http, number % 2 == 0, seen)
    except (aiohttp.ClientError, TimeoutError):
        return  # the server was killed


async def _ask(http: aiohttp.ClientSession, stream: bool, seen: Seen) -> None:
    script = "paced 20 3" if stream else "words 20"
    body = {"model": "scripted", "messages": [{"role": "user", "content": script}], "stream": stream}
    async with http.post("/v1/chat/completions", json=body) as response:
        assert response.status == 200, await response.text()
        exchange = response.headers["x-rempart-exchange"]
        read = b""
        try:
            async for data in response.content.iter_any():
                read += data
        except aiohttp.ClientError:
            seen.partly[exchange] = read.decode()
            raise
        if stream and not read.endswith(b"[DONE]\n\n"):
            seen.partly[exchange] = read.decode()
        else:
            seen.whole[exchange] = read.decode()


def _check_nothing_is_lost(data: Path, seen: Seen) -> None:
    outcomes = {
        fields["exchange"]: (fields["outcome"], index)
        for index, fields in newest_first(data / "ledger")
        if fields["type"] == "response"
    }
    assert seen.whole, "the load must have got answers"
    for exchange in seen.whole:
        assert outcomes[exchange][0] == "ok"
    for exchange in seen.partly:
        assert outcomes[exchange][0] in ("lost", "ok"), exchange
    for exchange, text in list(seen.partly.items())[-5:]:
        shown = disclosed(exchange, data=data)
        words = [f"w{number} " for number in range(20) if f'"w{number} "' in text]
        assert "".join(words) in shown.stdout, "what a client read of a stream is in the ledger"
