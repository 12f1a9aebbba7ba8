"""`rempart.cli`: every command helps, errors say what to do, and exit codes are those of `rempart.errors`."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import click
import msgspec
import pytest

from rempart import __version__
from rempart.bench.running import DidNotStart, start
from rempart.cli import ledger as ledger_commands
from rempart.cli.main import cli, main
from rempart.errors import (
    AddressInUse,
    DirectoryLocked,
    KeystoreError,
    LedgerCorrupt,
    NoInstallation,
    RempartError,
    UsageError,
)


class Ran(NamedTuple):
    status: int
    out: str
    err: str


Run = Callable[..., Ran]


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Run:
    """`main` with these arguments, in a clean environment."""
    for name in os.environ:
        if name.startswith("REMPART_"):
            monkeypatch.delenv(name)

    def _run(*arguments: str | Path) -> Ran:
        with pytest.raises(SystemExit) as ended:
            main([str(one) for one in arguments])
        assert isinstance(ended.value.code, int)
        return Ran(ended.value.code, *capsys.readouterr())

    return _run


def commands(group: click.Group, above: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield above, group
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*above, name))
        else:
            yield (*above, name), command


ALL = dict(commands(cli))
LEAVES = {words: command for words, command in ALL.items() if not isinstance(command, click.Group)}


@pytest.mark.parametrize("flag", ["--help", "-h"])
@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_every_command_helps(run: Run, words: tuple[str, ...], flag: str) -> None:
    ran = run(*words, flag)
    assert ran.status == 0
    assert ran.out.startswith(f"Usage: {' '.join(('rempart', *words))}")
    assert ran.err == ""


@pytest.mark.parametrize("words", ALL, ids=" ".join)
def test_every_command_and_option_says_what_it_is_for(words: tuple[str, ...]) -> None:
    assert ALL[words].help


@pytest.mark.parametrize("words", LEAVES, ids=" ".join)
def test_every_command_has_the_common_options(words: tuple[str, ...]) -> None:
    assert {"data", "config_path", "as_json"} <= {parameter.name for parameter in LEAVES[words].params}


def test_the_version_is_told(run: Run) -> None:
    assert run("--version") == (0, f"rempart, version {__version__}\n", "")


@pytest.mark.parametrize(
    "arguments",
    [
        ("fly",),
        ("ledger", "fly"),
        ("--fly",),
        ("config", "explain", "--fly"),
        ("key", "create"),
        ("key", "create", "--name", "a", "--role", "root"),
        ("key", "create", "--name", "a", "--tokens-per-day", "many"),
        ("key", "revoke"),
        ("ledger", "show"),
        ("up", "--port", "eighty"),
    ],
)
def test_wrong_use_is_told_on_stderr_and_exits_with_2(run: Run, arguments: tuple[str, ...]) -> None:
    ran = run(*arguments)
    assert ran.status == 2
    assert ran.out == ""
    assert "Error: " in ran.err
    assert "Traceback" not in ran.err


@pytest.mark.parametrize(
    ("arguments", "message", "hint"),
    [
        (("key", "create"), "Missing option '--name'.", "See 'rempart key create --help'."),
        (("fly",), "No such command 'fly'.", "See 'rempart --help'."),
        (("ledger", "tail", "-n", "0"), "Invalid value for '-n' / '--number'", "See 'rempart ledger tail --help'."),
        (("ledger", "tail", "-n", "-1"), "Invalid value for '-n' / '--number'", "See 'rempart ledger tail --help'."),
    ],
)
def test_wrong_use_is_json_when_asked_for(run: Run, arguments: tuple[str, ...], message: str, hint: str) -> None:
    ran = run(*arguments, "--json")
    assert (ran.status, ran.out) == (2, "")
    error = msgspec.json.decode(ran.err)["error"]
    assert (error["code"], error["hint"]) == ("usage", hint)
    assert error["message"].startswith(message)


@pytest.mark.parametrize("words", sorted(ALL.keys() - LEAVES.keys()), ids=" ".join)
def test_no_summary_is_cut_in_the_middle(run: Run, words: tuple[str, ...]) -> None:
    _, _, commands = run(*words, "--help").out.partition("Commands:\n")
    assert commands
    assert "..." not in commands


@pytest.mark.parametrize("option", ["--data", "--config", "--model"])
def test_an_option_that_is_empty_is_said_to_be(run: Run, option: str) -> None:
    ran = run("up", option, "")
    assert ran == (2, "", f"Error: {option} is empty.\n  What to do: Give a path, or leave it out.\n")


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (UsageError, 2),
        (LedgerCorrupt, 1),
        (DirectoryLocked, 3),
        (RempartError, 3),
        (AddressInUse, 3),
        (NoInstallation, 2),
        (KeystoreError, 2),
    ],
)
def test_the_error_has_the_exit_code(
    run: Run, monkeypatch: pytest.MonkeyPatch, error: type[RempartError], status: int
) -> None:
    def fail(_: Path) -> None:
        raise error("It broke.", hint="Mend it.")

    monkeypatch.setattr(ledger_commands, "require_ledger", fail)
    ran = run("ledger", "key")
    assert ran == (status, "", "Error: It broke.\n  What to do: Mend it.\n")
    ran = run("ledger", "key", "--json")
    assert (ran.status, ran.out) == (status, "")
    assert msgspec.json.decode(ran.err) == {"error": {"code": error.code, "message": "It broke.", "hint": "Mend it."}}


def test_an_error_without_hint_has_no_empty_line(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Path) -> None:
        raise UsageError("It broke.")

    monkeypatch.setattr(ledger_commands, "require_ledger", fail)
    assert run("ledger", "key").err == "Error: It broke.\n"


def test_what_was_not_foreseen_does_not_exit_as_a_ledger_that_does_not_hold(
    run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Path) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(ledger_commands, "require_ledger", fail)
    ran = run("ledger", "key")
    assert (ran.status, ran.out) == (3, "")
    assert "ZeroDivisionError" in ran.err


def test_who_interrupts_gets_the_shells_status(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(_: Path) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(ledger_commands, "require_ledger", interrupt)
    assert run("ledger", "key").status == 130


def test_a_configuration_that_cannot_be_used_stops_every_command(run: Run, tmp_path: Path) -> None:
    config = tmp_path / "rempart.toml"
    config.write_text("[server]\nprot = 1\n")
    required: dict[tuple[str, ...], tuple[str, ...]] = {
        ("key", "create"): ("--name", "a"),
        ("key", "revoke"): ("0" * 12,),
        ("ledger", "show"): ("0",),
        ("ledger", "prove"): ("0",),
        ("ledger", "search"): ("word",),
        ("ledger", "pack"): ("0", "--to", "nowhere"),
        ("witness", "serve"): ("--logs", str(config)),
        ("ledger", "erase"): ("--subject", "a", "--ground", "b", "--yes"),
        ("ledger", "hold"): ("a", "--subject", "a", "--ground", "b"),
        ("ledger", "release"): ("a",),
        ("ledger", "backup-destroyed"): ("a",),
        ("keys", "reseal"): ("--to", "file"),
        ("ledger", "replicate"): ("nowhere",),
        ("ledger", "review"): ("--by", "a", "--note", "b"),
        ("backup", "create"): ("--to", "nowhere", "--without-keys"),
        ("backup", "restore"): ("nowhere", "--keys", "nowhere"),
    }
    for words in LEAVES:
        ran = run(*words, *required.get(words, ()), "--config", config)
        assert ran.status == 2, words
        assert ran.err.startswith(f"Error: {config}: there is no setting `server.prot`.")
        assert "What to do: " in ran.err


def test_a_configuration_that_is_not_there_is_named(run: Run, tmp_path: Path) -> None:
    ran = run("config", "explain", "--config", tmp_path / "gone.toml")
    assert ran.status == 2
    assert str(tmp_path / "gone.toml") in ran.err


def test_up_refuses_to_serve_in_clear(run: Run, tmp_path: Path) -> None:
    ran = run("up", "--host", "0.0.0.0", "--data", tmp_path / "data")
    assert ran.status == 2
    assert "in clear" in ran.err
    assert not (tmp_path / "data").exists()


def test_config_explain_shows_names_values_and_sources(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "rempart.toml"
    config.write_text("[server]\nexchanges_max = 9\n")
    monkeypatch.setenv("REMPART_SERVER_PORT", "1234")
    ran = run("config", "explain", "--json", "--data", tmp_path)
    rows: list[dict[str, Any]] = msgspec.json.decode(ran.out)
    found = {row["name"]: (row["value"], row["source"]) for row in rows}
    assert ran.status == 0
    assert found["server.port"] == (1234, "environment (REMPART_SERVER_PORT)")
    assert found["server.exchanges_max"] == (9, str(config))
    assert found["data"] == (str(tmp_path), "option")
    assert found["ledger.strict"] == (False, "default")
    assert found["server.certificate"] == (None, "default")


def test_config_explain_tells_the_context_that_the_model_takes(run: Run, tmp_path: Path) -> None:
    ran = run("config", "explain", "--data", tmp_path)
    (line,) = [line for line in ran.out.splitlines() if line.startswith("engines.embedded.context_tokens ")]
    assert line.split(maxsplit=1)[1] == "4096  (default; the model takes 512)"
    rows: list[dict[str, Any]] = msgspec.json.decode(run("config", "explain", "--json", "--data", tmp_path).out)
    assert [row["effective"] for row in rows if "effective" in row] == [512]


def test_config_explain_works_when_the_model_cannot_be_read(run: Run, tmp_path: Path) -> None:
    for content in (None, b"no model"):
        if content is not None:
            (tmp_path / "m.gguf").write_bytes(content)
        (tmp_path / "rempart.toml").write_text(f'[[engines]]\nname = "a"\nmodel = "{tmp_path / "m.gguf"}"\n')
        ran = run("config", "explain", "--data", tmp_path)
        assert ran.status == 0
        assert "the model takes" not in ran.out


def test_config_explain_in_lines(run: Run, tmp_path: Path) -> None:
    ran = run("config", "explain", "--data", tmp_path)
    assert ran.status == 0
    lines = [line.split() for line in ran.out.splitlines()]
    assert ["server.port", "8080", "(default)"] in lines


def test_config_explain_makes_nothing(run: Run, tmp_path: Path) -> None:
    run("config", "explain", "--data", tmp_path / "data")
    assert list(tmp_path.iterdir()) == []


def test_data_that_is_a_file_is_an_error_and_no_traceback(run: Run, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.write_text("a file")
    for arguments in (("key", "list"), ("ledger", "key"), ("ledger", "verify"), ("ledger", "tail")):
        ran = run(*arguments, "--data", data)
        assert ran.status in (1, 2, 3)
        assert ran.err.startswith("Error: ")


def test_up_on_data_that_is_a_file_is_an_error_and_no_traceback(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.write_text("a file")
    with pytest.raises(DidNotStart) as caught:
        start(data)
    assert "bad_configuration" in str(caught.value)
    assert "Traceback" not in str(caught.value)
