"""A real server under load is backed up and replicated; elsewhere everything that was answered before comes back."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import msgspec
import openai
import pytest

from rempart.bench.running import Running, rempart, running


class Load:
    """Threads that ask until they are stopped; the ids of what was answered."""

    def __init__(self, server: Running) -> None:
        self.answered: list[str] = []
        self.more = threading.Condition()
        self._server = server
        self._stop = threading.Event()
        self._threads = [threading.Thread(target=self._ask) for _ in range(3)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def reached(self, count: int) -> list[str]:
        """Wait until so many were answered; their ids."""
        with self.more:
            assert self.more.wait_for(lambda: len(self.answered) >= count, timeout=60)
            return list(self.answered)

    def _ask(self) -> None:
        client = openai.OpenAI(base_url=f"{self._server.url}/v1", api_key=self._server.key, max_retries=0)
        while not self._stop.is_set():
            answer = client.chat.completions.with_raw_response.create(
                model="guide", messages=[{"role": "user", "content": "What is Rempart?"}], max_tokens=4
            )
            with self.more:
                self.answered.append(answer.headers["x-rempart-exchange"])
                self.more.notify_all()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    with running(tmp_path / "data") as made:
        yield made


def ok(*arguments: str, data: Path, key: str = "") -> str:
    done = rempart(*arguments, data=data, environment={"REMPART_KEY": key} if key else None)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.timeout(300)
def test_a_backup_under_load_brings_back_everything_that_was_answered_before(server: Running, tmp_path: Path) -> None:
    to, keys = tmp_path / "backup", tmp_path / "keys"
    options = ("--to", str(to), "--keys-to", str(keys), "--same-device", "--json")
    auditor = ok("key", "create", "--name", "audit", "--role", "auditor", data=server.data).strip()
    with Load(server) as load:
        before = load.reached(6)
        made = msgspec.json.decode(ok("backup", "create", *options, data=server.data))
    assert server.stop() == 0
    seen = server.data / "ledger" / "log" / "checkpoint"
    ok("ledger", "verify", "--vkey", server.vkey, data=to)
    same, new = tmp_path / "same", tmp_path / "new"
    restoring = ("backup", "restore", str(to), "--keys", str(keys / made["backup"]), "--json")
    assert not msgspec.json.decode(ok(*restoring, data=same))["new_log"]
    assert msgspec.json.decode(ok(*restoring, "--checkpoint", str(seen), data=new))["new_log"]
    for data in (same, new):
        with running(data) as again:
            again.key = server.key  # the API keys came back
            with Load(again) as load:
                load.reached(3)
            ok("ledger", "verify", data=data)
        ok("ledger", "verify", data=data)
        ok("ledger", "fsck", data=data)
        for exchange in before:
            assert "What is Rempart?" in ok("ledger", "show", exchange, "--reason", "restored", data=data, key=auditor)
    assert rempart("ledger", "verify", "--vkey", server.vkey, data=same).returncode == 0
    assert rempart("ledger", "verify", "--vkey", server.vkey, data=new).returncode == 1


@pytest.mark.timeout(300)
def test_a_gateway_under_load_is_replicated_by_an_auditor_alone(server: Running, tmp_path: Path) -> None:
    copy, key_file = tmp_path / "copy", tmp_path / "auditor.key"
    key = ok("key", "create", "--name", "copies", "--role", "auditor", data=server.data)
    key_file.touch(mode=0o600)
    key_file.write_text(key)
    options = ("ledger", "replicate", str(copy), "--from", server.url, "--key-file", str(key_file))
    nowhere = tmp_path / "nowhere"
    with Load(server) as load:
        for number in range(3):
            count = len(load.reached(5 * (number + 1)))
            told = ok(*options, "--vkey", server.vkey, "--json", data=nowhere)
            assert msgspec.json.decode(told)["size"] >= 2 * count
            ok("ledger", "verify", "--vkey", server.vkey, data=copy)
        key_file.write_text(server.key.replace("rp_", "rp_0", 1))
        assert rempart(*options, data=nowhere).returncode == 2
    key_file.write_text(ok("key", "create", "--name", "user", data=server.data))
    refused = rempart(*options, data=nowhere)
    assert (refused.returncode, "role auditor" in refused.stderr) == (2, True)
    ok("ledger", "fsck", data=copy)
