"""`RemoteSource`: the ledger behind a gateway, read over HTTPS with a key of the role auditor.

Nothing it is told is believed: tree and bodies are held to the log's verifier key by whoever copies. Only the key's own
secrecy depends on TLS, so plain HTTP is for loopback alone.
"""

from __future__ import annotations

import contextlib
import http.client
import socket
import ssl
import threading
from collections.abc import Iterator
from typing import Final
from urllib.parse import urlsplit

import msgspec

from rempart import limits
from rempart.config.check import is_loopback
from rempart.errors import Forbidden, LedgerUnavailable, Unauthenticated, UsageError
from rempart.ledger.copying.source import Gone, Inventory, check_offered

_ROOT: Final = "/rempart/v1/ledger/files/"


@contextlib.contextmanager
def _within(sock: socket.socket, most_s: float) -> Iterator[None]:
    """A timeout of the socket is one for each byte: who sends them one by one is cut here. Raises `TimeoutError`."""
    over = threading.Event()

    def cut() -> None:
        over.set()
        with contextlib.suppress(OSError):
            socket.socket.shutdown(sock, socket.SHUT_RDWR)  # as it is: TLS would let go of what the other thread reads

    timer = threading.Timer(most_s, cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
        if over.is_set():
            raise TimeoutError("its answer takes too long")


class RemoteSource:
    """One connection, kept; used by one thread."""

    def __init__(self, url: str, api_key: str, tls: ssl.SSLContext | None = None, prefix: str = "") -> None:
        """`tls` None: the system's authorities. Raises `UsageError` when the address is none, or in clear."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise UsageError(f"{url!r} is no address of a gateway.", hint="Such as https://llm.hospital.example:8080.")
        if parts.scheme == "http" and not is_loopback(parts.hostname):
            raise UsageError(f"{url} would send the key in clear.", hint="Give the https:// address of the gateway.")
        self._url, self._api_key, self._tls, self._prefix = url, api_key, tls, prefix
        self._root = parts.path.rstrip("/") + _ROOT + prefix
        host, port = parts.hostname, parts.port
        if parts.scheme == "https":
            context = tls or ssl.create_default_context()
            self._connection = http.client.HTTPSConnection(host, port, timeout=limits.replica_answer_s, context=context)
        else:
            self._connection = http.client.HTTPConnection(host, port, timeout=limits.replica_answer_s)  # type: ignore[assignment]

    def inventory(self) -> Inventory:
        try:
            return msgspec.json.decode(self._get("inventory", {}, limits.inventory_bytes_max), type=Inventory)
        except (msgspec.DecodeError, RecursionError) as error:
            raise LedgerUnavailable(
                f"{self._url} answers what no gateway should.", hint="Check the address."
            ) from error

    def read(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        check_offered(name)
        if length is None:
            return self._get(name, {}, limits.replica_part_bytes * 8)
        if length <= 0:
            return b""
        return self._get(name, {"Range": f"bytes={offset}-{offset + length - 1}"}, length)

    def previous(self, number: int) -> RemoteSource:
        return RemoteSource(self._url, self._api_key, self._tls, f"previous/{number}/")

    def close(self) -> None:
        self._connection.close()

    def _get(self, name: str, headers: dict[str, str], bytes_max: int) -> bytes:
        for last in (False, True):
            try:
                return self._try(name, headers, bytes_max)
            except (OSError, http.client.HTTPException, ValueError) as error:  # the last one at lengths that are none
                self._connection.close()  # a kept connection may have been closed just as it is used again
                if last:
                    raise LedgerUnavailable(
                        f"{self._url} cannot be read: {error or type(error).__name__}.",
                        hint="Is the gateway up? Check the address, and its certificate (--ca-file).",
                    ) from error
        raise AssertionError

    def _try(self, name: str, headers: dict[str, str], bytes_max: int) -> bytes:
        sent = {"Authorization": f"Bearer {self._api_key}", "Accept-Encoding": "identity", **headers}
        self._connection.request("GET", self._root + name, headers=sent)
        with _within(self._connection.sock, limits.replica_whole_answer_s):
            response = self._connection.getresponse()
            body = response.read(bytes_max + 1)
        if response.length and len(body) <= bytes_max:
            raise http.client.IncompleteRead(body, response.length)
        if len(body) > bytes_max or not response.isclosed():
            self._connection.close()
        if response.status == 416:
            return b""
        if response.status not in (200, 206):
            raise self._refusal(name, response.status)
        if len(body) > bytes_max:
            raise LedgerUnavailable(f"{self._url} answers more than was asked for.", hint="Check the address.")
        return body

    def _refusal(self, name: str, status: int) -> Exception:
        if status == 404:
            return Gone(f"There is no {name}.", hint="Is the address that of a gateway of this version?")
        if status == 401:
            return Unauthenticated("The gateway refuses the key.", hint="Give the key of an auditor with --key-file.")
        if status == 403:
            return Forbidden("The key may not copy the ledger.", hint="It needs the role auditor or admin.")
        return LedgerUnavailable(f"{self._url} answers with {status}.", hint="See the gateway's /readyz and its log.")
