"""Training files of a selection. Reads the snapshot only: pools and shards may be gone.

Rows hold what is trained on and an id; where they came from stands beside them, in `ids.csv`,
`manifest.json` and the catalog, never in the rows.
"""

import logging
import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field, fields, replace
from datetime import UTC, datetime
from pathlib import Path

from selection.core.errors import InputError
from selection.core.hashing import content_id, file_sha256
from selection.data.training_rows import RowLayout, axolotl_yaml, llama_factory_info
from storage.catalog.commit import commit
from storage.catalog.connection import Connection
from storage.catalog.integrity import Head, head_of
from storage.catalog.recorded import EXPORT, file_row, files_in
from storage.catalog.rows import NewRows
from storage.catalog.snapshot import open_snapshot
from storage.export import cards
from storage.export import formats as export_files
from storage.export.facts import SelectionFacts, selection_facts
from storage.files.atomic import (
    MANIFEST,
    ensure_free,
    is_temp,
    json_bytes,
    read_json,
    remove_stale_temps,
    sync_folder,
    temp_path,
    write_bytes,
    write_json,
)
from storage.files.in_use import in_use
from storage.files.workspace import Workspace, file_name, refuse_link
from storage.queries.lookup import selection_in

log = logging.getLogger(__name__)

FORMATS = ("messages", "preference", "original", "ids", "hf", "llama_factory", "axolotl")
_HOUR_S = 3600.0


@dataclass(frozen=True, slots=True)
class ExportedFile:
    """One file of an export; a dataset folder counts as one file.

    path: relative to the export's folder. rows: None for files that hold no rows.
    left_out: reason -> ids of picks that a trainer would pass over, and that the file lacks.
    layout: columns and order of the rows, where they are not the default.
    """

    path: str
    format: str
    sha256: str
    bytes: int
    rows: int | None
    left_out: Mapping[str, Sequence[str]] = field(default_factory=dict)
    layout: Mapping[str, object] | None = None


@dataclass(frozen=True, slots=True)
class Exported:
    """What an export left: its folder, and the files written by this call."""

    selection: str
    folder: Path
    files: Sequence[ExportedFile]
    n_selected: int


@dataclass(frozen=True, slots=True)
class _Begun:
    """An export whose files are written and neither recorded nor in place yet.

    staged: where they are, in `folder` under a temporary name. shape: is_plain, has_tools.
    """

    facts: SelectionFacts
    folder: Path
    staged: Path
    files: Sequence[ExportedFile]
    shape: tuple[bool, bool]
    layout: RowLayout


def export_selection(
    workspace: Workspace,
    selection: str,
    formats: Sequence[str] = ("messages",),
    out: Path | None = None,
    layout: RowLayout | None = None,
) -> Exported:
    """Write a selection's training files and record them in the catalog.

    selection: name, id, prefix or `latest`.
    formats:   messages       train.jsonl and train.parquet, rows {id, messages[, tools]}
               preference     preference.jsonl, rows {id, prompt, chosen, rejected} for DPO
               original       original.jsonl, the pool's rows unchanged
               ids            ids.csv, every place that each example came from
               hf             hf_dataset/, for datasets.load_from_disk
               llama_factory  llama_factory.jsonl, those that it trains on, and dataset_info.json
               axolotl        axolotl.yaml beside train.jsonl
    out:       folder; default `exports/<selection>/` of the workspace.
    layout:    order of the rows, and further columns; `original` and `ids` have their own columns,
               `ids` its own order.

    README.md and manifest.json (written last) describe all files of the folder, those of earlier
    exports of the same selection included. Raises InputError for unknown names and formats, for a
    folder that holds other files of these names, and when the disk is full.
    """
    chosen = _chosen_formats(formats)
    return _export(workspace, [selection], chosen, out, layout or RowLayout())[0]


def export_selections(
    workspace: Workspace,
    selections: Sequence[str],
    formats: Sequence[str] = ("messages",),
    layout: RowLayout | None = None,
) -> list[Exported]:
    """As `export_selection` for several selections, recorded in one commit."""
    return _export(workspace, selections, _chosen_formats(formats), None, layout or RowLayout())


def _export(
    workspace: Workspace,
    selections: Sequence[str],
    chosen: Sequence[str],
    out: Path | None,
    layout: RowLayout,
) -> list[Exported]:
    """Write all files under temporary names, record them, and give them their names.

    So wherever it is stopped, no copy of a text stays of which the catalog does not know.
    """
    with in_use(workspace), ExitStack() as staged:
        with open_snapshot(workspace) as connection:
            begun = [
                _begin(connection, workspace, name, chosen, out, layout, staged)
                for name in selections
            ]
        return _exported(workspace, begun)


def _begin(
    connection: Connection,
    workspace: Workspace,
    selection: str,
    chosen: Sequence[str],
    out: Path | None,
    layout: RowLayout,
    held: ExitStack,
) -> _Begun:
    """Write the files of one export. held: removes what is left of their temporary folder."""
    row = selection_in(connection, workspace, selection)
    facts = selection_facts(connection, row, layout.budget)
    folder = export_folder(workspace, facts, out, layout.budget)
    ensure_free(folder, 4 * facts.n_content_bytes, "the export")
    remove_stale_temps(folder, _HOUR_S)
    rows = export_files.SelectedRows(connection, row.selection_id, layout)
    staged = temp_path(folder / "export")
    held.callback(shutil.rmtree, staged, ignore_errors=True)
    files = [
        _describe(staged, path, name, n_rows)
        for name in chosen
        for path, n_rows in _WRITERS[name](staged, rows, facts)
    ]
    given = None if layout == RowLayout() else asdict(layout)
    files = [
        replace(file, left_out=rows.left_out.get(file.path, {}), layout=given) for file in files
    ]
    return _Begun(facts, folder, staged, files, (rows.is_plain, rows.has_tools), layout)


def _exported(workspace: Workspace, begun: Sequence[_Begun]) -> list[Exported]:
    """Record exports in the catalog, put their files in place, then cards and manifests.

    These name the head of the catalog.
    """
    created_at = datetime.now(UTC)
    described: dict[Path, bytes] = {}

    def rows(connection: Connection) -> dict[str, NewRows]:
        for each in begun:
            described.update(_descriptions(each, created_at, head_of(connection)))
        return _rows(workspace, begun, created_at, described)

    commit(workspace, rows)
    for each in begun:
        for entry in sorted(each.staged.iterdir()):
            final = each.folder / entry.name
            if entry.is_dir():
                shutil.rmtree(final, ignore_errors=True)
            os.replace(entry, final)
        sync_folder(each.folder)
    for path, content in described.items():
        write_bytes(path, content)
    for each in begun:
        log.info("exported %s to %s", each.facts.name, each.folder)
    return [
        Exported(each.facts.name, each.folder, each.files, each.facts.n_selected) for each in begun
    ]


Written = Sequence[tuple[str, int | None]]
Writer = Callable[[Path, export_files.SelectedRows, SelectionFacts], Written]


def _messages(folder: Path, rows: export_files.SelectedRows, facts: SelectionFacts) -> Written:
    export_files.write_jsonl(folder / "train.jsonl", rows)
    export_files.write_parquet(folder / "train.parquet", rows)
    return [("train.jsonl", rows.n_rows), ("train.parquet", rows.n_rows)]


def _preference(folder: Path, rows: export_files.SelectedRows, facts: SelectionFacts) -> Written:
    n_rows = export_files.write_preferences(folder / "preference.jsonl", rows)
    return [("preference.jsonl", n_rows)]


def _original(folder: Path, rows: export_files.SelectedRows, facts: SelectionFacts) -> Written:
    export_files.write_original(folder / "original.jsonl", rows)
    return [("original.jsonl", rows.n_rows)]


def _ids(folder: Path, rows: export_files.SelectedRows, facts: SelectionFacts) -> Written:
    return [("ids.csv", export_files.write_ids(folder / "ids.csv", rows))]


def _hf(folder: Path, rows: export_files.SelectedRows, facts: SelectionFacts) -> Written:
    export_files.write_hf_dataset(folder / "hf_dataset", rows)
    return [("hf_dataset", rows.n_rows)]


def _llama_factory(folder: Path, rows: export_files.SelectedRows, facts: SelectionFacts) -> Written:
    name = "llama_factory.jsonl"
    n_rows, left_out = export_files.write_llama_factory(folder / name, rows)
    rows.left_out[name] = left_out
    if left_out:
        reasons = "; ".join(f"{len(ids):,} {reason}" for reason, ids in left_out.items())
        log.warning("LLaMA-Factory would pass over picks, they are left out: %s", reasons)
    write_json(folder / "dataset_info.json", llama_factory_info(facts.name, name))
    return [(name, n_rows), ("dataset_info.json", None)]


def _axolotl(folder: Path, rows: export_files.SelectedRows, facts: SelectionFacts) -> Written:
    in_order = rows.layout.order == "length"
    settings = axolotl_yaml(has_tools=rows.has_tools, in_order=in_order)
    write_bytes(folder / "axolotl.yaml", settings.encode())
    return [("axolotl.yaml", None)]


_WRITERS: Mapping[str, Writer] = {
    "messages": _messages,
    "preference": _preference,
    "original": _original,
    "ids": _ids,
    "hf": _hf,
    "llama_factory": _llama_factory,
    "axolotl": _axolotl,
}


def _chosen_formats(formats: Sequence[str]) -> list[str]:
    """Formats in a fixed order, once each; a trainer's settings bring the file they name."""
    wanted = {name.replace("-", "_") for name in formats}
    unknown = sorted(wanted.difference(FORMATS))
    if unknown or not wanted:
        raise InputError(
            "unknown format" if unknown else "no format is named",
            field="format",
            value=", ".join(unknown) or None,
            remedy=f"There are: {', '.join(FORMATS)}.",
        )
    if "axolotl" in wanted:
        wanted.add("messages")
    return [name for name in FORMATS if name in wanted]


def export_folder(
    workspace: Workspace, facts: SelectionFacts, out: Path | None, budget: float | None
) -> Path:
    """Folder of an export; another selection's export is never overwritten.

    budget: of a sweep, whose rows have a folder of their own.
    """
    if out is not None:
        if out.is_file():
            raise InputError(
                "a file is in the way", file=out, remedy="Name a folder with --out DIR."
            )
        owner = _owner(out)
        others = out.iterdir() if out.is_dir() else ()
        if owner != facts.selection_id and any(not is_temp(path) for path in others):
            raise InputError(
                "the folder holds other files, which an export could overwrite",
                file=out,
                remedy="Name a new or empty folder with --out DIR.",
            )
        return out
    folder = workspace.exports / file_name(facts.name)
    refuse_link(workspace, folder)
    if _owner(folder) not in (None, facts.selection_id):
        folder = folder.with_name(f"{folder.name}-{facts.selection_id[:8]}")
    return folder if budget is None else folder / f"budget-{budget:.12g}"


def _owner(folder: Path) -> object:
    """Id of the selection whose export is in a folder; None where there is no export."""
    manifest = folder / MANIFEST
    return read_json(manifest).get("selection_id") if manifest.exists() else None


def _describe(folder: Path, path: str, name: str, n_rows: int | None) -> ExportedFile:
    full = folder / path
    if full.is_dir():
        inside = sorted(p for p in full.rglob("*") if p.is_file())
        hashes = {p.relative_to(full).as_posix(): file_sha256(p) for p in inside}
        n_bytes = sum(p.stat().st_size for p in inside)
        return ExportedFile(path, name, content_id(hashes, 64), n_bytes, n_rows)
    return ExportedFile(path, name, file_sha256(full), full.stat().st_size, n_rows)


def _rows(
    workspace: Workspace,
    begun: Sequence[_Begun],
    created_at: datetime,
    described: Mapping[Path, bytes],
) -> dict[str, NewRows]:
    """One row per file and one event per export, so that `where-used` can name what holds what."""
    exports, events, files = [], [], []
    for each in begun:
        for file in each.files:
            row = {
                "selection_id": each.facts.selection_id,
                "format": file.format,
                "path": workspace.relative(each.folder / file.path),
                "sha256": file.sha256,
                "rows": file.rows,
                "layout": file.layout,
            }
            export_id = content_id([row, created_at.isoformat()])
            exports.append({**row, "export_id": export_id, "created_at": created_at})
            path = each.staged / file.path
            for one in files_in([path]) if path.is_dir() else [path]:
                final = each.folder / one.relative_to(each.staged)
                files.append(file_row(workspace, EXPORT, final, created_at, one))
        events.append(
            {
                "at": created_at,
                "run_id": each.facts.run_id,
                "selection_id": each.facts.selection_id,
                "action": "exported",
                "detail": {
                    "folder": workspace.relative(each.folder),
                    "files": [file.path for file in each.files],
                },
            }
        )
    files += [
        file_row(workspace, EXPORT, path, created_at, content)
        for path, content in described.items()
    ]
    return {"export": exports, "event": events, "recorded_file": files}


def _descriptions(each: _Begun, created_at: datetime, head: Head) -> dict[Path, bytes]:
    """Card and manifest, which list this call's files and earlier ones that are still there."""
    facts, folder = each.facts, each.folder
    files = {file.path: asdict(file) for file in each.files}
    earlier = read_json(folder / MANIFEST).get("files") if (folder / MANIFEST).exists() else None
    for file in earlier if isinstance(earlier, list) else []:
        is_whole = isinstance(file, dict) and file.keys() == {f.name for f in fields(ExportedFile)}
        if is_whole and (folder / str(file["path"])).exists():
            files.setdefault(str(file["path"]), file)
    listed = [files[path] for path in sorted(files)]
    is_plain, has_tools = each.shape
    layout = each.layout
    card = cards.dataset_card(facts, listed, layout, is_plain=is_plain, has_tools=has_tools)
    is_uniform = is_plain and not has_tools
    manifest = cards.manifest(facts, listed, created_at, head, is_uniform=is_uniform)
    return {folder / cards.CARD: card.encode(), folder / MANIFEST: json_bytes(manifest)}
