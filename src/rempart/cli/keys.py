"""`rempart keys`: how the keystore stands, new keys, and another seal of its root, whether a server runs or not."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import click
import msgspec

from rempart.cli import installation
from rempart.cli.options import common, settings_of, show
from rempart.config.settings import Settings
from rempart.errors import UsageError
from rempart.ledger.reading.epochs import accept_older
from rempart.ledger.store.logfiles import ledger_directory
from rempart.ledger.store.ownership import own
from rempart.wiring import administer


@click.group()
def keys() -> None:
    """Look at the keystore, and give it new keys."""


@keys.command(short_help="Show how the keystore stands.")
@common
def status(data: Path | None, config_path: Path | None, as_json: bool) -> None:
    """Show its epoch, what seals its root, the holds in force, and the backups that still open what was destroyed."""
    told = _ask("keys.status", _settings(data, config_path))
    if as_json:
        show(told)
        return
    click.echo(f"epoch    {told['epoch']:,}\nroot     sealed by {told['sealing']}\nholds    {told['holds']}")
    for backup in told["backups"]:
        click.echo(f"backup   {backup['backup']} of {backup['time']}, epoch {backup['epoch']:,}")


@keys.command(short_help="Give the keystore a new root and new shard keys.")
@common
def rotate(data: Path | None, config_path: Path | None, as_json: bool) -> None:
    """Give the keystore a new root and new shard keys, without stopping: an old root opens no later copy of it."""
    _tell(_ask("keys.rotate", _settings(data, config_path)), as_json)


@keys.command("rotate-log", short_help="Change the key that the log signs with.")
@click.option("--finish", is_flag=True, help="Destroy the old key: all who verify have the new one.")
@common
def rotate_log(finish: bool, data: Path | None, config_path: Path | None, as_json: bool) -> None:
    """Change the key that the log signs with, without stopping: first both keys sign, then the new one alone.

    Give the new key to auditors and to operators of witnesses, beside the old one; then come back with --finish.
    """
    done = _ask("keys.rotate-log", _settings(data, config_path), {"finish": finish})
    if as_json:
        show(done)
    elif finish:
        click.echo(f"The old key is destroyed. The log signs with\n  {done['new']}")
    else:
        click.echo(
            f"Both keys sign the log from entry {done['index']:,} on. The new one is\n  {done['new']}\n"
            "Give it to auditors and witnesses, beside the old one. Then: rempart keys rotate-log --finish"
        )


@keys.command(short_help="Seal the root in another way.")
@click.option("--to", type=click.Choice(["file", "passphrase", "pkcs11"]), required=True, help="What seals it.")
@common
def reseal(to: str, data: Path | None, config_path: Path | None, as_json: bool) -> None:
    """Seal a new root as [keys] in rempart.toml says, without stopping. Set keys.sealing there first.

    To change a passphrase, seal to file and then to the new passphrase.
    """
    settings = _settings(data, config_path)
    if settings.keys.sealing != to:
        raise UsageError(
            f"keys.sealing is {settings.keys.sealing!r}: the next change would seal it so again.",
            hint=f"Set keys.sealing to {to!r} in rempart.toml first.",
        )
    _tell(_ask("keys.reseal", settings, msgspec.to_builtins(settings.keys, enc_hook=_absolute)), as_json)


@keys.command("accept-older", short_help="Go on with keys that are older than the log.")
@common
def accept_older_(data: Path | None, config_path: Path | None, as_json: bool) -> None:
    """Let the next start go on with an older copy of keys/, when the newest one is lost. The server is stopped.

    What was erased since that copy was made can be read again: it lists the certificates, so that each is erased again.
    """
    settings = _settings(data, config_path)
    with own(settings.data):
        keystore = installation.keys_of(settings.data, settings.keys)
        try:
            undone = accept_older(ledger_directory(settings.data), keystore)
        finally:
            keystore.close()
    if as_json:
        show({"undone": undone})
        return
    click.echo("The next start goes on with these keys.")
    if undone:
        click.echo(f"ATTENTION: erase or expire again what these entries say: {', '.join(map(str, undone))}")


def _settings(data: Path | None, config_path: Path | None) -> Settings:
    settings = settings_of(data, config_path).settings
    installation.require_ledger(settings.data)
    return settings


def _ask(verb: str, settings: Settings, args: dict[str, Any] | None = None) -> Any:
    return asyncio.run(administer(settings, verb, args or {}))


def _tell(done: dict[str, Any], as_json: bool) -> None:
    if as_json:
        show(done)
    else:
        click.echo(f"The root is {done['change']}, by {done['sealing']}: epoch {done['epoch']:,}.")


def _absolute(path: object) -> str:
    """A server may run in another directory."""
    return str(Path(str(path)).absolute())
