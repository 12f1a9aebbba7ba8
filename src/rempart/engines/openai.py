"""`OpenAIEngine`: any server that speaks OpenAI's API over HTTP. The other adapters are built on it.

aiohttp's exceptions are mapped here and nowhere else.
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, Final

import aiohttp
import msgspec

from rempart import limits
from rempart.errors import ConfigError, EngineError, EngineRefused, EngineTimeout, EngineUnavailable
from rempart.wire.answers import nonsense
from rempart.wire.job import Job, Target
from rempart.wire.sse import DONE, Decoder

# Shorter than what servers use (uvicorn and llama.cpp: 5 s), so that a kept connection is not closed under a request.
_KEEP_ALIVE_S: Final = 3.0
_READ_BYTES: Final = 256 * 1024
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


class _Model(msgspec.Struct):
    id: str
    created: int = 0


class _Models(msgspec.Struct):
    data: list[_Model]


class OpenAIEngine:
    """`endpoint` is asked at each request, so that an engine may come back elsewhere; it raises `EngineUnavailable`."""

    def __init__(
        self,
        name: str,
        endpoint: Callable[[], Endpoint],
        *,
        tls: ssl.SSLContext | None = None,
        names: Mapping[str, str] | None = None,
    ) -> None:
        self._name = name
        self._endpoint = endpoint
        self._tls = tls
        self._names = dict(names or {})
        """The name that clients use -> the engine's own; empty: all under their own names."""
        self._session: aiohttp.ClientSession | None = None
        self._closed = False

    @property
    def name(self) -> str:
        return self._name

    async def answer(self, job: Job) -> bytes:
        async with self._post(job) as response:
            return await _whole(response, limits.answer_bytes_max)

    async def stream(self, job: Job) -> AsyncGenerator[list[bytes], None]:
        async with self._post(job) as response:
            if response.content_type != "text/event-stream":
                raise nonsense()
            decoder = Decoder()
            while True:
                async with asyncio.timeout(limits.engine_between_bytes_s):
                    data = await response.content.readany()
                if not data:
                    raise EngineError("The engine's stream ended in the middle.", hint="See the engine's log.")
                payloads = decoder.feed(data)
                if DONE in payloads:
                    last = payloads[: payloads.index(DONE)]
                    if last:
                        yield last
                    return
                if payloads:
                    yield payloads

    async def models(self) -> Sequence[Target]:
        endpoint = self._endpoint()
        async with (
            self._mapped(),
            asyncio.timeout(limits.engine_connect_s),
            self._client().get(
                f"{endpoint.url}/v1/models", headers=_headers(endpoint, None), allow_redirects=False
            ) as response,
        ):
            await self._check(response)
            body = await _whole(response, limits.answer_bytes_max)
        try:
            listed = {model.id: model.created for model in msgspec.json.decode(body, type=_Models).data}
        except (msgspec.DecodeError, RecursionError) as error:
            raise nonsense() from error
        names = self._names or {name: name for name in listed}
        return [
            Target(model=name, served_name=own, digest="", engine=self._name, created=listed[own])
            for name, own in names.items()
            if own in listed
        ]

    async def close(self) -> None:
        self._closed = True
        if self._session is not None:
            await self._session.close()

    @asynccontextmanager
    async def _post(self, job: Job) -> AsyncIterator[aiohttp.ClientResponse]:
        endpoint = self._endpoint()
        async with self._mapped():
            headers = _headers(endpoint, job.exchange)
            async with await self._send(endpoint.url + job.path, job.body, headers) as response:
                if response.status != 200:
                    await self._check(response)
                yield response

    async def _send(self, url: str, body: bytes, headers: Mapping[str, str]) -> aiohttp.ClientResponse:
        """Once more when the connection was closed before any answer: a kept one may be closed by the server just as
        it is used again, and nothing of an answer has been seen by anyone."""
        try:
            return await self._client().post(url, data=body, headers=headers, allow_redirects=False)
        except aiohttp.ClientConnectorError:
            raise
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError):
            return await self._client().post(url, data=body, headers=headers, allow_redirects=False)

    @asynccontextmanager
    async def _mapped(self) -> AsyncIterator[None]:
        try:
            yield
        except TimeoutError as error:  # also aiohttp's own
            raise EngineTimeout(f"The engine {self._name} is silent.", hint="See the engine's log.") from error
        except aiohttp.ClientConnectorError as error:
            raise self._unavailable("cannot be reached") from error
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as error:
            raise self._unavailable("closed its connection") from error
        except aiohttp.ClientError as error:
            raise EngineError(
                f"The engine {self._name} does not speak HTTP as it should.", hint="See the engine's log."
            ) from error

    def _unavailable(self, what: str) -> EngineUnavailable:
        return EngineUnavailable(
            f"The engine {self._name} {what}.", hint="Try again in a moment; see /readyz.", retry_after_s=2
        )

    async def _check(self, response: aiohttp.ClientResponse) -> None:
        """Raises what its status means."""
        status = response.status
        if status == 200:
            return
        message, param = _message(await _whole(response, _ERROR_BYTES_MAX))
        if status in (401, 403):
            raise EngineError(f"The engine {self._name} refuses our key.", hint="Check engines.api_key_file.")
        if status == 503:
            raise self._unavailable("is not ready")
        if 400 <= status < 500:
            raise EngineRefused(message or f"The engine refused the request ({status}).", status=status, param=param)
        raise EngineError(f"The engine {self._name} failed ({status}).", hint="See the engine's log.")

    def _client(self) -> aiohttp.ClientSession:
        if self._closed:
            raise self._unavailable("is closed")
        if self._session is None:
            connector = aiohttp.TCPConnector(
                limit=0, keepalive_timeout=_KEEP_ALIVE_S, ssl=self._tls if self._tls is not None else True
            )
            self._session = aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                auto_decompress=False,
                trust_env=False,
                read_bufsize=_READ_BYTES,
                timeout=aiohttp.ClientTimeout(
                    total=None, sock_connect=limits.engine_connect_s, sock_read=limits.engine_first_byte_s
                ),
            )
        return self._session


def tls_context(ca_file: Path | None) -> ssl.SSLContext:
    """Verifies the engine's certificate and name. Raises `ConfigError`."""
    try:
        return ssl.create_default_context(cafile=ca_file)
    except OSError as error:
        raise ConfigError(f"{ca_file} cannot be used: {error}.", hint="Give a PEM file of authorities.") from error


def _headers(endpoint: Endpoint, exchange: str | None) -> dict[str, str]:
    headers = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
    if endpoint.api_key:
        headers["Authorization"] = f"Bearer {endpoint.api_key}"
    if exchange is not None:
        headers["X-Request-Id"] = exchange
    return headers


async def _whole(response: aiohttp.ClientResponse, bytes_max: int) -> bytes:
    parts: list[bytes] = []
    total = 0
    while data := await response.content.readany():
        total += len(data)
        if total > bytes_max:
            raise EngineError("The engine's answer is too large.", hint="Ask for fewer tokens.")
        parts.append(data)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _message(body: bytes) -> tuple[str, str | None]:
    """What an engine says of its own error; OpenAI's shape, FastAPI's, or none."""
    try:
        found = msgspec.json.decode(body, type=_ErrorBody)
    except (msgspec.DecodeError, RecursionError):
        return "", None
    if isinstance(found.error, _Error):
        return found.error.message[:_MESSAGE_CHARS_MAX], found.error.param
    text = found.error or found.message or (found.detail if isinstance(found.detail, str) else "")
    return text[:_MESSAGE_CHARS_MAX], None
