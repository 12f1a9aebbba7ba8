"""Erasure as an operator does it, beside a server that answers."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rempart.bench.running import Running, disclosed, rempart, running

ALICE, BOB, ZOE = "alice@hospital.example", "bob@hospital.example", "zoé@hospital.example"
GROUND = ("--ground", "GDPR 17(1)(b)")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Running]:
    with running(tmp_path / "data") as made:
        yield made


def command(server: Running, *arguments: str) -> Any:
    done = rempart(*arguments, "--json", data=server.data)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def key(server: Running, *arguments: str) -> str:
    return str(command(server, "key", "create", *arguments)["key"])


class Client:
    """Asks about people."""

    def __init__(self, server: Running, key: str) -> None:
        self._url = f"{server.url}/v1/chat/completions"
        self._key = key

    def ask(self, text: str, *people: str) -> str:
        """The exchange's id. Raises `HTTPError`."""
        body = {"model": "guide", "messages": [{"role": "user", "content": text}], "max_tokens": 4}
        headers = {"authorization": f"Bearer {self._key}", "content-type": "application/json"}
        if people:
            headers["x-rempart-subject"] = ", ".join(people).encode().decode("latin-1")  # UTF-8, byte by byte
        asked = urllib.request.Request(self._url, json.dumps(body).encode(), headers)
        with urllib.request.urlopen(asked) as answer:
            answer.read()
            return str(answer.headers["x-rempart-exchange"])


def readable(server: Running, exchange: str) -> bool:
    done = disclosed(exchange, "--json", data=server.data)
    found = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(found) == 2
    assert len({one["body"] is not None for one in found}) == 1
    return found[0]["body"] is not None


def raw(data: Path) -> bytes:
    return b"".join(path.read_bytes() for path in data.rglob("*") if path.is_file())


def test_an_erasure_while_the_server_answers(server: Running) -> None:
    proxy = Client(server, key(server, "--name", "proxy", "--trust-subject-header"))
    hers, both, zoes = proxy.ask("fever one", ALICE), proxy.ask("fever two", ALICE, BOB), proxy.ask("rash", ZOE)
    his = proxy.ask("cough", BOB)
    stop, asked, failures = threading.Event(), list[str](), list[Exception]()

    def go_on() -> None:
        while not stop.is_set():
            try:
                asked.append(proxy.ask("meanwhile", BOB))
            except urllib.error.URLError as error:
                failures.append(error)

    threads = [threading.Thread(target=go_on) for _ in range(3)]
    for thread in threads:
        thread.start()
    done = command(server, "ledger", "erase", "--subject", ALICE, *GROUND, "--yes")
    zoe = command(server, "ledger", "erase", "--subject", ZOE, *GROUND, "--yes")
    one = command(server, "ledger", "erase", "--exchange", his, *GROUND, "--yes")
    stop.set()
    for thread in threads:
        thread.join()
    assert failures == []
    assert done["certificate"]["counts"] == {"exchanges": 2, "bodies": 4, "others": 1}
    assert zoe["certificate"]["counts"]["exchanges"] == one["certificate"]["counts"]["exchanges"] == 1
    assert [readable(server, exchange) for exchange in (hers, both, zoes, his)] == [False] * 4
    assert asked
    assert all(readable(server, exchange) for exchange in (asked[0], asked[-1]))
    assert readable(server, proxy.ask("after", ALICE))
    assert rempart("ledger", "verify", data=server.data).returncode == 0
    assert server.stop() == 0
    left = raw(server.data)
    for text in (ALICE, BOB, "fever one", "cough"):
        assert text.encode() not in left
    assert rempart("ledger", "fsck", data=server.data).returncode == 0


def test_a_hold_and_its_release_by_two_people(server: Running, tmp_path: Path) -> None:
    files = []
    for role in ("admin", "auditor", "user"):
        files.append(tmp_path / role)
        files[-1].write_text(key(server, "--name", role, "--role", role) + "\n")
        files[-1].chmod(0o600)
    proxy = Client(server, key(server, "--name", "proxy", "--trust-subject-header"))
    exchange = proxy.ask("fever", ALICE)
    command(server, "ledger", "hold", "case-7", "--subject", ALICE, "--ground", "file 7/26")
    told = rempart("ledger", "erase", "--subject", ALICE, *GROUND, "--yes", data=server.data)
    assert "1 exchange kept by hold case-7" in told.stdout
    assert readable(server, exchange)
    assert [one["exchanges"] for one in command(server, "ledger", "holds")] == [1]
    refused = rempart("ledger", "release", "case-7", data=server.data)
    assert refused.returncode == 2
    refused = rempart("ledger", "release", "case-7", "--key-file", str(files[2]), data=server.data)
    assert (refused.returncode, "role" in refused.stderr) == (2, True)
    assert not command(server, "ledger", "release", "case-7", "--key-file", str(files[0]))["released"]
    again = rempart("ledger", "release", "case-7", "--key-file", str(files[0]), data=server.data)
    assert (again.returncode, "same person" in again.stderr) == (2, True)
    assert readable(server, exchange)
    assert command(server, "ledger", "release", "case-7", "--key-file", str(files[1]))["released"]
    assert not readable(server, exchange)


def test_an_owner_who_is_erased_has_no_working_key_any_more(server: Running) -> None:
    text = key(server, "--name", "Alice at her desk", "--owner", ALICE)
    client = Client(server, text)
    exchange = client.ask("fever")
    command(server, "ledger", "erase", "--actor", ALICE, *GROUND, "--yes")
    with pytest.raises(urllib.error.HTTPError, match="401"):
        client.ask("again")
    assert readable(server, exchange)
    assert "erased" in [row["name"] for row in command(server, "key", "list")]
    command(server, "ledger", "erase", "--subject", ALICE, *GROUND, "--yes")
    assert not readable(server, exchange)
    assert server.stop() == 0
    left = raw(server.data)
    assert ALICE.encode() not in left
    assert b"Alice at her desk" not in left


def test_a_worm_class_refuses_and_says_until_when(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    (data / "rempart.toml").write_text(
        '[ledger]\nretention = "sec"\n[retention.sec]\ndays = 2192\nbasis = "17 CFR 240.17a-4"\nworm = true\n'
    )
    with running(data) as server:
        proxy = Client(server, key(server, "--name", "proxy", "--trust-subject-header"))
        exchange = proxy.ask("fever", ALICE)
        refused = rempart("ledger", "erase", "--subject", ALICE, *GROUND, "--yes", data=data)
        assert refused.returncode == 2
        assert "17 CFR 240.17a-4" in refused.stderr
        assert readable(server, exchange)


def test_new_keys_and_another_seal_without_stopping(server: Running, tmp_path: Path) -> None:
    proxy = Client(server, key(server, "--name", "proxy", "--trust-subject-header"))
    exchange = proxy.ask("fever", ALICE)
    before = command(server, "keys", "status")
    rotated = command(server, "keys", "rotate")
    assert rotated["epoch"] == before["epoch"] + 1
    refused = rempart("keys", "reseal", "--to", "passphrase", data=server.data)
    assert (refused.returncode, "rempart.toml" in refused.stderr) == (2, True)
    secret = tmp_path / "passphrase"
    secret.write_text("a passphrase that is long\n")
    secret.chmod(0o600)
    (server.data / "rempart.toml").write_text(f'[keys]\nsealing = "passphrase"\npassphrase_file = "{secret}"\n')
    command(server, "keys", "reseal", "--to", "passphrase")
    assert command(server, "keys", "status")["sealing"] == "passphrase"
    later = proxy.ask("cough", ALICE)
    assert server.stop() == 0
    with running(server.data) as again:
        assert readable(again, exchange)
        assert readable(again, later)
        assert command(again, "keys", "status")["sealing"] == "passphrase"
    explained = rempart("config", "explain", data=server.data).stdout
    assert str(secret) in explained
    assert "a passphrase that is long" not in explained


def test_without_a_server_it_is_the_same(server: Running) -> None:
    proxy = Client(server, key(server, "--name", "proxy", "--trust-subject-header"))
    exchange = proxy.ask("fever", ALICE)
    assert server.stop() == 0
    asked = rempart("ledger", "erase", "--subject", ALICE, *GROUND, data=server.data)
    assert asked.returncode == 130  # nobody is there to say yes
    assert "1 exchange (2 bodies)" in asked.stderr
    assert "Nothing was erased." in asked.stderr
    assert readable(server, exchange)
    command(server, "ledger", "erase", "--subject", ALICE, *GROUND, "--yes")
    assert not readable(server, exchange)
    assert command(server, "ledger", "expire", "--dry-run") == {"buckets": [], "late": [], "unknown": []}
    assert command(server, "ledger", "expire") == []
    assert rempart("ledger", "fsck", data=server.data).returncode == 0


@pytest.mark.timeout(300)
def test_a_kill_in_the_middle_is_finished_by_the_next_start(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with running(data) as server:
        proxy = Client(server, key(server, "--name", "proxy", "--trust-subject-header"))
        exchange = proxy.ask("fever", ALICE)
        erasing = threading.Thread(
            target=rempart, args=("ledger", "erase", "--subject", ALICE, *GROUND, "--yes"), kwargs={"data": data}
        )
        erasing.start()
        root, before = data / "keys" / "root.key", (data / "keys" / "root.key").read_bytes()
        while root.read_bytes() == before and erasing.is_alive():
            pass  # the root changes in the middle of it
        server.kill()
        erasing.join()
    with running(data) as again:
        assert not readable(again, exchange)
        tail = rempart("ledger", "tail", "-n", "100", "--json", data=data).stdout.splitlines()
        assert [json.loads(line)["entry"]["type"] for line in tail].count("erasure") == 1
        assert again.stop() == 0
    assert rempart("ledger", "fsck", data=data).returncode == 0
