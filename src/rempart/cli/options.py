"""`common`: the options that every command has, and the settings that they lead to."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click
import msgspec

from rempart.config.load import Loaded, load

F = TypeVar("F", bound=Callable[..., Any])


def common(command: F) -> F:
    """`--data`, `--config` and `--json`, as `data`, `config_path` and `as_json`."""
    command = click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")(command)
    command = click.option(
        "--config", "config_path", type=click.Path(path_type=Path), help="Configuration file [<data>/rempart.toml]."
    )(command)
    return click.option("--data", type=click.Path(path_type=Path), help="Data directory [data].")(command)


def settings_of(data: Path | None, config_path: Path | None, **options: Any) -> Loaded:
    """Raises `ConfigError`."""
    return load({"data": data, **options}, os.environ, config_path)


def show(value: Any) -> None:
    """One line of JSON on stdout."""
    click.echo(msgspec.json.encode(value, enc_hook=str).decode())
