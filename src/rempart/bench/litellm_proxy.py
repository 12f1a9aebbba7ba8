"""`serving`: LiteLLM's proxy, from a virtual environment of its own, as its lock pins it.

`environments` makes it. It never touches ours.
"""

from __future__ import annotations

import contextlib
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec

from rempart.bench.environments import LOCKS, Environment, EnvironmentMissing, environment, make, user_cache
from rempart.bench.nginx import free_port, listens
from rempart.bench.plan import Target

LOCK: Final = LOCKS / "litellm.lock"
_READY_S: Final = 120.0
_STOP_S: Final = 10.0


class LiteLLMMissing(Exception):
    """It could not be installed or did not start; the text says why."""


def version() -> str:
    """As the lock pins it. Raises `LiteLLMMissing`."""
    found = _environment_of_it().version("litellm")
    if not found:
        raise LiteLLMMissing("the lock does not name litellm")
    return found


def install() -> Path:
    """The environment, made at the first call. Raises `LiteLLMMissing`."""
    wanted = _environment_of_it()
    try:
        make(wanted, sys.executable, lambda _: None)
    except EnvironmentMissing as error:
        raise LiteLLMMissing(str(error)) from error
    return wanted.place


def _environment_of_it() -> Environment:
    try:
        return environment("litellm", LOCK, user_cache() / "bench")
    except EnvironmentMissing as error:
        raise LiteLLMMissing(str(error)) from error


@contextlib.contextmanager
def serving(
    place: Path, root: Path, upstreams: Mapping[str, int], workers: int
) -> Iterator[tuple[dict[str, Target], int]]:
    """(targets by kind of answer, process id) for upstreams by kind. Raises `LiteLLMMissing`."""
    root.mkdir(parents=True)
    key = f"sk-{secrets.token_hex(16)}"
    (root / "config.yaml").write_bytes(msgspec.json.encode(_config(upstreams)))  # JSON is YAML
    port = free_port()
    with (root / "log").open("wb") as log:
        process = subprocess.Popen(
            [
                *(str(place / "bin" / "litellm"), "--config", str(root / "config.yaml")),
                *("--host", "127.0.0.1", "--port", str(port), "--num_workers", str(workers)),
            ],
            stdout=log,
            stderr=log,
            env=_environment(place, key),
            start_new_session=True,
        )
    try:
        if not listens(port, _READY_S, process):
            raise LiteLLMMissing(f"it did not start: {_last_line((root / 'log').read_text(errors='replace'))}")
        targets = {
            kind: Target(port=port, path="/v1/chat/completions", model=_model(kind), key=key) for kind in upstreams
        }
        yield targets, process.pid
    finally:
        _stop(process)


def _config(upstreams: Mapping[str, int]) -> dict[str, object]:
    models = [
        {
            "model_name": _model(kind),
            "litellm_params": {
                "model": f"openai/{_model(kind)}",
                "api_base": f"http://127.0.0.1:{port}/v1",
                "api_key": "none",
            },
        }
        for kind, port in upstreams.items()
    ]
    return {"model_list": models, "litellm_settings": {"telemetry": False, "num_retries": 0, "set_verbose": False}}


def _environment(place: Path, key: str) -> dict[str, str]:
    """As its documentation advises for production, and without the fetches it makes at the start."""
    return {
        "PATH": f"{place / 'bin'}:{os.environ.get('PATH', '')}",
        "HOME": os.environ.get("HOME", "/"),
        "LITELLM_MASTER_KEY": key,
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_LOG": "ERROR",
        "LITELLM_MODE": "PRODUCTION",
    }


def _stop(process: subprocess.Popen[bytes]) -> None:
    """It and its workers: they are a session of their own."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(_STOP_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)


def _model(kind: str) -> str:
    return f"bench-{kind}"


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"
