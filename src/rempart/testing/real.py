"""`RealSubject`: a real engine in a process group of its own, serving the guide on loopback, for the conformance suite.

`make test-engines` has made the environments. Engines are told to be offline and to send nothing about their use; they
inherit nothing else of our environment.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from rempart import limits
from rempart.bench.environments import LOCKS, Environment, engines_cache, environment
from rempart.bench.nginx import free_port
from rempart.engines.asking import Asker, Endpoint
from rempart.engines.port import Engine
from rempart.errors import EngineError, EngineUnavailable
from rempart.testing.conformance import Load
from rempart.wiring_engines import guide_path

GUIDE: Final = "guide"
ARTEFACT: Final = guide_path().parent / "artefact"
"""Of a checkout: the guide as transformers and vLLM read it."""
OFFLINE: Final = {
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "GRADIO_ANALYTICS_ENABLED": "False",
}
_ASK_S: Final = 0.1


class RealSubject:
    """One engine. `folder` takes its log and whatever it writes; `async with` starts it, and ends it."""

    name = ""
    version = ""
    model = GUIDE
    embedding_model = GUIDE
    long_prompt = "What is Rempart?"
    tool_choice: Any = "required"
    lacks: Mapping[str, str] = {}
    failure = b'data: {"error": {"message": "scripted", "type": "server_error"}}\n\n'
    nonsense = b'data: {"choices": 7}\n\n'

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = ""
        self.metrics_url = ""
        self._process: subprocess.Popen[bytes] | None = None

    async def __aenter__(self) -> RealSubject:
        try:
            await self.start()
        except BaseException:
            self.kill()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self.kill()

    async def start(self) -> None:
        """Returns when it can work. Raises `EngineUnavailable` with the end of its log when it ends before."""
        port = free_port()
        self.url = self.metrics_url = f"http://127.0.0.1:{port}"
        self.launch_at(port)
        engine = self.adapter(self.url)
        try:
            async with asyncio.timeout(limits.engine_start_s):
                while not await self._ready(engine):
                    await asyncio.sleep(_ASK_S)
        finally:
            await engine.close()

    def launch_at(self, port: int) -> None:
        """Calls `launch`; sets `url` and `metrics_url` where they are others."""
        raise NotImplementedError

    def environment(self) -> dict[str, str]:
        """All that it inherits."""
        return {"PATH": "/usr/bin:/bin", "HOME": str(self.folder), **OFFLINE}

    def adapter(self, url: str) -> Engine:
        raise NotImplementedError

    async def load(self) -> Load:
        raise NotImplementedError

    def pause(self) -> None:
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._signal(signal.SIGCONT)

    def kill(self) -> None:
        """It and all that it started."""
        if self._process is not None:
            self._signal(signal.SIGKILL)
            self._process.wait()
            for pipe in (self._process.stdin, self._process.stdout):
                if pipe is not None:
                    pipe.close()

    def launch(
        self,
        command: list[str],
        environ: Mapping[str, str],
        *,
        stdin: int = subprocess.DEVNULL,
        stdout: int | None = None,
    ) -> subprocess.Popen[bytes]:
        """stderr, and stdout unless it is given, go to the log."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                command,
                stdin=stdin,
                stdout=log if stdout is None else stdout,
                stderr=log,
                env=environ,
                start_new_session=True,
            )
        return self._process

    async def figures(self, *names: str) -> list[float]:
        """Sums of Prometheus' samples of these names, as `/metrics` has them now."""
        asker = Asker(self.name, lambda: Endpoint(self.metrics_url, self.api_key()))
        try:
            text = (await asker.get("/metrics")).decode()
        finally:
            asker.close()
        return [
            sum(float(value) for value in re.findall(rf"^{re.escape(name)}(?:{{.*}})? (\S+)$", text, re.MULTILINE))
            for name in names
        ]

    def api_key(self) -> str:
        return ""

    async def _ready(self, engine: Engine) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            log = (self.folder / "log").read_text(errors="replace")[-3000:]
            raise EngineUnavailable(f"{self.name} ended with {self._process.returncode}:\n{log}")
        try:
            return any(target.served_name == self.model for target in await engine.models())
        except EngineError:
            return False  # not yet

    def _signal(self, number: int) -> None:
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


def engine_environment(name: str) -> Environment:
    """That of a lock. Raises `EnvironmentMissing`, also when nobody has made it."""
    return environment(name, LOCKS / f"{name}.lock", engines_cache())
