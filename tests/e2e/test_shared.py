"""Two gateways with a data directory each, and one PostgreSQL: their API keys and limits are the same (ADR 0006)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import aiohttp
import psycopg
import pytest

from rempart.bench.running import DidNotStart, Running, rempart, running, start
from rempart.ledger.log import entry as entries
from rempart.ledger.reading.entries import EntryReader
from rempart.testing.scripted import ScriptedServer

if TYPE_CHECKING:
    from tests.conftest import Postgres

SETTINGS = """
[server]
workers = {workers}

[ledger]
index = false

[shared]
database = "{database}"
secret_file = "{secret}"
believed_s = 3.0

[[engines]]
name = "scripted"
kind = "openai"
url = "{url}"
"""


class Gateway:
    """One of those that share, and a client that opens a new connection for each request."""

    def __init__(self, server: Running, http: aiohttp.ClientSession) -> None:
        self.server = server
        self.http = http

    @property
    def data(self) -> Path:
        return self.server.data

    async def run(self, *arguments: str) -> str:
        done = await asyncio.to_thread(rempart, *arguments, data=self.data)
        assert done.returncode == 0, done.stderr
        return done.stdout

    async def key(self, *options: str) -> str:
        return str(json.loads(await self.run("key", "create", "--name", "one", *options, "--json"))["key"])

    def post(self, script: str, key: str, **more: Any) -> Any:
        body = {"model": "scripted", "messages": [{"role": "user", "content": script}], **more}
        return self.http.post("/v1/chat/completions", json=body, headers={"Authorization": f"Bearer {key}"})

    async def ask(self, key: str, script: str = "hi", **more: Any) -> int:
        async with self.post(script, key, **more) as response:
            await response.read()
            return int(response.status)

    async def asks(self, key: str, count: int, **more: Any) -> int:
        """How many of them were answered; the others were over the limit."""
        got = [await self.ask(key, **more) for _ in range(count)]
        assert set(got) <= {200, 429}
        return got.count(200)

    async def becomes(self, key: str, status: int) -> None:
        async with asyncio.timeout(20):
            while await self.ask(key) != status:
                await asyncio.sleep(0.05)

    @contextlib.asynccontextmanager
    async def stream(self, key: str) -> AsyncIterator[aiohttp.ClientResponse]:
        async with self.post("paced 100000 20", key, stream=True) as response:
            assert response.status == 200
            await response.content.readline()
            yield response

    async def reasons(self) -> dict[str, str]:
        async with self.http.get("/readyz") as response:
            found: dict[str, str] = (await response.json())["reasons"]
            return found

    def entries(self) -> list[dict[str, Any]]:
        reader = EntryReader(self.data / "ledger")
        return [entries.decode(reader.read(index)) for index in range(reader.count)]

    def logged(self) -> str:
        return self.data.with_name(self.data.name + ".stderr").read_text()


class Fleet:
    """Gateways that share one database."""

    def __init__(self, path: Path, database: str, url: str, stack: contextlib.AsyncExitStack) -> None:
        self.path = path
        self.database = database
        self._url = url
        self._stack = stack
        self.secret = path / "secret"
        self.secret.write_text("0123456789abcdef" * 4 + "\n")
        self.secret.chmod(0o600)

    def prepare(self, name: str, workers: int = 1, more: str = "") -> Path:
        data = self.path / name
        data.mkdir(mode=0o700, exist_ok=True)
        text = SETTINGS.format(workers=workers, database=self.database, secret=self.secret, url=self._url)
        (data / "rempart.toml").write_text(text + more)
        return data

    async def gateway(self, name: str, workers: int = 1, more: str = "") -> Gateway:
        context = running(self.prepare(name, workers, more))
        server = await asyncio.to_thread(context.__enter__)
        self._stack.push_async_callback(asyncio.to_thread, context.__exit__, None, None, None)
        connector = aiohttp.TCPConnector(force_close=True, limit=0)
        http = await self._stack.enter_async_context(aiohttp.ClientSession(server.url, connector=connector))
        return Gateway(server, http)


@pytest.fixture
async def fleet(
    postgres: Postgres, engine: ScriptedServer, tmp_path: Path, request: pytest.FixtureRequest
) -> AsyncIterator[Fleet]:
    async with contextlib.AsyncExitStack() as stack:
        yield Fleet(
            tmp_path, postgres.address(f"shared {request.node.name}"[-60:].replace(" ", "_")), engine.url, stack
        )


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.05)


async def test_a_key_made_at_one_works_at_the_other_and_revoked_at_one_it_is_cut_at_the_other(fleet: Fleet) -> None:
    one, other = await fleet.gateway("one"), await fleet.gateway("other")
    assert one.server.key
    assert not other.server.key  # the first key of all was made already
    key = await one.key("--owner", "Ada")
    await other.becomes(key, 200)
    assert await one.ask(key) == 200
    actors = [next(e["actor"] for e in site.entries() if e["type"] == "request") for site in (one, other)]
    assert actors[0] != actors[1]  # each names her by a pseudonym of its own
    for site, actor in zip((one, other), actors, strict=True):
        listed = json.loads(await site.run("key", "list", "--json"))
        assert [row["actor"] for row in listed if row["id"] == key.split("_")[1]] == [actor]
    async with other.stream(key) as response:
        await one.run("key", "revoke", key.split("_")[1])
        assert b"invalid_api_key" in await response.content.read()
    assert await other.ask(key) == 401
    assert await one.ask(key) == 401
    assert other.entries()[-1]["type"] in ("response", "refusals", "heartbeat", "meter")


async def test_who_is_erased_at_one_has_no_key_at_the_other_and_no_name_in_the_database(fleet: Fleet) -> None:
    one, other = await fleet.gateway("one"), await fleet.gateway("other")
    key = await one.key("--owner", "Ada")
    await other.becomes(key, 200)
    await other.run("ledger", "erase", "--actor", "Ada", "--ground", "GDPR 17(1)(b)", "--yes")
    await one.becomes(key, 401)
    listed = json.loads(await one.run("key", "list", "--json"))
    assert [row["name"] for row in listed if row["id"] == key.split("_")[1]] == ["erased"]
    await other.run("ledger", "verify")


async def test_requests_of_a_minute_are_those_of_both_to_the_last_one(fleet: Fleet) -> None:
    one, other = await fleet.gateway("one"), await fleet.gateway("other")
    while True:
        key = await one.key("--requests-per-minute", "24")
        await until(lambda key=key: key.split("_")[1] in other.logged())  # type: ignore[misc]
        minute = time.time() // 60
        total = await one.asks(key, 7)
        while total < 24 and time.time() // 60 == minute:  # one has some left of a block, which the other asks back
            total += await other.asks(key, 1)
        over = await one.asks(key, 5) + await other.asks(key, 5)
        if time.time() // 60 == minute:
            break
    assert (total, over) == (24, 0)


async def test_tokens_of_a_day_are_those_of_both_until_one_more_request_does_not_fit(fleet: Fleet) -> None:
    one, other = await fleet.gateway("one"), await fleet.gateway("other")
    key = await one.key("--tokens-per-day", "1000")
    await other.becomes(key, 200)

    def spent() -> int:
        found = [e for site in (one, other) for e in site.entries() if e["type"] == "response"]
        return sum(e.get("tokens_prompt", 0) + e.get("tokens_completion", 0) for e in found)

    async with asyncio.timeout(60):
        while spent() <= 1000 - 70:  # a request is held for 70 tokens at most
            await asyncio.gather(*(site.ask(key, "words 10", max_tokens=40) for site in (one, other)))
    assert spent() <= 1000
    assert await one.asks(key, 3, max_tokens=100) + await other.asks(key, 3, max_tokens=100) == 0


async def test_a_gateway_that_is_killed_brings_back_what_it_was_lent(fleet: Fleet) -> None:
    one = await fleet.gateway("one")
    key = await one.key("--tokens-per-day", "1000")
    async with one.stream(key):  # it says nothing of how much it takes: all that is left is set aside
        await asyncio.to_thread(one.server.kill)
    again = await fleet.gateway("one")
    assert await again.ask(key, "hi", max_tokens=500) == 200


async def test_while_the_database_is_away_keys_are_believed_for_a_time_and_then_none(
    fleet: Fleet, postgres: Postgres
) -> None:
    one, other = await fleet.gateway("one"), await fleet.gateway("other")
    key, limited = await one.key(), await one.key("--requests-per-minute", "1000")
    await other.becomes(limited, 200)
    async with other.stream(key) as response:
        await asyncio.to_thread(postgres.control, "stop", "-m", "fast")
        try:
            made = await asyncio.to_thread(rempart, "key", "create", "--name", "late", data=one.data)
            assert made.returncode == 3
            assert "PostgreSQL" in made.stderr
            revoked = await asyncio.to_thread(rempart, "key", "revoke", limited.split("_")[1], data=one.data)
            assert "other gateways do not know it" in revoked.stderr
            assert await one.ask(limited) in (401, 503)  # it works no more where it was revoked
            assert b"shared_state_unavailable" in await response.content.read()
            assert await other.ask(key) == 503
            assert "PostgreSQL" in (await other.reasons())["keys"]
        finally:
            await asyncio.to_thread(postgres.control, "start")
    for site in (one, other):
        await site.becomes(key, 200)
    assert await other.reasons() == {}
    await one.run("key", "revoke", limited.split("_")[1])
    await other.becomes(limited, 401)
    assert "shared state is away" in other.logged()
    assert "shared state is back" in other.logged()


async def test_a_database_that_is_there_and_silent_holds_up_nobody_who_needs_nothing_of_it(
    fleet: Fleet, postgres: Postgres
) -> None:
    one = await fleet.gateway("one")
    free, limited = await one.key(), await one.key("--requests-per-minute", "1000")
    name = fleet.database.removeprefix("postgresql:///").partition("?")[0]
    conninfo = postgres.conninfo.replace("dbname=postgres", f"dbname={name}")
    async with one.stream(free) as response:
        with psycopg.connect(conninfo) as blocking:
            blocking.execute("LOCK TABLE rempart_shared.used IN ACCESS EXCLUSIVE MODE")
            waiting = asyncio.create_task(one.ask(limited))
            assert [await one.ask(free) for _ in range(3)] == [200, 200, 200]
            assert await response.content.readline()
            assert await waiting == 503
        await one.becomes(limited, 200)
        with psycopg.connect(conninfo) as blocking:
            blocking.execute("LOCK TABLE rempart_shared.state IN ACCESS EXCLUSIVE MODE")
            await one.becomes(free, 503)
            assert b"shared_state_unavailable" in await response.content.read()
    await one.becomes(free, 200)


async def test_workers_of_gateways_that_share_have_the_same_keys_and_limits(fleet: Fleet, postgres: Postgres) -> None:
    one, other = await fleet.gateway("one", workers=2), await fleet.gateway("other", workers=2)
    key = await one.key("--requests-per-minute", "30")
    await until(lambda: key.split("_")[1] in other.logged())
    minute, got = time.time() // 60, list[int]()
    for _ in range(4):
        got += await asyncio.gather(*(site.ask(key) for _ in range(10) for site in (one, other)))
    assert got.count(200) <= 30 * (1 + time.time() // 60 - minute)
    assert got.count(200) > 20
    assert {one["worker"] for one in other.entries() if one["type"] == "response"} <= {"w0", "w1"}
    free = await one.key()
    await other.becomes(free, 200)
    async with contextlib.AsyncExitStack() as stack:
        streams = [await stack.enter_async_context(other.stream(free)) for _ in range(6)]
        await one.run("key", "revoke", free.split("_")[1])
        for response in streams:
            assert b"invalid_api_key" in await response.content.read()
    assert {await other.ask(free) for _ in range(6)} == {401}
    last = await one.key()
    await other.becomes(last, 200)
    await asyncio.to_thread(postgres.control, "stop", "-m", "fast")
    try:
        await other.becomes(last, 503)
        assert {await other.ask(last) for _ in range(6)} == {503}
    finally:
        await asyncio.to_thread(postgres.control, "start")
    await other.becomes(last, 200)


async def test_a_gateway_with_another_secret_does_not_start(fleet: Fleet) -> None:
    await fleet.gateway("one")
    fleet.secret.write_text("f" * 64)
    data = fleet.prepare("other")
    with pytest.raises(DidNotStart, match="not the one that"):
        await asyncio.to_thread(start, data)


async def test_a_gateway_does_not_start_without_the_database(fleet: Fleet) -> None:
    fleet.database = f"postgresql:///none?host={fleet.path}"
    with pytest.raises(DidNotStart, match="PostgreSQL failed"):
        await asyncio.to_thread(start, fleet.prepare("one"))


async def test_a_keystore_is_never_shared_and_whoever_loses_it_stops(fleet: Fleet, postgres: Postgres) -> None:
    keys = f'\n[keys]\ndatabase = "{postgres.address("never_shared")}"\n'
    one = await fleet.gateway("one", more=keys)
    data = fleet.prepare("other", more=keys)
    with pytest.raises(DidNotStart, match="a database of its own"):  # a new log
        await asyncio.to_thread(start, data)
    shutil.rmtree(data / "keys", ignore_errors=True)
    shutil.copytree(one.data / "keys", data / "keys")
    with pytest.raises(DidNotStart, match="Another gateway uses the keystore"):  # a copy
        await asyncio.to_thread(start, data)
    conninfo = postgres.conninfo.replace("dbname=postgres", "dbname=never_shared")
    with psycopg.connect(conninfo, autocommit=True) as taking, psycopg.connect(conninfo, autocommit=True) as ending:
        waiting = asyncio.create_task(asyncio.to_thread(taking.execute, "SELECT pg_advisory_lock(1380273489)"))
        blocked = "SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND NOT granted"
        await until(lambda: ending.execute(blocked).fetchone())
        owner = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND granted"
        ending.execute(owner)
        await waiting
        await until(lambda: one.server.process.poll() is not None)
    assert "The keystore was taken; stopping." in one.logged()
