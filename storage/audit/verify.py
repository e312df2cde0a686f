"""`saelect verify`: hash again what is in a workspace and compare with what was recorded.

Both files of the catalog against their chain of commits, which covers every row, table and view;
every file that the catalog vouches for against its hash: exports, reports, bundles, units, and
the manifests of pools, renderings and shards with all files that these name; rankings and SAEs.
Where `saelect forget` removed something, the finding says "redacted", not "altered".
"""

import json
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from selection.core.errors import InputError
from selection.core.hashing import file_sha256
from selection.core.numbers import plural
from storage.catalog.connection import Connection, DatabaseError, first_line, functions_in
from storage.catalog.integrity import Head, differences, head_of
from storage.catalog.recorded import (
    BUNDLE,
    EXPORT,
    NAMING,
    POOL,
    RENDERING,
    REPORT,
    SHARDS,
    UNIT,
    files_in,
    recorded_files,
)
from storage.catalog.snapshot import open_snapshot, open_to_read
from storage.files.atomic import MANIFEST, is_temp, read_json
from storage.files.in_use import Busy, in_use
from storage.files.scores import iter_scores_files, scores_file
from storage.files.workspace import Workspace, is_marked

OK, ALTERED, REDACTED, MISSING, UNCHECKED = "ok", "altered", "redacted", "missing", "unchecked"
IN_PROGRESS = "in progress"  # a `forget`


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was checked.

    state: ok, altered, redacted (by `forget`), missing, unchecked for what is not here to check, or
           in progress: a `forget` is at work, and nothing is checked.
    """

    kind: str
    name: str
    state: str
    detail: str = ""


def verify(workspace: Workspace, expected: Head | None = None) -> Iterator[Finding]:
    """Check everything that was recorded, one finding per thing.

    expected: a head of the chain that was written down before; the chain must still have it.
    """
    try:
        with in_use(workspace, wait_s=0):
            if workspace.forget_journal.exists():
                detail = "it was stopped; any command that may write here carries on with it"
                yield Finding("workspace", "forget", IN_PROGRESS, detail)
                return
            yield from _check(workspace, expected)
    except Busy as error:
        yield Finding("workspace", "forget", IN_PROGRESS, error.problem)


def _check(workspace: Workspace, expected: Head | None) -> Iterator[Finding]:
    chains: list[list[Head]] = []
    for path in (workspace.snapshot, workspace.catalog):  # the catalog last: it may grow meanwhile
        if path.exists():
            yield from _catalog(path, expected, chains)
        elif is_marked(workspace):  # else it is a copy of the snapshot alone
            yield Finding("catalog", path.name, MISSING, "the next write makes it again")
    if len(chains) == 2:
        yield from _together(*chains)
    try:
        with open_snapshot(workspace) as connection:
            yield from _scores(connection, workspace)
            yield from _saes(connection)
            yield from _files(connection, workspace)
            yield from _unrecorded(connection, workspace)
    except InputError as error:  # pages of the file are damaged
        yield Finding("catalog", workspace.snapshot.name, ALTERED, error.problem)


def head(workspace: Workspace) -> Head:
    """The newest commit of the published catalog."""
    with open_snapshot(workspace) as connection:
        return head_of(connection)


def _catalog(path: Path, expected: Head | None, chains: list[list[Head]]) -> Iterator[Finding]:
    """One file of the catalog against its chain of commits, and the chain against a head.

    chains: gets the chain, where the file can be read.
    """
    try:
        if functions := functions_in(path):
            problem = f"it has functions, which saelect never makes: {', '.join(functions)}"
            yield Finding(
                "catalog", path.name, ALTERED, f"{problem}; no answer of it can be trusted"
            )
            return
        with open_to_read(path) as connection:
            problems = [(each.name, each.problem) for each in differences(connection)]
            here = head_of(connection)
            links = connection.execute(
                "SELECT number, sha256 FROM catalog_commit ORDER BY number"
            ).fetchall()
            ((n_forgotten,),) = connection.execute("SELECT count(*) FROM forgotten").fetchall()
    except (InputError, DatabaseError) as error:
        problem = error.problem if isinstance(error, InputError) else first_line(error)
        yield Finding("catalog", path.name, ALTERED, problem)
        return
    chains.append([Head(*link) for link in links])
    if expected is not None and expected not in chains[-1]:
        problems.append((f"commit {expected.number}", "the expected head is not in this chain"))
    yield from (Finding("catalog", f"{path.name}: {name}", ALTERED, p) for name, p in problems)
    if not problems:
        detail = f"{here.number:,} commits"
        detail += f", {n_forgotten} samples forgotten" if n_forgotten else ""
        yield Finding("catalog", path.name, REDACTED if n_forgotten else OK, detail)


def _together(published: list[Head], written: list[Head]) -> Iterator[Finding]:
    """Whether the catalog has every commit that was published."""
    n_common = min(len(published), len(written))
    if published[:n_common] != written[:n_common]:
        problem = "catalog.duckdb and snapshot.duckdb have different histories"
        yield Finding("catalog", "both files", ALTERED, problem)
    elif len(published) > n_common:
        n_lost = len(published) - n_common
        problem = f"it lacks {plural(n_lost, 'commit')} that snapshot.duckdb has"
        yield Finding("catalog", "catalog.duckdb", ALTERED, problem)
    elif len(written) > n_common:
        n_more = plural(len(written) - n_common, "commit")
        problem = f"{n_more} of catalog.duckdb are not published; the next write does it"
        yield Finding("catalog", "snapshot.duckdb", UNCHECKED, problem)


def _scores(connection: Connection, workspace: Workspace) -> Iterator[Finding]:
    """The file of every ranking against the hash in the event of its run, and files of none."""
    events = connection.execute(
        "SELECT detail->>'$.scores' FROM event WHERE action = 'selected'"
    ).fetchall()
    hashes = {
        name: sha256 for (text,) in events for name, sha256 in json.loads(text or "{}").items()
    }
    known = connection.execute("SELECT selection_id FROM selection ORDER BY 1").fetchall()
    for path in iter_scores_files(workspace.scores):
        if (path.stem,) not in known:
            detail = "of no recorded selection; `saelect sql` leaves it out"
            yield Finding("ranking", path.name, UNCHECKED, detail)
    for (selection_id,) in known:
        sha256 = hashes.get(selection_id)
        file = scores_file(workspace.scores, selection_id)
        if sha256 is None:
            yield Finding("ranking", selection_id, UNCHECKED, "no hash was recorded")
        else:
            yield Finding("ranking", selection_id, _state(file, sha256))


def _saes(connection: Connection) -> Iterator[Finding]:
    """SAEs that are still where the run found them, weights hashed again."""
    rows = connection.execute(
        "SELECT DISTINCT artifact, sha256 FROM artifact"
        " WHERE step = 'represent' AND starts_with(artifact, 'sae ') ORDER BY 1"
    ).fetchall()
    for artifact, sha256 in rows:
        path = artifact.removeprefix("sae ")
        if not Path(path).exists():
            yield Finding("sae", path, UNCHECKED, "not on this machine")
            continue
        from selection.sae.formats.load import load_sae  # imports torch

        try:
            same = load_sae(path).info.sha256 == sha256
        except InputError as error:
            yield Finding("sae", path, ALTERED, error.problem)
        else:
            yield Finding("sae", path, OK if same else ALTERED)


def _files(connection: Connection, workspace: Workspace) -> Iterator[Finding]:
    """Recorded files against their hashes, and files beside them that nobody recorded."""
    recorded = recorded_files(connection)
    rewritten = {row[0] for row in connection.execute(_REDACTED).fetchall()}
    for name, file in recorded.items():
        path = workspace.root / name
        if file.sha256 is None:
            if path.exists():
                yield Finding(file.kind, name, ALTERED, "it was removed and is there again")
            continue
        state, detail = _state(path, file.sha256), ""
        if state == OK and file.kind in NAMING:
            state, detail = check_named_files(path)
        yield Finding(
            file.kind, name, REDACTED if state == OK and name in rewritten else state, detail
        )
    folders = [workspace.exports, workspace.reports, workspace.bundles]
    for name, file in recorded.items():
        if file.kind in (EXPORT, BUNDLE) and name.endswith(f"/{MANIFEST}"):
            folders.append((workspace.root / name).parent)
    for path in sorted(set(files_in(folders))):
        if (name := workspace.relative(path)) not in recorded:
            kinds = {workspace.reports: REPORT, workspace.bundles: BUNDLE}
            kind = next((k for f, k in kinds.items() if path.is_relative_to(f)), EXPORT)
            if is_temp(Path(name)):
                detail = "of a command at work, or of a stopped one: a later one removes it"
                yield Finding(kind, name, UNCHECKED, detail)
            else:
                yield Finding(kind, name, ALTERED, "nobody recorded it")


def _unrecorded(connection: Connection, workspace: Workspace) -> Iterator[Finding]:
    """What a later run would reuse, beside recorded files, and no recorded run has used."""
    recorded = recorded_files(connection)
    for kind, pattern in _REUSED.items():
        known = {workspace.root / name for name, file in recorded.items() if file.kind == kind}
        others = set(workspace.root.glob(pattern)) - known
        beside = {_home(path, kind) for path in known}
        n = Counter(_home(path, kind) for path in others if not is_temp(path))
        for folder in sorted(beside & n.keys()):
            what = "shard" if kind == SHARDS else kind
            detail = f"{plural(n[folder], what)} that no recorded run has used"
            yield Finding(kind, workspace.relative(folder), UNCHECKED, detail)


def _home(path: Path, kind: str) -> Path:
    """The folder of all of a kind. path: of a file as it is recorded."""
    return path.parent.parent if kind in NAMING else path.parent


_REUSED = {
    POOL: f"pools/*/{MANIFEST}",
    RENDERING: f"pools/*/renderings/*/{MANIFEST}",
    SHARDS: f"shards/*/*/{MANIFEST}",
    UNIT: "units/*.json",
}
"""Kind -> where its files are. What else is kept is never an answer of its own (see docs)."""


_REDACTED = """
SELECT DISTINCT unnest(from_json(detail->'$.exports', '["VARCHAR"]')) FROM event
WHERE action = 'forgot'"""


def check_named_files(manifest: Path) -> tuple[str, str]:
    """State of the files whose hashes stand in the manifest of a pool or a shard."""
    try:
        content = read_json(manifest)
    except InputError as error:
        return ALTERED, error.problem
    named = content.get("sha256")
    for name, sha256 in named.items() if isinstance(named, Mapping) else []:
        state = _state(manifest.parent / str(name), str(sha256))
        if state != OK:
            return state, str(name)
    known = {MANIFEST, *named} if isinstance(named, Mapping) else {MANIFEST}
    for path in sorted(manifest.parent.iterdir()):
        if path.is_file() and path.name not in known and not is_temp(path.relative_to(path.parent)):
            return ALTERED, f"{path.name}: nobody recorded it"
    return (REDACTED if content.get("redacted") else OK), ""


def _state(path: Path, sha256: str) -> str:
    try:
        return OK if file_sha256(path) == sha256 else ALTERED
    except FileNotFoundError:
        return MISSING
    except OSError:
        return ALTERED


def summary(findings: list[Finding]) -> dict[str, int]:
    """Number of findings by state."""
    return dict(Counter(finding.state for finding in findings))
