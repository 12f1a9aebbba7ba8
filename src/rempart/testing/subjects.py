"""`ScriptedSubject`: the scripted engine as the conformance suite takes it."""

from __future__ import annotations

from rempart.engines.asking import Endpoint
from rempart.engines.openai import OpenAIEngine
from rempart.engines.port import Engine
from rempart.testing.conformance import Load
from rempart.testing.scripted import ScriptedServer


class ScriptedSubject(ScriptedServer):
    """`async with ScriptedSubject() as subject`."""

    name = "scripted"
    version = ""
    embedding_model = "scripted"
    long_prompt = "paced 400 20"
    failure = b'data: {"error": {"message": "scripted", "type": "server_error"}}\n\n'
    nonsense = b'data: {"choices": 7}\n\n'

    def adapter(self, url: str) -> Engine:
        return OpenAIEngine(self.name, lambda: Endpoint(url, ""))

    async def load(self) -> Load:
        return Load(running=self.running, generated=self.said)

    def pause(self) -> None:
        self.going.clear()

    def resume(self) -> None:
        self.going.set()

    async def start(self) -> None:
        await self.__aenter__()
