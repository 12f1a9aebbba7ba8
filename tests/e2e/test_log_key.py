"""`rempart keys rotate-log` beside a server that answers: the log changes its key, and nobody is cut off."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from rempart.bench.running import Running, rempart, running

from .test_erasure import Client, key


def told(server: Running, *arguments: str) -> Any:
    done = rempart(*arguments, "--json", data=server.data)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_log_changes_its_key_while_the_server_answers(tmp_path: Path) -> None:
    with running(tmp_path / "data") as server:
        client = Client(server, key(server, "--name", "someone"))
        client.ask("before")
        begun = told(server, "keys", "rotate-log")
        assert told(server, "ledger", "key") == {"vkey": begun["old"], "next": begun["new"]}
        again = rempart("keys", "rotate-log", data=server.data)
        assert again.returncode != 0
        assert b"already" in again.stderr.encode()
        client.ask("meanwhile")
        told(server, "keys", "rotate-log", "--finish")
        assert told(server, "ledger", "key") == {"vkey": begun["new"]}
        exchange = client.ask("afterwards")
        for vkey in (begun["old"], begun["new"]):
            assert told(server, "ledger", "verify", "--vkey", vkey)["holds"]
        pack = tmp_path / "pack"
        told(server, "ledger", "pack", exchange, "--to", str(pack))
    assert rempart("ledger", "verify", data=server.data).returncode == 0
    for vkey in (begun["old"], begun["new"]):
        command = [sys.executable, "-I", str(pack / "verify.py"), "--vkey", vkey, str(pack)]
        assert subprocess.run(command, capture_output=True, check=False).returncode == 0
    with running(tmp_path / "data") as server:
        Client(server, key(server, "--name", "another")).ask("after a restart")
    assert rempart("ledger", "fsck", data=server.data).returncode == 0
