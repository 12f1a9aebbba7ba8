"""`ScriptedSubject`, `OllamaSubject`: the scripted engine and the fake of Ollama, for the conformance suite."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rempart.engines.asking import Endpoint
from rempart.engines.ollama import OllamaEngine
from rempart.engines.openai import OpenAIEngine
from rempart.engines.port import Engine
from rempart.testing.fake_ollama import VERSION, FakeOllama
from rempart.testing.scripted import ScriptedServer


class ScriptedSubject(ScriptedServer):
    """`async with ScriptedSubject() as subject`."""

    name = "scripted"
    version = ""
    embedding_model = "scripted"
    long_prompt = "paced 400 20"
    tool_choice: Any = "required"
    lacks: Mapping[str, str] = {}
    failure = b'data: {"error": {"message": "scripted", "type": "server_error"}}\n\n'
    nonsense = b'data: {"choices": 7}\n\n'

    def adapter(self, url: str) -> Engine:
        return OpenAIEngine(self.name, lambda: Endpoint(url, ""))


class OllamaSubject(FakeOllama):
    """The same, of the fake."""

    name = "ollama"
    version = f"{VERSION} (a strict fake)"
    embedding_model = "guide"
    long_prompt = "paced 400 20"
    tool_choice: Any = "auto"
    lacks: Mapping[str, str] = {}
    failure = b'{"error":"an error was encountered while running the model"}\n'
    nonsense = b'{"message":7}\n'

    def adapter(self, url: str) -> Engine:
        return OllamaEngine(self.name, lambda: Endpoint(url, ""))
