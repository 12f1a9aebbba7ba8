"""`ApiKey`: the text of an API key, `rp_<id>_<secret>_<checksum>` (pure).

The prefix lets scanners find leaked keys, the checksum tells a typing error from an unknown key without a lookup. At
rest only HMAC-SHA256(pepper, id ‖ secret) is kept.
"""

from __future__ import annotations

import hmac
import re
from typing import Final
from zlib import crc32

import msgspec

from rempart.errors import Unauthenticated

PREFIX: Final = "rp"
ID_CHARS: Final = 12
SECRET_CHARS: Final = 43
_SHAPE = re.compile(rf"{PREFIX}_([0-9a-f]{{{ID_CHARS}}})_([A-Za-z0-9-]{{{SECRET_CHARS}}})_([0-9a-f]{{8}})")


class ApiKey(msgspec.Struct, frozen=True):
    """`id` is public (it stands in entries), `secret` is not."""

    id: str
    secret: str

    def __repr__(self) -> str:
        return f"ApiKey({self.id!r}, …)"

    def text(self) -> str:
        """What the user is given, once."""
        return f"{PREFIX}_{self.id}_{self.secret}_{_checksum(self.id, self.secret)}"

    def mac(self, pepper: bytes) -> bytes:
        """What is kept."""
        return hmac.digest(pepper, f"{self.id}{self.secret}".encode(), "sha256")


def parse(text: str) -> ApiKey:
    """Raises `Unauthenticated`, and says whether it is no key of ours or a damaged one."""
    found = _SHAPE.fullmatch(text)
    if found is None:
        raise Unauthenticated(
            "That is not an API key of Rempart.", hint="Keys look like rp_…; ask an administrator for one."
        )
    if not hmac.compare_digest(_checksum(found[1], found[2]), found[3]):
        raise Unauthenticated("The API key is damaged: its checksum does not fit.", hint="Copy it again, whole.")
    return ApiKey(found[1], found[2])


def _checksum(id_: str, secret: str) -> str:
    return f"{crc32(f'{id_}_{secret}'.encode()):08x}"
