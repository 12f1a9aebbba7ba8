"""`rempart ledger`: the record is verified, shown and followed."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import click
import msgspec

from rempart.cli.options import common, settings_of, show
from rempart.ledger.log.checkpoint import Verifier
from rempart.ledger.reading.find import Found, find, last
from rempart.ledger.reading.verify import Report
from rempart.ledger.reading.verify import verify as verify_ledger
from rempart.ledger.reading.witnessed import check_own_line, check_witnessed
from rempart.ledger.writing.opening import ledger_directory, open_keystore, read_vkey
from rempart.wiring import read_policy


@click.group()
def ledger() -> None:
    """Verify, show and follow the record of all exchanges."""


@ledger.command()
@click.option("--vkey", help="Verifier key that you trust [the one in the data directory].")
@click.option(
    "--policy", type=click.Path(dir_okay=False, path_type=Path), help="The witnesses' C2SP tlog-policy [ledger.policy]."
)
@common
def verify(vkey: str | None, policy: Path | None, data: Path | None, config_path: Path | None, as_json: bool) -> None:
    """Check the whole ledger: signature, tree, entries, bodies, and that every response has its request.

    With a policy, also that the log begins with what its witnesses have cosigned. Exits with 1 at the first thing that
    does not hold. Needs no secret, and works while a server runs.
    """
    settings = settings_of(data, config_path, **{"ledger.policy": policy}).settings
    directory = settings.data
    verifier = Verifier.from_vkey(vkey or read_vkey(directory))
    witnesses = read_policy(settings)
    if witnesses is not None:
        check_own_line(witnesses, verifier)
    began = time.perf_counter()
    with click.progressbar(length=1, label="Verifying", file=sys.stderr, hidden=not sys.stderr.isatty()) as bar:

        def progress(done: int, total: int) -> None:
            bar.length = total
            bar.update(done - bar.pos)

        report = verify_ledger(ledger_directory(directory), verifier, progress)
    standing = None if witnesses is None else check_witnessed(ledger_directory(directory), witnesses)
    seconds = time.perf_counter() - began
    if as_json:
        told = {} if standing is None else {"witnessed": msgspec.to_builtins(standing)}
        show({"holds": True, **msgspec.to_builtins(report), **told, "seconds": round(seconds, 3)})
        return
    _tell(report, seconds)
    if standing is not None:
        click.echo(f"  witnessed    {standing.size:,} entries, by {', '.join(standing.witnesses) or 'nobody'}")


def _tell(report: Report, seconds: float) -> None:
    entries = report.size + report.beyond
    rate = f", {entries / seconds:,.0f} a second" if seconds > 0.05 else ""
    click.echo(f"The ledger holds: {entries:,} entries in {seconds:.2f} s{rate}.")
    click.echo(f"  origin       {report.origin}")
    click.echo(f"  checkpoint   {report.size:,} entries, root {report.root}")
    click.echo(f"  beyond it    {report.beyond:,} entries, durable")
    click.echo(f"  exchanges    {report.requests:,} requests, {report.open:,} without a response yet")
    outcomes = ", ".join(f"{count:,} {name}" for name, count in report.outcomes.items()) or "none"
    click.echo(f"  responses    {outcomes}")


@ledger.command()
@common
def key(data: Path | None, config_path: Path | None, as_json: bool) -> None:
    """Print the verifier key of the log: give it to auditors, by another way than the log."""
    vkey = read_vkey(settings_of(data, config_path).settings.data)
    if as_json:
        show({"vkey": vkey})
    else:
        click.echo(vkey)


@ledger.command("show")
@click.argument("what")
@click.option("--sealed", is_flag=True, help="Show entries only; do not open what was said.")
@common
def show_(what: str, sealed: bool, data: Path | None, config_path: Path | None, as_json: bool) -> None:
    """Show the entries of an exchange (its id) or one entry (its index), and what was said."""
    directory = settings_of(data, config_path).settings.data
    read_vkey(directory)
    keystore = None if sealed else open_keystore(directory)
    _print(find(ledger_directory(directory) / "segments", what, keystore), as_json)


@ledger.command()
@click.option("-n", "--number", default=10, show_default=True, help="How many of the last entries.")
@click.option("-f", "--follow", is_flag=True, help="Go on with entries as they come.")
@common
def tail(number: int, follow: bool, data: Path | None, config_path: Path | None, as_json: bool) -> None:
    """Print the last entries, without what was said."""
    directory = settings_of(data, config_path).settings.data
    read_vkey(directory)
    segments = ledger_directory(directory) / "segments"
    found = last(segments, number)
    _print(found, as_json, lines=True)
    while follow:
        time.sleep(0.5)
        seen = found[-1].index if found else -1
        more = last(segments, sys.maxsize, after=seen)
        _print(more, as_json, lines=True)
        found = more or found


def _print(found: list[Found], as_json: bool, lines: bool = False) -> None:
    if as_json:
        for one in found:
            show(one)
        return
    for one in found:
        click.echo(_line(one) if lines else _whole(one))


def _line(one: Found) -> str:
    entry = one.entry
    told = [str(entry[name]) for name in ("exchange", "model", "outcome", "error") if entry.get(name)]
    return f"{one.index:>8}  {entry['time']}  {entry['type']:<9} {' '.join(told)}"


def _whole(one: Found) -> str:
    parts = [f"entry {one.index}", _pretty(one.entry)]
    if one.body is not None:
        parts += ["what was said", _pretty(one.body)]
    if one.unreadable:
        parts.append(f"what was said cannot be read: {one.unreadable}")
    return "\n".join(parts) + "\n"


def _pretty(value: Any) -> str:
    return msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
