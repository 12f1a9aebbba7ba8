"""`rempart ledger replicate` on a data directory that no server runs on."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from rempart.cli.main import main

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """`main` with these arguments; on the data directory unless they name another."""
    for name in os.environ:
        if name.startswith("REMPART_"):
            monkeypatch.delenv(name)

    def _run(*arguments: str | Path) -> tuple[int, str, str]:
        given = [str(argument) for argument in arguments]
        with pytest.raises(SystemExit) as ended:
            main(given if "--data" in given else [*given, "--data", str(tmp_path / "data")])
        assert isinstance(ended.value.code, int)
        return ended.value.code, *capsys.readouterr()

    return _run


@pytest.fixture
def made(run: Run, tmp_path: Path) -> Path:
    """A data directory with a few entries."""
    assert run("key", "create", "--name", "nightly")[0] == 0
    return tmp_path / "data"


def test_a_copy_is_made_verified_shown_and_brought_forward(run: Run, made: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    _, vkey, _ = run("ledger", "key")
    status, out, err = run("ledger", "replicate", copy, "--json")
    assert (status, err) == (0, "")
    first = msgspec.json.decode(out)
    assert first["entries"] == first["size"] > 0
    assert run("key", "create", "--name", "weekly")[0] == 0
    status, out, _ = run("ledger", "replicate", copy)
    assert (status, out.startswith(f"{copy}: ")) == (0, True)
    assert not (copy / "keys").exists()
    for arguments in (("verify", "--vkey", vkey.strip()), ("fsck",), ("tail",), ("show", "0", "--sealed")):
        status, _, err = run("ledger", *arguments, "--data", copy)
        assert status == 0, err
    _, out, _ = run("ledger", "verify", "--data", copy, "--json")
    assert msgspec.json.decode(out)["size"] > first["size"]


def test_nothing_is_written_to_a_copy(run: Run, made: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    run("ledger", "replicate", copy)
    shutil.copytree(made / "keys", copy / "keys")
    status, _, err = run("key", "create", "--name", "a", "--data", copy)
    assert status == 2
    assert "is a copy of a ledger" in err


def test_a_log_that_was_put_back_ends_with_1_and_the_copy_stays(run: Run, made: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(made, tmp_path / "older")
    run("key", "create", "--name", "b")
    run("ledger", "replicate", copy)
    status, out, err = run("ledger", "replicate", copy, "--data", tmp_path / "older")
    assert (status, out) == (1, "")
    assert err.startswith("Error: Roll-back: ")
    assert run("ledger", "verify", "--data", copy)[0] == 0


def test_the_data_directory_itself_is_no_place_for_its_copy(run: Run, made: Path) -> None:
    status, _, err = run("ledger", "replicate", made)
    assert status == 2
    assert "no copy" in err


def test_the_first_copy_from_a_gateway_needs_the_key_of_its_log(run: Run, tmp_path: Path) -> None:
    status, _, err = run("ledger", "replicate", tmp_path / "copy", "--from", "https://127.0.0.1:1")
    assert status == 2
    assert "--vkey" in err


@pytest.mark.parametrize("url", ["http://192.0.2.1:8080", "ftp://127.0.0.1", "127.0.0.1:8080", "https://"])
def test_an_address_that_is_none_or_in_clear_is_refused(run: Run, made: Path, tmp_path: Path, url: str) -> None:
    _, vkey, _ = run("ledger", "key")
    status, _, err = run("ledger", "replicate", tmp_path / "copy", "--from", url, "--vkey", vkey.strip())
    assert status == 2, err


def test_a_gateway_that_is_down_is_told(run: Run, made: Path, tmp_path: Path) -> None:
    _, vkey, _ = run("ledger", "key")
    url = "http://127.0.0.1:1"
    status, _, err = run("ledger", "replicate", tmp_path / "copy", "--from", url, "--vkey", vkey.strip())
    assert status == 3
    assert "cannot be read" in err


def test_the_directory_above_the_keys_of_a_backup_holds_none(run: Run, made: Path, tmp_path: Path) -> None:
    to, keys = tmp_path / "backup", tmp_path / "keys"
    run("backup", "create", "--to", to, "--keys-to", keys, "--same-device")
    status, _, err = run("backup", "restore", to, "--keys", keys, "--data", tmp_path / "other")
    assert status == 2
    assert "There are no keys in" in err
    assert "named by the backup's id" in err


def test_what_a_restoration_undoes_is_said(run: Run, made: Path, tmp_path: Path) -> None:
    to, keys, other = tmp_path / "backup", tmp_path / "keys", tmp_path / "other"
    _, told, _ = run("backup", "create", "--to", to, "--keys-to", keys, "--same-device", "--json")
    backup = msgspec.json.decode(told)["backup"]
    status, out, _ = run("backup", "restore", to, "--keys", keys / backup, "--data", other, "--new-log")
    assert status == 0
    assert "What was erased since that backup can be read again: erase it again." in out
    status, out, _ = run("ledger", "verify", "--data", other)
    assert "continues    1 older log in ledger/previous, checked as well" in out


def test_where_there_is_nothing_that_is_said(run: Run, made: Path) -> None:
    for arguments, told in (
        (("backup", "list"), "No backup is recorded."),
        (("ledger", "holds"), "No hold is in force."),
        (("ledger", "expire", "--dry-run"), "Nothing is due."),
        (("ledger", "expire"), "Nothing was due."),
    ):
        assert run(*arguments) == (0, "", f"{told}\n")


def test_a_backup_is_made_listed_and_restored(run: Run, made: Path, tmp_path: Path) -> None:
    to, keys = tmp_path / "backup", tmp_path / "keys"
    status, out, err = run("backup", "create", "--to", to, "--keys-to", keys, "--same-device", "--json")
    assert (status, err) == (0, "")
    backup = msgspec.json.decode(out)
    status, out, _ = run("backup", "list", "--json")
    assert [one["backup"] for one in msgspec.json.decode(out)] == [backup["backup"]]
    assert run("backup", "list")[1].splitlines()[1].startswith(backup["backup"])
    assert run("ledger", "verify", "--data", to)[0] == 0
    other = tmp_path / "restored"
    status, out, _ = run("backup", "restore", to, "--keys", keys / backup["backup"], "--data", other)
    assert status == 0
    assert "--new-log" in out
    _, before, _ = run("key", "list", "--json")
    assert run("key", "list", "--data", other, "--json")[1] == before
    assert run("key", "create", "--name", "after", "--data", other)[0] == 0
    for command in ("verify", "fsck"):
        assert run("ledger", command, "--data", other)[0] == 0
    vkey = run("ledger", "key")[1]
    assert run("ledger", "key", "--data", other)[1] == vkey


def test_a_new_log_is_told_with_its_key(run: Run, made: Path, tmp_path: Path) -> None:
    to, keys = tmp_path / "backup", tmp_path / "keys"
    backup = msgspec.json.decode(run("backup", "create", "--to", to, "--keys-to", keys, "--same-device", "--json")[1])
    run("key", "create", "--name", "later")
    seen = made / "ledger" / "log" / "checkpoint"
    other = tmp_path / "restored"
    arguments = ("backup", "restore", to, "--keys", keys / backup["backup"], "--data", other)
    status, out, _ = run(*arguments, "--checkpoint", seen)
    assert status == 0
    assert "A new log begins: Witnesses saw" in out
    assert run("ledger", "verify", "--data", other)[0] == 0
    assert run("key", "create", "--name", "after", "--data", other)[0] == 0
    assert run("ledger", "verify", "--data", other)[0] == 0
    assert "continues rempart.local/" in run("ledger", "tail", "--data", other)[1]
    status, _, err = run(*arguments)
    assert status == 2
    assert "is there already" in err


@pytest.mark.parametrize(
    "options",
    [(), ("--without-keys", "--keys-only"), ("--keys-to", "k", "--without-keys"), ("--keys-to", "k", "--keys-only")],
)
def test_what_happens_to_the_keys_must_be_said(run: Run, made: Path, tmp_path: Path, options: tuple[str, ...]) -> None:
    status, _, err = run("backup", "create", "--to", tmp_path / "backup", *options)
    assert status == 2
    assert "--keys-to DIRECTORY, --without-keys and --keys-only" in err
    assert not (tmp_path / "backup").exists()


def test_a_directory_that_only_commands_used_has_nothing_missing(run: Run, made: Path) -> None:
    status, out, err = run("ledger", "reconcile")
    assert (status, err) == (0, "")
    assert out == "Nothing is missing: 1 run of the server, 0 heartbeats.\n"
    status, out, _ = run("ledger", "reconcile", "--since", "2026-11-23", "--json")
    assert (status, msgspec.json.decode(out)["holds"]) == (0, True)
    assert run("ledger", "reconcile", "--since", "yesterday")[0] == 2


def test_keys_beside_the_data_are_refused(run: Run, made: Path, tmp_path: Path) -> None:
    status, _, err = run("backup", "create", "--to", tmp_path / "backup", "--keys-to", tmp_path / "keys")
    assert status == 2
    assert "same device" in err
    status, _, err = run("backup", "create", "--to", tmp_path / "keys", "--keys-only")
    assert status == 2
    assert run("backup", "create", "--to", tmp_path / "keys", "--keys-only", "--same-device")[0] == 0
    assert run("backup", "create", "--to", tmp_path / "backup", "--without-keys")[0] == 0


def test_no_library_is_loaded_that_only_a_backup_names(run: Run, made: Path, tmp_path: Path) -> None:
    """Whoever can write to a backup could have a program of theirs run where it is restored."""
    to, keys = tmp_path / "backup", tmp_path / "keys"
    backup = msgspec.json.decode(run("backup", "create", "--to", to, "--keys-to", keys, "--same-device", "--json")[1])
    (to / "rempart.toml").write_text(
        f'[keys]\nsealing = "pkcs11"\npkcs11_library = "{tmp_path}/x.so"\npkcs11_token = "t"\npkcs11_pin_file = "pin"\n'
    )
    other = tmp_path / "restored"
    status, _, err = run("backup", "restore", to, "--keys", keys / backup["backup"], "--data", other)
    assert (status, "names a library" in err) == (2, True), err
    assert not other.exists()


def test_a_restoration_that_fails_leaves_no_copy_of_the_keys(run: Run, made: Path, tmp_path: Path) -> None:
    """An erasure lists backups, and would not list it."""
    to, keys, away = tmp_path / "backup", tmp_path / "keys", tmp_path / "away"
    backup = msgspec.json.decode(run("backup", "create", "--to", to, "--keys-to", keys, "--same-device", "--json")[1])
    assert run("key", "create", "--name", "k", "--data", away)[0] == 0
    for given, why in ((away / "keys", "are not those of the log"), (keys / backup["backup"], "is damaged")):
        if why == "is damaged":
            (given / "keys" / "root.key").write_bytes(b"short")
        status, _, err = run("backup", "restore", to, "--keys", given, "--data", tmp_path / "restored")
        assert (status, why in err) == (2, True), err
        assert not list(tmp_path.glob("restored*/**/root.key"))
        assert not list(tmp_path.glob("restored*/**/keystore.db"))


@pytest.mark.parametrize("command", [("prove", "0"), ("pack", "0"), ("replicate",)])
def test_a_place_that_cannot_be_written_is_told_and_no_traceback(
    run: Run, made: Path, tmp_path: Path, command: tuple[str, ...]
) -> None:
    place = tmp_path / "file"
    place.write_text("x")
    options = (place,) if command == ("replicate",) else ("--to", place)
    status, _, err = run("ledger", *command, *options)
    assert status in (2, 3), err
    assert "Traceback" not in err
    assert "What to do" in err
    assert place.read_text() == "x"


def test_files_that_are_none_of_a_ledger_end_with_an_error_and_no_traceback(
    run: Run, made: Path, tmp_path: Path
) -> None:
    to, keys = tmp_path / "backup", tmp_path / "keys"
    backup = msgspec.json.decode(run("backup", "create", "--to", to, "--keys-to", keys, "--same-device", "--json")[1])
    (made / "ledger" / "segments" / "x.seg").write_bytes(b"")
    assert run("ledger", "verify")[0] == 0
    assert run("ledger", "fsck")[0] == 0
    (tmp_path / "taken").write_text("x")
    given = ("backup", "restore", to, "--keys", keys / backup["backup"], "--data")
    assert "is there already" in run(*given, tmp_path / "taken")[2]
    (to / "ledger" / "log.vkey").write_bytes(b"\xff\xfe")
    for command in (("ledger", "verify", "--data", to), ("ledger", "fsck", "--data", to), (*given, tmp_path / "new")):
        status, _, err = run(*command)
        assert status != 0
        assert "That is no verifier key." in err
        assert "Traceback" not in err
