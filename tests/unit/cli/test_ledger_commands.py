"""`rempart ledger` and `rempart key` on a data directory that no server runs on."""

from __future__ import annotations

import io
import os
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from rempart.cli.main import main
from rempart.ledger.store.ownership import own

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    """`main` with these arguments on one data directory, in a clean environment."""
    for name in os.environ:
        if name.startswith("REMPART_"):
            monkeypatch.delenv(name)

    def _run(*arguments: str) -> tuple[int, str, str]:
        with pytest.raises(SystemExit) as ended:
            main([*arguments, "--data", str(tmp_path / "data")])
        assert isinstance(ended.value.code, int)
        return ended.value.code, *capsys.readouterr()

    return _run


def made(run: Run, *arguments: str) -> dict[str, Any]:
    status, out, _ = run("key", "create", "--name", "nightly", *arguments, "--json")
    assert status == 0
    found: dict[str, Any] = msgspec.json.decode(out)
    return found


SILENT = [("ledger", "verify"), ("ledger", "fsck"), ("ledger", "fsck", "--repair"), ("ledger", "key"), ("key", "list")]
SHOWING = [("ledger", "tail"), ("ledger", "show", "0"), ("ledger", "search", "word")]
COMMANDS = [*SILENT, *SHOWING, ("ledger", "index"), ("key", "revoke", "0123456789ab")]


def files(directory: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in directory.rglob("*") if path.is_file()}


@pytest.mark.parametrize("arguments", COMMANDS, ids=" ".join)
def test_without_an_installation_nothing_is_told_or_made(run: Run, arguments: tuple[str, ...], tmp_path: Path) -> None:
    status, out, err = run(*arguments)
    assert (status, out) == (2, "")
    assert err.startswith(f"Error: There is no installation in {tmp_path / 'data'}.\n  What to do: ")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("arguments", SILENT, ids=" ".join)
def test_what_shows_no_entry_writes_nothing(run: Run, arguments: tuple[str, ...], tmp_path: Path) -> None:
    made(run)
    before = files(tmp_path)
    assert run(*arguments)[0] == 0
    assert files(tmp_path) == before


def test_keys_without_their_ledger_are_told_apart(run: Run, tmp_path: Path) -> None:
    made(run)
    shutil.rmtree(tmp_path / "data" / "ledger")
    for arguments in SILENT[:4]:
        status, out, err = run(*arguments)
        assert (status, out) == (2, "")
        assert err.startswith(f"Error: There is no ledger in {tmp_path / 'data'}, only keys.\n")


def test_a_copy_without_keys_is_verified_and_shown_sealed_and_gets_no_new_ones(run: Run, tmp_path: Path) -> None:
    made(run)
    data = tmp_path / "data"
    shutil.rmtree(data / "keys")
    before = files(data)
    missing = "Error: This directory has no keys (keys/ is missing).\n  What to do: "
    key = tmp_path / "key"
    key.write_text("rp_any")
    for arguments in (("ledger", "search", "word"), ("ledger", "show", "0", "--reason", "r", "--key-file", str(key))):
        assert run(*arguments) == (2, "", f"{missing}Restore keys/ from its backup.\n")
    for arguments in (("up", "--port", "0"), ("key", "create", "--name", "a"), ("key", "revoke", "0123456789ab")):
        status, out, err = run(*arguments)
        assert (status, out) == (2, "")
        assert err.startswith(f"{missing}Restore keys/ from its backup.")
    for arguments in (("ledger", "show", "0", "--sealed"), ("ledger", "verify"), ("ledger", "tail"), ("key", "list")):
        status, _, err = run(*arguments)
        assert status == 0
        unrecorded = "Not recorded: this directory has no keys, so it is a copy.\n"
        assert err == (unrecorded if arguments[1] in ("show", "tail") else "")
    assert files(data) == before
    assert not (data / "keys").exists()


def test_without_a_ledger_the_error_is_json_when_asked_for(run: Run) -> None:
    status, out, err = run("ledger", "verify", "--json")
    assert (status, out) == (2, "")
    assert msgspec.json.decode(err)["error"]["code"] == "no_installation"


def test_a_verifier_key_that_is_none_is_wrong_use(run: Run) -> None:
    made(run)
    for vkey in ("nonsense", "a+b+c", "log.example+00000000+AAAA", "caf\u00e9", "+", "\ud800"):
        status, out, err = run("ledger", "verify", "--vkey", vkey)
        assert (status, out) == (2, "")
        assert err.startswith("Error: --vkey: ")


def test_a_key_is_made_listed_and_revoked_without_a_server(run: Run) -> None:
    key = made(run, "--role", "auditor", "--model", "guide", "--requests-per-minute", "2")
    assert key["key"].startswith(f"rp_{key['id']}_")
    status, out, _ = run("key", "list", "--json")
    (row,) = msgspec.json.decode(out)
    assert (status, row["id"], row["name"], row["role"]) == (0, key["id"], "nightly", "auditor")
    assert row["models"] == ["guide"]
    assert row["limits"]["requests_per_minute"] == 2
    assert key["key"] not in out
    assert run("key", "revoke", key["id"]) == (0, f"Key {key['id']} ('nightly') is revoked.\n", "")
    status, out, _ = run("key", "list")
    assert status == 0
    assert "revoked" in out


def test_the_key_alone_is_on_stdout(run: Run) -> None:
    status, out, err = run("key", "create", "--name", "nightly")
    assert status == 0
    assert out.startswith("rp_")
    assert out.count("\n") == 1
    assert "not shown again" in err


def test_only_the_first_key_is_said_to_make_a_directory(run: Run, tmp_path: Path) -> None:
    new = f"This is a new data directory: {tmp_path / 'data'}\n"
    assert new in run("key", "create", "--name", "a")[2]
    assert new not in run("key", "create", "--name", "b")[2]


def test_what_may_be_a_slip_is_warned_of(run: Run) -> None:
    made(run)
    _, _, err = run("key", "create", "--name", "nightly", "--model", "gide", "--model", "guide")
    warnings = [text for text in err.splitlines() if text.startswith("Warning: ")]
    assert warnings == [
        "Warning: No engine here serves a model 'gide' now; there are: guide.",
        "Warning: There is a key of the name 'nightly' already; both are valid.",
    ]
    key = made(run, "--model", "guide")
    assert len(key["warnings"]) == 1
    run("key", "revoke", key["id"])
    assert run("key", "create", "--name", "weekly")[2].count("Warning") == 0


def test_models_that_only_an_engine_knows_are_not_warned_of(run: Run, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    engine = '[[engines]]\nname = "far"\nkind = "openai"\nurl = "https://10.0.0.7"\n'
    (tmp_path / "data" / "rempart.toml").write_text(engine)
    assert made(run, "--model", "anything")["warnings"] == []
    (tmp_path / "data" / "rempart.toml").write_text(f'{engine}models = {{ "small" = "org/Small" }}\n')
    assert made(run, "--model", "small")["warnings"] == [
        "There is a key of the name 'nightly' already; both are valid."
    ]


def test_the_list_shows_what_a_key_may_do_and_until_when(run: Run, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    plain = made(run)
    bound = made(
        run, *("--role", "auditor", "--model", "guide", "--requests-per-minute", "60"),
        *("--tokens-per-day", "200000", "--expires-days", "30", "--owner", "Ada Lovelace"),
    )  # fmt: skip
    run("key", "revoke", plain["id"])
    status, out, _ = run("key", "list")
    head, first, second = (text.split() for text in out.splitlines())
    assert status == 0
    assert head == ["ID", "ROLE", "STATE", "CREATED", "EXPIRES", "REQ/MIN", "TOKENS/DAY", "MODELS", "OWNER", "NAME"]
    created = datetime.fromtimestamp(plain["created"], UTC).date()
    assert first == [
        *(plain["id"], "user", "revoked", str(created), "never", "-", "-", "all", plain["actor"], "nightly")
    ]
    expires = datetime.fromtimestamp(bound["expires"], UTC).date()
    assert second[4:] == [str(expires), "60", "200,000", "guide", bound["actor"], "nightly"]
    assert bound["actor"].startswith("a_")
    assert "Ada" not in out


def test_the_owner_of_a_key_may_come_from_stdin(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("Ada Lovelace\n"))
    assert made(run, "--owner", "-")["actor"] == made(run, "--owner", "Ada Lovelace")["actor"]


def test_each_change_of_a_key_is_an_entry_and_names_nobody(run: Run) -> None:
    key = made(run, "--owner", "Ada Lovelace")
    run("key", "revoke", key["id"])
    status, out, _ = run("ledger", "tail", "-n", "100", "--json")
    assert status == 0
    entries = [msgspec.json.decode(line)["entry"] for line in out.splitlines()]
    changes = [(entry["key"], entry["change"]) for entry in entries if entry["type"] == "key"]
    assert changes == [(key["id"], "created"), (key["id"], "revoked")]
    assert "Ada" not in out
    assert "nightly" not in out


def test_the_ledger_of_these_changes_holds(run: Run) -> None:
    made(run)
    status, out, err = run("ledger", "verify")
    assert status == 0, err
    assert out.startswith("The ledger holds: ")
    assert "a second" not in out  # a rate of a few entries says nothing
    status, out, _ = run("ledger", "verify", "--json")
    report = msgspec.json.decode(out)
    assert (status, report["holds"], report["requests"]) == (0, True, 0)


def test_the_ledger_holds_for_the_key_it_prints_and_for_no_other(run: Run, tmp_path: Path) -> None:
    made(run)
    _, out, _ = run("ledger", "key")
    vkey = out.strip()
    assert msgspec.json.decode(run("ledger", "key", "--json")[1]) == {"vkey": vkey}
    assert run("ledger", "verify", "--vkey", vkey)[0] == 0
    (tmp_path / "data").rename(tmp_path / "other")
    made(run)
    status, out, err = run("ledger", "verify", "--vkey", vkey)
    assert (status, out) == (1, "")
    assert err.startswith("Error: ")


def test_a_changed_byte_is_found(run: Run, tmp_path: Path) -> None:
    made(run)
    segments = (tmp_path / "data" / "ledger" / "segments").iterdir()
    segment, content = next((path, path.read_bytes()) for path in segments if b'"created"' in path.read_bytes())
    at = content.index(b'"created"')
    segment.write_bytes(content[:at] + b'"creatad"' + content[at + 9 :])
    status, out, err = run("ledger", "verify")
    assert (status, out) == (1, "")
    assert err.startswith("Error: ")
    assert "What to do: " in err


def test_fsck_names_what_is_wrong_and_exits_with_1(run: Run, tmp_path: Path) -> None:
    made(run)
    assert run("ledger", "fsck", "--no-bodies")[0] == 0
    status, out, _ = run("ledger", "fsck", "--json")
    assert (status, msgspec.json.decode(out)["faults"]) == (0, [])
    tile = max((tmp_path / "data" / "ledger" / "log" / "tile" / "0" / "000.p").iterdir(), key=lambda one: int(one.name))
    tile.unlink()
    status, out, _ = run("ledger", "fsck")
    assert status == 1
    assert out.startswith(f"FAULT  tile  log/tile/0/000.p/{tile.name}, entries 0 to ")
    assert "What to do: Run 'rempart ledger fsck --repair'" in out
    assert "does NOT hold" in out


def test_fsck_repairs_what_it_may_and_says_so(run: Run, tmp_path: Path) -> None:
    made(run)
    tile = max((tmp_path / "data" / "ledger" / "log" / "tile" / "0" / "000.p").iterdir(), key=lambda one: int(one.name))
    before = tile.read_bytes()
    tile.write_bytes(before[:-1] + bytes([before[-1] ^ 1]))
    status, out, err = run("ledger", "fsck", "--repair")
    assert status == 0, err
    assert f"written anew  log/tile/0/000.p/{tile.name}" in out
    assert tile.read_bytes() == before
    assert run("ledger", "verify")[0] == 0


def test_fsck_repairs_nothing_while_a_server_runs(run: Run, tmp_path: Path) -> None:
    made(run)
    with own(tmp_path / "data"):
        status, out, err = run("ledger", "fsck", "--repair")
        assert (status, out) == (3, "")
        assert err.startswith("Error: Another process")
        assert run("ledger", "fsck")[0] == 0


@pytest.mark.parametrize("what", ["nonsense", "-1", "999999", "0" * 32, "", "1" * 5_000])
def test_what_is_not_in_the_ledger_is_told(run: Run, what: str) -> None:
    made(run)
    status, out, err = run("ledger", "show", "--", what) if what.startswith("-") else run("ledger", "show", what)
    assert status == 2
    assert out == ""
    assert err.startswith(("Error: ", "Usage: "))


def test_one_entry_is_shown(run: Run) -> None:
    made(run)
    status, out, _ = run("ledger", "show", "0", "--sealed", "--json")
    assert status == 0
    assert msgspec.json.decode(out)["entry"]["type"] == "start"


def test_an_unknown_key_cannot_be_revoked(run: Run) -> None:
    made(run)
    status, out, err = run("key", "revoke", "0123456789ab")
    assert (status, out) == (2, "")
    assert err == "Error: There is no key '0123456789ab'.\n  What to do: See 'rempart key list'.\n"


@pytest.mark.parametrize(
    ("option", "value"),
    [("--name", ""), ("--tokens-per-day", "0"), ("--expires-days", "-1"), ("--expires-days", str(2**53))],
)
def test_an_order_that_makes_no_sense_makes_no_key(run: Run, option: str, value: str) -> None:
    status, out, err = run("key", "create", "--name", "nightly", option, value)
    assert (status, out) == (2, "")
    assert err.startswith("Error: ")
    assert "What to do: " in err
