"""Destroying keys is cut at every call of file, database and token: the old state holds, or the new one, never neither.

Each call fails, or fails though it was done, or the process dies before or after it.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import sqlite3
import threading
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psycopg
import pytest

from rempart.errors import KeystoreError
from rempart.ledger.keys.keystore import Keystore
from rempart.ledger.keys.pkcs11_sealing import Pkcs11Sealing
from rempart.ledger.keys.postgres_rows import PostgresRows
from rempart.ledger.keys.rows import SHARDS, Rows, shard_of
from rempart.ledger.keys.sealing import FileSealing, PassphraseSealing, Sealing, Sealings
from rempart.ledger.keys.sqlite_rows import SqliteRows

if TYPE_CHECKING:
    from tests.conftest import Postgres, Token

_FILE_CALLS = ("open", "pwrite", "fsync", "rename", "unlink")
_SEALING_CALLS = ("seal", "unseal", "forget")
_KILLED = 77
_CALLS_MOST = 200
BY_SHARD = {shard_of("kept", str(number)): ("kept", str(number)) for number in range(5_000)}
KEPT = {name: b"value " + name[1].encode() for name in BY_SHARD.values()}
"""A row in each shard, so that every destroy makes as many calls."""


class Faults:
    """Counts the calls of the thread that made it, and lets one of them fail. What other threads open is not ours."""

    def __init__(self, at: int, mode: str) -> None:
        self._at, self._mode = at, mode
        self._thread = threading.get_ident()
        self.calls = 0
        self.armed = True
        self._happened = False
        self.names: list[str] = []

    @property
    def happened(self) -> bool:
        return self._happened

    def around(self, name: str, call: Callable[..., Any], error: Callable[[], BaseException]) -> Callable[..., Any]:
        @wraps(call)
        def counted(*arguments: Any, **named: Any) -> Any:
            if threading.get_ident() != self._thread:
                return call(*arguments, **named)
            self.calls += 1
            self.names.append(name)
            here = self.calls == self._at and self.armed
            if here and self._mode in ("fails", "dies before"):
                self._end(error)
            result = call(*arguments, **named)
            if here:
                if isinstance(result, sqlite3.Cursor):
                    result.close()  # as SQLite does with a statement that failed
                self._end(error)
            return result

        return counted

    def _end(self, error: Callable[[], BaseException]) -> None:
        self._happened = True
        if self._mode.startswith("dies"):
            os._exit(_KILLED)
        raise error()


@pytest.fixture
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as made:
        yield made


def arm(patch: pytest.MonkeyPatch, faults: Faults, always: type[BaseException] | None = None) -> None:
    """`always`: every call raises that, in place of what such a call would."""
    if always is not None:
        plain = faults.around
        patch.setattr(faults, "around", lambda name, call, error: plain(name, call, always))
    for name in _FILE_CALLS:
        patch.setattr(os, name, faults.around(name, getattr(os, name), lambda: OSError(errno.EIO, "I/O error")))
    for kind in (FileSealing, PassphraseSealing, Pkcs11Sealing):
        for name in _SEALING_CALLS:
            patch.setattr(kind, name, faults.around(name, getattr(kind, name), lambda: KeystoreError("No token.")))

    class Connection(sqlite3.Connection):
        execute = faults.around("sqlite", sqlite3.Connection.execute, lambda: sqlite3.OperationalError("disk I/O"))
        executemany = faults.around("many", sqlite3.Connection.executemany, lambda: sqlite3.OperationalError("disk"))

    connect = sqlite3.connect
    patch.setattr(sqlite3, "connect", lambda *given, **named: connect(*given, factory=Connection, **named))
    lost = faults.around("postgres", psycopg.Connection.execute, lambda: psycopg.OperationalError("lost"))
    patch.setattr(psycopg.Connection, "execute", lost)


class Site:
    """A keystore's place, which can be opened again and again."""

    def __init__(self, directory: Path, rows: Callable[[], Rows], sealings: Callable[[], Sealings]) -> None:
        self.directory = directory
        self._rows, self._sealings = rows, sealings
        directory.mkdir(mode=0o700)

    def create(self) -> Keystore:
        return Keystore.create(self.directory, self._rows(), self._sealings())

    def open(self) -> Keystore:
        return Keystore.open(self.directory, self._rows(), self._sealings())


@pytest.fixture(params=["sqlite", "postgresql", "sqlite with token"])
def site(request: pytest.FixtureRequest, tmp_path: Path) -> Site:
    directory = tmp_path / "keys"
    sealing: Sealing = FileSealing()
    if request.param.endswith("token"):
        token: Token = request.getfixturevalue("token")
        sealing = Pkcs11Sealing(token.library, token.label, lambda: token.pin)
    if request.param.startswith("sqlite"):
        return Site(directory, lambda: SqliteRows(directory / "keystore.db"), lambda: Sealings(sealing))
    postgres: Postgres = request.getfixturevalue("postgres")
    conninfo = postgres.database(f"faults{secrets.token_hex(8)}")
    return Site(directory, lambda: PostgresRows(conninfo), lambda: Sealings(sealing))


@pytest.mark.parametrize("mode", ["fails", "fails but persists"])
def test_a_destroy_that_fails_anywhere_was_done_or_was_not(site: Site, mode: str) -> None:
    site.create().close()
    seen: list[str] = []
    for at in range(1, _CALLS_MOST):
        keystore = site.open()
        key, victim, before = *_prepare(keystore), keystore.epoch
        other = BY_SHARD[(shard_of(*victim) + 1) % SHARDS]
        faults = Faults(at, mode)
        returned = False
        with pytest.MonkeyPatch.context() as patch:
            arm(patch, faults)
            try:
                keystore.destroy([victim], {other: KEPT[other]})
                returned = True
            except KeystoreError:
                pass
        faults.armed = False  # connections that were made meanwhile go on counting
        gone = _look(keystore, victim, key, before)  # what was left open is settled by the next call
        assert gone or not returned, faults.names[-1]
        keystore.close()
        assert _reopened(site, victim, key, before) == gone
        if not faults.happened:
            assert returned
            assert {"fsync", "rename", "seal", "forget"} <= set(seen)
            return
        seen.append(faults.names[at - 1])
    pytest.fail("there is no end to its calls")


@pytest.mark.parametrize("mode", ["dies before", "dies after"])
def test_a_destroy_that_dies_anywhere_was_done_or_was_not(site: Site, mode: str, request: Any) -> None:
    if "token" in request.node.name:
        mode = "raises through"  # a PKCS #11 library does not survive a fork
    site.create().close()
    outcomes = set()
    for at in range(1, _CALLS_MOST):
        keystore = site.open()
        key, victim, before = *_prepare(keystore), keystore.epoch
        keystore.close()
        happened = _dies(site, victim, at, mode)
        gone = _reopened(site, victim, key, before)
        outcomes.add(gone)
        if not happened:
            assert gone
            assert outcomes == {True, False}
            return
    pytest.fail("there is no end to its calls")


def _dies(site: Site, victim: tuple[str, str], at: int, mode: str) -> bool:
    """Whether it did: another process opens the keystore and destroys."""
    if mode == "raises through":
        return _is_interrupted(site, victim, at)
    child = os.fork()
    if child == 0:
        status = 1
        try:
            faults = Faults(at, mode)
            keystore = site.open()
            arm(pytest.MonkeyPatch(), faults)
            keystore.destroy([victim])
            status = 0
        finally:
            os._exit(status)
    _, status = os.waitpid(child, 0)
    assert os.waitstatus_to_exitcode(status) in (0, _KILLED)
    return os.waitstatus_to_exitcode(status) == _KILLED


def _is_interrupted(site: Site, victim: tuple[str, str], at: int) -> bool:
    class Interrupted(BaseException):
        pass

    faults = Faults(at, "fails but persists")
    keystore = site.open()
    with pytest.MonkeyPatch.context() as patch:
        arm(patch, faults, Interrupted)
        try:
            keystore.destroy([victim])
        except Interrupted:
            return True
        finally:
            faults.armed = False
            keystore.close()
    return False


@pytest.mark.parametrize("mode", ["dies before", "dies after"])
def test_a_making_that_dies_anywhere_is_made_again(tmp_path: Path, mode: str) -> None:
    for at in range(1, _CALLS_MOST):
        directory = tmp_path / str(at)
        child = os.fork()
        if child == 0:
            code = 1
            try:
                arm(pytest.MonkeyPatch(), Faults(at, mode))
                Keystore.create(directory)
                code = 0
            finally:
                os._exit(code)
        _, status = os.waitpid(child, 0)
        assert os.waitstatus_to_exitcode(status) in (0, _KILLED)
        made = directory / "root.key"
        keystore = Keystore.open(directory) if made.exists() else Keystore.create(directory)
        keystore.put(KEPT)
        keystore.close()
        again = Keystore.open(directory)
        assert again.get(*BY_SHARD[0]) == KEPT[BY_SHARD[0]]
        again.close()
        assert not (directory / "root.key.new").exists()
        if os.waitstatus_to_exitcode(status) == 0:
            return
    pytest.fail("there is no end to its calls")


@pytest.mark.parametrize("mode", ["fails", "fails but persists"])
def test_a_conversion_that_fails_anywhere_loses_nothing(tmp_path: Path, mode: str) -> None:
    directory = tmp_path / "keys"
    ways = [FileSealing(), PassphraseSealing("correct horse battery", cost=2)]
    keystore = Keystore.create(directory)
    keystore.put(KEPT)
    for at in range(1, _CALLS_MOST):
        wanted = ways[at % 2]
        faults = Faults(at, mode)
        with pytest.MonkeyPatch.context() as patch:
            arm(patch, faults)
            with contextlib.suppress(KeystoreError):
                keystore.reseal(Sealings(wanted))
        faults.armed = False
        keystore.close()
        keystore = Keystore.open(directory, sealings=Sealings(*ways))
        assert dict(keystore.scan("kept")) == {id_: value for (_, id_), value in KEPT.items()}
        if not faults.happened:
            assert (len((directory / "root.key").read_bytes()) == 32) == (wanted is ways[0])
            keystore.close()
            return
    pytest.fail("there is no end to its calls")


@pytest.mark.parametrize("mode", ["fails", "fails but persists"])
def test_a_put_that_fails_anywhere_wrote_all_or_nothing_and_the_next_one_works(site: Site, mode: str) -> None:
    keystore = site.create()
    names = [("put", "1"), ("put", "2")]
    for at in range(1, _CALLS_MOST):
        faults = Faults(at, mode)
        keystore.close()
        returned = False
        with pytest.MonkeyPatch.context() as patch:
            arm(patch, faults)
            faults.armed = False
            keystore = site.open()
            faults.calls, faults.armed = 0, True
            with contextlib.suppress(KeystoreError):
                keystore.put(dict.fromkeys(names, b"%d" % at))
                returned = True
        faults.armed = False
        [value] = {keystore.get(*name) for name in names}
        assert value == b"%d" % at or not returned
        keystore.put(dict.fromkeys(names, b"next"))
        assert {keystore.get(*name) for name in names} == {b"next"}
        if not faults.happened:
            keystore.close()
            return
    pytest.fail("there is no end to its calls")


def _prepare(keystore: Keystore) -> tuple[bytes, tuple[str, str]]:
    keystore.put(KEPT)
    name, key = keystore.pseudonym("s", "Erika")
    return key, ("subject", name)


def _look(keystore: Keystore, victim: tuple[str, str], key: bytes, before: int) -> bool:
    """Whether the row is gone; all else is as it was either way."""
    row = keystore.get(*victim)
    assert dict(keystore.scan("kept")) == {id_: value for (_, id_), value in KEPT.items()}
    assert keystore.epoch == before + (row is None)
    assert row is None or row.startswith(key)
    return row is None


def _reopened(site: Site, victim: tuple[str, str], key: bytes, before: int) -> bool:
    keystore = site.open()
    gone = _look(keystore, victim, key, before)
    assert not (site.directory / "root.key.new").exists()
    keystore.destroy([victim, keystore.lookup("s", "Erika")])
    keystore.close()
    return gone
