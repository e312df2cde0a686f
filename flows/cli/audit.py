"""`saelect verify`, `saelect forget` and `saelect bundle`."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.orchestration.progress import for_terminal, listening
from flows.orchestration.terminal import say, table_text
from selection.core.errors import InputError
from storage.files.workspace import DEFAULT, find_workspace, open_workspace

if TYPE_CHECKING:
    from storage.audit.reproduction import Comparison

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
    from storage.audit.verify import ALTERED, summary
    from storage.audit.verify import verify as check

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
    from storage.audit.forget import forget as remove
    from storage.audit.forget import meant

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
    from storage.audit.bundle import write_bundle

    folder = write_bundle(find_workspace(workspace), selection, out, with_text=not no_text)
    say(str(folder))


def reproduce_run(reference: str, root: Path, *, scratch: bool) -> None:
    """Print the comparison; ends with code 1 where a decision differs."""
    workspace = find_workspace(root)
    from storage.audit.reproduction import recorded_run

    run = recorded_run(workspace, reference)
    say(f"saelect: run {run.name} of {run.created_at:%Y-%m-%d %H:%M} UTC")
    with listening(for_terminal()):
        if scratch:
            from flows.stages.recompute import from_scratch

            found = from_scratch(workspace, run)
        else:
            from flows.stages.reproduce import reproduce

            compared = reproduce(workspace, run)
    if not scratch:
        _say_comparison(compared)
        return
    vectors = found.vectors
    say(f"pool read from {found.pool}")
    say(
        f"{vectors.n:,} vectors: {vectors.latents_within:.2%} of their latents within tolerance,"
        f" generalized Jaccard {vectors.similarity_mean:.4f} on average,"
        f" {vectors.similarity_least:.4f} at least"
    )
    rows = [
        (each.selection, f"{each.n_top_both:,} of {each.n_top:,}",
         f"{each.n_picks_both:,} of {each.n_picks:,}")
        for each in found.rankings
    ]  # fmt: skip
    sys.stdout.write(table_text(("selection", "top in both", "picks in both"), rows, right={1, 2}))


def _say_comparison(compared: "list[Comparison]") -> None:
    rows = [
        (each.table, f"{each.n_recorded:,}", "same" if each.is_same else "DIFFERS", each.first)
        for each in compared
    ]
    sys.stdout.write(table_text(("what", "rows", "made again", "first difference"), rows,
                                right={1}))  # fmt: skip
    for each in compared:
        if each.unrecorded:
            names = ", ".join(each.unrecorded)
            say(f"{each.table}: {names} were not recorded by the run's version")
    differing = [each.table for each in compared if not each.is_same]
    if differing:
        say(f"not reproduced: {', '.join(differing)}")
        raise typer.Exit(1)
    say("reproduced: every decision and explanation is the same, bit by bit")
