"""The light half of the command line: it reads the published snapshot and starts at once."""

import csv
import io
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.orchestration.terminal import one_line, say, table_text
from selection.core.errors import InputError
from storage.files.workspace import DEFAULT, find_workspace, open_workspace

if TYPE_CHECKING:
    from storage.audit.explain import Explanation
    from storage.catalog.sql import SqlResult

WorkspaceOption = Annotated[
    Path,
    typer.Option(
        "--workspace", "-w", envvar="SAELECT_WORKSPACE", help="Folder that keeps everything."
    ),
]
SelectionArgument = Annotated[
    str, typer.Argument(help="Name, id, prefix of an id, or `latest`.", metavar="SELECTION")
]
ExampleArgument = Annotated[
    str, typer.Argument(help="Example id, its beginning, or the data's own id.")
]
HERE = Path(DEFAULT)
SQL_ROWS = 1000
REASONS = 3  # shown beside a pick, with the number of signs between them


def ls(workspace: WorkspaceOption = HERE) -> None:
    """List runs and their selections, newest first."""
    from storage.catalog.lookup import list_selections

    rows = [
        (
            row.name,
            row.role,
            row.target or "",
            row.method,
            f"{row.n_selected:,}",
            "" if row.n_tokens is None else f"{row.n_tokens:,}",
            row.created_at.strftime("%Y-%m-%d %H:%M"),
            row.selection_id,
        )
        for row in list_selections(find_workspace(workspace))
    ]
    header = ("selection", "role", "target", "method", "picks", "tokens", "created (UTC)", "id")
    sys.stdout.write(table_text(header, rows, right={4, 5}))


def show(
    selection: SelectionArgument = "latest",
    n: Annotated[int, typer.Option("-n", help="Picks shown.", min=1)] = 10,
    workspace: WorkspaceOption = HERE,
) -> None:
    """What the check says of a selection, and its top picks with what they share with exemplars."""
    from storage.catalog.lookup import find_selections, picks
    from storage.report.picks import first_reasons
    from storage.wording.checks import check_lines

    place = find_workspace(workspace)
    for found in find_selections(place, selection):
        budget = "" if found.n_tokens is None else f", {found.n_tokens:,} tokens"
        score = "" if found.cut_score is None else f", cut at {found.cut_score:.4f}"
        say(
            f"{found.name}: {found.n_selected:,} of {found.n_eligible:,} for {found.target}"
            f" by {found.method}{budget}{score}"
        )
        for line in check_lines(place, found.selection_id):
            say(f"  {line}")
        reasons = first_reasons(place, found, n, most=REASONS)
        for pick in picks(place, found.selection_id, n):
            say(f"{pick.rank:>5}  {pick.score:.4f}  {pick.example_id[:12]}  {one_line(pick.text)}")
            if reasons[pick.rank]:
                say(f"{'':>13}  {pick.source}; shares {'; '.join(reasons[pick.rank])}")
        say("")


def why(
    selection: SelectionArgument,
    example: ExampleArgument,
    n: Annotated[int, typer.Option("-n", help="Nearest exemplars shown.", min=1)] = 2,
    workspace: WorkspaceOption = HERE,
) -> None:
    """Why a sample was picked, or what would bring it in: exemplars, latents, margin to the cut."""
    from flows.cli.look import print_why
    from storage.audit.explain import explain

    place = find_workspace(workspace)
    print_why(explain(place, selection, example), n)


def diff(first: str, second: str, workspace: WorkspaceOption = HERE) -> None:
    """What two selections have in common, and what only one of them has."""
    from storage.catalog.lookup import diff

    found = diff(find_workspace(workspace), first, second, limit=10)
    say(f"{found.n_both:,} examples in both")
    for name, rows in (
        (found.first.name, found.only_first),
        (found.second.name, found.only_second),
    ):
        say(f"only in {name}, first {len(rows)}:")
        for row in rows:
            say(f"{row.rank:>5}  {row.score:.4f}  {row.example_id[:12]}  {one_line(row.text)}")


def where_used(example: ExampleArgument, workspace: WorkspaceOption = HERE) -> None:
    """Every selection and export that holds a sample."""
    from storage.catalog.lookup import find_example, where_used

    place = find_workspace(workspace)
    rows = [
        (row.selection, row.role, str(row.rank), row.format or "", row.path or "not exported")
        for row in where_used(place, find_example(place, example))
    ]
    header = ("selection", "role", "rank", "format", "export")
    sys.stdout.write(table_text(header, rows, right={2}))


def sql(
    query: Annotated[str, typer.Argument(help="One SELECT; `SHOW TABLES` lists what there is.")],
    output: Annotated[
        str, typer.Option("--format", "-f", help="table, csv, json (one object a line), parquet.")
    ] = "table",
    out: Annotated[Path | None, typer.Option(help="File for `-f parquet`.")] = None,
    workspace: WorkspaceOption = HERE,
) -> None:
    """Ask the catalog in SQL, read-only.

    Views: v_selection, v_why, v_source_mix, v_drops, v_lineage, and scores of every example.
    """
    from storage.catalog.sql import run_sql

    if output == "parquet":
        _write_parquet(run_sql(find_workspace(workspace), query), out)
        return
    writers = {"table": _table_text, "csv": _csv_text, "json": _json_text}
    if output not in writers:
        raise InputError(
            "no such format",
            field="--format",
            value=output,
            remedy="Known: table, csv, json, parquet.",
        )
    limit = SQL_ROWS if output == "table" else None
    result = run_sql(find_workspace(workspace), query, max_rows=limit)
    sys.stdout.write(writers[output](result))
    if result.is_cut:
        sys.stderr.write(f"first {SQL_ROWS:,} rows; --format csv or json gives all\n")


def export(
    selection: SelectionArgument = "latest",
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format", "-f", help="messages, original, ids, hf, llama_factory or axolotl."
        ),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="Folder; default exports/<selection>.")] = None,
    workspace: WorkspaceOption = HERE,
) -> None:
    """Write training files of a selection, with a manifest of hashes beside them."""
    from storage.catalog.lookup import find_selections
    from storage.export.export import export_selection

    place = open_workspace(workspace)
    wanted = find_selections(place, selection)
    if out is not None and len(wanted) > 1:
        raise InputError(
            f"one folder for {len(wanted)} selections",
            field="--out",
            value=str(out),
            remedy=f"Name one of them: {', '.join(found.name for found in wanted)}.",
        )
    for found in wanted:
        written = export_selection(
            place, found.selection_id, formats=tuple(formats or ["messages"]), out=out
        )
        names = ", ".join(file.path for file in written.files)
        say(f"{found.n_selected:,} examples in {written.folder}: {names}")


def report(
    selection: SelectionArgument = "latest",
    other: Annotated[
        str | None, typer.Argument(help="A second selection, to compare the two.", metavar="OTHER")
    ] = None,
    workspace: WorkspaceOption = HERE,
) -> None:
    """Write the HTML report of a selection, or of two side by side: one file, works offline."""
    place = open_workspace(workspace)
    if other is not None:
        from storage.report.compare import write_comparison

        say(str(write_comparison(place, selection, other)))
        return
    from storage.catalog.lookup import find_selections
    from storage.report.page import write_report

    for found in find_selections(place, selection):
        say(str(write_report(place, found.name)))


def _table_text(result: "SqlResult") -> str:
    cells = [[_cell(value) for value in row] for row in result.rows]
    numeric = {
        column
        for column, kind in enumerate(result.types)
        if kind in ("BIGINT", "INTEGER", "DOUBLE", "HUGEINT", "FLOAT")
    }
    return table_text(result.columns, cells, numeric) + f"{len(result.rows):,} rows\n"


def _write_parquet(result: "SqlResult", out: Path | None) -> None:
    """Parquet is bytes, so it goes to a file, never to a terminal."""
    import polars as pl

    from storage.files.atomic import write_atomically

    if out is None:
        raise InputError("Parquet needs a file", field="--out", remedy="Add --out answer.parquet.")
    frame = pl.DataFrame(result.rows, schema=list(result.columns), orient="row",
                         infer_schema_length=None)  # fmt: skip
    write_atomically(out, frame.write_parquet)
    say(f"{len(result.rows):,} rows in {out}")


def _cell(value: object) -> str:
    if isinstance(value, float):
        return f"{value:.6g}"
    text = "" if value is None else str(value)
    return one_line(text) if sys.stdout.isatty() else " ".join(text.split())


def _csv_text(result: "SqlResult") -> str:
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(result.columns)
    writer.writerows(result.rows)
    return buffer.getvalue()


def _json_text(result: "SqlResult") -> str:
    lines = (json.dumps(row, ensure_ascii=False, default=str) for row in result.to_pylist())
    return "".join(f"{line}\n" for line in lines)


SUMS = {-1: "all other", -2: "generic"}
PICK_REASONS = {
    "score": "for its score",
    "included": "because it is on the list of examples always to take",
    "floor": "to fill a floor",
    "diversity": "because it differs from what was chosen before; its score alone would not do",
}
"""Words for why a pick was taken; the keys are the names that stand in the data."""


def print_why(found: "Explanation", n_exemplars: int) -> None:
    """Print an explanation; latents are shown beside the `n_exemplars` nearest exemplars."""
    say(f"{found.example_id} in {found.selection.name}: {_place(found)}")
    if found.text:
        say(f"  {one_line(found.text)}")
    if found.reason:
        told = f" ({found.detail})" if found.detail else ""
        say(f"Picked {PICK_REASONS.get(found.reason, found.reason)}{told}.")
    if found.refusal is not None:
        say(f"Not picked: {found.refusal.words} (`{found.refusal.rule}`).")
    if found.change is not None:
        new, old = (_as_yaml(value) for value in (found.change.value, found.change.old))
        say(f"It would be picked with `{found.change.key}: {new}` instead of `{old}`.")
    if found.exemplars:
        say("\nNearest exemplars" + _parts_note(found))
        rows = [
            (
                str(each.nearness) if each.exemplar_id else f"{each.n} others",
                "" if each.similarity is None else f"{each.similarity:.4f}",
                "" if each.part is None else f"{each.part:,}",
                (each.exemplar_id or "")[:12],
                one_line(each.text),
            )
            for each in found.exemplars
        ]
        header = ("nearness", "similarity", "part", "exemplar", "text")
        sys.stdout.write(table_text(header, rows, right={1, 2}))
    shown = list(dict.fromkeys(latent.exemplar_id for latent in found.latents))[:n_exemplars]
    for exemplar_id in shown:
        say(f"\nShared with exemplar {exemplar_id}; first what sets the sample apart")
        lines = [
            (
                latent.space or "",
                SUMS.get(latent.latent, str(latent.latent)),
                f"{latent.contribution:,}",
                "" if latent.share is None else f"{latent.share:.1%}",
                "" if latent.pool_share is None else f"{latent.pool_share:.1%}",
                latent.words,
            )
            for latent in found.latents
            if latent.exemplar_id == exemplar_id
        ]
        columns = (
            "space",
            "latent",
            "contribution",
            "share",
            "in pool",
            "token, or hint at a latent",
        )
        sys.stdout.write(table_text(columns, lines, right={1, 2, 3, 4}))
    if not found.latents:
        say(f"No latents are recorded for it; the method is {found.selection.method}.")


def _place(found: "Explanation") -> str:
    if found.rank is None:
        return "not ranked; `saelect sql` on v_drops counts what was dropped before"
    behind = found.rank - found.selection.n_selected
    place = f"{found.standing}, rank {found.rank:,}"
    if found.standing == "passed over":  # It stands at the end of the order, behind all others.
        behind, place = 0, f"passed over, rank by score {found.score_rank or 0:,}"
    if found.score is not None:
        place += f", score {found.score:.6f}"
    if found.margin is not None:
        place += f", {found.margin:+.6f} from the cut"
    return place + (f" ({behind:,} ranks behind it)" if behind > 0 else "")


def _as_yaml(value: object) -> str:
    """A value as it would stand in a config, on one line; a long one is cut."""
    return one_line(value if isinstance(value, str) else json.dumps(value))


def _parts_note(found: "Explanation") -> str:
    """How the parts make the score, where they do."""
    n = sum(each.n for each in found.exemplars)
    if any(each.part is None for each in found.exemplars):
        return f" (the score is their {found.reduction})"
    total = sum(each.part or 0 for each in found.exemplars)
    return f": the score is the sum of parts {total:,} / ({n} x 2^40)"
