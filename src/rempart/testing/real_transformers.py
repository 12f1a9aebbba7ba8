"""`TransformersSubject`: Hugging Face transformers on CPU behind our own small server, serving the guide."""

from __future__ import annotations

from pathlib import Path

from rempart.engines import apart
from rempart.engines.asking import Endpoint
from rempart.engines.port import Engine
from rempart.engines.transformers import TransformersEngine
from rempart.testing.conformance import Load
from rempart.testing.real import ARTEFACT, GUIDE, RealSubject, engine_environment

APART = Path(apart.__file__).parent
"""Where the programs lie that run in environments of others."""


class TransformersSubject(RealSubject):
    """Up in some seconds, most of them imports."""

    name = "transformers"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._place = engine_environment("transformers")
        self.version = self._place.version("transformers")

    def launch_at(self, port: int) -> None:
        command = [
            *(str(self._place.python), str(APART / "transformers_child.py")),
            *("--model", str(ARTEFACT), "--name", GUIDE, "--port", str(port), "--threads", "1"),
        ]
        self.launch(command, {**self.environment(), "PYTHONDONTWRITEBYTECODE": "1"})

    def adapter(self, url: str) -> Engine:
        return TransformersEngine(self.name, lambda: Endpoint(url, ""))

    async def load(self) -> Load:
        running, waiting, generated = await self.figures(
            "transformers_requests_running", "transformers_requests_waiting", "transformers_completion_tokens_total"
        )
        return Load(running=int(running + waiting), generated=int(generated))
