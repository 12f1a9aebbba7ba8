"""Several workers on one address, over real sockets and processes: one ledger, one set of limits, one life."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections import Counter
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from rempart.bench.running import Running, disclosed, rempart, running
from rempart.ledger.log import entry as entries
from rempart.ledger.reading.entries import EntryReader
from rempart.testing.scripted import ScriptedServer

SETTINGS = """
[server]
workers = 2
drain_s = 20.0
exchanges_max = 16

[[engines]]
name = "scripted"
kind = "openai"
url = "{url}"
"""
BOTH = {"w0", "w1"}


class Site:
    """Two workers, and a client that opens a new connection for each request, so that both get some."""

    def __init__(self, server: Running, http: aiohttp.ClientSession, engine: ScriptedServer) -> None:
        self.server = server
        self.http = http
        self.engine = engine

    @property
    def data(self) -> Path:
        return self.server.data

    def key(self, *options: str) -> str:
        made = rempart("key", "create", "--name", "one", *options, "--json", data=self.data)
        return str(json.loads(made.stdout)["key"])

    def post(self, script: str, key: str = "", **more: Any) -> Any:
        body = {"model": "scripted", "messages": [{"role": "user", "content": script}], **more}
        headers = {"Authorization": f"Bearer {key or self.server.key}"}
        return self.http.post("/v1/chat/completions", json=body, headers=headers)

    async def ask(self, script: str, key: str = "", **more: Any) -> tuple[int, str]:
        """Status, and id of the exchange."""
        async with self.post(script, key, **more) as response:
            await response.read()
            return response.status, response.headers["x-rempart-exchange"]

    async def get(self, path: str, key: str = "") -> tuple[int, str]:
        async with self.http.get(path, headers={"Authorization": f"Bearer {key or self.server.key}"}) as response:
            return response.status, await response.text()

    def entries(self) -> list[dict[str, Any]]:
        reader = EntryReader(self.data / "ledger")
        return [entries.decode(reader.read(index)) for index in range(reader.count)]

    def of(self, exchange: str) -> list[dict[str, Any]]:
        return [one for one in self.entries() if one.get("exchange") == exchange]

    def logged(self, message: str) -> list[dict[str, Any]]:
        lines = self.data.with_name(self.data.name + ".stderr").read_text().splitlines()
        return [one for one in map(json.loads, lines) if one["message"] == message]

    def worker_pid(self) -> int:
        return int(self.logged("worker ready")[-1]["pid"])

    async def stream(self, stack: contextlib.AsyncExitStack, key: str = "") -> tuple[str, aiohttp.ClientResponse]:
        """A stream that would go on for very long; it has begun."""
        response = await stack.enter_async_context(self.post("paced 100000 20", key, stream=True))
        assert response.status == 200
        await response.content.readline()
        return response.headers["x-rempart-exchange"], response

    async def streams(
        self, stack: contextlib.AsyncExitStack, key: str = ""
    ) -> dict[str, list[tuple[str, aiohttp.ClientResponse]]]:
        """By worker, until each has one; at most as many as may run."""
        found: dict[str, list[tuple[str, aiohttp.ClientResponse]]] = {}
        while found.keys() < BOTH:
            exchange, response = await self.stream(stack, key)
            worker = (await asyncio.to_thread(self.of, exchange))[0]["worker"]
            found.setdefault(worker, []).append((exchange, response))
        return found


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(30):
        while not await asyncio.to_thread(condition):
            await asyncio.sleep(0.05)


def verified(site: Site) -> str:
    checked = rempart("ledger", "verify", data=site.data)
    assert checked.returncode == 0, checked.stderr
    return checked.stdout


def reconciled(data: Path) -> None:
    checked = rempart("ledger", "reconcile", data=data)
    assert checked.returncode == 0, checked.stdout + checked.stderr


def exists(pid: int) -> bool:
    """A process that has ended and was not waited for is none."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
async def site(engine: ScriptedServer, tmp_path: Path) -> AsyncIterator[Site]:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    (data / "rempart.toml").write_text(SETTINGS.format(url=engine.url))
    context = running(data)
    server = await asyncio.to_thread(context.__enter__)
    try:
        connector = aiohttp.TCPConnector(force_close=True, limit=0)
        async with aiohttp.ClientSession(server.url, connector=connector) as http:
            yield Site(server, http, engine)
    finally:
        await asyncio.to_thread(context.__exit__, None, None, None)


async def both_asked(site: Site) -> list[str]:
    """Exchanges, of which each worker has some."""
    found: list[str] = []
    before = len(site.entries())
    while {one["worker"] for one in site.entries()[before:] if one["type"] == "response"} != BOTH:
        asked = await asyncio.gather(*(site.ask("hello", stream=number % 2 == 0) for number in range(6)))
        assert {status for status, _ in asked} == {200}
        found += [exchange for _, exchange in asked]
    return found


async def test_both_answer_into_one_ledger_and_each_knows_all_of_it(site: Site) -> None:
    exchanges = await both_asked(site)
    for exchange in exchanges:
        (request, response) = await asyncio.to_thread(site.of, exchange)
        assert request["worker"] == response["worker"]
        for _ in range(2):
            status, text = await site.get(f"/rempart/v1/exchanges/{exchange}")
            assert (status, len(json.loads(text)["entries"])) == (200, 2)
    figures = f'rempart_requests_total{{model="scripted",operation="chat",outcome="ok"}} {len(exchanges)}.0'
    for _ in range(8):  # whichever answers
        assert figures in (await site.get("/metrics"))[1].splitlines()
        assert json.loads((await site.get("/rempart/v1/count"))[1])["today"] == len(exchanges)
        assert json.loads((await site.get("/readyz"))[1])["ready"]
    told = verified(site)
    assert f"{len(exchanges)} ok" in told
    assert await asyncio.to_thread(site.server.stop) == 0
    assert Counter(one["type"] for one in site.entries())["stop"] == 1
    assert site.entries()[-1]["type"] == "stop"
    counted = next(one for one in reversed(site.entries()) if one["type"] == "heartbeat")
    assert counted["engines"]["scripted.answered"] == len(exchanges)
    assert counted["engines"]["scripted.running"] == 0
    verified(site)


async def test_what_a_worker_recorded_is_read_and_erased_as_anything_else(site: Site) -> None:
    exchanges = await both_asked(site)
    shown = await asyncio.to_thread(disclosed, exchanges[-1], "--json", data=site.data)
    assert [json.loads(line)["body"] is not None for line in shown.stdout.splitlines()] == [True, True]
    async with contextlib.AsyncExitStack() as stack:
        streams = await site.streams(stack)
        victim = next(exchange for exchange in exchanges if site.of(exchange)[0]["worker"] == "w1")
        arguments = ("ledger", "erase", "--exchange", victim, "--ground", "GDPR art. 17(1)(a)", "--yes")
        erased = await asyncio.to_thread(rempart, *arguments, data=site.data)
        assert erased.returncode == 0, erased.stderr
        for some in streams.values():  # they run on
            for _, response in some:
                assert await response.content.readline()
    await both_asked(site)
    (request, _) = await asyncio.to_thread(site.of, victim)
    later = [one for one in site.entries() if one.get("seed") and one["worker"] == "w1" and one["type"] == "request"]
    assert later[-1]["seed"] != request["seed"]  # the keys of before were forgotten
    shown = await asyncio.to_thread(disclosed, victim, "--json", data=site.data)
    assert [json.loads(line)["body"] for line in shown.stdout.splitlines()] == [None, None]
    verified(site)


async def test_a_hold_keeps_what_any_worker_is_answering_while_a_person_is_erased(site: Site) -> None:
    ground = ("--ground", "file 7/26")
    async with contextlib.AsyncExitStack() as stack:
        found: dict[str, str] = {}
        answers = []
        while not set(found.values()) >= BOTH:
            response = await stack.enter_async_context(site.post("paced 80 50", stream=True, user="Erika"))
            exchange = response.headers["x-rempart-exchange"]
            if not found:
                held = await asyncio.to_thread(
                    rempart, "ledger", "hold", "case-7", "--subject", "Erika", *ground, data=site.data
                )
                assert held.returncode == 0, held.stderr
            answers.append(asyncio.create_task(response.read()))
            found[exchange] = (await asyncio.to_thread(site.of, exchange))[0]["worker"]
        erase = ("ledger", "erase", "--subject", "Erika", *ground, "--yes")
        erased = await asyncio.to_thread(rempart, *erase, data=site.data)
        assert erased.returncode == 0, erased.stderr
        assert all(answer.endswith(b"data: [DONE]\n\n") for answer in await asyncio.gather(*answers))
    for exchange in found:
        shown = await asyncio.to_thread(disclosed, exchange, "--json", data=site.data)
        said = [json.loads(line)["body"] for line in shown.stdout.splitlines()]
        assert said[1]["response"]["choices"][0]["message"]["content"].split()[-1] == "w79"
    _, later = await site.ask("hello", user="Erika")
    first = next(iter(found))
    assert site.of(later)[0]["subjects"] != site.of(first)[0]["subjects"]  # nobody remembers the old pseudonym
    verified(site)


async def test_a_key_works_everywhere_once_it_is_made_and_nowhere_once_it_is_revoked(site: Site) -> None:
    key = await asyncio.to_thread(site.key)
    answers = await asyncio.gather(*(site.get("/v1/models", key) for _ in range(8)))
    assert {status for status, _ in answers} == {200}
    async with contextlib.AsyncExitStack() as stack:
        streams = await site.streams(stack, key)
        id_ = key.split("_")[1]
        revoked = await asyncio.to_thread(rempart, "key", "revoke", id_, data=site.data)
        assert revoked.returncode == 0, revoked.stderr
        answers = await asyncio.gather(*(site.get("/v1/models", key) for _ in range(8)))
        assert {status for status, _ in answers} == {401}
        async with asyncio.timeout(10):
            for some in streams.values():
                for exchange, response in some:
                    assert b"invalid_api_key" in await response.content.read()
                    assert (await asyncio.to_thread(site.of, exchange))[-1]["outcome"] == "cut"


async def test_limits_of_a_key_hold_for_all_workers_together(site: Site) -> None:
    minute = await asyncio.to_thread(site.key, "--requests-per-minute", "7")
    asked = [
        status for _ in range(4) for status, _ in await asyncio.gather(*(site.ask("hi", minute) for _ in range(5)))
    ]
    assert sum(status == 200 for status in asked) in (7, 14)  # a new minute may have begun
    day = await asyncio.to_thread(site.key, "--tokens-per-day", "300")
    some = await asyncio.gather(*(site.ask("slow 300", day, max_tokens=100) for _ in range(8)))
    assert Counter(status for status, _ in some) == {200: 2, 429: 6}
    more = [await site.ask("hi", day, max_tokens=100) for _ in range(2)]  # what was not used is given back at once
    assert [status for status, _ in more] == [200, 200]
    workers = {one["worker"] for _, exchange in some for one in site.of(exchange)}
    assert workers <= BOTH


async def test_exchanges_of_all_workers_together_are_bounded(site: Site) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(16):
            await site.stream(stack)
        assert {status for status, _ in await asyncio.gather(*(site.ask("hi") for _ in range(6)))} == {503}


async def test_a_worker_that_is_killed_is_started_again_and_what_it_ran_is_closed_as_lost(site: Site) -> None:
    key = await asyncio.to_thread(site.key, "--tokens-per-day", "1000000")
    async with contextlib.AsyncExitStack() as stack:
        streams = await site.streams(stack, key)
        pid = site.worker_pid()
        os.kill(pid, signal.SIGKILL)
        for exchange, _ in streams["w1"]:
            await until(lambda exchange=exchange: site.of(exchange)[-1].get("outcome") == "lost")  # type: ignore[misc]
            shown = await asyncio.to_thread(disclosed, exchange, "--json", data=site.data)
            assert json.loads(shown.stdout.splitlines()[-1])["body"]["response"]["choices"][0]["message"]["content"]
        for _, response in streams["w0"]:
            assert await response.content.readline()  # the other worker's go on
        await until(lambda: site.worker_pid() != pid)
        assert site.logged("worker died")[0]["worker"] == "w1"
        assert site.logged("exchanges lost")[0]["count"] == len(streams["w1"])
    await until(lambda: site.engine.running == 0)
    before = len(site.entries())
    async with contextlib.AsyncExitStack() as stack:
        await site.streams(stack, key)
    seeds = {one["seed"] for one in site.entries()[before:] if one["worker"] == "w1" and one.get("seed")}
    assert seeds.isdisjoint({one["seed"] for one in site.entries()[:before] if one.get("seed")})
    assert await asyncio.to_thread(site.server.stop) == 0
    verified(site)
    reconciled(site.data)


async def test_workers_may_die_at_any_moment_and_the_ledger_holds_what_was_answered(site: Site) -> None:
    answered: set[str] = set()
    stopping = asyncio.Event()

    async def ask_always() -> None:
        while not stopping.is_set():
            with contextlib.suppress(aiohttp.ClientError):  # of a worker that was killed
                status, exchange = await site.ask("paced 3 5", stream=len(answered) % 2 == 0)
                if status == 200:
                    answered.add(exchange)

    asking = [asyncio.create_task(ask_always()) for _ in range(6)]
    for _ in range(3):
        pid, many = site.worker_pid(), len(answered)
        async with asyncio.timeout(30):
            while len(answered) < many + 40:
                await asyncio.sleep(0.01)
        os.kill(pid, signal.SIGKILL)
        await until(lambda pid=pid: site.worker_pid() != pid)  # type: ignore[misc]
    stopping.set()
    await asyncio.gather(*asking)
    assert await asyncio.to_thread(site.server.stop) == 0
    outcomes: dict[str, set[str]] = {}
    for one in site.entries():
        if one["type"] == "response":
            outcomes.setdefault(one["outcome"], set()).add(one["exchange"])
    assert outcomes.keys() <= {"ok", "lost", "cancelled"}
    assert answered <= outcomes["ok"]
    assert "0 without a response" in verified(site)
    reconciled(site.data)


async def test_a_worker_that_hangs_does_not_keep_a_revoked_key_alive(site: Site) -> None:
    key = await asyncio.to_thread(site.key)
    pid = site.worker_pid()
    os.kill(pid, signal.SIGSTOP)
    revoked = await asyncio.to_thread(rempart, "key", "revoke", key.split("_")[1], data=site.data)
    assert revoked.returncode == 0, revoked.stderr
    assert not exists(pid)
    await until(lambda: site.worker_pid() != pid)
    for _ in range(8):
        assert (await site.get("/v1/models", key))[0] == 401
    verified(site)


async def test_a_worker_that_hangs_is_started_again_although_nobody_asks_it(site: Site) -> None:
    pid = site.worker_pid()
    assert "rempart_workers 2.0" in (await site.get("/metrics"))[1]
    os.kill(pid, signal.SIGSTOP)
    await until(lambda: site.worker_pid() != pid)
    assert not exists(pid)
    assert "rempart_workers 2.0" in (await site.get("/metrics"))[1]
    verified(site)


async def test_a_second_signal_cuts_what_runs_on_every_worker(site: Site) -> None:
    async with contextlib.AsyncExitStack() as stack:
        streams = await site.streams(stack)
        site.server.process.send_signal(signal.SIGTERM)
        await until(lambda: site.logged("stopping"))
        assert site.logged("stopping")[0]["running"] == sum(map(len, streams.values()))
        assert await asyncio.to_thread(site.server.stop) == 0
        for some in streams.values():
            for exchange, response in some:
                assert b"shutting_down" in await response.content.read()
                assert site.of(exchange)[-1]["outcome"] == "cut"
    verified(site)


async def test_workers_end_with_a_primary_that_is_killed(site: Site) -> None:
    async with contextlib.AsyncExitStack() as stack:
        await site.streams(stack)
        pid = site.worker_pid()
        await asyncio.to_thread(site.server.kill)
        await until(lambda: not exists(pid))
    with running(site.data) as again:
        told = verified(site)
        assert "lost" in told
        assert again.process.poll() is None


async def test_what_runs_may_end_on_every_worker_before_all_stop(site: Site) -> None:
    async with contextlib.AsyncExitStack() as stack:
        found: set[str] = set()
        answers = []
        while not found >= BOTH:
            response = await stack.enter_async_context(site.post("paced 40 50", stream=True))
            answers.append(asyncio.create_task(response.read()))
            exchange = response.headers["x-rempart-exchange"]
            found.add((await asyncio.to_thread(site.of, exchange))[0]["worker"])
        pid = site.worker_pid()
        os.kill(pid, signal.SIGTERM)  # as a service manager does, who tells every process
        assert await asyncio.to_thread(site.server.stop) == 0
        assert all(answer.endswith(b"data: [DONE]\n\n") for answer in await asyncio.gather(*answers))
        assert not exists(pid)
    assert site.entries()[-1]["type"] == "stop"
    assert not site.logged("worker died")
    verified(site)


async def test_the_embedded_engine_answers_every_worker_and_its_own_count_agrees(tmp_path: Path) -> None:
    data = tmp_path / "data"
    context = running(data, "--workers", "2")
    server = await asyncio.to_thread(context.__enter__)
    try:
        connector = aiohttp.TCPConnector(force_close=True, limit=0)
        async with aiohttp.ClientSession(server.url, connector=connector) as http:
            headers = {"Authorization": f"Bearer {server.key}"}
            body = {"model": "guide", "messages": [{"role": "user", "content": "Hello."}], "max_tokens": 4}
            found: set[str] = set()
            while not found >= BOTH:
                async with http.post("/v1/chat/completions", json=body, headers=headers) as response:
                    assert response.status == 200
                    await response.read()
                reader = EntryReader(data / "ledger")
                found.add(entries.decode(reader.read(reader.count - 1))["worker"])
            site = Site(server, http, ScriptedServer())
            async with contextlib.AsyncExitStack() as stack:
                stream = {**body, "stream": True, "max_tokens": 2_000, "ignore_eos": True}
                workers: set[str] = set()
                while "w1" not in workers:
                    response = await stack.enter_async_context(
                        http.post("/v1/chat/completions", json=stream, headers=headers)
                    )
                    await response.content.readline()
                    workers.add(site.of(response.headers["x-rempart-exchange"])[0]["worker"])
                pid = site.worker_pid()
                os.kill(pid, signal.SIGKILL)
                await until(lambda: site.logged("exchanges lost"))
            await until(lambda: site.worker_pid() != pid)
    finally:
        await asyncio.to_thread(context.__exit__, None, None, None)
    verified(site)
    reconciled(data)
