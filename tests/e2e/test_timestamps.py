"""A real gateway whose log is stamped by OpenSSL's authority, and `rempart ledger verify` and `pack` over it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
import sys
import urllib.request
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from rempart.bench.running import DidNotStart, Running, rempart, running, start
from rempart.ledger.reading.prove import Prover
from rempart.ledger.reading.timestamps import stamped_sizes
from rempart.ledger.writing.opening import read_vkey
from rempart.testing.authority import Authority, serving
from rempart.testing.scripted import ScriptedServer

SETTINGS = """
[ledger]
origin = "log.example/stamped"
timestamp_url = "{url}"
timestamp_ca_file = "{ca}"
timestamp_s = 1.0
[[engines]]
name = "scripted"
kind = "openai"
url = "{engine}"
"""


def _ask(server: Running) -> None:
    body = {"model": "scripted", "messages": [{"role": "user", "content": "words 3"}]}
    headers = {"Authorization": f"Bearer {server.key}", "Content-Type": "application/json"}
    request = urllib.request.Request(f"{server.url}/v1/chat/completions", json.dumps(body).encode(), headers)
    with urllib.request.urlopen(request) as response:
        assert response.status == 200


def _metric(server: Running, name: str) -> float:
    with urllib.request.urlopen(f"{server.url}/metrics") as response:
        lines = response.read().decode().splitlines()
    return next(float(line.split()[1]) for line in lines if line.startswith(f"{name} "))


@contextlib.asynccontextmanager
async def _running(data: Path) -> AsyncIterator[Running]:
    """The authority answers in this process: nothing here may hold up its loop."""
    with contextlib.ExitStack() as stack:
        server = await asyncio.to_thread(stack.enter_context, running(data))
        try:
            yield server
        finally:
            status = await asyncio.to_thread(server.stop)
    assert status == 0


async def _until(server: Running, name: str) -> None:
    """The figure is no longer 0."""
    async with asyncio.timeout(60):
        while not await asyncio.to_thread(_metric, server, name):
            await asyncio.sleep(0.05)


async def test_a_gateway_is_stamped_when_it_starts_and_over_its_last_entry_when_it_stops(tmp_path: Path) -> None:
    data, authority = tmp_path / "data", Authority(tmp_path / "tsa")
    data.mkdir(mode=0o700)
    async with ScriptedServer() as engine, serving(authority.over_http) as url:
        settings = SETTINGS.format(url=url, ca=authority.ca_file, engine=engine.url)
        (data / "rempart.toml").write_text(settings)
        async with _running(data) as server:
            await _until(server, "rempart_ledger_timestamps_total")
            await asyncio.to_thread(_ask, server)
    ledger = data / "ledger"
    assert len(stamped_sizes(ledger)) >= 2
    assert stamped_sizes(ledger)[-1] == Prover(ledger / "log").head.size
    verified = rempart("ledger", "verify", data=data)
    assert verified.returncode == 0, verified.stderr
    assert verified.stdout.count("entries existed on") == 2
    told = json.loads(rempart("ledger", "verify", "--json", data=data).stdout)
    assert told["timestamps"]["stamps"] == len(stamped_sizes(ledger))
    assert rempart("ledger", "pack", "0", "--to", str(tmp_path / "pack"), data=data).returncode == 0
    command = [sys.executable, "-I", str(tmp_path / "pack" / "verify.py"), "--vkey", read_vkey(data)]
    command += ["--timestamp-ca", str(authority.ca_file)]
    done = await asyncio.to_thread(subprocess.run, command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert "at the latest" in done.stdout
    other = Authority(tmp_path / "other").ca_file
    refused = rempart("ledger", "verify", "--timestamp-ca", str(other), data=data)
    assert refused.returncode == 1
    assert "The time stamp does not hold" in refused.stderr


async def test_an_authority_that_is_away_holds_up_neither_an_exchange_nor_the_stop(tmp_path: Path) -> None:
    data, authority = tmp_path / "data", Authority(tmp_path / "tsa")
    data.mkdir(mode=0o700)
    async with ScriptedServer() as engine:
        away = "http://127.0.0.1:1/ts"
        (data / "rempart.toml").write_text(SETTINGS.format(url=away, ca=authority.ca_file, engine=engine.url))
        async with _running(data) as server:
            await asyncio.to_thread(_ask, server)
            await _until(server, "rempart_ledger_timestamp_failures_total")
    assert stamped_sizes(data / "ledger") == []
    verified = rempart("ledger", "verify", data=data)
    assert verified.returncode == 0
    assert "  time stamps  none" in verified.stdout


def test_certificates_that_cannot_be_read_end_the_start(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    settings = SETTINGS.format(url="http://127.0.0.1:1/ts", ca=tmp_path / "none.pem", engine="http://127.0.0.1:1")
    (data / "rempart.toml").write_text(settings)
    with pytest.raises(DidNotStart, match=r"none\.pem cannot be read"):
        start(data)
