"""`main`: the command `rempart`. Errors say what happened, why, and what to do; exit codes are those of `errors`."""

from __future__ import annotations

import os
import sys
import traceback
from collections.abc import Sequence

import click
import msgspec

from rempart import __version__
from rempart.cli import (
    backup,
    config,
    erasure,
    key,
    keys,
    ledger,
    proofs,
    reconcile,
    replicate,
    review,
    search,
    up,
    witness,
)
from rempart.cli.telling import plain
from rempart.errors import LedgerUnavailable, RempartError, UsageError


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="rempart")
def cli() -> None:
    """Private language models on your own hardware, every exchange in a tamper-evident ledger."""


cli.add_command(up.up)
cli.add_command(key.key)
cli.add_command(keys.keys)
cli.add_command(ledger.ledger)
cli.add_command(backup.backup)
cli.add_command(config.config)
cli.add_command(witness.witness)
ledger.ledger.add_command(proofs.prove)
ledger.ledger.add_command(proofs.pack)
for command in erasure.COMMANDS:
    ledger.ledger.add_command(command)
ledger.ledger.add_command(search.search)
ledger.ledger.add_command(search.index)
ledger.ledger.add_command(replicate.replicate)
ledger.ledger.add_command(reconcile.reconcile)
ledger.ledger.add_command(review.review)
ledger.ledger.add_command(review.reviews_)


def main(arguments: Sequence[str] | None = None) -> None:
    """Entry point. Exits with 0, 1, 2 or 3, and with 130 when it is interrupted."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    as_json = "--json" in given
    try:
        status = cli.main(args=given, prog_name="rempart", standalone_mode=False)
        sys.exit(status if isinstance(status, int) else 0)
    except RempartError as error:
        _tell(error, as_json)
        sys.exit(error.exit_code)
    except click.Abort:
        sys.exit(130)
    except click.ClickException as error:
        if as_json:
            _tell(_wrong_use(error), as_json)
        else:
            error.show()
        sys.exit(UsageError.exit_code)
    except BrokenPipeError:
        # Whoever read our output left, as `head` does; Python must not try to flush it again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)
    except OSError as error:
        # What no adapter has mapped: a place that cannot be written, a disk that fails while it is read.
        what = f"{error.filename} cannot be used" if error.filename else "A file cannot be read or written"
        _tell(
            LedgerUnavailable(f"{what}: {error.strerror or error}.", hint="Look at its disk, and its rights."), as_json
        )
        raise SystemExit(LedgerUnavailable.exit_code) from error
    except Exception as error:
        # Python's own status would be 1, which says that a ledger does not hold.
        traceback.print_exc()
        raise SystemExit(RempartError.exit_code) from error


def _wrong_use(error: click.ClickException) -> UsageError:
    context = getattr(error, "ctx", None)
    command = context.command_path if context is not None else "rempart"
    return UsageError(error.format_message(), hint=f"See '{command} --help'.")


def _tell(error: RempartError, as_json: bool) -> None:
    if as_json:
        shown = {"error": {"code": error.code, "message": error.message, "hint": error.hint}}
        click.echo(msgspec.json.encode(shown).decode(), err=True)
        return
    click.echo(f"Error: {plain(error.message)}", err=True)
    if error.hint:
        click.echo(f"  What to do: {plain(error.hint)}", err=True)


if __name__ == "__main__":
    main()
