"""`Asker.post`: requests to one engine over HTTP, and what the statuses of its answers mean. All adapters use it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final, NamedTuple
from urllib.parse import SplitResult, urlsplit

import msgspec

from rempart import limits
from rempart.errors import ConfigError, EngineError, EngineRefused, EngineTimeout
from rempart.http.connection import Client, Response

_ERROR_BYTES_MAX: Final = 64 * 1024
_MESSAGE_CHARS_MAX: Final = 2_000


class Endpoint(msgspec.Struct, frozen=True):
    """Where an engine listens: the address up to but without `/v1`, and its key or an empty text."""

    url: str
    api_key: str

    def __repr__(self) -> str:
        return f"Endpoint({self.url!r}, …)"


class _Error(msgspec.Struct):
    message: str = ""
    param: str | None = None


class _ErrorBody(msgspec.Struct):
    error: _Error | str | None = None
    message: str = ""
    detail: Any = None


class _Place(NamedTuple):
    """An endpoint, ready to be asked."""

    endpoint: Endpoint
    url: SplitResult
    headers: str
    """Those that every request carries, with their line ends."""


class Asker:
    """`endpoint` is asked at each request, so that an engine may come back elsewhere; it raises `EngineUnavailable`."""

    def __init__(
        self,
        name: str,
        endpoint: Callable[[], Endpoint],
        *,
        tls: ssl.SSLContext | None = None,
        mistakes: tuple[str, ...] = (),
        refusal: Callable[[EngineRefused], EngineError] = lambda error: error,
    ) -> None:
        self.name = name
        self._endpoint = endpoint
        self._client = Client(name, tls)
        self._mistakes = mistakes
        """What stands in this engine's errors of status 500 when it is the client's mistake."""
        self._refusal = refusal
        """What this engine's refusals mean: the same, or a more telling error."""
        self._place: _Place | None = None

    async def get(self, path: str) -> bytes:
        """The whole body, at most `limits.model_list_bytes_max`, within `limits.engine_list_s`.

        Raises `EngineError` and its kin.
        """
        return await self._within_list_s(self._get(path))

    async def tell(self, path: str, body: bytes) -> bytes:
        """As `get`, with a JSON body: for what an engine answers at once."""
        return await self._within_list_s(self._tell(path, body))

    async def post(self, path: str, body: bytes, exchange: str) -> Response:
        """Its answer, with status 200; the caller closes it. Raises `EngineError` and its kin."""
        place = self._where()
        head = (
            f"POST {place.url.path}{path} HTTP/1.1\r\n{place.headers}X-Request-Id: {exchange}\r\n"
            f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
        )
        response = await self._client.request(place.url, head.encode(), body)
        if response.status != 200:
            try:
                await self._check(response)
            finally:
                response.close()
        return response

    async def whole(self, path: str, body: bytes, exchange: str) -> bytes:
        """The same, read to its end: at most `limits.answer_bytes_max`."""
        response = await self.post(path, body, exchange)
        try:
            return await response.whole(limits.answer_bytes_max)
        finally:
            response.close()

    def close(self) -> None:
        self._client.close()

    async def _within_list_s(self, asking: Awaitable[bytes]) -> bytes:
        try:
            async with asyncio.timeout(limits.engine_list_s):
                return await asking
        except TimeoutError as error:
            raise EngineTimeout(f"The engine {self.name} is silent.", hint="See the engine's log.") from error

    async def _get(self, path: str) -> bytes:
        place = self._where()
        head = f"GET {place.url.path}{path} HTTP/1.1\r\n{place.headers}\r\n"
        response = await self._client.request(place.url, head.encode(), b"")
        try:
            await self._check(response)
            return await response.whole(limits.model_list_bytes_max)
        finally:
            response.close()

    async def _tell(self, path: str, body: bytes) -> bytes:
        response = await self.post(path, body, "")
        try:
            return await response.whole(limits.model_list_bytes_max)
        finally:
            response.close()

    def _where(self) -> _Place:
        endpoint = self._endpoint()
        if self._place is None or self._place.endpoint != endpoint:
            url = urlsplit(endpoint.url)
            key = f"Authorization: Bearer {endpoint.api_key}\r\n" if endpoint.api_key else ""
            self._place = _Place(endpoint, url, f"Host: {url.netloc}\r\nAccept-Encoding: identity\r\n{key}")
        return self._place

    async def _check(self, response: Response) -> None:
        """Raises what its status means."""
        status = response.status
        if status == 200:
            return
        message, param = error_message(await response.whole(_ERROR_BYTES_MAX))
        if status in (401, 403):
            raise EngineError(f"The engine {self.name} refuses our key.", hint="Check engines.api_key_file.")
        if status == 503:
            raise self._client.unavailable("is not ready")
        if status == 500 and any(mistake in message for mistake in self._mistakes):
            status = 400
        if 400 <= status < 500:
            text = message or f"The engine refused the request ({status})."
            raise self._refusal(EngineRefused(text, status=status, param=param))
        raise EngineError(f"The engine {self.name} failed ({status}).", hint="See the engine's log.")


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """Verifies the engine's certificate and name. Raises `ConfigError`."""
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise ConfigError(f"{ca_file} cannot be used: {error}.", hint="Give a PEM file of authorities.") from error


def error_message(body: bytes) -> tuple[str, str | None]:
    """What an engine says of its own error; OpenAI's shape, FastAPI's, Ollama's and Triton's, or none.

    Triton refuses a stream with an event, under status 400.
    """
    try:
        found = msgspec.json.decode(body.removeprefix(b"data:").strip(), type=_ErrorBody)
    except (msgspec.DecodeError, RecursionError):
        return "", None
    if isinstance(found.error, _Error):
        return found.error.message[:_MESSAGE_CHARS_MAX], found.error.param
    text = found.error or found.message or (found.detail if isinstance(found.detail, str) else "")
    return text[:_MESSAGE_CHARS_MAX], None
