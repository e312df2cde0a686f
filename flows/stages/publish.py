"""What people take away: training files and a report."""

from collections.abc import Sequence
from dataclasses import replace

from flows.config.jobs import SelectConfig
from flows.orchestration.progress import stage
from storage.export.export import export_selections
from storage.files.workspace import Workspace
from storage.report.page import write_reports
from storage.report.records import ReportFacts


def export_and_report(
    config: SelectConfig, workspace: Workspace, selections: Sequence[str]
) -> list[ReportFacts]:
    """Training files in the config's formats and one report for each selection; what they say."""
    with stage("export", len(selections), "selections") as handle:
        formats = config.export.formats
        layout = config.export.as_layout()
        export_selections(workspace, selections, formats, layout)
        for budget in config.budget.sweep_budgets():
            within = replace(layout, budget=budget.amount)
            export_selections(workspace, selections, formats, within)
        written = []
        for facts in write_reports(workspace, selections):
            written.append(facts)
            handle.advance(1)
        handle.detail = f"{', '.join(formats)} and a report for {', '.join(selections)}"
    return written
