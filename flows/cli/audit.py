"""`saelect verify`, `saelect forget` and `saelect bundle`."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.options import DEFAULT_WORKSPACE, SelectionArgument, WorkspaceOption
from flows.orchestration.progress import for_terminal, listening
from flows.orchestration.signals import EX_TEMPFAIL
from flows.orchestration.terminal import print_table, say
from selection.core.errors import InputError
from storage.files.workspace import find_workspace, open_workspace

if TYPE_CHECKING:
    from storage.audit.reproduction import Comparison


def verify(
    head: Annotated[
        bool, typer.Option("--head", help="Print the head of the catalog's chain, NUMBER:SHA256.")
    ] = False,
    expect: Annotated[
        str | None, typer.Option(help="A head printed before, which the chain must still have.")
    ] = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Check the catalog against its chain of commits, and every recorded file against its hash.

    Exit code 1 if anything was altered or is missing, 75 while `saelect forget` is at work; what
    that removed is listed as "redacted", what is not on this machine as "unchecked".
    """
    from storage.audit.verify import ALTERED, IN_PROGRESS, MISSING, summary
    from storage.audit.verify import head as newest
    from storage.audit.verify import verify as check
    from storage.catalog.integrity import Head

    opened = find_workspace(workspace)
    if head:
        say(str(newest(opened)))
        return
    findings = list(check(opened, Head.parse(expect) if expect else None))
    rows = [(each.state, each.kind, each.name, each.detail) for each in findings]
    print_table(("state", "what", "name", "detail"), rows)
    counts = summary(findings)
    say(", ".join(f"{n:,} {state}" for state, n in sorted(counts.items())))
    if expect and not counts.get(ALTERED):
        say(f"the chain still has {expect}")
    if counts.get(ALTERED) or counts.get(MISSING):
        raise typer.Exit(1)
    if counts.get(IN_PROGRESS):
        raise typer.Exit(EX_TEMPFAIL)


def forget(
    ids: Annotated[
        list[str] | None, typer.Option("--id", help="Example id, or the id in the data.")
    ] = None,
    where: Annotated[
        str | None, typer.Option(help="Boolean expression over the pools' columns.")
    ] = None,
    reason: Annotated[str, typer.Option(help="Kept with the tombstone.")] = "",
    yes: Annotated[bool, typer.Option("--yes", help="Remove them; otherwise only list them.")] = (
        False
    ),
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Remove text and vectors of samples from the whole workspace, and leave a tombstone."""
    from storage.audit.forget import forget as remove
    from storage.audit.forget import meant

    if not ids and where is None:
        raise InputError(
            "no sample named", field="--id", remedy="Give --id ID (repeatable) or --where EXPR."
        )
    root = open_workspace(workspace)
    example_ids = meant(root, ids or [], where)
    more = ", …" if len(example_ids) > 5 else ""
    say(f"{len(example_ids):,} samples: {', '.join(example_ids[:5])}{more}")
    if not yes:
        say("Nothing was changed; add --yes to remove their text and vectors for good.")
        return
    removed = remove(root, example_ids, reason)
    say(f"{len(removed.example_ids):,} samples removed.")
    for path in removed.rewritten:
        say(f"  rewritten without them: {path}")
    for path in removed.outside:
        say(f"  outside the workspace, still contains them: {path}")
    for path in removed.unknown:
        say(f"  not recorded, may contain them: {path}")
    say("Remove them from the pool's own files too, or the next run reads them again.")


def bundle(
    selection: SelectionArgument = "latest",
    out: Annotated[Path | None, typer.Option(help="Folder; default bundles/<selection>.")] = None,
    no_text: Annotated[bool, typer.Option("--no-text", help="Leave all sample text out.")] = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Write a folder that documents a selection without saelect: catalog, Parquet, README."""
    from storage.audit.bundle import write_bundle

    folder = write_bundle(find_workspace(workspace), selection, out, with_text=not no_text)
    say(str(folder))


def reproduce_run(reference: str, root: Path, *, scratch: bool) -> None:
    """Print the comparison; exit code 1 where a decision differs."""
    workspace = find_workspace(root)
    from storage.audit.reproduction import recorded_run

    run = recorded_run(workspace, reference)
    say(f"saelect: run {run.name} of {run.created_at:%Y-%m-%d %H:%M} UTC")
    with listening(for_terminal()):
        if not scratch:
            from flows.stages.reproduce import reproduce

            comparisons = reproduce(workspace, run)
        else:
            from flows.stages.recompute import from_scratch

            recomputed = from_scratch(workspace, run)
    if not scratch:
        _print_comparison(comparisons)
        return
    vectors = recomputed.vectors
    say(f"pool read from {recomputed.pool}")
    say(
        f"{vectors.n:,} vectors: {vectors.latents_within:.2%} of their latents within tolerance,"
        f" generalized Jaccard {vectors.similarity_mean:.4f} on average,"
        f" {vectors.similarity_least:.4f} at least"
    )
    rows = [
        (
            each.selection,
            f"{each.n_top_both:,} of {each.n_top:,}",
            f"{each.n_picks_both:,} of {each.n_picks:,}",
        )
        for each in recomputed.rankings
    ]
    print_table(("selection", "top in both", "picks in both"), rows)


def _print_comparison(comparisons: "list[Comparison]") -> None:
    rows = [
        (each.table, f"{each.n_recorded:,}", "same" if each.is_same else "DIFFERS", each.first)
        for each in comparisons
    ]
    print_table(("table", "rows", "repeated", "first difference"), rows)
    for each in comparisons:
        if each.unrecorded:
            say(f"{each.table}: the run's version did not record {', '.join(each.unrecorded)}")
    differing = [each.table for each in comparisons if not each.is_same]
    if differing:
        say(f"not reproduced: {', '.join(differing)}")
        raise typer.Exit(1)
    say("reproduced: every decision and explanation is the same, bit by bit")
