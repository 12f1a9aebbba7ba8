"""`issue`: a new API key and its row (randomness and clock are arguments)."""

from __future__ import annotations

import msgspec

from rempart import limits
from rempart.errors import UsageError
from rempart.identity.apikey import ID_CHARS, SECRET_CHARS, ApiKey
from rempart.identity.caller import PERMISSIONS, USER, Limits
from rempart.identity.keys import KeyRow

_ALPHABET = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789--"
_DAY_S = 86_400
_EXPIRES_DAYS_MAX = 36_500
SECRET_RANDOM_BYTES = ID_CHARS // 2 + SECRET_CHARS


class KeyOrder(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What an administrator asks for."""

    name: str
    role: str = USER
    owner: str = ""
    """Who will use it: an identity in clear, which goes to the keystore alone."""
    models: list[str] | None = None
    requests_per_minute: int | None = None
    tokens_per_day: int | None = None
    expires_days: int | None = None
    trust_subject_header: bool = False


def check(order: KeyOrder) -> None:
    """Raises `UsageError`."""
    if not order.name or len(order.name) > limits.key_name_chars_max or not order.name.isprintable():
        raise UsageError(
            f"A key's name has 1 to {limits.key_name_chars_max} printable characters.", hint="Give --name NAME."
        )
    if order.role not in PERMISSIONS:
        raise UsageError(f"There is no role {order.role!r}.", hint=f"Roles are {', '.join(PERMISSIONS)}.")
    for name in ("requests_per_minute", "tokens_per_day", "expires_days"):
        value = getattr(order, name)
        if value is not None and not 0 < value < 2**53:
            raise UsageError(f"{name} must be positive.", hint="Leave it out for no limit.")
    if (order.expires_days or 0) > _EXPIRES_DAYS_MAX:
        raise UsageError("expires_days is too large.", hint=f"At most {_EXPIRES_DAYS_MAX}; leave it out for never.")
    if len(order.owner) > limits.subject_chars_max:
        raise UsageError("The owner's name is too long.", hint=f"At most {limits.subject_chars_max} characters.")


def issue(order: KeyOrder, *, actor: str, subject: str, random: bytes, now: int) -> tuple[ApiKey, KeyRow]:
    """`random`: `SECRET_RANDOM_BYTES` of it."""
    check(order)
    key = ApiKey(random[: ID_CHARS // 2].hex(), "".join(_ALPHABET[byte & 63] for byte in random[ID_CHARS // 2 :]))
    row = KeyRow(
        id=key.id,
        name=order.name,
        role=order.role,
        actor=actor,
        subject=subject,
        models=order.models,
        limits=Limits(requests_per_minute=order.requests_per_minute, tokens_per_day=order.tokens_per_day),
        trust_subject_header=order.trust_subject_header,
        created=now,
        expires=now + order.expires_days * _DAY_S if order.expires_days else 0,
    )
    return key, row
