"""`TimestampClient.stamp`: one note is shown to the time-stamping authority, and its answer is checked.

Source: RFC 3161 section 3.4 (over HTTP). What goes wrong is a `TimestampError`; the answer is bounded in size and time.
"""

from __future__ import annotations

import asyncio
import ssl
from typing import Final
from urllib.parse import urlsplit

from rempart import limits
from rempart.errors import TimestampError
from rempart.http.connection import Client, Kind
from rempart.ledger.log.timestamp import Authority, Stamp

_QUERY: Final = "application/timestamp-query"
_REPLY: Final = b"application/timestamp-reply"
_KIND: Final = Kind(
    noun="time-stamping authority",
    failed=TimestampError,
    unavailable=TimestampError,
    silent=TimestampError,
    again="It is asked again; see ledger.timestamp_url.",
    shorter="Ask its operator.",
    look="Ask its operator.",
    trust="Add the issuer of its TLS certificate to ledger.timestamp_ca_file, or to the system's.",
)


class TimestampClient:
    """One authority. Its address was checked with the settings."""

    def __init__(self, url: str, authority: Authority, tls: ssl.SSLContext | None) -> None:
        self._url = urlsplit(url)
        self._authority = authority
        self._client = Client(self._url.netloc, tls, _KIND)

    async def stamp(self, note: bytes) -> Stamp:
        """Raises `TimestampError`."""
        asked = self._authority.ask(note)
        try:
            async with asyncio.timeout(limits.timestamp_ask_s):
                answer = await self._post(asked.request)
        except TimeoutError as error:
            raise TimestampError(f"{self._client} is silent.", hint=_KIND.look) from error
        return await asyncio.to_thread(self._authority.accept, answer, asked, note)

    async def _post(self, request: bytes) -> bytes:
        response = await self._client.post(self._url, _QUERY, request, limits.timestamp_bytes_max)
        if response.status != 200 or response.content_type != _REPLY:
            kind = response.content_type.decode("latin-1") or "nothing"
            raise TimestampError(
                f"{self._client} answers {response.status} with {kind[:64]}, not a time stamp.", hint=_KIND.look
            )
        return response.body

    def close(self) -> None:
        self._client.close()
