"""`saelect verify`, `saelect forget` and `saelect bundle`."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from flows.commands.terminal import say, table_text
from selection.errors import InputError
from storage.workspace import DEFAULT, find_workspace, open_workspace

WorkspaceOption = Annotated[
    Path,
    typer.Option(
        "--workspace", "-w", envvar="SAELECT_WORKSPACE", help="Folder that keeps everything."
    ),
]
HERE = Path(DEFAULT)


def verify(workspace: WorkspaceOption = HERE) -> None:
    """Hash pools, shards, SAEs, rankings and exports again, and recheck the chain of decisions.

    Ends with code 1 if anything was altered; what `saelect forget` took out says "redacted".
    """
    from storage.verify import ALTERED, summary
    from storage.verify import verify as check

    findings = list(check(find_workspace(workspace)))
    rows = [(each.state, each.kind, each.name, each.detail) for each in findings]
    sys.stdout.write(table_text(("state", "what", "name", "detail"), rows))
    counts = summary(findings)
    say(", ".join(f"{n:,} {state}" for state, n in sorted(counts.items())))
    if counts.get(ALTERED):
        raise typer.Exit(1)


def forget(
    ids: Annotated[
        list[str] | None, typer.Option("--id", help="Example id, or the data's own id.")
    ] = None,
    where: Annotated[
        str | None, typer.Option(help="Boolean expression over the pools' columns.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Kept with the tombstone.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Do it; without, only say what is meant.")] = (
        False
    ),
    workspace: WorkspaceOption = HERE,
) -> None:
    """Remove samples' text and vectors from everything in the workspace, and leave a tombstone."""
    from storage.forget import forget as remove
    from storage.forget import meant

    if not ids and where is None:
        raise InputError(
            "no sample is named", field="--id", remedy="Give --id ID (repeatable) or --where EXPR."
        )
    place = open_workspace(workspace)
    wanted = meant(place, ids or [], where)
    say(f"{len(wanted):,} samples: {', '.join(wanted[:5])}{', …' if len(wanted) > 5 else ''}")
    if not yes:
        say("Nothing was changed; add --yes to remove their text and vectors for good.")
        return
    done = remove(place, wanted, reason)
    say(f"{len(done.example_ids):,} samples forgotten.")
    for path in done.exports_rewritten:
        say(f"  written again without them: {path}")
    for path in done.exports_outside:
        say(f"  still holds them, outside of the workspace: {path}")
    say("The pool's own files are yours: take the samples out of them, or they come back.")


def bundle(
    selection: Annotated[
        str, typer.Argument(help="Name, id, prefix of an id, or `latest`.", metavar="SELECTION")
    ] = "latest",
    out: Annotated[Path | None, typer.Option(help="Folder; default bundles/<selection>.")] = None,
    no_text: Annotated[bool, typer.Option("--no-text", help="Leave all sample text out.")] = False,
    workspace: WorkspaceOption = HERE,
) -> None:
    """Write one folder that answers for a selection without saelect: catalog, Parquet, README."""
    from storage.bundle import write_bundle

    folder = write_bundle(find_workspace(workspace), selection, out, with_text=not no_text)
    say(str(folder))
