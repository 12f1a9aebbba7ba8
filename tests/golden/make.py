"""Make this release's golden data directories: `python tests/golden/make.py tests/golden/<version>`.

A small ledger with every kind of entry, cut off by a kill; later releases must verify, read and recover it. Beside it,
in `<version>-bodies`, one whose first segments were taken apart; they are smaller than those of a server.
Segments are cut at their last frame: zeros need not be kept. Their keys protect nothing.
"""

import asyncio
import shutil
import sys
import tempfile
import time
from pathlib import Path

import aiohttp

from rempart import limits
from rempart.bench.running import Running, rempart, start
from rempart.ledger.keys.configured import open_keystore
from rempart.ledger.store.segments import numbers, read_segment
from rempart.ledger.writing.journal import Journal
from rempart.ledger.writing.opening import open_ledger
from rempart.testing.scripted import ScriptedServer


async def make(target: Path) -> None:
    """Replaces `target`."""
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        data.mkdir(mode=0o700)
        async with ScriptedServer() as engine:
            (data / "rempart.toml").write_text(
                f'[ledger]\norigin = "rempart.example/golden"\n[[engines]]\nname = "scripted"\nkind = "openai"\n'
                f'url = "{engine.url}"\n'
            )
            server = await asyncio.to_thread(start, data)
            await _fill(server)
            server.kill()
        _keep(data, target, ("ledger", "keys", "state.db"))


def _keep(data: Path, target: Path, names: tuple[str, ...]) -> None:
    shutil.rmtree(target, ignore_errors=True)
    for name in names:
        source = data / name
        if source.is_dir():
            shutil.copytree(source, target / name, ignore=shutil.ignore_patterns("spare*"))
        else:
            shutil.copy(source, target / name)
    for segment in (target / "ledger" / "segments").glob("*.seg"):
        end = read_segment(segment).end
        segment.write_bytes(segment.read_bytes()[:end])


async def make_bodies(target: Path) -> None:
    """Replaces `target`."""
    limits.segment_bytes = 1 << 16
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "data"
        journal = await open_ledger(data, open_keystore(data), origin="rempart.example/bodies", strict=False)
        for number, outcome in enumerate(("ok", "failed", "refused", "cancelled") * 30):
            await _exchange(journal, number, outcome)
        while len(numbers(data / "ledger" / "segments")) > 1:
            await asyncio.sleep(0.1)
        await _exchange(journal, 1_000, "")
        _keep(data, target, ("ledger", "keys"))
        await journal.close()


async def _exchange(journal: Journal, number: int, outcome: str) -> None:
    """Without an outcome it is cut off in the middle of its answer."""
    people, retention = ("golden person",) if number % 3 else (), "short" if number % 5 == 0 else "standard"
    id_ = f"{int(time.time() * 1000):012x}{number:020x}"
    record = await journal.open(id_, actor="a_0", role="user", key="k", subject="", people=people, retention=retention)
    facts = {"operation": "chat", "model": "golden"}
    asked = await record.request(facts, b'{"request":%d}' % number)
    record.piece(b'"word "\n')
    if outcome:
        answer = {**facts, "outcome": outcome, "status": 200, "request": asked.index}
        await record.response(answer, b'{"response":"%s"}' % (b"word " * number))


async def _fill(server: Running) -> None:
    await asyncio.to_thread(rempart, "key", "create", "--name", "golden", "--owner", "golden owner", data=server.data)
    async with aiohttp.ClientSession(server.url, headers={"Authorization": f"Bearer {server.key}"}) as http:
        for number in range(150):
            await _ask(http, f"words {number % 7}", stream=number % 2 == 0)
        for script in ("nonsense", "cut 3", "status 422"):
            await _ask(http, script, stream=script.startswith("cut"))
        async with http.post("/v1/embeddings", json={"model": "scripted", "input": "text"}) as response:
            await response.read()
        async with http.post("/v1/chat/completions", data=b"{") as response:
            await response.read()
        leaving = asyncio.create_task(_ask(http, "paced 100 20", stream=True))
        await asyncio.sleep(0.3)
        leaving.cancel()
        await asyncio.sleep(1.5)
        asyncio.get_running_loop().create_task(_ask(http, "paced 100 20", stream=True))
        await asyncio.sleep(0.3)
        server.kill()


async def _ask(http: aiohttp.ClientSession, script: str, stream: bool) -> None:
    body = {"model": "scripted", "messages": [{"role": "user", "content": script}], "stream": stream, "user": "golden"}
    async with http.post("/v1/chat/completions", json=body) as response:
        await response.read()


if __name__ == "__main__":
    asyncio.run(make(Path(sys.argv[1])))
    asyncio.run(make_bodies(Path(f"{sys.argv[1]}-bodies")))
