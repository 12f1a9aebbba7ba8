"""Engines that hang, die and come back behind a real server: who is answered, by whom, and what the ledger says."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import msgspec
import pytest

from rempart import limits
from rempart.config.load import load
from rempart.gateway.server import Address, Stop, bind, serve
from rempart.identity.issue import KeyOrder
from rempart.ledger.log import entry as entries
from rempart.ledger.reading.entries import EntryReader
from rempart.ledger.reading.reconcile import reconcile
from rempart.testing.scripted import ScriptedServer
from rempart.wiring import Site, open_site


class Engine(ScriptedServer):
    """It follows the script `instead`, when there is one, whatever it is asked."""

    def __init__(self, model: str = "m") -> None:
        super().__init__(model)
        self.instead = ""

    async def _answer(self, writer: asyncio.StreamWriter, path: str, body: bytes) -> bool:
        if self.instead and path != "/v1/models":
            asked = msgspec.json.decode(body, type=dict[str, Any])
            asked["messages"] = [{"role": "user", "content": self.instead}]
            body = msgspec.json.encode(asked)
        return await super()._answer(writer, path, body)


class Door:
    """A site that listens."""

    def __init__(self, site: Site, url: str, keys: list[str], ledger: Path) -> None:
        self.site = site
        self.url = url
        self.keys = keys
        self.ledger = ledger
        self._http = aiohttp.ClientSession(url)

    async def ask(self, script: str = "hello", key: int = 0, **more: Any) -> tuple[int, bytes, str]:
        """Status, body and exchange."""
        body = {"model": "m", "messages": [{"role": "user", "content": script}], **more}
        headers = {"Authorization": f"Bearer {self.keys[key]}"}
        async with self._http.post("/v1/chat/completions", json=body, headers=headers) as answer:
            return answer.status, await answer.read(), answer.headers["x-rempart-exchange"]

    async def metric(self, start: str) -> float:
        async with self._http.get("/metrics") as answer:
            lines = (await answer.text()).splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(start))

    async def waits(self, count: int) -> None:
        """So many are in the queue."""
        while self.site.gateway.parts.router.figures().waiting != count:
            await asyncio.sleep(0.005)

    def responses(self) -> list[dict[str, Any]]:
        found = [entries.decode(entry) for _, entry in EntryReader(self.ledger).forward(0)]
        return [fields for fields in found if fields["type"] == "response"]

    def requests(self) -> list[dict[str, Any]]:
        found = [entries.decode(entry) for _, entry in EntryReader(self.ledger).forward(0)]
        return [fields for fields in found if fields["type"] == "request"]

    async def recorded(self, exchange: str) -> dict[str, Any]:
        while True:
            for fields in self.responses():
                if fields["exchange"] == exchange:
                    return fields
            await asyncio.sleep(0.01)

    async def close(self) -> None:
        await self._http.close()


@contextlib.asynccontextmanager
async def opened(path: Path, *engines: Engine, more: str = "", each: str = "") -> AsyncIterator[Door]:
    """`more`: settings before the engines; `each`: of each engine. Engines are called e0, e1, …"""
    file = path / "rempart.toml"
    tables = [
        f'[[engines]]\nname = "e{number}"\nkind = "openai"\nurl = "{one.url}"\n{each}\n'
        for number, one in enumerate(engines)
    ]
    file.write_text(more + "\n" + "".join(tables))
    settings = load({"data": path / "data"}, {}, file).settings
    address = Address(host="127.0.0.1", port=0)
    sock = bind(address)
    stop = Stop(drain=asyncio.Event(), cut=asyncio.Event(), draining=lambda _: None)
    listening = asyncio.Event()

    async def ready() -> None:
        listening.set()

    async with open_site(settings) as site:
        keys = [(await site.administration.create_key(KeyOrder(name=name)))[0] for name in ("one", "two")]
        serving = asyncio.create_task(serve(site.gateway, sock, address, stop=stop, ready=ready))
        await listening.wait()
        url = f"http://127.0.0.1:{sock.getsockname()[1]}"
        door = Door(site, url, keys, path / "data" / "ledger")
        try:
            yield door
        finally:
            await door.close()
            stop.drain.set()
            stop.cut.set()
            await serving


@pytest.fixture
async def engines() -> AsyncIterator[list[Engine]]:
    async with Engine() as one, Engine() as two:
        yield [one, two]


def chosen(door: Door, exchange: str) -> tuple[str, list[str]]:
    """The engine that answered, and those that had it before."""
    [response] = [fields for fields in door.responses() if fields["exchange"] == exchange]
    return response["engine"], response.get("tried", [])


@pytest.mark.parametrize("script", ["close", "status 500", "status 429", "status 503", "nonsense", "not-json"])
@pytest.mark.parametrize("stream", [False, True])
async def test_what_fails_before_its_first_piece_is_answered_by_another_engine(
    tmp_path: Path, engines: list[Engine], script: str, stream: bool
) -> None:
    engines[0].instead = script
    if stream and script in ("nonsense", "not-json"):
        script = engines[0].instead = "error-event 0"
    async with opened(tmp_path, *engines) as door:
        for _ in range(2):  # whichever comes first, one of the two goes to e0
            status, body, exchange = await door.ask("words 3", stream=stream)
            assert status == 200
            assert body.endswith(b"data: [DONE]\n\n") if stream else json.loads(body)["choices"]
            if chosen(door, exchange) == ("e1", ["e0"]):
                break
        response = await door.recorded(exchange)
        assert (response["outcome"], response["attempts"], response["tried"]) == ("ok", 2, ["e0"])
        [request] = [fields for fields in door.requests() if fields["exchange"] == exchange]
        assert request["engine"] == "e0"
        assert await door.metric("rempart_retries_total") == 1
        await door.site.gateway.beat()
        found = reconcile(door.ledger)
        assert found.gaps == []
        rows = {row.engine: row for row in found.engines}
        assert rows["e0"].recorded == rows["e0"].counted
        assert rows["e1"].recorded == rows["e1"].counted
        assert rows["e0"].counted["failed"] == 1


async def test_what_an_engine_refuses_is_not_asked_of_another(tmp_path: Path, engines: list[Engine]) -> None:
    async with opened(tmp_path, *engines) as door:
        status, _, exchange = await door.ask("status 422")
        assert status == 422
        assert "tried" not in await door.recorded(exchange)
        assert len(engines[0].asked) + len(engines[1].asked) == 1


@pytest.mark.parametrize("script", ["cut 3", "error-event 3"])
async def test_a_stream_that_has_begun_is_not_asked_of_another(
    tmp_path: Path, engines: list[Engine], script: str
) -> None:
    async with opened(tmp_path, *engines) as door:
        status, body, exchange = await door.ask(script, stream=True)
        assert status == 200
        assert b"[DONE]" not in body
        response = await door.recorded(exchange)
        assert response["outcome"] == "failed"
        assert "tried" not in response
        assert len(engines[0].asked) + len(engines[1].asked) == 1


async def test_when_every_engine_fails_the_client_is_told_after_a_bounded_number_of_them(tmp_path: Path) -> None:
    async with Engine() as one, Engine() as two, Engine() as three, Engine() as four:
        for engine in (one, two, three, four):
            engine.instead = "status 500"
        async with opened(tmp_path, one, two, three, four) as door:
            status, body, exchange = await door.ask()
            assert (status, json.loads(body)["error"]["code"]) == (502, "engine_error")
            response = await door.recorded(exchange)
            assert (response["outcome"], response["attempts"]) == ("failed", limits.retries_max + 1)
            assert len({*response["tried"], response["engine"]}) == limits.retries_max + 1
            assert sum(len(engine.asked) for engine in (one, two, three, four)) == limits.retries_max + 1


async def test_an_engine_that_hangs_ends_at_the_deadline_and_slows_nobody(
    tmp_path: Path, engines: list[Engine]
) -> None:
    engines[0].instead = "hang"
    async with opened(tmp_path, *engines, more="[server]\nexchange_s = 1.0") as door:
        began = time.monotonic()
        answers = await asyncio.gather(*(door.ask(stream=bool(number % 2)) for number in range(8)))
        assert time.monotonic() - began < 20
        assert Counter(status for status, _, _ in answers) == {200: 4, 408: 4}
        outcomes = Counter([(await door.recorded(exchange))["outcome"] for _, _, exchange in answers])
        assert outcomes == {"ok": 4, "cut": 4}
        await asyncio.wait_for(engines[0].idle(), 5)


async def test_a_breaker_opens_and_heals(
    tmp_path: Path, engines: list[Engine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(limits, "breaker_open_first_s", 0.5)
    engine = engines[0]
    engine.instead = "close"
    async with opened(tmp_path, engine) as door:
        for _ in range(limits.breaker_failures):
            assert (await door.ask())[0] == 503
        assert await door.metric('rempart_engine_breaker{engine="e0",state="closed"}') == 0
        asked = len(engine.asked)
        status, body, _ = await door.ask()
        if b"left alone" in body:  # else its time was over already: this machine is slow
            assert (status, len(engine.asked)) == (503, asked)
        engine.instead = ""
        async with asyncio.timeout(20):
            while (await door.ask())[0] != 200:
                await asyncio.sleep(0.05)
        assert await door.metric('rempart_engine_breaker{engine="e0",state="closed"}') == 1


NARROW = "max_concurrent = 1"


async def test_two_keys_take_turns_whoever_sent_more(tmp_path: Path, engines: list[Engine]) -> None:
    engine = engines[0]
    async with opened(tmp_path, engine, each=NARROW) as door:
        first = asyncio.create_task(door.ask("slow 300 greedy"))
        await engine.more_asked_than(0)
        greedy = [asyncio.create_task(door.ask(f"greedy {number}")) for number in range(6)]
        await door.waits(6)
        modest = [asyncio.create_task(door.ask(f"modest {number}", key=1)) for number in range(2)]
        await door.waits(8)
        answers = await asyncio.gather(first, *greedy, *modest)
        assert {status for status, _, _ in answers} == {200}
        order = [asked["messages"][0]["content"].split()[0] for asked in engine.asked[1:]]
        assert order == ["greedy", "modest", "greedy", "modest", "greedy", "greedy", "greedy", "greedy"]


async def test_whoever_waits_too_long_is_told_to_come_again(tmp_path: Path, engines: list[Engine]) -> None:
    settings = "[server]\nqueue_s = 0.1\nexchange_s = 5.0"
    async with opened(tmp_path, engines[0], more=settings, each=NARROW) as door:
        first = asyncio.create_task(door.ask("hang"))
        await engines[0].more_asked_than(0)
        status, body, exchange = await door.ask()
        assert (status, json.loads(body)["error"]["code"]) == (503, "overloaded")
        response = await door.recorded(exchange)
        assert (response["outcome"], "request" in response) == ("refused", False)
        assert await door.metric('rempart_queue_turned_away_total{why="late"}') == 1
        first.cancel()


async def test_a_full_queue_takes_nobody(tmp_path: Path, engines: list[Engine]) -> None:
    async with opened(tmp_path, engines[0], more="[server]\nqueue_max = 0", each=NARROW) as door:
        first = asyncio.create_task(door.ask("hang"))
        await engines[0].more_asked_than(0)
        assert (await door.ask())[0] == 503
        first.cancel()


async def test_a_client_that_leaves_the_queue_is_recorded_and_frees_its_place(
    tmp_path: Path, engines: list[Engine]
) -> None:
    engine = engines[0]
    async with opened(tmp_path, engine, more="[server]\nqueue_max = 1", each=NARROW) as door:
        first = asyncio.create_task(door.ask("slow 1500"))
        await engine.more_asked_than(0)
        leaving = asyncio.create_task(door.ask("never asked"))
        await door.waits(1)
        leaving.cancel()
        await door.waits(0)
        last = asyncio.create_task(door.ask("asked"))
        assert [status for status, _, _ in await asyncio.gather(first, last)] == [200, 200]
        async with asyncio.timeout(20):
            while not (left := [one for one in door.responses() if one["outcome"] == "cancelled"]):
                await asyncio.sleep(0.01)
        assert (len(left), "request" in left[0], "engine" in left[0]) == (1, False, False)
        assert "body" in left[0]
        assert [asked["messages"][0]["content"] for asked in engine.asked] == ["slow 1500", "asked"]


async def test_names_and_fallbacks_say_what_really_answered(tmp_path: Path) -> None:
    rules = '[models.big]\naliases = ["default"]\nfallbacks = ["small"]'
    async with Engine("big") as big, Engine("small") as small:
        big.instead = "close"
        async with opened(tmp_path, big, small, more=rules) as door:
            status, body, exchange = await door.ask(model="default")
            assert (status, json.loads(body)["model"]) == (200, "small")
            response = await door.recorded(exchange)
            assert (response["model"], response["engine"], response["tried"]) == ("small", "e1", ["e0"])
            big.instead = ""
            _, body, exchange = await door.ask(model="default")
            assert json.loads(body)["model"] == (await door.recorded(exchange))["model"] == "big"
            small.instead = "close"
            status, body, _ = await door.ask(model="small")
            assert (status, json.loads(body)["error"]["code"]) == (503, "engine_unavailable")


PROCESS = """
import asyncio
from rempart.testing.scripted import ScriptedServer

async def main():
    async with ScriptedServer("m") as server:
        print(server.url, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@pytest.mark.timeout(120)
async def test_an_engine_that_is_killed_under_load_holds_nobody_up(tmp_path: Path, engines: list[Engine]) -> None:
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", PROCESS, stdout=asyncio.subprocess.PIPE)
    assert process.stdout is not None
    mortal = Engine()
    mortal.url = (await process.stdout.readline()).decode().strip()
    statuses: Counter[int] = Counter()

    async def client(door: Door, number: int) -> None:
        for _ in range(12):
            status, _, _ = await door.ask("paced 10 5" if number % 2 else "slow 40", stream=bool(number % 2))
            statuses[status] += 1

    try:
        async with opened(tmp_path, mortal, engines[0], more="[server]\nexchange_s = 30.0") as door:
            clients = [asyncio.create_task(client(door, number)) for number in range(8)]
            while sum(statuses.values()) < 20:
                await asyncio.sleep(0.01)
            process.kill()
            async with asyncio.timeout(30):
                await asyncio.gather(*clients)
            assert statuses == {200: 96}  # a stream that broke off had begun with 200; all else went to the other one
            responses = [one for one in door.responses() if one["outcome"] != "refused"]
            broken = [one for one in responses if one["outcome"] == "failed"]
            assert len(responses) == 96
            assert {one["engine"] for one in broken} <= {"e0"}
            assert len(broken) <= 8
            await door.site.gateway.beat()
            assert reconcile(door.ledger).gaps == []
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()
