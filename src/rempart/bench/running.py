"""`running`: a real `rempart up` in a process of its own, for benchmarks and tests."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import msgspec


class Running(msgspec.Struct, kw_only=True):
    """A server that is ready."""

    url: str
    key: str
    vkey: str
    model: str
    data: Path
    process: subprocess.Popen[bytes]

    def kill(self) -> None:
        """As a power cut would, but for the page cache."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()

    def stop(self) -> int:
        """SIGTERM; its exit status."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait()


class DidNotStart(Exception):
    """It ended before it was ready; the text is its stderr."""


def start(data: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> Running:
    """Start on `data` at a free port of loopback. Raises `DidNotStart`."""
    log = data.with_name(data.name + ".stderr")
    with log.open("ab") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "rempart.cli.main", "up", "--data", str(data), "--port", "0", "--json", *arguments],
            stdout=subprocess.PIPE,
            stderr=stderr,
            env={**os.environ, **(environment or {})},
        )
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        process.wait()
        raise DidNotStart(log.read_text(errors="replace")[-4000:])
    told: dict[str, Any] = msgspec.json.decode(line)
    return Running(
        url=told["url"],
        key=told.get("key", ""),
        vkey=told["vkey"],
        model=told.get("model", ""),
        data=data,
        process=process,
    )


@contextlib.contextmanager
def running(data: Path, *arguments: str, environment: Mapping[str, str] | None = None) -> Iterator[Running]:
    """`start`, and kill it at the end unless it has ended."""
    server = start(data, *arguments, environment=environment)
    try:
        yield server
    finally:
        if server.process.poll() is None:
            server.stop()
        assert server.process.stdout is not None
        server.process.stdout.close()


def disclosed(exchange: str, *options: str, data: Path) -> subprocess.CompletedProcess[str]:
    """`ledger show` with what was said, under a new auditor's key."""
    key = rempart("key", "create", "--name", "audit", "--role", "auditor", data=data).stdout.strip()
    reason = ("--reason", "a test")
    return rempart("ledger", "show", exchange, *reason, *options, data=data, environment={"REMPART_KEY": key})


def rempart(
    *arguments: str, data: Path, environment: Mapping[str, str] | None = None
) -> subprocess.CompletedProcess[str]:
    """One command of the line, with its output."""
    return subprocess.run(
        [sys.executable, "-m", "rempart.cli.main", *arguments, "--data", str(data)],
        capture_output=True,
        text=True,
        env={**os.environ, **(environment or {})},
        check=False,
    )
