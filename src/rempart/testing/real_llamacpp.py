"""`LlamaCppSubject`: llama.cpp's own server, serving the guide: the code and process that `embedded` runs."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import msgspec

from rempart.bench.environments import LOCKS
from rempart.engines.asking import Endpoint
from rempart.engines.llamacpp import LlamaCppEngine
from rempart.engines.llamacpp_child import Order
from rempart.engines.port import Engine
from rempart.testing.conformance import Load
from rempart.testing.real import GUIDE, RealSubject
from rempart.wiring_engines import guide_path

_KEY = "a-key-of-the-test"


class LlamaCppSubject(RealSubject):
    """Up in a second. It takes its key and model from its stdin, and lives while that is open."""

    name = "llamacpp"
    lacks: Mapping[str, str] = dict.fromkeys(
        ("tools", "tools in a stream"),
        "The guide's chat template has no place for tools: llama.cpp then answers in text, whatever tool_choice says.",
    )

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        lines = (LOCKS / "run.lock").read_text().splitlines()
        self.version = next(line.split()[0].partition("==")[2] for line in lines if line.startswith("xllamacpp=="))

    def launch_at(self, port: int) -> None:
        del port  # it chooses one, and says which
        process = self.launch(
            [sys.executable, "-m", "rempart.engines.llamacpp_child"],
            {**os.environ, **self.environment()},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        order = Order(
            parent=os.getpid(),
            model=str(guide_path()),
            alias=GUIDE,
            api_key=_KEY,
            context_tokens=512,
            parallel=4,
            threads=1,
        )
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(msgspec.json.encode(order) + b"\n")
        process.stdin.flush()
        self.url = self.metrics_url = msgspec.json.decode(process.stdout.readline())["url"]

    def adapter(self, url: str) -> Engine:
        return LlamaCppEngine(self.name, lambda: Endpoint(url, _KEY))

    def api_key(self) -> str:
        return _KEY

    async def load(self) -> Load:
        running, waiting, generated = await self.figures(
            "llamacpp:requests_processing", "llamacpp:requests_deferred", "llamacpp:tokens_predicted_total"
        )
        return Load(running=int(running + waiting), generated=int(generated))
