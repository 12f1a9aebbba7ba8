"""Docs cannot lie: what they name exists, and what exists is named."""

import ast
import re
import tomllib
from pathlib import Path

import click
import msgspec
import pytest

from rempart import errors
from rempart.cli.main import cli
from rempart.config.settings import Model, Settings
from rempart.formats.gguf import NotGguf
from rempart.identity.caller import PERMISSIONS

ROOT = Path(__file__).resolve().parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("models/guide/*.md")])


def _commands(group: click.Group, prefix: tuple[str, ...] = ()) -> dict[tuple[str, ...], click.Command]:
    found: dict[tuple[str, ...], click.Command] = {}
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            found.update(_commands(command, (*prefix, name)))
        else:
            found[(*prefix, name)] = command
    return found


COMMANDS = _commands(cli)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
        assert (page.parent / link).exists(), link


@pytest.mark.parametrize("page", [page for page in PAGES if page.parent.name != "adr"], ids=lambda page: page.name)
def test_commands_in_pages_exist(page: Path) -> None:
    verbs = "|".join(sorted({name[0] for name in COMMANDS}))
    for line in re.findall(rf"(?:^|[`/ ])rempart ((?:{verbs})\b[^`\n#]*)", page.read_text(), re.MULTILINE):
        words = line.split()
        command = COMMANDS.get(tuple(words[:1])) or COMMANDS.get(tuple(words[:2]))
        assert command is not None or "|" in line or len(words) == 1, line
        if command is not None:
            options = {name for parameter in command.params for name in (*parameter.opts, *parameter.secondary_opts)}
            assert set(re.findall(r"(?<![\w-])--[a-z-]+", line)) <= options, line


def test_every_command_takes_data_and_json() -> None:
    for name, command in COMMANDS.items():
        options = {option for parameter in command.params for option in parameter.opts}
        assert {"--data", "--json"} <= options, name


def test_the_configuration_page_is_a_configuration_and_names_every_setting() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text()
    block = re.search(r"```toml\n(.*?)```", text, re.DOTALL)
    assert block is not None
    shown = tomllib.loads(re.sub(r"^# (?=[a-z0-9_]+ = )", "", block[1], flags=re.MULTILINE))
    settings = msgspec.convert(shown, Settings, dec_hook=lambda kind, value: kind(value))
    for section in ("server", "ledger", "keys", "witness", "logging"):
        for name in getattr(settings, section).__struct_fields__:
            assert name in shown[section], f"{section}.{name}"
    assert set(shown["retention"]["standard"]) == set(settings.retention["standard"].__struct_fields__)
    assert set(shown["models"]["llama-70b"]) == set(Model.__struct_fields__)
    named = set().union(*(engine.keys() for engine in shown["engines"]))
    assert named == set(settings.engines[0].__struct_fields__)


def test_defaults_in_the_configuration_page_are_the_defaults() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text()
    block = re.search(r"```toml\n(.*?)```", text, re.DOTALL)
    assert block is not None
    shown = tomllib.loads(block[1])
    for section in ("server", "ledger", "keys", "witness", "logging"):
        defaults = msgspec.to_builtins(getattr(Settings(), section), enc_hook=str)
        for name, value in shown[section].items():
            assert value == (list(defaults[name]) if isinstance(defaults[name], tuple | list) else defaults[name]), name
    assert msgspec.convert(shown["models"]["llama-70b"], Model) == Model()
    assert shown["retention"] == msgspec.to_builtins(Settings().retention)


def test_every_error_that_a_client_can_meet_is_in_the_api_page() -> None:
    text = (ROOT / "docs" / "api.md").read_text()
    command_line_only = {"usage", "bad_configuration", "ledger_corrupt", "keystore", "directory_locked"}
    command_line_only |= {"missing_dependency", "client_gone", "no_installation", "address_in_use", "witness_error"}
    command_line_only |= {"timestamp_error"}
    command_line_only |= {"erasure_refused"}
    codes = {kind.code for kind in vars(errors).values() if isinstance(kind, type) and hasattr(kind, "http_status")}
    for code in codes - command_line_only:
        assert f"`{code}`" in text, code


def _rows(page: str, heading: str) -> list[list[str]]:
    """The cells of the table under a heading, without its head."""
    section = (ROOT / "docs" / page).read_text().split(f"## {heading}\n")[1].split("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[2:]]


def test_the_table_of_roles_is_what_they_may() -> None:
    table = {row[0].strip("`"): row[1:] for row in _rows("operations.md", "Roles")}
    assert table.keys() == PERMISSIONS.keys()
    for role, cells in table.items():
        permissions = ("read_ledger", "read_bodies", "read_metrics")
        assert cells == ["yes", "yes", "yes", *("yes" if one in PERMISSIONS[role] else "no" for one in permissions)]


def _errors() -> dict[str, type[errors.RempartError]]:
    """By code; of those that share one the first, which the others inherit from."""
    found: dict[str, type[errors.RempartError]] = {NotGguf.code: NotGguf}
    for kind in vars(errors).values():
        if isinstance(kind, type) and issubclass(kind, errors.RempartError):
            found.setdefault(kind.code, kind)
    return found


def test_the_table_of_exit_codes_is_what_the_errors_say() -> None:
    kinds = _errors()
    named: set[str] = set()
    for status, _, codes in _rows("operations.md", "Exit codes"):
        for code in re.findall(r"`([a-z_]+)`", codes):
            assert kinds[code].exit_code == int(status), code
            named.add(code)
    assert {code for code, kind in kinds.items() if kind.exit_code == 1} == {"ledger_corrupt"}
    assert {"usage", "bad_configuration", "no_installation", "keystore", "directory_locked", "address_in_use"} <= named


def _templates() -> list[str]:
    """All texts of the program, without what is filled in."""
    found: list[str] = []
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.JoinedStr):
                found.append(_template(node))
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                found.append(node.value)
    return found


def _template(node: ast.AST) -> str:
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(map(_template, node.values))
    return "".join(_template(one) for one in ast.walk(node) if one is not node and isinstance(one, ast.JoinedStr))


TEMPLATES = _templates()


@pytest.mark.parametrize("quote", re.findall(r'"([^"`{}]{5,})"', (ROOT / "docs" / "operations.md").read_text()))
def test_what_the_operations_page_quotes_is_what_the_program_says(quote: str) -> None:
    said = [re.escape(part.strip()) for part in re.split(r"…|\b[A-Z]{2,}\b", quote.replace("\n", " ")) if part.strip()]
    pattern = re.compile(".*".join(said), re.DOTALL)
    assert any(pattern.search(template) for template in TEMPLATES), quote


def test_every_dependency_has_its_line() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    text = (ROOT / "docs" / "dependencies.md").read_text()
    for name in project["dependencies"]:
        assert f"| {name} |" in text, name


def test_locks_have_hashes_and_no_address() -> None:
    for lock in (ROOT / "locks").glob("*.lock"):
        text = lock.read_text()
        assert "://" not in text, lock.name
        packages = re.findall(r"^[a-z0-9][^ \n]*==", text, re.MULTILINE)
        assert packages
        assert text.count("--hash=sha256:") >= len(packages)


def test_metrics_in_the_operations_page_exist() -> None:
    from rempart.engines.router import Router
    from rempart.gateway.metrics import Metrics
    from rempart.ledger.writing.draft import LogState

    state = LogState(origin="o", entries=0, tree_size=0, root=b"", lag_s=0.0, syncs=0, failure="")
    shown = Metrics(lambda: state, routed=Router([]).figures).text().decode()
    for page in ("operations.md", "routing.md"):
        for name in re.findall(r"`(rempart_[a-z_]+)`", (ROOT / "docs" / page).read_text()):
            assert name.removesuffix("_total") in shown, name
