"""A push: an export as the catalog has it, a place that nothing is in the way of, and the record.

What leaves is recorded before it leaves, as with every export: so a text is nowhere that
`where-used` does not name. Whether it arrived is told by the event that follows.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from selection.core.errors import InputError
from selection.core.hashing import content_id, file_sha256
from selection.core.numbers import plural, size
from storage.catalog.commit import commit
from storage.catalog.recorded import files_in, recorded_files
from storage.catalog.rows import NewRows
from storage.catalog.snapshot import open_snapshot
from storage.export.cards import CARD
from storage.export.export import export_folder
from storage.export.facts import selection_facts
from storage.export.licences import NOT_NAMED
from storage.export.upload.destination import Destination, WholeExport
from storage.files.atomic import MANIFEST, read_json
from storage.files.in_use import in_use
from storage.files.workspace import Workspace
from storage.queries.lookup import selection_in


def read_export(workspace: Workspace, selection: str, budget: float | None = None) -> WholeExport:
    """The export of a selection in the workspace, every file checked against the catalog.

    budget: of a sweep, whose rows have a folder of their own.
    Raises InputError where there is none, or where a file is not as it was written.
    """
    with open_snapshot(workspace) as connection:
        row = selection_in(connection, workspace, selection)
        facts = selection_facts(connection, row, budget)
        recorded = recorded_files(connection)
    folder = export_folder(workspace, facts, None, budget)
    if not (folder / MANIFEST).exists():
        raise InputError(
            "the selection was not exported",
            file=folder,
            field="selection",
            value=facts.name,
            remedy=f"Run `saelect export {facts.name}` first; `--format` names the files.",
        )
    files = read_json(folder / MANIFEST)["files"]
    assert isinstance(files, list)
    tops = [folder / str(file["path"]) for file in files]
    data = [path for top in tops for path in (files_in([top]) if top.is_dir() else [top])]
    hashes = {}
    for path in [*data, folder / CARD, folder / MANIFEST]:
        known = recorded.get(workspace.relative(path))
        if known is None or not path.is_file() or file_sha256(path) != known.sha256:
            raise InputError(
                "missing, or not as it was exported",
                file=path,
                remedy=f"Run `saelect export {facts.name}` again.",
            )
        hashes[path.relative_to(folder).as_posix()] = str(known.sha256)
    return WholeExport(facts, folder, files, hashes)


def plan_lines(export: WholeExport, destination: Destination) -> list[str]:
    """What a push would do, in lines for people: the dry run."""
    facts = export.facts
    tokens = facts.selection["n_tokens"]
    counted = "" if tokens is None else f", {tokens:,} tokens"
    named = [str(file["path"]) for file in export.files]
    licences = (f"{licence or NOT_NAMED} {n:,}" for licence, n in facts.licences.items())
    return [
        f"{facts.name}: {plural(facts.n_selected, 'sample')}{counted}",
        f"  to        {destination.words}",
        f"  files     {', '.join([*named, CARD, MANIFEST])}: {size(export.n_bytes)}",
        f"  licences  {', '.join(licences)}",
        *(f"  check     {line}" for line in facts.check),
    ]


def push(
    workspace: Workspace, export: WholeExport, destination: Destination, allowed: Sequence[str] = ()
) -> str | None:
    """Record an export, put it there, and record how that ended; returns the commit of a hub.

    allowed: licences that the user said may be passed on.
    Raises InputError where the export changed since it was read, or could not be uploaded.
    """
    with in_use(workspace):
        again = read_export(workspace, export.facts.selection_id, export.facts.budget)
        if again.sha256 != export.sha256:
            raise InputError(
                "the export was changed meanwhile",
                file=export.folder,
                remedy="Repeat the command.",
            )
        begun = {"allowed_licences": list(allowed)}
        _record(workspace, export, destination, "push_began", begun, _rows(export, destination))
        try:
            made = destination.upload(export)
        except BaseException as error:
            _record(workspace, export, destination, "push_failed", {"error": type(error).__name__})
            raise
        _record(workspace, export, destination, "pushed", {"commit": made})
    return made


def _record(
    workspace: Workspace,
    export: WholeExport,
    destination: Destination,
    action: str,
    detail: Mapping[str, object],
    rows: NewRows = (),
) -> None:
    """Write an event about a push into the catalog, and rows of `export`."""
    event = {
        "at": datetime.now(UTC),
        "run_id": export.facts.run_id,
        "selection_id": export.facts.selection_id,
        "action": action,
        "detail": {"to": destination.address, **detail},
    }
    commit(workspace, {"event": [event], "export": rows})


def _rows(export: WholeExport, destination: Destination) -> list[dict[str, object]]:
    """A row of `export` for each file, as exports to folders have them."""
    at = datetime.now(UTC)
    rows = [
        {
            "selection_id": export.facts.selection_id,
            "path": f"{destination.address}/{file['path']}",
            **{key: file[key] for key in ("format", "sha256", "rows", "layout")},
        }
        for file in export.files
    ]
    return [
        {**row, "export_id": content_id([row, at.isoformat()]), "created_at": at} for row in rows
    ]
