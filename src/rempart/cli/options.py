"""`common`: the options that every command has, and the settings that they lead to."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from rempart.config.load import Loaded, load
from rempart.errors import UsageError

F = TypeVar("F", bound=Callable[..., Any])


class PathOption(click.ParamType[Path]):
    """A path. An empty text, such as an unset variable of the shell leaves, would mean the current directory."""

    name = "path"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        if str(value) == "" and not isinstance(value, Path):
            given = param.opts[0] if param is not None else "The path"
            raise UsageError(f"{given} is empty.", hint="Give a path, or leave it out.")
        return Path(value)


def common(command: F) -> F:
    """`--data`, `--config` and `--json`, as `data`, `config_path` and `as_json`."""
    command = click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")(command)
    command = click.option(
        "--config", "config_path", type=PathOption(), help="Configuration file [<data>/rempart.toml]."
    )(command)
    return click.option("--data", type=PathOption(), help="Data directory [data].")(command)


def settings_of(data: Path | None, config_path: Path | None, **options: Any) -> Loaded:
    """Raises `ConfigError`."""
    return load({"data": data, **options}, os.environ, config_path)


def text_given(text: str) -> str:
    """`-` reads a line of stdin in its place: others on the machine see arguments."""
    return sys.stdin.readline().strip() if text == "-" else text


@contextmanager
def progress(label: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on a terminal's stderr; what it gives is told how much is done, and how much there is."""
    with click.progressbar(length=1, label=label, file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:

        def tell(done: int, total: int) -> None:
            bar.length = max(total, 1)
            bar.update(done - bar.pos)

        yield tell


def show(value: Any) -> None:
    """One line of JSON on stdout."""
    click.echo(msgspec.json.encode(value, enc_hook=str).decode())
