"""`rempart.identity.caller`: what each role may do, and which models a key may use."""

from __future__ import annotations

import pytest

from rempart.errors import Forbidden
from rempart.identity.caller import ADMIN, AUDITOR, PERMISSIONS, USER, Caller


def caller(role: str, models: frozenset[str] | None = None) -> Caller:
    return Caller(key="0123456789ab", actor="a_1", role=role, models=models)


@pytest.mark.parametrize("permission", ["read_ledger", "read_metrics"])
@pytest.mark.parametrize("role", [AUDITOR, ADMIN])
def test_auditors_and_admins_read(role: str, permission: str) -> None:
    assert caller(role).may(permission)
    caller(role).require(permission)


@pytest.mark.parametrize("permission", ["read_ledger", "read_metrics"])
def test_users_only_ask(permission: str) -> None:
    assert not caller(USER).may(permission)
    with pytest.raises(Forbidden, match=permission) as caught:
        caller(USER).require(permission)
    assert caught.value.http_status == 403
    assert caught.value.hint


@pytest.mark.parametrize("role", PERMISSIONS)
def test_a_permission_that_does_not_exist_is_nobodys(role: str) -> None:
    with pytest.raises(Forbidden):
        caller(role).require("fly")


def test_a_key_without_a_list_may_use_all_models() -> None:
    assert caller(USER).may_use("anything")


def test_a_key_with_a_list_may_use_those_models_alone() -> None:
    listed = caller(USER, frozenset({"guide"}))
    assert listed.may_use("guide")
    assert not listed.may_use("guide-2")
    assert not caller(USER, frozenset()).may_use("guide")
