"""`Pages`: the pages at `/` and `/audit` and their parts, read from the package once and answered from memory.

The policy lets a page load nothing but this server's own files and run no inline script or style, so text of a model
that slips through as markup can neither run nor call out.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import PurePosixPath
from typing import Final

import msgspec

CONTENT_SECURITY_POLICY: Final = (
    b"default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
    b"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_PERMISSIONS: Final = b"camera=(), display-capture=(), geolocation=(), microphone=(), payment=(), usb=()"
# Only these kinds of file are served; what else lies in the folder stays in the package.
_CONTENT_TYPES: Final = {
    ".html": b"text/html; charset=utf-8",
    ".css": b"text/css; charset=utf-8",
    ".js": b"text/javascript; charset=utf-8",
    ".svg": b"image/svg+xml",
    ".txt": b"text/plain; charset=utf-8",
}
_AT: Final = {"index.html": "/", "audit.html": "/audit"}


class Page(msgspec.Struct, frozen=True):
    """One static answer. Header names are in lower case; content-length is for whoever sends it."""

    status: int
    body: bytes
    headers: tuple[tuple[bytes, bytes], ...]


class _Held(msgspec.Struct, frozen=True):
    """A page in both its forms: whole, and unchanged since the client last saw it."""

    etag: str
    whole: Page
    unchanged: Page


class Pages:
    """All pages. A path is looked up, never joined to a folder: there is nothing to traverse."""

    def __init__(self) -> None:
        held = {name: _hold(name, body) for name, body in _read(files("rempart.console") / "static", "")}
        self._held = {_AT.get(name, f"/static/{name}"): page for name, page in held.items()}

    def page(self, path: str, if_none_match: str) -> Page | None:
        """`if_none_match` is the header's value, or empty. None when there is no such page."""
        held = self._held.get(path)
        if held is None:
            return None
        return held.unchanged if _matches(if_none_match, held.etag) else held.whole


def _read(folder: Traversable, prefix: str) -> Iterator[tuple[str, bytes]]:
    for entry in folder.iterdir():
        name = prefix + entry.name
        if entry.is_dir():
            yield from _read(entry, name + "/")
        elif PurePosixPath(name).suffix in _CONTENT_TYPES:
            yield name, entry.read_bytes()


def _hold(name: str, body: bytes) -> _Held:
    etag = f'"{hashlib.sha256(body).hexdigest()}"'
    headers = (
        (b"etag", etag.encode()),
        (b"cache-control", b"no-cache"),
        (b"content-security-policy", CONTENT_SECURITY_POLICY),
        (b"x-content-type-options", b"nosniff"),
        (b"referrer-policy", b"no-referrer"),
        (b"cross-origin-opener-policy", b"same-origin"),
        (b"cross-origin-resource-policy", b"same-origin"),
        (b"permissions-policy", _PERMISSIONS),
    )
    kind = (b"content-type", _CONTENT_TYPES[PurePosixPath(name).suffix])
    return _Held(etag, Page(200, body, (kind, *headers)), Page(304, b"", headers))


def _matches(if_none_match: str, etag: str) -> bool:
    """RFC 9110 section 13.1.2, with the weak comparison it asks for."""
    given = [tag.strip().removeprefix("W/") for tag in if_none_match.split(",")]
    return "*" in given or etag in given
