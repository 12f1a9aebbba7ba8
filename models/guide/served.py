"""`Served`: the GGUF form of the guide in the real llama.cpp, set up as Rempart's own engine does it."""

from __future__ import annotations

import json
import urllib.request
from pathlib import Path
from typing import Any, Final

import xllamacpp

_CONTEXT: Final = 512
_ERRORS_ONLY: Final = 1
_DEADLINE_S: Final = 60.0


class Served:
    """A server on 127.0.0.1, for as long as the object lives."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        params = xllamacpp.CommonParams()
        params.model.path = str(path)
        params.hostnames = ["127.0.0.1"]
        params.port = 0
        params.n_ctx = _CONTEXT
        params.n_parallel = 1
        params.use_jinja = True
        params.offline = True
        params.ui = False
        params.verbosity = _ERRORS_ONLY
        params.cpuparams.n_threads = threads
        params.cpuparams_batch.n_threads = threads
        self._server = xllamacpp.Server(params)

    def answer(self, messages: list[dict[str, str]], max_tokens: int = 160) -> str:
        """The greedy answer to a conversation."""
        request = {"messages": messages, "temperature": 0.0, "top_k": 1, "seed": 1, "max_tokens": max_tokens}
        return str(self._post("/v1/chat/completions", request)["choices"][0]["message"]["content"])

    def ids(self, text: str) -> list[int]:
        """llama.cpp's own tokenisation."""
        return list(self._post("/tokenize", {"content": text, "add_special": False, "parse_special": True})["tokens"])

    def _post(self, path: str, document: dict[str, Any]) -> Any:
        request = urllib.request.Request(
            self._server.listening_address + path,
            data=json.dumps(document).encode(),
            headers={"content-type": "application/json"},
        )
        with urllib.request.urlopen(request, timeout=_DEADLINE_S) as response:
            return json.load(response)
