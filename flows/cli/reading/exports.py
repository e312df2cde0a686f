"""`saelect export` and `saelect push`: files of a selection here, on the hub, in an object store.

Input: the published snapshot. Output: files. Neither torch nor prefect is imported.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from flows.cli.options import DEFAULT_WORKSPACE, SelectionArgument, WorkspaceOption
from flows.orchestration.terminal import say
from selection.core.errors import InputError
from selection.core.redaction import without_secrets
from storage.files.workspace import open_workspace


def export(
    selection: SelectionArgument = "latest",
    formats: Annotated[
        list[str] | None,
        typer.Option(
            "--format",
            "-f",
            help="messages, preference, original, ids, hf, llama_factory or axolotl.",
        ),
    ] = None,
    out: Annotated[
        str | None,
        typer.Option("--out", "--to", help="Folder or URL; default exports/<selection>."),
    ] = None,
    columns: Annotated[
        list[str] | None,
        typer.Option(
            "--column", help="Further column: score, rank, weight or reason (repeatable)."
        ),
    ] = None,
    order: Annotated[
        str, typer.Option(help="Order of the rows: score, random or length.")
    ] = "score",
    seed: Annotated[int, typer.Option(help="Of `--order random`.", min=0)] = 0,
    temperature: Annotated[
        float, typer.Option(help="Of `--column weight`, in standard deviations of the scores.")
    ] = 1.0,
    budget: Annotated[
        float | None, typer.Option(help="Only the rows of this budget of a sweep.")
    ] = None,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Write training files of a selection, with a manifest of hashes beside them."""
    from selection.data.training_rows import RowLayout
    from storage.export.export import export_selection
    from storage.queries.lookup import find_selections

    root = open_workspace(workspace)
    layout = RowLayout(tuple(columns or ()), order, seed, temperature, budget)
    rows = find_selections(root, selection)
    if out is not None and len(rows) > 1:
        raise InputError(
            f"one folder for {len(rows)} selections",
            field="--out",
            value=out,
            remedy=f"Name one of them: {', '.join(row.name for row in rows)}.",
        )
    url = out if out is not None and "://" in out else None
    folder = None if out is None or url else Path(out).expanduser()
    for row in rows:
        written = export_selection(
            root, row.selection_id, tuple(formats or ["messages"]), folder, layout
        )
        names = [file.path for file in written.files]
        if url is not None:
            from storage.export.upload.push import push, read_export
            from storage.export.upload.url import look_at_url

            whole = read_export(root, row.selection_id, budget)
            push(root, whole, look_at_url(url, whole))
        destination = without_secrets(url or str(written.folder))
        say(f"{written.n_selected:,} examples in {destination}: {', '.join(names)}")


def push(
    selection: SelectionArgument,
    dataset: Annotated[
        str | None, typer.Argument(help="Dataset of the hub, organisation/name.")
    ] = None,
    to: Annotated[str | None, typer.Option(help="Instead: a URL, such as s3://bucket/folder.")] = (
        None
    ),
    public: Annotated[bool, typer.Option("--public", help="Let everybody see the dataset.")] = (
        False
    ),
    allow_licence: Annotated[
        list[str] | None,
        typer.Option(help="A licence of picks that you may pass on; 'not named' for none."),
    ] = None,
    budget: Annotated[
        float | None, typer.Option(help="Only the rows of this budget of a sweep.")
    ] = None,
    yes: Annotated[bool, typer.Option("--yes", help="Upload without being asked.")] = False,
    workspace: WorkspaceOption = DEFAULT_WORKSPACE,
) -> None:
    """Upload a selection's export to a private dataset of the hub, or to an object store.

    What would be uploaded is shown first. Refused where a licence of the picks does not let
    everybody pass them on.
    """
    from storage.export.licences import refuse_held_back
    from storage.export.upload import push as upload
    from storage.export.upload.hub import look_at_hub
    from storage.export.upload.url import look_at_url

    if (dataset is None) == (to is None) or (to is not None and public):
        raise InputError(
            "one place is needed" if to is None or dataset else "only a dataset can be public",
            field="push",
            remedy="Write `saelect push SELECTION organisation/name`, or `--to URL`.",
        )
    root, allowed = open_workspace(workspace), allow_licence or []
    export = upload.read_export(root, selection, budget)
    refuse_held_back(export.facts.licences, allowed)
    destination = (
        look_at_hub(dataset, export, public=public)
        if dataset is not None
        else look_at_url(to or "", export)
    )
    for line in upload.plan_lines(export, destination):
        say(line)
    if not yes and not (sys.stdin.isatty() and typer.confirm("Upload this?")):
        say("Nothing was uploaded; add --yes to upload it.")
        return
    made = upload.push(root, export, destination, allowed)
    say(f"uploaded to {destination.address}" + (f", commit {made}" if made else ""))
