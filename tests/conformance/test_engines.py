"""Every engine keeps the promises of the port."""

from pathlib import Path

from rempart.engines.embedded import EmbeddedEngine, EmbeddedModel
from rempart.engines.openai import Endpoint, OpenAIEngine
from rempart.testing.check_engine import check_engine
from rempart.testing.scripted import ScriptedServer
from rempart.wiring import guide_path


def _guide() -> EmbeddedModel:
    return EmbeddedModel(
        path=guide_path(), name="guide", digest="", created=0, context_tokens=512, parallel=4, threads=0
    )


async def test_embedded_llama_cpp(tmp_path: Path) -> None:
    engine = EmbeddedEngine("embedded", _guide(), tmp_path / "engine.log")
    await engine.start()
    await check_engine(engine)


async def test_openai_over_http() -> None:
    async with ScriptedServer() as server:
        await check_engine(OpenAIEngine("remote", lambda: Endpoint(server.url, "")))
