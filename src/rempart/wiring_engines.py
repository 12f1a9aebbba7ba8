"""Engines as the settings ask for them, each behind its adapter."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from importlib.resources import files
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import msgspec

from rempart.config.settings import Engine as EngineSettings
from rempart.engines.asking import Endpoint, tls_context
from rempart.engines.digest import file_digest
from rempart.engines.embedded import EmbeddedEngine
from rempart.engines.llamacpp import EmbeddedModel, LlamaCppEngine
from rempart.engines.ollama import OllamaEngine
from rempart.engines.openai import OpenAIEngine
from rempart.engines.port import Engine
from rempart.engines.transformers import TransformersEngine
from rempart.engines.triton import TritonEngine
from rempart.engines.vllm import VLLMEngine
from rempart.errors import ConfigError, KeystoreError
from rempart.formats.gguf import GgufHeader, NotGguf, read_header

_GUIDE: Final = "guide-f16.gguf"
_CONTEXT_DEFAULT: Final = 4_096
_ADAPTERS: Final[Mapping[str, Callable[..., Engine]]] = {
    "openai": OpenAIEngine,
    "vllm": VLLMEngine,
    "llamacpp": LlamaCppEngine,
    "ollama": OllamaEngine,
    "triton": TritonEngine,
    "transformers": TransformersEngine,
}


class Progress(msgspec.Struct, frozen=True, kw_only=True):
    """Whom to tell while something takes long."""

    reading: Callable[[str, int, int], None]
    """(file, bytes done, bytes in all)."""


def engine_of(settings: EngineSettings, data: Path, progress: Progress | None) -> Engine:
    if settings.kind == "embedded":
        model = _embedded_model(settings, data, progress)
        return EmbeddedEngine(settings.name, model, data / "engines" / f"{settings.name}.log")
    return engine_at(settings)


def engine_at(settings: EngineSettings) -> Engine:
    """The adapter to one that listens somewhere. Raises `ConfigError`, `KeystoreError`."""
    endpoint = Endpoint(settings.url.rstrip("/").removesuffix("/v1"), secret(settings.api_key_file))
    tls = tls_context(settings.ca_file) if urlsplit(settings.url).scheme == "https" else None
    return _ADAPTERS[settings.kind](settings.name, lambda: endpoint, tls=tls, names=settings.models)


def _embedded_model(settings: EngineSettings, data: Path, progress: Progress | None) -> EmbeddedModel:
    path = settings.model or guide_path()
    try:
        with path.open("rb") as file:
            header = read_header(file)
        reading = None if progress is None else (lambda done, total: progress.reading(path.name, done, total))
        digest = file_digest(path, data / "engines" / "digests.json", reading)
        created = int(path.stat().st_mtime)
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.", hint="Give a GGUF file with --model.") from error
    return EmbeddedModel(
        path=path.resolve(),
        name=model_name(settings),
        digest=digest,
        created=created,
        context_tokens=_context(settings, header),
        parallel=settings.parallel,
        threads=settings.threads,
    )


def context_of(settings: EngineSettings) -> int | None:
    """Tokens that one sequence of an embedded engine will have; None when its file cannot be read."""
    try:
        with (settings.model or guide_path()).open("rb") as file:
            return _context(settings, read_header(file))
    except (OSError, NotGguf):
        return None


def _context(settings: EngineSettings, header: GgufHeader) -> int:
    return min(settings.context_tokens, header.context_tokens or _CONTEXT_DEFAULT)


def model_name(settings: EngineSettings) -> str:
    """What clients call the model of an embedded engine."""
    return settings.model_name or ("guide" if settings.model is None else settings.model.stem)


def guide_path() -> Path:
    """The built-in model: beside the package when it is installed, in `models/guide` when it is a checkout."""
    installed = Path(str(files("rempart"))) / "models" / _GUIDE
    return installed if installed.exists() else Path(__file__).parents[2] / "models" / "guide" / _GUIDE


def secret(path: Path | None) -> str:
    if path is None:
        return ""
    try:
        if path.stat().st_mode & 0o077:
            raise KeystoreError(f"{path} can be read by others.", hint=f"Run: chmod go-rwx {path}")
        secret = path.read_bytes().strip()
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}.", hint="See engines.api_key_file.") from error
    if not re.fullmatch(rb"[!-~]*", secret):
        raise ConfigError(
            f"{path} holds more than a key.", hint="One line of printable ASCII; see engines.api_key_file."
        )
    return secret.decode()
