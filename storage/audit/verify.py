"""`saelect verify`: hash again what is in a workspace and compare with what was recorded.

Pools certify themselves: an example id is the hash of its content. Shards carry hashes in their
manifests, scores are compared with the picks they led to, SAEs and exports with the catalog, and
decisions with their hash chain. Where `saelect forget` removed something, the finding says
"redacted", not "altered".
"""

import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pyarrow.parquet as pq

from selection.core.errors import InputError
from selection.core.hashing import content_id, example_id, file_sha256
from storage.catalog.connection import Connection
from storage.catalog.integrity import differences, head_of
from storage.catalog.snapshot import open_snapshot, open_to_read
from storage.files.atomic import MANIFEST, is_complete, read_json
from storage.files.scores import read_top, scores_file
from storage.files.workspace import Workspace
from storage.pools.shards import open_shards

OK, ALTERED, REDACTED, MISSING = "ok", "altered", "redacted", "missing"
GONE = "[]"
"""What stands in place of the messages of a forgotten example."""


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked. state: ok, altered, redacted (by `forget`) or missing."""

    kind: str
    name: str
    state: str
    detail: str = ""


def verify(workspace: Workspace) -> Iterator[Finding]:
    """Check everything that is there, one finding per thing. Missing bulk files are no alarm."""
    for path in (workspace.snapshot, workspace.catalog):
        if path.exists():
            yield from _catalog(path)
    with open_snapshot(workspace) as connection:
        forgotten = {row[0] for row in connection.execute("SELECT example_id FROM forgotten")
                     .fetchall()}  # fmt: skip
        yield from _scores(connection, workspace)
        yield from _saes(connection)
        yield from _exports(connection, workspace, forgotten)
    for folder in _complete(workspace.pools):
        yield check_pool(folder, forgotten)
    for folder in sorted(workspace.shards.glob("*")):
        yield _shards(folder)


def _catalog(path: Path) -> Iterator[Finding]:
    """One file of the catalog against its chain of commits."""
    with open_to_read(path) as connection:
        found = list(differences(connection))
        yield from (
            Finding("catalog", f"{path.name} {each.name}", ALTERED, each.problem) for each in found
        )
        if not found:
            ((n_forgotten,),) = connection.execute("SELECT count(*) FROM forgotten").fetchall()
            detail = f"{head_of(connection).number:,} commits"
            detail += f", {n_forgotten} samples forgotten" if n_forgotten else ""
            yield Finding("catalog", path.name, REDACTED if n_forgotten else OK, detail)


def _is_content_of(name: str, messages: str, tools: str | None, forgotten: set[str]) -> bool:
    if name in forgotten:
        return messages == GONE
    return example_id(json.loads(messages), json.loads(tools) if tools else None) == name


def _texts_finding(kind: str, name: str, n: int, wrong: list[str], n_gone: int) -> Finding:
    if wrong:
        return Finding(kind, name, ALTERED, f"{len(wrong)} of {n:,}, first {wrong[0]}")
    state = REDACTED if n_gone else OK
    return Finding(kind, name, state, f"{n:,} texts" + (f", {n_gone} forgotten" * bool(n_gone)))


def _scores(connection: Connection, workspace: Workspace) -> Iterator[Finding]:
    """Each ranking's beginning against the picks and near misses that came of it."""
    rows = connection.execute("SELECT selection_id, n_selected FROM selection").fetchall()
    for selection_id, n_selected in rows:
        file = scores_file(workspace.scores, selection_id)
        if not file.exists():
            yield Finding("ranking", selection_id, MISSING, "scores are not in this workspace")
            continue
        recorded = connection.execute(
            "SELECT rank, example_id, score FROM pick WHERE selection_id = $1 UNION ALL"
            " SELECT rank, example_id, score FROM near_miss WHERE selection_id = $1 ORDER BY 1",
            [selection_id],
        ).fetchall()
        said = connection.execute(
            "SELECT detail->>? FROM event WHERE action = 'selected' AND detail IS NOT NULL",
            [f"$.scores.{json.dumps(selection_id)}"],
        ).fetchall()
        hashes = {row[0] for row in said if row[0]}
        try:
            top, n_ranks = read_top(file, len(recorded))
        except (OSError, ValueError) as error:
            yield Finding("ranking", selection_id, ALTERED, str(error).split("\n")[0])
            continue
        same = top == recorded and len(recorded) >= n_selected
        same &= not hashes or file_sha256(file) in hashes
        yield Finding("ranking", selection_id, OK if same else ALTERED, f"{n_ranks:,} ranks")


def _saes(connection: Connection) -> Iterator[Finding]:
    """SAEs that are still where the run found them, weights hashed again."""
    rows = connection.execute(
        "SELECT DISTINCT artifact, sha256 FROM artifact"
        " WHERE step = 'represent' AND starts_with(artifact, 'sae ') ORDER BY 1"
    ).fetchall()
    for artifact, sha256 in rows:
        path = artifact.removeprefix("sae ")
        if not Path(path).exists():
            yield Finding("sae", path, MISSING, "not on this machine")
            continue
        from selection.sae.formats.load import load_sae  # imports torch

        try:
            same = load_sae(path).info.sha256 == sha256
        except InputError as error:
            yield Finding("sae", path, ALTERED, error.problem)
        else:
            yield Finding("sae", path, OK if same else ALTERED)


def _exports(
    connection: Connection, workspace: Workspace, forgotten: set[str]
) -> Iterator[Finding]:
    """Exported files against the newest record of each path, and the heads in their manifests."""
    rows = connection.execute(
        "SELECT path, arg_max(sha256, created_at), arg_max(selection_id, created_at) FROM export"
        " GROUP BY path ORDER BY path"
    ).fetchall()
    touched = connection.execute(
        "SELECT DISTINCT selection_id FROM pick SEMI JOIN forgotten USING (example_id)"
    ).fetchall()
    links = set(connection.execute("SELECT number, sha256 FROM catalog_commit").fetchall())
    folders = set()
    for name, sha256, selection_id in rows:
        path = workspace.root / name
        folders.add(path.parent)
        if not path.exists():
            yield Finding("export", name, MISSING)
            continue
        same = _hash_of(path) == sha256
        clean = REDACTED if forgotten and (selection_id,) in touched else OK
        yield Finding("export", name, clean if same else ALTERED)
    for folder in sorted(folders):
        head = read_json(folder / MANIFEST).get("commit") if is_complete(folder) else None
        if isinstance(head, dict):
            known = (head["number"], head["sha256"]) in links
            detail = "" if known else "its commit is not in the chain of this catalog"
            name = workspace.relative(folder / MANIFEST)
            yield Finding("manifest", name, OK if known else ALTERED, detail)


def _hash_of(path: Path) -> str:
    """Hash as an export records it: of a file, or of the hashes of a folder's files."""
    if path.is_dir():
        inside = sorted(p for p in path.rglob("*") if p.is_file())
        return content_id({p.relative_to(path).as_posix(): file_sha256(p) for p in inside}, 64)
    return file_sha256(path)


def check_pool(folder: Path, forgotten: set[str]) -> Finding:
    """Every example of a prepared pool against its id."""
    wrong: list[str] = []
    n = n_gone = 0
    for part in sorted(folder.glob("examples-*.parquet")):
        try:
            with pq.ParquetFile(part) as file:
                for batch in file.iter_batches(4096, columns=["example_id", "messages", "tools"]):
                    for row in batch.to_pylist():
                        n, n_gone = n + 1, n_gone + (row["example_id"] in forgotten)
                        name, messages, tools = row.values()
                        if not _is_content_of(name, messages, tools, forgotten):
                            wrong.append(row["example_id"])
        except (OSError, ValueError) as error:
            return Finding("pool", folder.name, ALTERED, str(error).split("\n")[0])
    if n != read_json(folder / MANIFEST).get("n_examples"):
        return Finding("pool", folder.name, ALTERED, f"{n:,} examples, not as in its manifest")
    return _texts_finding("pool", folder.name, n, wrong, n_gone)


def _shards(folder: Path) -> Finding:
    """Every array of a representation against its shard's manifest."""
    try:
        shards = open_shards(folder)
        shards.verify()
    except InputError as error:
        return Finding("shards", folder.name, ALTERED, f"{error.file}: {error.problem}")
    gone = sum(int(read_json(s.folder / MANIFEST).get("redacted", 0) or 0) for s in shards.shards)  # type: ignore[call-overload]
    state = REDACTED if gone else OK
    return Finding("shards", folder.name, state, f"{len(shards)} shards")


def _complete(home: Path) -> list[Path]:
    return sorted(f for f in home.glob("*") if is_complete(f)) if home.is_dir() else []


def summary(findings: list[Finding]) -> dict[str, int]:
    """Number of findings by state."""
    return dict(Counter(finding.state for finding in findings))
