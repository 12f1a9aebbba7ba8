"""`rempart ledger`: the record is verified, shown and followed."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import click
import msgspec

from rempart.cli.installation import has_keys, keys_of, require_ledger
from rempart.cli.options import common, progress, settings_of, show
from rempart.cli.reads import HOW, Reading, reader
from rempart.cli.telling import counted, full, line, story
from rempart.errors import LedgerCorrupt, UsageError
from rempart.ledger.keys.keystore import Keystore
from rempart.ledger.log.checkpoint import Verifier
from rempart.ledger.log.handover import led_to
from rempart.ledger.reading.examine import Examined, Progress
from rempart.ledger.reading.find import Found, find_everywhere, last
from rempart.ledger.reading.fsck import Checked
from rempart.ledger.reading.fsck import fsck as check_ledger
from rempart.ledger.reading.handovers import believed, read_handovers
from rempart.ledger.reading.previous import verify_chain
from rempart.ledger.reading.timestamps import Stamped, check_timestamps, read_authority
from rempart.ledger.reading.witnessed import check_own_line, check_witnessed
from rempart.ledger.store.logfiles import ledger_directory, previous_logs
from rempart.ledger.store.ownership import own
from rempart.ledger.writing.opening import read_vkey
from rempart.wiring_attesting import read_policy


@click.group()
def ledger() -> None:
    """Verify, show and follow the record of all exchanges."""


@ledger.command(short_help="Check the whole ledger.")
@click.option("--vkey", help="Verifier key that you trust [the one in the data directory].")
@click.option("--no-bodies", is_flag=True, help="Leave out the encrypted bodies: quicker.")
@click.option(
    "--policy", type=click.Path(dir_okay=False, path_type=Path), help="The witnesses' C2SP tlog-policy [ledger.policy]."
)
@click.option(
    "--timestamp-ca",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Certificates of the time-stamping authority, PEM [ledger.timestamp_ca_file].",
)
@common
def verify(vkey: str | None, no_bodies: bool, as_json: bool, **asked: Path | None) -> None:
    """Check the whole ledger: signature, tree, entries, bodies, and that every response has its request.

    With a policy, also that the log begins with what its witnesses have cosigned. With the certificates of a
    time-stamping authority, also its stamps: since when, at the latest, the entries exist. Exits with 1 at the first
    thing that does not hold. Needs no secret, and works while a server runs. A log that was begun anew after a
    restoration is checked with those that it continues.
    """
    given = {"ledger.policy": asked["policy"], "ledger.timestamp_ca_file": asked["timestamp_ca"]}
    settings = settings_of(asked["data"], asked["config_path"], **given).settings
    directory = settings.data
    require_ledger(directory)
    verifier = _verifier(vkey, directory)
    witnesses = read_policy(settings)
    if witnesses is not None:
        check_own_line(witnesses, verifier, believed(ledger_directory(directory), verifier))
    certificates = settings.ledger.timestamp_ca_file
    authority = None if certificates is None else read_authority(certificates)
    began = time.perf_counter()
    with _progress("Verifying", not no_bodies) as progress:
        examined = verify_chain(ledger_directory(directory), verifier, progress)
    standing = None if witnesses is None else check_witnessed(ledger_directory(directory), witnesses)
    stamped = None if authority is None else check_timestamps(ledger_directory(directory), authority)
    seconds = time.perf_counter() - began
    if as_json:
        told = {} if standing is None else {"witnessed": msgspec.to_builtins(standing)}
        told |= {} if authority is None else {"timestamps": msgspec.to_builtins(stamped)}
        show({"holds": True, **msgspec.to_builtins(examined), **told, "seconds": round(seconds, 3)})
        return
    _tell(examined, "The ledger holds", seconds)
    before = previous_logs(ledger_directory(directory))
    if before:
        click.echo(f"  continues    {counted(len(before), 'older log')} in ledger/previous, checked as well")
    if standing is not None:
        click.echo(f"  witnessed    {standing.size:,} entries, by {', '.join(standing.witnesses) or 'nobody'}")
    if authority is not None:
        _tell_stamped(stamped)


def _tell_stamped(stamped: Stamped | None) -> None:
    if stamped is None:
        click.echo("  time stamps  none")
        return
    for size, at in dict.fromkeys(((stamped.first_size, stamped.first_time), (stamped.last_size, stamped.last_time))):
        click.echo(f"  time stamp   {size:,} entries existed on {at:%Y-%m-%d at %H:%M:%S} UTC, at the latest")
    click.echo(f"  time stamps  {stamped.stamps:,} checked")


def _ledger_of(data: Path | None, config_path: Path | None) -> Path:
    """The data directory. Raises `NoInstallation` when there is no ledger in it."""
    directory = settings_of(data, config_path).settings.data
    require_ledger(directory)
    return directory


def _reading(asked: dict[str, Any]) -> Reading:
    """Raises `NoInstallation` when there is no ledger, and `UsageError`."""
    settings = settings_of(asked.pop("data"), asked.pop("config_path")).settings
    require_ledger(settings.data)
    given = {"reason": "", "key_file": None, "second_key_file": None, **asked}
    return Reading.of(settings, **given)


def _verifier(vkey: str | None, directory: Path) -> Verifier:
    """A slip in what was typed is no finding about the ledger: it raises `UsageError`."""
    if vkey is None:
        return Verifier.from_vkey(read_vkey(directory))
    try:
        return Verifier.from_vkey(vkey)
    except LedgerCorrupt as error:
        raise UsageError(f"--vkey: {error.message}", hint=error.hint) from error


@ledger.command(short_help="Name everything that is wrong.")
@click.option("--vkey", help="Verifier key that you trust [the one in the data directory].")
@click.option("--no-bodies", is_flag=True, help="Leave out the encrypted bodies: quicker.")
@click.option("--repair", is_flag=True, help="Write anew what can be derived; refused while a server runs.")
@common
def fsck(
    vkey: str | None, no_bodies: bool, repair: bool, data: Path | None, config_path: Path | None, as_json: bool
) -> None:
    """Name everything that is wrong with the ledger: what, where, which entries, and what to do.

    Exits with 1 when anything is. --repair writes damaged or missing tiles and bundles anew, when the signed root
    proves them; it never touches entries, bodies or the checkpoint.
    """
    directory = _ledger_of(data, config_path)
    verifier = _verifier(vkey, directory)
    began = time.perf_counter()
    with contextlib.ExitStack() as stack:
        if repair:
            stack.enter_context(own(directory))
        progress = stack.enter_context(_progress("Checking", not no_bodies))
        checked = check_ledger(ledger_directory(directory), verifier, progress, repair=repair)
    seconds = time.perf_counter() - began
    if as_json:
        show({"holds": checked.holds, **msgspec.to_builtins(checked), "seconds": round(seconds, 3)})
    else:
        _tell_checked(checked, seconds)
    sys.exit(0 if checked.holds else 1)


@contextlib.contextmanager
def _progress(label: str, with_bodies: bool) -> Iterator[Progress]:
    with progress(label) as tell:
        yield Progress(with_bodies=with_bodies, tell=tell)


def _tell_checked(checked: Checked, seconds: float) -> None:
    for fault in checked.faults:
        entries = "" if fault.first is None else f", entries {fault.first} to {fault.last}"
        click.echo(f"{'FAULT' if fault.grave else 'note'}  {fault.kind}  {fault.where}{entries}")
        click.echo(f"  {fault.what}\n  What to do: {fault.remedy}")
    if checked.more:
        click.echo(f"... and {checked.more:,} more.")
    for name in checked.repaired:
        click.echo(f"written anew  {name}")
    _tell(checked.examined, "The ledger holds" if checked.holds else "The ledger does NOT hold", seconds)


def _tell(report: Examined, verdict: str, seconds: float) -> None:
    entries = report.size + report.beyond
    rate = f", {entries / seconds:,.0f} a second" if seconds >= 1 else ""
    click.echo(f"{verdict}: {entries:,} entries in {seconds:.2f} s{rate}.")
    click.echo(f"  origin       {report.origin}")
    click.echo(f"  checkpoint   {report.size:,} entries, root {report.root}")
    click.echo(f"  beyond it    {report.beyond:,} entries, durable")
    click.echo(f"  exchanges    {report.requests:,} requests, {report.open:,} without a response yet")
    outcomes = ", ".join(f"{count:,} {name}" for name, count in report.outcomes.items()) or "none"
    click.echo(f"  responses    {outcomes}")
    click.echo(f"  bodies       {report.bodies:,} checked, {report.expired:,} expired")


@ledger.command()
@common
def key(data: Path | None, config_path: Path | None, as_json: bool) -> None:
    """Print the verifier key of the log.

    While it is being changed, the next one too.

    Give it to auditors, by another way than the log.
    """
    directory = _ledger_of(data, config_path)
    vkey = read_vkey(directory)
    after = led_to(Verifier.from_vkey(vkey), read_handovers(ledger_directory(directory))).vkey
    if as_json:
        show({"vkey": vkey, **({} if after == vkey else {"next": after})})
        return
    click.echo(vkey)
    if after != vkey:
        click.echo(f"{after}\nBoth sign until 'rempart keys rotate-log --finish'; then the second one alone.", err=True)


@ledger.command("show", short_help="Show an exchange or an entry.")
@click.argument("what")
@click.option("--sealed", is_flag=True, help="Show entries only; do not open what was said.")
@click.option("--full", "whole", is_flag=True, help="Show every field, and what was said as JSON.")
@reader
@common
def show_(what: str, sealed: bool, whole: bool, as_json: bool, **asked: Any) -> None:
    """Show an exchange (by its id) or one entry (by its index): what it was, when, and how it ended.

    What was said is shown only with --reason and an auditor's key. Each look is recorded in the ledger itself.
    """
    reading = _reading(asked)
    directory = reading.settings.data
    if sealed and reading.reason:
        raise UsageError("--sealed and --reason contradict each other.", hint="Give one of them.")
    keystore = keys_of(directory, reading.settings.keys) if reading.reason else None
    found = find_everywhere(ledger_directory(directory), what, keystore)
    reading.record("show", found=len(found), bodies=sum(one.body is not None for one in found), query=what)
    identity = "" if keystore is None else _identity(keystore, found)
    if not (sealed or reading.reason) and has_keys(directory) and any(one.entry.get("body") for one in found):
        click.echo(HOW, err=True)
    if as_json:
        for one in found:
            show(one)
    else:
        click.echo("\n".join(map(full, found)) if whole else story(found, whole=not what.isdigit(), identity=identity))


def _identity(keystore: Keystore, found: list[Found]) -> str:
    """Who asked; empty when that is nobody any more."""
    actor = next((str(one.entry["actor"]) for one in found if one.entry.get("actor")), "")
    return keystore.identity(actor) if actor and keystore.get("subject", actor) is not None else ""


@ledger.command()
@click.option(
    "-n", "--number", type=click.IntRange(min=1), default=10, show_default=True, help="How many of the last entries."
)
@click.option("-f", "--follow", is_flag=True, help="Go on with entries as they come.")
@common
def tail(number: int, follow: bool, data: Path | None, config_path: Path | None, as_json: bool) -> None:
    """Print the last entries, without what was said. That somebody looked is recorded, once."""
    reading = _reading({"data": data, "config_path": config_path})
    place = ledger_directory(reading.settings.data)
    found = last(place, number)
    reading.record("tail", found=len(found), query="follow" if follow else "")
    _print(found, as_json)
    while follow:
        time.sleep(0.5)
        seen = found[-1].index if found else -1
        more = last(place, sys.maxsize, after=seen)
        _print(more, as_json)
        found = more or found


def _print(found: list[Found], as_json: bool) -> None:
    for one in found:
        if as_json:
            show(one)
        else:
            click.echo(line(one))
