"""`rempart ledger prove` and `pack`: what can be taken to an auditor and checked without us."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import click

from rempart.cli.installation import keys_of, require_ledger
from rempart.cli.options import common, settings_of, show
from rempart.cli.reads import HOW, Reading, reader
from rempart.cli.telling import counted, ranges
from rempart.config.settings import Settings
from rempart.errors import NotFound, UsageError
from rempart.ledger.keys.body import Revealed
from rempart.ledger.log.checkpoint import Verifier, parse_note
from rempart.ledger.log.proof import encode
from rempart.ledger.reading.find import find, find_revealed
from rempart.ledger.reading.pack import proof_of, write_pack
from rempart.ledger.reading.prove import Prover
from rempart.ledger.reading.witnessed import check_own_line, cosigned_note
from rempart.ledger.store.files import replace_durably
from rempart.ledger.store.logfiles import ledger_directory
from rempart.ledger.writing.opening import read_vkey
from rempart.wiring_attesting import read_policy


@click.command(short_help="Write proofs of entries.")
@click.argument("what", nargs=-1, required=True)
@click.option("--to", type=click.Path(path_type=Path), default=Path(), help="Directory of the proofs [this one].")
@common
def prove(what: tuple[str, ...], to: Path, data: Path | None, config_path: Path | None, as_json: bool) -> None:
    """Write a C2SP tlog-proof for each entry of exchanges (ids) or for single entries (indexes).

    With ledger.policy they lead to what the witnesses cosigned, once that covers them all.
    """
    settings = settings_of(data, config_path).settings
    directory = settings.data
    require_ledger(directory)
    ledger = ledger_directory(directory)
    indices = set(_indices(ledger, what))
    note = _cosigned(settings)
    covered = note is not None and max(indices, default=0) < parse_note(note)[1].size
    prover = Prover(ledger / "log", note if covered else None)
    written: dict[Path, bytes] = {}
    for index in sorted(indices):
        written[to / f"{index}.tlog-proof"] = encode(proof_of(prover.prove(index)))
    reading = Reading.of(settings, reason="", key_file=None, second_key_file=None)
    reading.record("prove", found=len(written), query=" ".join(what))
    replace_durably(written, 0o644)
    if as_json:
        show({"proofs": [str(path) for path in written], "size": prover.head.size, "root": prover.head.root.hex()})
        return
    for path in written:
        click.echo(path)


@click.command(short_help="Write an auditor's pack.")
@click.argument("what", nargs=-1)
@click.option("--from", "first", type=click.IntRange(0), help="First entry of a range.")
@click.option("--upto", type=click.IntRange(0), help="Last entry of the range.")
@click.option("--to", type=click.Path(path_type=Path), required=True, help="Directory of the pack, a new one.")
@click.option(
    "--policy",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="The witnesses' C2SP tlog-policy: the pack is under what they cosigned [ledger.policy].",
)
@click.option("--no-witnesses", is_flag=True, help="Under the newest checkpoint, whether it is cosigned or not.")
@click.option("--with-bodies", is_flag=True, help="Disclose what was said, too: with --reason and an auditor's key.")
@reader
@common
def pack(
    what: tuple[str, ...], to: Path, data: Path | None, config_path: Path | None, as_json: bool, **asked: Any
) -> None:
    """Write an auditor's pack: entries, proofs and a verifier that needs nothing of Rempart.

    WHAT are ids of exchanges and indexes of entries. Give the auditor the log's key (rempart ledger key), or the
    policy, by another way than the pack.
    """
    settings = settings_of(data, config_path, **{"ledger.policy": asked["policy"]}).settings
    reading = Reading.of(settings, **{name: asked.pop(name) for name in ("reason", "key_file", "second_key_file")})
    if asked["with_bodies"] and not reading.reason:
        raise UsageError("What was said is disclosed for a stated reason alone.", hint=HOW)
    directory = settings.data
    require_ledger(directory)
    ledger = ledger_directory(directory)
    note = None if asked["no_witnesses"] else _cosigned(settings)
    indices = set(_indices(ledger, what))
    if asked["first"] is not None or asked["upto"] is not None:
        size = Prover(ledger / "log", note).head.size
        last = size - 1 if asked["upto"] is None else asked["upto"]
        indices |= set(range(asked["first"] or 0, min(last + 1, size)))
    if note is not None:
        _require_covered(note, indices)
    disclosed: dict[int, Revealed] = {}
    if asked["with_bodies"]:
        disclosed = find_revealed(ledger, sorted(indices), keys_of(directory, settings.keys))
    # Before anything is written: what cannot be recorded does not leave the ledger.
    reading.record("pack", found=len(indices), bodies=len(disclosed), query=_asked(what, asked))
    report = write_pack(
        ledger / "log",
        indices,
        to,
        policy=_policy(settings, asked["no_witnesses"]),
        disclosed=disclosed,
        note=note,
    )
    if as_json:
        show(report)
        return
    click.echo(f"{to}: {counted(report.entries, 'entry', 'entries')}, {report.disclosed:,} of them with what was said.")
    click.echo(f"  entries {ranges(indices)}")
    click.echo(f"  under the checkpoint of {report.size:,} entries, root {report.root}")
    if report.timestamps:
        click.echo(f"  with {counted(report.timestamps, 'time stamp')}")
    trusted = f"--vkey '{read_vkey(directory)}'" if note is None else f"--policy '{settings.ledger.policy}'"
    click.echo(f"  verify it:  python3 {to / 'verify.py'} {trusted}")


def _cosigned(settings: Settings) -> bytes | None:
    """The newest checkpoint that met the witnesses' quorum; None without witnesses. Raises `LedgerCorrupt`."""
    policy = read_policy(settings)
    if policy is None:
        return None
    check_own_line(policy, Verifier.from_vkey(read_vkey(settings.data)))
    return cosigned_note(ledger_directory(settings.data), policy)


def _policy(settings: Settings, alone: bool) -> bytes:
    """What goes into the pack: the witnesses' policy as it was given, or one of the log's own key."""
    if settings.ledger.policy is None or alone:
        return f"log {read_vkey(settings.data)}\nquorum none\n".encode()
    return settings.ledger.policy.read_bytes()


def _require_covered(note: bytes, indices: Iterable[int]) -> None:
    size, last = parse_note(note)[1].size, max(indices, default=0)
    if last >= size:
        raise NotFound(
            f"The witnesses have cosigned {size:,} entries so far, not entry {last}.",
            hint="They are shown the newest ones while the server runs: try again, or say --no-witnesses.",
        )


def _asked(what: Iterable[str], asked: Mapping[str, Any]) -> str:
    bounds = [f"--{name} {asked[key]}" for name, key in (("from", "first"), ("upto", "upto")) if asked[key] is not None]
    return " ".join([*what, *bounds])


def _indices(ledger: Path, what: Iterable[str]) -> Iterable[int]:
    return [found.index for one in what for found in find(ledger, one, None)]
