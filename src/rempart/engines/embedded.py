"""`EmbeddedEngine`: llama.cpp in a child process: started, watched, restarted when it dies, gone when we go."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import sys
from collections.abc import AsyncGenerator, Iterator, Sequence
from pathlib import Path

import msgspec

from rempart import limits
from rempart.engines.asking import Endpoint
from rempart.engines.llamacpp import EmbeddedModel, LlamaCppEngine, not_there
from rempart.engines.llamacpp_child import Order
from rempart.errors import EngineUnavailable
from rempart.wire.job import Job, Served, Target

_log = logging.getLogger("rempart.engines")


class _Address(msgspec.Struct):
    url: str


class EmbeddedEngine:
    """One model, one child. `start` returns once it answers; `close` ends it."""

    def __init__(self, name: str, model: EmbeddedModel, log: Path) -> None:
        self._model = model
        self._log = log
        self._endpoint: Endpoint | None = None
        self._why = "is starting"
        self._http = LlamaCppEngine(name, self._where, model=model)
        self._process: asyncio.subprocess.Process | None = None
        self._watch: asyncio.Task[None] | None = None
        self._before = self._said = Served(tokens_prompt=0, tokens_completion=0)
        """Of children that died, and of this one when it was last asked."""

    @property
    def name(self) -> str:
        return self._http.name

    @property
    def model(self) -> EmbeddedModel:
        return self._model

    def place(self) -> tuple[Endpoint | None, str]:
        """Where it listens, and while it does not, why."""
        return self._endpoint, self._why

    @property
    def pid(self) -> int | None:
        """Of the child, while there is one."""
        return self._process.pid if self._process is not None else None

    async def start(self) -> None:
        """Raises `EngineUnavailable` when it does not come up the first time: then trying again is of no use."""
        await self._launch()
        self._watch = asyncio.create_task(self._keep(), name=f"engine {self.name}")

    async def answer(self, job: Job) -> bytes:
        return await self._http.answer(job)

    def stream(self, job: Job) -> AsyncGenerator[list[bytes], None]:
        return self._http.stream(job)

    async def models(self) -> Sequence[Target]:
        return await self._http.models()

    async def served(self) -> Served | None:
        """By llama.cpp's own counters; what a child that died had served is kept as it said it last."""
        said = await self._http.served()
        assert said is not None, "it is ours"
        self._said = said
        return Served(
            tokens_prompt=self._before.tokens_prompt + said.tokens_prompt,
            tokens_completion=self._before.tokens_completion + said.tokens_completion,
        )

    async def close(self) -> None:
        if self._watch is not None:
            self._watch.cancel()
            await asyncio.gather(self._watch, return_exceptions=True)
        self._endpoint, self._why = None, "is closed"
        await self._http.close()
        if self._process is not None:
            await _end(self._process)

    def _where(self) -> Endpoint:
        if self._endpoint is None:
            raise not_there(self.name, self._why)
        return self._endpoint

    async def _launch(self) -> None:
        """One attempt."""
        api_key = secrets.token_urlsafe(32)
        with self._open_log() as log:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "rempart.engines.llamacpp_child",
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                # A session of its own: Ctrl-C in our terminal is for us, who let running answers end first.
                start_new_session=True,
            )
        self._process = process
        try:
            async with asyncio.timeout(limits.engine_start_s):
                url = await self._introduce(process, api_key)
        except (TimeoutError, OSError, msgspec.DecodeError) as error:
            await _end(process)
            raise EngineUnavailable(
                f"The engine {self.name} did not start with {self._model.path.name}.", hint=f"See {self._log}."
            ) from error
        except asyncio.CancelledError:
            await _end(process)
            raise
        self._endpoint = Endpoint(url, api_key)
        _log.info("engine ready", extra={"engine": self.name, "model": self._model.name, "pid": process.pid})

    async def _introduce(self, process: asyncio.subprocess.Process, api_key: str) -> str:
        assert process.stdin is not None
        assert process.stdout is not None
        model = self._model
        order = Order(
            parent=os.getpid(),
            model=str(model.path),
            alias=model.name,
            api_key=api_key,
            context_tokens=model.context_tokens,
            parallel=model.parallel,
            threads=model.threads,
        )
        process.stdin.write(msgspec.json.encode(order) + b"\n")
        await process.stdin.drain()
        return msgspec.json.decode(await process.stdout.readline(), type=_Address).url

    def _open_log(self) -> contextlib.AbstractContextManager[int]:
        self._log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor = os.open(self._log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        return _closing(descriptor)

    async def _keep(self) -> None:
        """Start it again each time it dies, at growing intervals while it dies young."""
        pause_s = limits.engine_restart_first_s
        loop = asyncio.get_running_loop()
        while True:
            assert self._process is not None
            began = loop.time()
            status = await self._process.wait()
            self._endpoint, self._why = None, "has died and is being restarted"
            self._before = Served(
                tokens_prompt=self._before.tokens_prompt + self._said.tokens_prompt,
                tokens_completion=self._before.tokens_completion + self._said.tokens_completion,
            )
            self._said = Served(tokens_prompt=0, tokens_completion=0)
            _log.error("engine died", extra={"engine": self.name, "exit_status": status})
            if loop.time() - began > limits.engine_restart_most_s:
                pause_s = limits.engine_restart_first_s
            await asyncio.sleep(pause_s)
            pause_s = min(pause_s * 2, limits.engine_restart_most_s)
            with contextlib.suppress(EngineUnavailable):  # it is logged above, at the next turn
                await self._launch()


@contextlib.contextmanager
def _closing(descriptor: int) -> Iterator[int]:
    try:
        yield descriptor
    finally:
        os.close(descriptor)


async def _end(process: asyncio.subprocess.Process) -> None:
    if process.stdin is not None:
        process.stdin.close()
    with contextlib.suppress(ProcessLookupError):
        process.kill()
    await process.wait()
