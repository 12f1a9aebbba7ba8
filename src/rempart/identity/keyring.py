"""`KeyRing.authenticate`: from the text of a key to its caller, in memory and in constant time."""

from __future__ import annotations

import hmac
import math
import time
from collections.abc import Callable, Iterable
from typing import Final

import msgspec

from rempart.errors import RempartError, SharedStateUnavailable, Unauthenticated
from rempart.identity.apikey import parse
from rempart.identity.caller import Caller
from rempart.identity.keys import KeyRow

_NO_MAC: Final = bytes(32)


class KeyRing:
    """The valid keys. A change is seen by the next request; a key that was revoked stays so while this lasts."""

    def __init__(
        self, pepper: bytes, keys: Iterable[tuple[KeyRow, bytes]], steady: Callable[[], float] = time.monotonic
    ) -> None:
        self._pepper = pepper
        self._steady = steady
        self.believed_until = math.inf
        """Steady seconds: after that nothing is known of any key, since whoever may have revoked it was not heard."""
        self._known: dict[str, tuple[KeyRow, bytes, Caller]] = {}
        for row, mac in keys:
            self.put(row, mac)

    def put(self, row: KeyRow, mac: bytes) -> None:
        """A key was created or changed."""
        known = self._known.get(row.id)
        if known is not None and known[0].revoked and not row.revoked:
            row = msgspec.structs.replace(row, revoked=known[0].revoked)
        self._known[row.id] = (row, mac, row.caller())

    @property
    def pepper(self) -> bytes:
        return self._pepper

    def rows(self) -> list[tuple[KeyRow, bytes]]:
        """All that were put, with their MACs."""
        return [(row, mac) for row, mac, _ in self._known.values()]

    def get(self, id_: str) -> tuple[KeyRow, bytes] | None:
        """As it was put."""
        found = self._known.get(id_)
        return None if found is None else found[:2]

    def unknown(self) -> SharedStateUnavailable | None:
        """Why no key can be believed now."""
        if self._steady() < self.believed_until:
            return None
        return SharedStateUnavailable(
            "API keys cannot be checked: PostgreSQL, where they may have been revoked, does not answer.",
            hint="Send it again in a moment; see shared.database and shared.believed_s.",
            retry_after_s=1,
        )

    def objection(self, id_: str) -> RempartError | None:
        """Why an exchange of that key may not go on."""
        if not self.holds(id_):
            return Unauthenticated("The API key was revoked.", hint="Ask for a new one.")
        return self.unknown()

    def holds(self, id_: str) -> bool:
        """That key exists and was not revoked."""
        found = self._known.get(id_)
        return found is not None and not found[0].revoked

    def authenticate(self, text: str, now: float) -> Caller:
        """`now` in seconds since 1970. Raises `Unauthenticated`, `SharedStateUnavailable`."""
        presented = parse(text)
        unknown = self.unknown()
        if unknown is not None:
            raise unknown
        row, mac, caller = self._known.get(presented.id, (None, _NO_MAC, None))
        if not hmac.compare_digest(presented.mac(self._pepper), mac) or row is None or caller is None:
            raise Unauthenticated("The API key is unknown here.", hint="Ask an administrator for a key of this site.")
        if row.revoked:
            raise Unauthenticated("The API key was revoked.", hint="Ask an administrator for a new one.")
        if row.expires and now >= row.expires:
            raise Unauthenticated("The API key has expired.", hint="Ask an administrator for a new one.")
        return caller
