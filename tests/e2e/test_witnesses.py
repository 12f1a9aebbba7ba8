"""Real gateways and real witnesses: processes of their own on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import json
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from rempart.bench.running import DidNotStart, Running, rempart, running, start
from rempart.ledger.log.checkpoint import parse_note
from rempart.ledger.reading.find import newest_first
from rempart.ledger.reading.witnessed import witnessed_path
from rempart.ledger.writing.opening import read_vkey
from rempart.testing.scripted import ScriptedServer

SETTINGS = """
[ledger]
origin = "{origin}"
witness_s = 1.0
{policy}
{witness}
[[engines]]
name = "scripted"
kind = "openai"
url = "{engine}"
"""


@contextlib.contextmanager
def witness(data: Path, logs: Path) -> Iterator[dict[str, Any]]:
    """`rempart witness serve`; what it tells when it is ready."""
    command = [sys.executable, "-m", "rempart.cli.main", "witness", "serve", "--data", str(data), "--json"]
    command += ["--logs", str(logs), "--name", "witness.example/w", "--port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    try:
        line = process.stdout.readline()
        assert line, process.stderr.read().decode()
        yield json.loads(line)
    finally:
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 0
        process.stdout.close()
        process.stderr.close()


@pytest.fixture
async def engine() -> AsyncIterator[str]:
    async with ScriptedServer() as server:
        yield server.url


def within(seconds: float, condition: Callable[[], bool]) -> bool:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if condition():
            return True
        time.sleep(0.05)
    return False


def get(server: Running, path: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(f"{server.url}{path}") as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


def ask(server: Running, key: str, times: int = 1) -> None:
    body = {"model": "scripted", "messages": [{"role": "user", "content": "words 3"}]}
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}
    for _ in range(times):
        request = urllib.request.Request(f"{server.url}/v1/chat/completions", json.dumps(body).encode(), headers)
        with urllib.request.urlopen(request) as response:
            assert response.status == 200


def settle(data: Path, engine: str, policy: str = "", witness: str = "") -> None:
    data.mkdir(mode=0o700, exist_ok=True)
    text = SETTINGS.format(origin=f"{data.name}.example/log", policy=policy, witness=witness, engine=engine)
    (data / "rempart.toml").write_text(text)


def begin(data: Path, engine: str) -> str:
    """A first start; the key that it printed."""
    settle(data, engine)
    with running(data) as server:
        return server.key


def write_policy(data: Path, path: Path, url: str, vkeys: list[str]) -> str:
    lines = [f"witness w{number} {vkey} {url}" for number, vkey in enumerate(vkeys)]
    names = " ".join(f"w{number}" for number in range(len(vkeys)))
    path.write_text("\n".join([f"log {read_vkey(data)}", *lines, f"group all all {names}", "quorum all", ""]))
    return f'policy = "{path}"'


def size_of(data: Path) -> int:
    path = witnessed_path(data / "ledger")
    return parse_note(path.read_bytes())[1].size if path.exists() else 0


def signed(data: Path) -> int:
    return parse_note((data / "ledger" / "log" / "checkpoint").read_bytes())[1].size


def followed(data: Path, beyond: int) -> bool:
    """All that is signed is witnessed, and it is more than `beyond` entries."""
    return size_of(data) == signed(data) > beyond


def check_a_log_and_its_witness(folder: Path, engine: str) -> None:
    data, logs = folder / "one", folder / "logs"
    key = begin(data, engine)
    logs.write_text(f"{read_vkey(data)}\n")
    with witness(folder / "w", logs) as told:
        told_again = rempart("witness", "key", "--json", data=folder / "w")
        assert json.loads(told_again.stdout)["vkeys"] == told["vkeys"]
        settle(data, engine, write_policy(data, folder / "policy", told["url"], told["vkeys"]))
        with running(data) as server:
            before = signed(data)
            ask(server, key, 3)
            assert within(20, lambda: followed(data, before + 5))
            size = f"rempart_ledger_witnessed_size {size_of(data)}.0"
            assert within(20, lambda: size in get(server, "/metrics")[1])
            assert 'rempart_ledger_witness_failures_total{witness="w0"} 0.0' in get(server, "/metrics")[1]
            assert get(server, "/readyz")[0] == 200
        verified = rempart("ledger", "verify", "--json", data=data)
        assert verified.returncode == 0, verified.stderr
        assert json.loads(verified.stdout)["witnessed"] == {"size": size_of(data), "witnesses": ["w0", "w1"]}
        shutil.copytree(data, folder / "backup")
        with running(data) as server:
            ask(server, key, 6)
            assert within(20, lambda: followed(data, signed(folder / "backup") + 12))
        check_a_backup_is_named(folder, data, key, size_of(data))
    check_witnesses_away(data, key)


def check_a_backup_is_named(folder: Path, data: Path, key: str, witnessed: int) -> None:
    """The whole directory is put back: only the witness can know."""
    shutil.move(data, folder / "newest")
    shutil.copytree(folder / "backup", data)
    with running(data) as server:
        assert within(20, lambda: get(server, "/readyz")[0] == 503)
        reason = json.loads(get(server, "/readyz")[1])["reasons"]["witnesses"]
        assert f"has cosigned {witnessed} entries" in reason
        assert "rolled back" in reason
        ask(server, key)
        assert within(20, lambda: bool(alarms(data)))
        ask(server, key, 20)
        assert within(20, lambda: any(fields["kind"] == "truncation" for fields in alarms(data)))
    fields = alarms(data)[-1]
    assert (fields["kind"], fields["witness"], fields["size"]) == ("roll-back", "w0", witnessed)
    check_a_log_behind_its_witnesses_is_refused(folder, data)
    shutil.rmtree(data)
    shutil.move(folder / "newest", data)


def check_a_log_behind_its_witnesses_is_refused(folder: Path, data: Path) -> None:
    """The ledger is put back, but not what the witnesses said of it: no network is needed to see that."""
    shutil.copy(witnessed_path(folder / "newest" / "ledger"), witnessed_path(data / "ledger"))
    shutil.rmtree(data / "ledger" / "log")
    shutil.rmtree(data / "ledger" / "segments")
    for name in ("log", "segments"):
        shutil.copytree(folder / "backup" / "ledger" / name, data / "ledger" / name)
    refused = rempart("ledger", "verify", data=data)
    assert refused.returncode == 1
    assert "roll-back" in refused.stderr
    with pytest.raises(DidNotStart, match="roll-back"):
        start(data)


def check_witnesses_away(data: Path, key: str) -> None:
    with running(data) as server:
        ask(server, key)
        failures = 'rempart_ledger_witness_failures_total{witness="w0"}'
        assert within(20, lambda: f"{failures} 0.0" not in get(server, "/metrics")[1])
        assert get(server, "/readyz")[0] == 200
    assert alarms(data) == []


def alarms(data: Path) -> list[dict[str, Any]]:
    return [fields for _, fields in newest_first(data / "ledger") if fields["type"] == "alarm"]


async def test_a_log_and_its_witness(tmp_path: Path, engine: str) -> None:
    await asyncio.to_thread(check_a_log_and_its_witness, tmp_path, engine)


def check_two_gateways(folder: Path, engine: str) -> None:
    """Each is the other's witness; their addresses are known once they listen, so the ports are fixed after that."""
    one, two = folder / "one", folder / "two"
    keys = {data: begin(data, engine) for data in (one, two)}
    mounts: dict[Path, str] = {}
    vkeys: dict[Path, list[str]] = {}
    for data, other in ((one, two), (two, one)):
        name = f"{data.name}.example/witness"
        mounts[data] = f'[witness]\nname = "{name}"\nlogs = ["{read_vkey(other)}"]\n'
        made = rempart("witness", "key", "--name", name, "--json", data=data)
        vkeys[data] = json.loads(made.stdout)["vkeys"]
        settle(data, engine, witness=mounts[data])
    with running(one) as first:
        port = first.url.rpartition(":")[2]
        settle(two, engine, write_policy(two, folder / "p2", f"{first.url}/witness", vkeys[one]), mounts[two])
        with running(two) as second:
            before = signed(two)
            ask(second, keys[two], 2)
            assert within(20, lambda: followed(two, before + 3))
            first.stop()
            policy = write_policy(one, folder / "p1", f"{second.url}/witness", vkeys[two])
            settle(one, engine, policy, mounts[one])
            with running(one, "--port", port) as again:
                of_one, of_two = signed(one), signed(two)
                ask(again, keys[one], 2)
                ask(second, keys[two], 2)
                assert within(20, lambda: followed(one, of_one + 3) and followed(two, of_two + 3))
                status, body = get(again, "/witness/add-checkpoint")
                assert (status, "POST" in body) == (405, True)
    for data in (one, two):
        verified = rempart("ledger", "verify", "--json", data=data)
        assert verified.returncode == 0, verified.stderr
        assert json.loads(verified.stdout)["witnessed"]["witnesses"] == ["w0", "w1"]


async def test_two_gateways_witness_each_other(tmp_path: Path, engine: str) -> None:
    await asyncio.to_thread(check_two_gateways, tmp_path, engine)


def check_a_witness_answers(folder: Path, engine: str) -> None:
    data, logs = folder / "one", folder / "logs"
    begin(data, engine)
    logs.write_text(f"log {read_vkey(data)}\nquorum none\n")
    with witness(folder / "w", logs) as told:
        with urllib.request.urlopen(f"{told['url']}/healthz") as response:
            assert response.status == 200
        refused = {
            ("/add-checkpoint", b"nonsense"): 400,
            ("/add-checkpoint", b"x" * 70_000): 413,
            ("/healthz", b"x"): 405,
            ("/elsewhere", b"x"): 404,
        }
        for (path, body), status in refused.items():
            with pytest.raises(urllib.error.HTTPError) as caught:
                urllib.request.urlopen(f"{told['url']}{path}", data=body)
            assert caught.value.code == status
        second = rempart("witness", "serve", "--logs", str(logs), "--port", "0", data=folder / "w")
        assert second.returncode == 3
    open_to_all = rempart("witness", "serve", "--logs", str(logs), "--host", "0.0.0.0", data=folder / "w")
    assert open_to_all.returncode == 2
    assert "certificate" in open_to_all.stderr


async def test_a_witness_answers_what_it_should_and_no_more(tmp_path: Path, engine: str) -> None:
    await asyncio.to_thread(check_a_witness_answers, tmp_path, engine)
