"""`rempart.identity.keyring`: only a key that is known, right, not expired and not revoked has a caller."""

from __future__ import annotations

import msgspec
import pytest

from rempart.errors import SharedStateUnavailable, Unauthenticated
from rempart.identity.apikey import SECRET_CHARS, ApiKey
from rempart.identity.caller import ADMIN, Limits
from rempart.identity.keyring import KeyRing
from rempart.identity.keys import KeyRow

PEPPER = b"p" * 32
KEY = ApiKey("0123456789ab", "s" * SECRET_CHARS)
MAC = KEY.mac(PEPPER)
NOW = 1_000_000.0


def row(**more: object) -> KeyRow:
    known = KeyRow(id=KEY.id, name="a key", role=ADMIN, actor="a_1", subject="s_1")
    return msgspec.structs.replace(known, **more)


def ring(known: KeyRow, mac: bytes = MAC) -> KeyRing:
    return KeyRing(PEPPER, [(known, mac)])


def test_a_known_key_has_a_caller() -> None:
    limits = Limits(requests_per_minute=3)
    caller = ring(row(models=["guide"], limits=limits, trust_subject_header=True)).authenticate(KEY.text(), NOW)
    assert (caller.key, caller.actor, caller.subject, caller.role) == (KEY.id, "a_1", "s_1", ADMIN)
    assert caller.models == frozenset({"guide"})
    assert caller.limits == limits
    assert caller.trust_subject_header


def test_an_unknown_id_is_refused() -> None:
    with pytest.raises(Unauthenticated, match="unknown"):
        KeyRing(PEPPER, []).authenticate(KEY.text(), NOW)


def test_an_unknown_id_is_refused_even_if_its_mac_were_zeros(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ApiKey, "mac", lambda self, pepper: bytes(32))
    with pytest.raises(Unauthenticated, match="unknown"):
        KeyRing(PEPPER, []).authenticate(KEY.text(), NOW)


def test_a_wrong_secret_is_refused_like_an_unknown_key() -> None:
    guessed = msgspec.structs.replace(KEY, secret="t" * SECRET_CHARS)
    with pytest.raises(Unauthenticated) as wrong:
        ring(row()).authenticate(guessed.text(), NOW)
    with pytest.raises(Unauthenticated) as unknown:
        KeyRing(PEPPER, []).authenticate(guessed.text(), NOW)
    assert (wrong.value.message, wrong.value.hint) == (unknown.value.message, unknown.value.hint)


def test_a_wrong_secret_does_not_learn_that_the_key_was_revoked() -> None:
    guessed = msgspec.structs.replace(KEY, secret="t" * SECRET_CHARS)
    with pytest.raises(Unauthenticated, match="unknown"):
        ring(row(revoked=1, expires=1)).authenticate(guessed.text(), NOW)


def test_another_pepper_knows_no_key() -> None:
    with pytest.raises(Unauthenticated, match="unknown"):
        KeyRing(b"q" * 32, [(row(), MAC)]).authenticate(KEY.text(), NOW)


def test_a_damaged_key_is_said_to_be_damaged() -> None:
    with pytest.raises(Unauthenticated, match="damaged"):
        ring(row()).authenticate(KEY.text().replace("sss", "sst", 1), NOW)


def test_a_key_works_until_the_second_it_expires() -> None:
    expiring = ring(row(expires=int(NOW)))
    assert expiring.authenticate(KEY.text(), NOW - 0.001).key == KEY.id
    with pytest.raises(Unauthenticated, match="expired"):
        expiring.authenticate(KEY.text(), NOW)


def test_a_revoked_key_is_refused() -> None:
    with pytest.raises(Unauthenticated, match="revoked"):
        ring(row(revoked=1)).authenticate(KEY.text(), NOW)


def test_a_change_is_seen_by_the_next_request() -> None:
    keys = KeyRing(PEPPER, [])
    keys.put(row(), MAC)
    assert keys.authenticate(KEY.text(), NOW).role == ADMIN
    keys.put(row(role="user"), MAC)
    assert keys.authenticate(KEY.text(), NOW).role == "user"
    keys.put(row(revoked=int(NOW)), MAC)
    with pytest.raises(Unauthenticated, match="revoked"):
        keys.authenticate(KEY.text(), NOW)


def test_a_key_that_was_revoked_stays_so_whatever_comes_later() -> None:
    keys = ring(row(revoked=int(NOW)))
    keys.put(row(name="older"), MAC)
    with pytest.raises(Unauthenticated, match="revoked"):
        keys.authenticate(KEY.text(), NOW)
    assert isinstance(keys.objection(KEY.id), Unauthenticated)


def test_keys_that_cannot_be_checked_any_more_are_believed_until_their_time_is_over() -> None:
    steady = 50.0
    keys = KeyRing(PEPPER, [(row(), MAC)], steady=lambda: steady)
    keys.believed_until = 60.0
    assert keys.authenticate(KEY.text(), NOW).key == KEY.id
    assert keys.objection(KEY.id) is None
    steady = 60.0
    with pytest.raises(SharedStateUnavailable) as caught:
        keys.authenticate(KEY.text(), NOW)
    assert caught.value.http_status == 503
    assert caught.value.retry_after_s
    assert isinstance(keys.objection(KEY.id), SharedStateUnavailable)
    with pytest.raises(Unauthenticated, match="not an API key"):  # what is no key at all is told as ever
        keys.authenticate("rp_nonsense", NOW)
    keys.believed_until = 70.0
    assert keys.authenticate(KEY.text(), NOW).key == KEY.id


def test_callers_know_what_their_role_may_do() -> None:
    assert ring(row()).authenticate(KEY.text(), NOW).may("read_ledger")
