"""`TritonSubject`: the real tritonserver with its Python backend, serving the guide by transformers."""

from __future__ import annotations

import shutil
from pathlib import Path

from rempart.bench.nginx import free_port
from rempart.engines.asking import Endpoint
from rempart.engines.port import Engine
from rempart.engines.triton import TritonEngine
from rempart.testing.conformance import Load
from rempart.testing.real import ARTEFACT, GUIDE, RealSubject, engine_environment
from rempart.testing.real_transformers import APART


class TritonSubject(RealSubject):
    """The backend's stub needs Debian's libpython3.11, and finds the rest by `REMPART_TRITON_PATH`."""

    name = "triton"
    version = "2.51.0"
    embedding_model = f"{GUIDE}-embed"
    failure = b'data: {"error":"the model failed: scripted"}\n\n'
    nonsense = b'data: {"text_output":7}\n\n'

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._place = engine_environment("triton")
        self._text = engine_environment("transformers")

    def launch_at(self, port: int) -> None:
        packages, metrics = self._place.packages, free_port()
        server = packages / "pytriton" / "tritonserver"
        command = [
            *(str(server / "bin" / "tritonserver"), "--model-repository", str(self._repository())),
            *("--backend-directory", str(self._backends(server)), "--model-control-mode", "none"),
            *("--disable-auto-complete-config", "--allow-grpc", "false", "--exit-timeout-secs", "5"),
            *("--http-address", "127.0.0.1", "--http-port", str(port)),
            *("--metrics-address", "127.0.0.1", "--metrics-port", str(metrics)),
        ]
        environ = {
            "PYTHONDONTWRITEBYTECODE": "1",
            "LD_LIBRARY_PATH": str(packages / "nvidia_pytriton.libs"),
            # The first numpy is Triton's own: its backend was built for version 1.
            "REMPART_TRITON_PATH": f"{packages}:{self._text.packages}:{APART}",
        }
        self.launch(command, {**self.environment(), **environ})
        self.metrics_url = f"http://127.0.0.1:{metrics}"

    def adapter(self, url: str) -> Engine:
        return TritonEngine(self.name, lambda: Endpoint(url, ""))

    async def load(self) -> Load:
        running, generated = await self.figures("text_requests_running", "text_tokens_total")
        return Load(running=int(running), generated=int(generated))

    def _repository(self) -> Path:
        """The models that Rempart ships for Triton, set to the guide."""
        place = self.folder / "models"
        for template, name in (("text", GUIDE), ("embed", self.embedding_model)):
            shutil.copytree(APART / "triton_models" / template, place / name, dirs_exist_ok=True)
            config = place / name / "config.pbtxt"
            config.write_text(config.read_text().replace("@NAME@", name).replace("@MODEL@", str(ARTEFACT)))
        return place

    def _backends(self, server: Path) -> Path:
        """The stub for this Python must lie beside the backend; the environment stays as it was installed."""
        place = self.folder / "backends"
        shutil.rmtree(place, ignore_errors=True)
        (place / "python").mkdir(parents=True)
        stub = server / "python_backend_stubs" / "3.11" / "triton_python_backend_stub"
        for file in (*(server / "backends" / "python").iterdir(), stub):
            (place / "python" / file.name).symlink_to(file)
        return place
