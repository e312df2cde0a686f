"""Commands that read the published snapshot only; they import neither torch nor prefect."""

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.options import (
    DEFAULT_WORKSPACE,
    ExampleArgument,
    SelectionArgument,
    WorkspaceOption,
)
from flows.orchestration.terminal import one_line, print_table, say, table_text
from selection.core.errors import InputError
from selection.core.printable import printable
from storage.files.workspace import find_workspace
from storage.wording.drops import PICKED

if TYPE_CHECKING:
    from storage.audit.explain import Explanation
    from storage.queries.lookup import PickRow
    from storage.queries.sql import SqlResult

SQL_ROWS = 1000
_STACKS = 500  # megabytes of addresses that threads reserve without using them
REASONS = 3  # shown beside a pick, with the number of signs between them


def ls(workspace: WorkspaceOption = DEFAULT_WORKSPACE) -> None:
    """List runs and their selections, newest first."""
    from rich.console import Console
    from rich.text import Text
    from rich.tree import Tree

    from storage.queries.lookup import list_selections

    tree = Tree(str(workspace), guide_style="dim")
    header = ("selection", "role", "target", "method", "picks", "tokens", "id")
    selections = list_selections(find_workspace(workspace))
    for (run, created_at), rows in groupby(selections, lambda row: (row.run, row.created_at)):
        cells = [
            (
                row.name,
                row.role,
                row.target or "",
                row.method,
                f"{row.n_selected:,}",
                "" if row.n_tokens is None else f"{row.n_tokens:,}",
                row.selection_id,
            )
            for row in rows
        ]
        branch = tree.add(f"[bold]{run}[/]  {created_at:%Y-%m-%d %H:%M} UTC")
        branch.add(Text(table_text(header, cells).rstrip()))
    Console(highlight=False).print(tree, soft_wrap=True)


def show(
    selection: SelectionArgument = "latest",
    n: Annotated[int, typer.Option("-n", help="Picks shown.", min=1)] = 10,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Show a selection: held-out check, and top picks with what they share with exemplars."""
    from storage.queries.lookup import find_selections, picks
    from storage.report.picks import first_reasons
    from storage.wording.checks import check_lines

    root = find_workspace(workspace)
    for row in find_selections(root, selection):
        budget = "" if row.n_tokens is None else f", {row.n_tokens:,} tokens"
        score = "" if row.cut_score is None else f", cut at {row.cut_score:.4f}"
        score += f", {row.n_replay:,} of them replay" if row.n_replay else ""
        say(
            f"{row.name}: {row.n_selected:,} of {row.n_eligible:,} for {row.target}"
            f" by {row.method}{budget}{score}"
        )
        for line in check_lines(root, row.selection_id):
            say(f"  {line}")
        reasons = first_reasons(root, row, n, most=REASONS)
        for pick in picks(root, row.selection_id, n):
            say(_pick_line(pick))
            if reasons[pick.rank]:
                say(f"{'':>13}  {pick.source}; shares {'; '.join(reasons[pick.rank])}")
        say("")


def _pick_line(pick: "PickRow") -> str:
    return f"{pick.rank:>5}  {pick.score:.4f}  {pick.example_id[:12]}  {one_line(pick.text)}"


def why(
    selection: SelectionArgument,
    example: ExampleArgument,
    n: Annotated[int, typer.Option("-n", help="Nearest exemplars shown.", min=1)] = 2,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Why a sample was picked, or what would change that: exemplars, latents, margin to the cut."""
    from storage.audit.explain import explain

    print_why(explain(find_workspace(workspace), selection, example), n)


def diff(first: str, second: str, workspace: WorkspaceOption = DEFAULT_WORKSPACE) -> None:
    """Compare the picks of two selections."""
    from storage.queries.lookup import diff

    result = diff(find_workspace(workspace), first, second, limit=10)
    say(f"{result.n_both:,} examples in both")
    for name, picks in (
        (result.first.name, result.only_first),
        (result.second.name, result.only_second),
    ):
        say(f"only in {name}, first {len(picks)}:")
        for pick in picks:
            say(_pick_line(pick))


def where_used(example: ExampleArgument, workspace: WorkspaceOption = DEFAULT_WORKSPACE) -> None:
    """List every selection and export that contains a sample."""
    from storage.queries.lookup import find_example, where_used

    root = find_workspace(workspace)
    rows = [
        (row.selection, row.role, str(row.rank), row.format or "", row.path or "not exported")
        for row in where_used(root, find_example(root, example))
    ]
    print_table(("selection", "role", "rank", "format", "export"), rows)


def sql(
    query: Annotated[str, typer.Argument(help="One SELECT; `SHOW TABLES` lists tables and views.")],
    output: Annotated[
        str, typer.Option("--format", "-f", help="table, csv, json (one object a line), parquet.")
    ] = "table",
    out: Annotated[Path | None, typer.Option(help="File for `-f parquet`.")] = None,
    seconds: Annotated[float, typer.Option(help="Give up after this time.", min=0.1)] = 8.0,
    memory: Annotated[int, typer.Option(help="Megabytes that the query may use.", min=64)] = 1000,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Query the catalog in SQL, read-only.

    Views: v_selection, v_why, v_source_mix, v_drops, v_lineage, and scores of every example.
    """
    from storage.queries.sql import SqlLimits, run_sql

    writers = {"table": _table_text, "csv": _csv_text, "json": _json_text}
    if output not in (*writers, "parquet"):
        raise InputError(
            "no such format",
            field="--format",
            value=output,
            remedy="Known: table, csv, json, parquet.",
        )
    limit = SQL_ROWS if output == "table" else None
    with _memory_limited(memory):
        result = run_sql(find_workspace(workspace), query, limit, SqlLimits(seconds, memory))
    if output == "parquet":
        _write_parquet(result, out)
        return
    text = writers[output](result)
    sys.stdout.write(printable(text) if sys.stdout.isatty() else text)
    if result.is_cut:
        sys.stderr.write(f"first {SQL_ROWS:,} rows; --format csv or json gives all rows\n")


@contextmanager
def _memory_limited(megabytes: int) -> Iterator[None]:
    """Let this process grow by so much in the block; DuckDB does not count all that it uses."""
    if sys.platform != "linux":
        yield
        return
    import resource

    n_pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = n_pages * resource.getpagesize() + (megabytes + _STACKS) * 10**6
    before = resource.getrlimit(resource.RLIMIT_AS)
    if before[0] != resource.RLIM_INFINITY:
        most = min(most, before[0])
    resource.setrlimit(resource.RLIMIT_AS, (most, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)


def outcome(
    selection: SelectionArgument,
    metric: Annotated[str, typer.Option(help="What was measured.")],
    value: Annotated[float, typer.Option(help="The figure.")],
    trainee: Annotated[str | None, typer.Option(help="The model that was trained.")] = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Record what training on a selection gave; `v_outcome` compares it with the random control."""
    from storage.export.outcome import record_outcome

    name = record_outcome(find_workspace(workspace), selection, metric, value, trainee)
    say(f"{name}: {metric} {value:g} recorded")


def _table_text(result: "SqlResult") -> str:
    cells = [[_cell(value) for value in row] for row in result.rows]
    return table_text(result.columns, cells) + f"{len(result.rows):,} rows\n"


def _write_parquet(result: "SqlResult", out: Path | None) -> None:
    """Parquet is bytes, so it goes to a file, never to a terminal."""
    import polars as pl

    from storage.files.atomic import write_atomically

    if out is None:
        raise InputError("Parquet needs a file", field="--out", remedy="Add --out answer.parquet.")
    frame = pl.DataFrame(
        result.rows, schema=list(result.columns), orient="row", infer_schema_length=None
    )
    write_atomically(out, frame.write_parquet)
    say(f"{len(result.rows):,} rows in {out}")


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = "" if value is None else str(value)
    return one_line(text) if sys.stdout.isatty() else " ".join(text.split())


def _csv_text(result: "SqlResult") -> str:
    from storage.export.csv_lines import csv_lines

    return "".join(csv_lines([result.columns, *result.rows]))


def _json_text(result: "SqlResult") -> str:
    lines = (json.dumps(row, ensure_ascii=False, default=str) for row in result.to_pylist())
    return "".join(f"{line}\n" for line in lines)


SUMS = {-1: "all other", -2: "generic"}


def print_why(explanation: "Explanation", n_exemplars: int) -> None:
    """Print an explanation; latents are shown beside the `n_exemplars` nearest exemplars."""
    say(f"{explanation.example_id} in {explanation.selection.name}: {_standing(explanation)}")
    if explanation.text:
        say(f"  {one_line(explanation.text)}")
    if explanation.reason:
        detail = f" ({explanation.detail})" if explanation.detail else ""
        say(f"Picked {PICKED.get(explanation.reason, explanation.reason)}{detail}.")
    if explanation.refusal is not None:
        say(f"Not picked: {explanation.refusal.words} (`{explanation.refusal.rule}`).")
    if explanation.change is not None:
        new, old = (_as_yaml(value) for value in (explanation.change.value, explanation.change.old))
        say(f"It would be picked with `{explanation.change.key}: {new}` instead of `{old}`.")
    if explanation.exemplars:
        _print_exemplars(explanation)
    for exemplar_id in list(dict.fromkeys(row.exemplar_id for row in explanation.latents))[
        :n_exemplars
    ]:
        say(f"\nShared with exemplar {exemplar_id}; first what distinguishes the sample")
        rows = [
            (
                row.space or "",
                SUMS.get(row.latent, str(row.latent)),
                f"{row.contribution:,}",
                "" if row.share is None else f"{row.share:.1%}",
                "" if row.pool_share is None else f"{row.pool_share:.1%}",
                row.words,
            )
            for row in explanation.latents
            if row.exemplar_id == exemplar_id
        ]
        header = ("space", "latent", "contribution", "share", "in pool", "token, or hint at latent")
        print_table(header, rows)
    if not explanation.latents:
        say(f"No latents are recorded for it; the method is {explanation.selection.method}.")


def _print_exemplars(explanation: "Explanation") -> None:
    rows = [
        (
            str(each.exemplar_rank) if each.exemplar_id else f"{each.n} others",
            "" if each.similarity is None else f"{each.similarity:.4f}",
            "" if each.part is None else f"{each.part:,}",
            (each.exemplar_id or "")[:12],
            one_line(each.text),
        )
        for each in explanation.exemplars
    ]
    if any(each.part is None for each in explanation.exemplars):
        note = f" (the score is their {explanation.reduction})"
    else:
        total = sum(each.part or 0 for each in explanation.exemplars)
        n = sum(each.n for each in explanation.exemplars)
        note = f": the score is the sum of parts {total:,} / ({n} x 2^40)"
    say("\nNearest exemplars" + note)
    print_table(("exemplar rank", "similarity", "part", "exemplar", "text"), rows)


def _standing(explanation: "Explanation") -> str:
    """Rank, score and distance from the cut in words."""
    if explanation.rank is None:
        return "not ranked; `saelect sql` on v_drops counts what was dropped before"
    ranks_below = explanation.rank - explanation.selection.n_selected
    words = f"{explanation.standing}, rank {explanation.rank:,}"
    if explanation.standing == "passed over":  # It is at the end of the order, after all others.
        ranks_below, words = 0, f"passed over, rank by score {explanation.score_rank or 0:,}"
    if explanation.score is not None:
        words += f", score {explanation.score:.6f}"
    if explanation.margin is not None:
        words += f", {explanation.margin:+.6f} from the cut"
    return words + (f" ({ranks_below:,} ranks below it)" if ranks_below > 0 else "")


def _as_yaml(value: object) -> str:
    """A value as a config writes it, on one line; a long one is cut."""
    return one_line(value if isinstance(value, str) else json.dumps(value))
