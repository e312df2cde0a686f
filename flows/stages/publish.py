"""What people take away: training files and a report."""

from collections.abc import Sequence

from flows.config.jobs import SelectConfig
from flows.progress import stage
from storage.export import export_selection
from storage.report import write_report
from storage.workspace import Workspace


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
