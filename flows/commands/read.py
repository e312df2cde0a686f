"""The light half of the command line: it reads the published snapshot and starts at once."""

import csv
import io
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.commands.terminal import one_line, say, table_text
from selection.errors import InputError
from storage.workspace import DEFAULT, find_workspace, open_workspace

if TYPE_CHECKING:
    from storage.sql import SqlResult

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
    from storage.read import list_selections

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
    from storage.check_words import check_lines
    from storage.read import find_selections, picks
    from storage.report_picks import first_reasons

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
    from flows.commands.why import print_why
    from storage.explanation import explain

    place = find_workspace(workspace)
    print_why(explain(place, selection, example), n)


def diff(first: str, second: str, workspace: WorkspaceOption = HERE) -> None:
    """What two selections have in common, and what only one of them has."""
    from storage.read import diff

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
    from storage.read import find_example, where_used

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
    from storage.sql import run_sql

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
    from storage.export import export_selection
    from storage.read import find_selections

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
        from storage.report_compare import write_comparison

        say(str(write_comparison(place, selection, other)))
        return
    from storage.read import find_selections
    from storage.report import write_report

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

    from storage.files import write_atomically

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
