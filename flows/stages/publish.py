"""What people take away: training files, a report, and the top picks for the Prefect page."""

from collections.abc import Sequence

from flows.config.jobs import SelectConfig
from flows.progress import stage
from storage.export import export_selection
from storage.report import write_report
from storage.sql import run_sql
from storage.workspace import Workspace

SHOWN_PICKS = 25


def export_and_report(
    config: SelectConfig, workspace: Workspace, selections: Sequence[str]
) -> None:
    """Training files in the config's formats and one report for each named selection."""
    with stage("export", len(selections), "selections") as handle:
        for name in selections:
            export_selection(workspace, name, formats=config.export)
            write_report(workspace, name)
            handle.advance(1)
        handle.detail = f"{', '.join(config.export)} and a report for {', '.join(selections)}"


def top_picks(workspace: Workspace, selection: str) -> list[dict[str, object]]:
    """The first picks of a selection with score, source and text."""
    name = selection.replace("'", "''")
    table = run_sql(
        workspace,
        "SELECT rank, score, source, tokens, text FROM v_selection"
        f" WHERE selection = '{name}' ORDER BY rank LIMIT {SHOWN_PICKS}",
    )
    rows: list[dict[str, object]] = table.to_pylist()
    return rows
