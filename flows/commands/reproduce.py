"""`saelect reproduce`: decide a recorded run again, and say whether the same comes out."""

import sys
from pathlib import Path

import typer

from flows.commands.terminal import say, table_text
from flows.progress import for_terminal, listening
from storage.reproduction import Comparison, recorded_run
from storage.workspace import find_workspace


def reproduce_run(reference: str, root: Path, *, scratch: bool) -> None:
    """Print the comparison; ends with code 1 where a decision differs."""
    workspace = find_workspace(root)
    run = recorded_run(workspace, reference)
    say(f"saelect: run {run.name} of {run.created_at:%Y-%m-%d %H:%M} UTC")
    with listening(for_terminal()):
        if scratch:
            from flows.stages.from_scratch import from_scratch

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


def _say_comparison(compared: list[Comparison]) -> None:
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
