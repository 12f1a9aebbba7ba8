"""`KeyRing.authenticate`: from the text of a key to its caller, in memory and in constant time."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from typing import Final

from rempart.errors import Unauthenticated
from rempart.identity.apikey import parse
from rempart.identity.caller import Caller
from rempart.identity.keys import KeyRow

_NO_MAC: Final = bytes(32)


class KeyRing:
    """The valid keys. A change is seen by the next request."""

    def __init__(self, pepper: bytes, keys: Iterable[tuple[KeyRow, bytes]]) -> None:
        self._pepper = pepper
        self._known: dict[str, tuple[KeyRow, bytes, Caller]] = {}
        for row, mac in keys:
            self.put(row, mac)

    def put(self, row: KeyRow, mac: bytes) -> None:
        """A key was created or changed."""
        self._known[row.id] = (row, mac, row.caller())

    @property
    def pepper(self) -> bytes:
        return self._pepper

    def rows(self) -> list[tuple[KeyRow, bytes]]:
        """All that were put, with their MACs."""
        return [(row, mac) for row, mac, _ in self._known.values()]

    def holds(self, id_: str) -> bool:
        """That key exists and was not revoked."""
        found = self._known.get(id_)
        return found is not None and not found[0].revoked

    def authenticate(self, text: str, now: float) -> Caller:
        """`now` in seconds since 1970. Raises `Unauthenticated`."""
        presented = parse(text)
        row, mac, caller = self._known.get(presented.id, (None, _NO_MAC, None))
        if not hmac.compare_digest(presented.mac(self._pepper), mac) or row is None or caller is None:
            raise Unauthenticated("The API key is unknown here.", hint="Ask an administrator for a key of this site.")
        if row.revoked:
            raise Unauthenticated("The API key was revoked.", hint="Ask an administrator for a new one.")
        if row.expires and now >= row.expires:
            raise Unauthenticated("The API key has expired.", hint="Ask an administrator for a new one.")
        return caller
