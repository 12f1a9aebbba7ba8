"""A witness that is killed at any of its writes never cosigns a second history, and comes back by itself."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from rempart.ledger.log.policy import Log
from rempart.testing.trees import Trees
from rempart.witness.opening import open_witness

LEAVES = [b"leaf %d" % number for number in range(20)]
FORK = [*LEAVES[:12], b"another", *LEAVES[13:]]
LOG = Trees("log.example/one", bytes(32))
LOGS = (Log(LOG.signer.verifier),)
NAME = "witness.example/w"

CHILD = """
import os, signal, sys
from pathlib import Path
from rempart.ledger.log.policy import Log
from rempart.testing.trees import Trees
from rempart.witness.memory import Held
from rempart.witness.opening import open_witness

log = Trees("log.example/one", bytes(32))
leaves = [b"leaf %d" % number for number in range(20)]
name, at, done = sys.argv[2], int(sys.argv[3]), sys.argv[4] == "done"
calls = 0

def die(real):
    def call(*arguments):
        global calls
        calls += 1
        if calls == at and not done:
            os.kill(os.getpid(), signal.SIGKILL)
        result = real(*arguments)
        if calls == at:
            os.kill(os.getpid(), signal.SIGKILL)
        return result
    return call

with open_witness(Path(sys.argv[1]), "witness.example/w", (Log(log.signer.verifier),)) as clerk:
    if name == "keep":
        Held.keep = die(Held.keep)
    else:
        setattr(os, name, die(getattr(os, name)))
    for old, new in ((0, 8), (8, 20)):
        print(new, clerk.add_checkpoint(log.submission(old, leaves[:new])).status, flush=True)
"""


@pytest.mark.parametrize("done", ["done", "not done"])
@pytest.mark.parametrize(
    ("name", "at"),
    [("keep", 1), ("keep", 2), ("rename", 1), ("rename", 2), *(("fsync", at) for at in range(1, 5)), ("pwrite", 2)],
)
def test_killed_at_any_write(tmp_path: Path, name: str, at: int, done: str) -> None:
    ended = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path), name, str(at), done], capture_output=True, text=True, check=False
    )
    assert ended.returncode == -signal.SIGKILL, ended.stderr
    answered = [int(line.split()[0]) for line in ended.stdout.splitlines()]
    with open_witness(tmp_path, NAME, LOGS) as clerk:
        refused = clerk.add_checkpoint(LOG.submission(19, LEAVES))
        kept = int(refused.body)
        assert refused.status == 409
        assert kept in (0, 8, 20)
        assert kept >= max(answered, default=0)
        if kept == 20:
            assert clerk.add_checkpoint(LOG.submission(20, FORK)).status == 409
        assert clerk.add_checkpoint(LOG.submission(kept, LEAVES)).status == 200
        assert clerk.add_checkpoint(LOG.submission(20, FORK)).status == 409
