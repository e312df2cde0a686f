"""`saelect report`: the HTML page of a selection, or of two side by side."""

import sys
import webbrowser
from typing import Annotated

import typer

from flows.cli.options import DEFAULT_WORKSPACE, SelectionArgument, WorkspaceOption
from flows.orchestration.terminal import say
from storage.files.workspace import open_workspace


def report(
    selection: SelectionArgument = "latest",
    other: Annotated[
        str | None, typer.Argument(help="A second selection, to compare the two.", metavar="OTHER")
    ] = None,
    show: Annotated[bool, typer.Option("--open", help="Show it in the browser.")] = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Write the HTML report of a selection, or of two side by side: one file, works offline."""
    root = open_workspace(workspace)
    if other is not None:
        from storage.report.compare import write_comparison

        pages = [write_comparison(root, selection, other)]
    else:
        from storage.queries.lookup import find_selections
        from storage.report.page import write_report

        pages = [write_report(root, row.name) for row in find_selections(root, selection)]
    for page in pages:
        say(str(page))
        if show and not webbrowser.open(page.resolve().as_uri()):
            sys.stderr.write("saelect: no browser could be started here; open the file yourself\n")
