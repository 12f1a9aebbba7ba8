"""`serving`: LiteLLM's proxy, from a virtual environment of its own, as its lock pins it.

The environment lies in the user's cache directory under the hash of the lock: it is made once. It never touches ours.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec

from rempart.bench.nginx import free_port, listens
from rempart.bench.plan import Target

LOCK: Final = Path(__file__).resolve().parents[3] / "locks" / "litellm.lock"
_INSTALLED: Final = ".installed"
_INSTALL_S: Final = 900.0
_READY_S: Final = 120.0
_STOP_S: Final = 10.0


class LiteLLMMissing(Exception):
    """It could not be installed or did not start; the text says why."""


def version() -> str:
    """As the lock pins it. Raises `LiteLLMMissing`."""
    for line in _lock().decode().splitlines():
        if line.startswith("litellm=="):
            return line.removeprefix("litellm==").split()[0]
    raise LiteLLMMissing("the lock does not name litellm")


def install() -> Path:
    """The environment, made at the first call. Raises `LiteLLMMissing`."""
    place = _cache() / f"litellm-{hashlib.sha256(_lock()).hexdigest()[:16]}"
    if (place / _INSTALLED).exists():
        return place
    shutil.rmtree(place, ignore_errors=True)
    place.parent.mkdir(parents=True, exist_ok=True)
    pip = [str(place / "bin" / "python"), "-m", "pip", "--disable-pip-version-check", "--quiet", "install"]
    # Without dependencies: the lock is whole, and overrides what LiteLLM asks of certifi.
    for command in (
        [sys.executable, "-m", "venv", str(place)],
        [*pip, "--no-deps", "--require-hashes", "-r", str(LOCK)],
    ):
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=_INSTALL_S)
        except subprocess.TimeoutExpired as error:
            raise LiteLLMMissing(f"its installation took over {_INSTALL_S:.0f} s") from error
        if done.returncode:
            raise LiteLLMMissing(f"it could not be installed: {_last_line(done.stderr)}")
    (place / _INSTALLED).touch()
    return place


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


def _cache() -> Path:
    base = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(base) / "rempart" / "bench"


def _lock() -> bytes:
    try:
        return LOCK.read_bytes()
    except FileNotFoundError as error:
        raise LiteLLMMissing("its lock is missing: run from a checkout") from error


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "it said nothing"
