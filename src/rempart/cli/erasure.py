"""`rempart ledger erase`, `hold`, `release`, `holds`, `expire` and `backup-destroyed`, whether a server runs or not."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import click

from rempart.cli.installation import require_ledger
from rempart.cli.options import PathOption, common, settings_of, show, text_given
from rempart.cli.telling import counted
from rempart.errors import UsageError
from rempart.ledger.keys.sealing import passphrase_from_file
from rempart.wiring import administer

_KEY_VARIABLE: Final = "REMPART_KEY"
_NAMED: Final = {"subject": "the name, its API keys, and ", "actor": "the name, its API keys, and ", "exchange": ""}
"""What goes beside exchanges."""


@click.command(short_help="Erase a person, an exchange, or a key's owner.")
@click.option("--subject", help="A person whose data is recorded: the name as it was sent, or a pseudonym; - reads it.")
@click.option("--exchange", help="The id of one exchange.")
@click.option("--actor", help="The owner of API keys: the name, or a pseudonym; - reads it.")
@click.option("--ground", required=True, help='Why, such as "GDPR 17(1)(b)"; never a name.')
@click.option("--yes", is_flag=True, help="Do not ask.")
@click.option("--key-file", type=PathOption(), help="File with the API key of who asks [the operator asks].")
@common
def erase(
    ground: str,
    yes: bool,
    key_file: Path | None,
    data: Path | None,
    config_path: Path | None,
    as_json: bool,
    **who: Any,
) -> None:
    """Destroy the keys of what was said, and the name. Entries stay, and the ledger verifies as before.

    Refused while a retention class must keep it. What a hold covers stays readable by its id.
    """
    scope, names = _scope({name: (value,) if value else () for name, value in who.items()})
    asked = {"scope": scope, "name": names[0], "ground": ground, "key": _key(key_file)}
    if not yes:
        if as_json:
            raise UsageError("With --json nobody can be asked.", hint="Add --yes.")
        planned = _ask("erasure.plan", asked, data, config_path)
        click.echo(f"This erases {_NAMED[scope]}{_counts(planned)}. It cannot be undone.", err=True)
        for hold_id, count in planned["kept"].items():
            click.echo(f"  {count:,} of these stay readable: kept by hold {hold_id}.", err=True)
        try:
            click.confirm("Erase?", abort=True, err=True)
        except click.Abort:
            click.echo("Nothing was erased.", err=True)
            raise
    done = _ask("erasure.erase", asked, data, config_path)
    if as_json:
        show(done)
        return
    certificate = done["certificate"]
    click.echo(f"Erased: {_NAMED[scope]}{_counts(certificate)}. Certificate: entry {certificate['index']}.")
    for hold_id, count in certificate["kept"].items():
        click.echo(f"  {counted(count, 'exchange')} kept by hold {hold_id}.")
    for backup in done["backups"]:
        opens = "with its root: it opens what was erased" if backup["with_root"] else "without its root"
        click.echo(f"  Backup {backup['backup']} of {backup['time']} is older, {opens}.")
    if done["backups"]:
        click.echo("  Destroy them, and say so: rempart ledger backup-destroyed ID")


@click.command(short_help="Keep exchanges readable, whatever is erased or expires.")
@click.argument("id")
@click.option("--exchange", multiple=True, help="The id of an exchange; repeat for more.")
@click.option("--subject", help="All exchanges about a person, those to come too; - reads the name.")
@click.option("--actor", help="All exchanges of a key's owner, those to come too; - reads the name.")
@click.option("--ground", required=True, help="The number of the file; never a name.")
@click.option("--key-file", type=PathOption(), help="File with the API key of who asks [the operator asks].")
@common
def hold(
    id: str,
    exchange: tuple[str, ...],
    subject: str | None,
    actor: str | None,
    ground: str,
    key_file: Path | None,
    **common_: Any,
) -> None:
    """Begin a legal hold of that ID, a short word. Two people release it."""
    given = {"exchange": exchange, "subject": (subject,) if subject else (), "actor": (actor,) if actor else ()}
    scope, names = _scope(given)
    asked = {"id": id, "ground": ground, "scope": scope, "names": names, "key": _key(key_file)}
    done = _ask("hold.begin", asked, common_["data"], common_["config_path"])
    if common_["as_json"]:
        show(done)
    else:
        click.echo(f"Hold {id} keeps {counted(done['counts']['exchanges'], 'exchange')}. Entry {done['index']}.")


@click.command(short_help="Agree to the release of a hold.")
@click.argument("id")
@click.option("--key-file", type=PathOption(), help=f"File with your API key [the variable {_KEY_VARIABLE}].")
@common
def release(id: str, key_file: Path | None, data: Path | None, config_path: Path | None, as_json: bool) -> None:
    """Agree to the release of the hold of that ID, with your own API key (role admin or auditor).

    The first person's agreement is recorded; the second's releases it, and what only the hold kept ends.
    """
    settings_of(data, config_path)
    key = _key(key_file) or os.environ.get(_KEY_VARIABLE, "")
    if not key:
        raise UsageError("A hold is released by people, not by the machine.", hint="Give --key-file FILE.")
    done = _ask("hold.release", {"id": id, "key": key}, data, config_path)
    if as_json:
        show(done)
    elif done["released"]:
        click.echo(
            f"Hold {id} is released: it kept {counted(done['counts']['exchanges'], 'exchange')}. Entry {done['index']}."
        )
    else:
        click.echo(f"Your agreement is recorded in entry {done['index']}. A second person releases hold {id}.")


@click.command(short_help="List the holds in force.")
@common
def holds(data: Path | None, config_path: Path | None, as_json: bool) -> None:
    """List the holds in force: what they cover, since when, and who has agreed to their release."""
    found = _ask("hold.list", {}, data, config_path)
    if as_json:
        show(found)
        return
    if not found:
        click.echo("No hold is in force.", err=True)
    for one in found:
        held = one["hold"]
        covers = ", ".join(held["scope"])
        agreed = f", release agreed by {held['released_by'][0]}" if held["released_by"] else ""
        since = f"since {held['began']} by {held['by']}: {held['reason']}"
        click.echo(f"{held['id']}  {counted(one['exchanges'], 'exchange')} ({covers}), {since}{agreed}")


@click.command(short_help="End what has been kept for its time.")
@click.option("--dry-run", is_flag=True, help="Only say what is due.")
@common
def expire(dry_run: bool, data: Path | None, config_path: Path | None, as_json: bool) -> None:
    """Destroy keys, index and bodies of the days whose retention class is over. A running server does it daily."""
    if dry_run:
        found = _ask("erasure.due", {}, data, config_path)
        if as_json:
            show(found)
            return
        if not found["buckets"]:
            click.echo("Nothing is due.", err=True)
        for retention, bucket in found["buckets"]:
            click.echo(f"due  {retention}/{bucket}")
        for retention in found["unknown"]:
            click.echo(f"kept  class {retention}: it is not in the settings any more", err=True)
        return
    expired = _ask("erasure.expire", {}, data, config_path)
    if as_json:
        show(expired)
        return
    if not expired:
        click.echo("Nothing was due.", err=True)
    for one in expired:
        certificate = one["certificate"]
        kept = sum(certificate["kept"].values())
        held = f", {counted(kept, 'exchange')} kept by holds" if kept else ""
        click.echo(f"expired  {one['class']}/{one['bucket']}: {_counts(certificate)}{held}")


@click.command("backup-destroyed", short_help="State that a backup was destroyed.")
@click.argument("id")
@click.option("--key-file", type=PathOption(), help="File with the API key of who states it [the operator].")
@common
def backup_destroyed(
    id: str, key_file: Path | None, data: Path | None, config_path: Path | None, as_json: bool
) -> None:
    """State that no copy of the backup of that ID exists any more. It is recorded, and no erasure lists it again."""
    done = _ask("erasure.backup_destroyed", {"id": id, "key": _key(key_file)}, data, config_path)
    if as_json:
        show(done)
    else:
        click.echo(f"Recorded in entry {done['index']}: backup {id} is destroyed.")


COMMANDS: Final = (erase, hold, release, holds, expire, backup_destroyed)


def _ask(verb: str, args: Mapping[str, Any], data: Path | None, config_path: Path | None) -> Any:
    settings = settings_of(data, config_path).settings
    require_ledger(settings.data)
    return asyncio.run(administer(settings, verb, args))


def _scope(given: Mapping[str, tuple[str, ...]]) -> tuple[str, list[str]]:
    """Raises `UsageError` unless exactly one is given."""
    found = [(name, list(values)) for name, values in given.items() if values]
    if len(found) != 1:
        raise UsageError("Give one of --subject, --exchange and --actor.", hint="See --help.")
    scope, names = found[0]
    return scope, names if scope == "exchange" else [text_given(name) for name in names]


def _key(path: Path | None) -> str:
    return "" if path is None else passphrase_from_file(path)


def _counts(report: Mapping[str, Any]) -> str:
    counts = report["counts"]
    people = counted(counts.get("others", 0), "other person", "other people")
    others = f", also about {people}" if counts.get("others") else ""
    return f"{counted(counts['exchanges'], 'exchange')} ({counted(counts['bodies'], 'body', 'bodies')}{others})"
