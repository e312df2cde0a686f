"""`saelect forget` stopped before every one of its steps, then finished; nothing may be left.

Run: python -m tests.faults_forget --n 10 (of the steps, evenly spaced; 0 for all). A command that
comes after the stop carries on, and every byte of the workspace is searched, Parquet and DuckDB as
they decode.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import duckdb
import numpy as np
import pyarrow.parquet as pq

from flows.cli.options import carry_on_forgetting
from storage.audit.bundle import write_bundle
from storage.audit.forget import forget
from storage.audit.forget_files import keys_beside_pools, keys_of
from storage.audit.verify import ALTERED, MISSING, verify
from storage.export.export import export_selection
from storage.files.workspace import Workspace, open_workspace
from storage.queries.lookup import find_selection, picks
from storage.queries.sql import run_sql
from storage.report.page import write_report
from tests.catalog_run import real_run
from tests.faults_steps import n_steps, spread, stop_before

_WHY = "asked by the author"


@dataclass(frozen=True, slots=True)
class Person:
    """What must not be left. needles: of its texts; keys: of its vectors."""

    example_ids: Sequence[str]
    needles: Sequence[str]
    keys: frozenset[bytes]


def main() -> None:
    """Print a line for every step; exit 1 if anything was left at one."""
    parser = argparse.ArgumentParser(description="stop `forget` at its steps")
    parser.add_argument("--n", type=int, default=10, help="steps; 0 for all")
    parser.add_argument("--first", type=int, default=1, help="the step to begin with")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="saelect-forget-") as folder:
        person = make_template(Path(folder) / "template")
        n_failed = 0
        for step, left in stopped_everywhere(Path(folder), person, arguments.n, arguments.first):
            n_failed += bool(left)
            sys.stdout.write(f"stopped before step {step}: {left or 'nothing left'}\n")
            sys.stdout.flush()
        raise SystemExit(n_failed > 0)


def make_template(root: Path, *, with_outputs: bool = True) -> Person:
    """A workspace that holds a person's sample and exemplar in every kind of file.

    with_outputs: with an export, a report and a bundle.
    """
    shutil.copytree(real_run().parent / "workspace", root)
    workspace = open_workspace(root)
    chosen = find_selection(workspace, "latest")
    if with_outputs:
        export_selection(workspace, chosen.name, ("messages", "original", "ids"))
        write_report(workspace, chosen.name)
        write_bundle(workspace, chosen.name)
    pick = picks(workspace, chosen.selection_id)[1]
    exemplar, text = run_sql(
        workspace, f"SELECT exemplar_id, text FROM exemplar WHERE run_id = '{chosen.run_id}'"
    ).rows[0]
    ids = [pick.example_id, str(exemplar)]
    needles = [_needle(str(pick.text)), _needle(str(text))]
    assert files_with(root, needles[0]) > {"catalog.duckdb", "snapshot.duckdb"}
    keys = keys_of(workspace, ids) | keys_beside_pools(workspace)
    return Person(ids, needles, frozenset(keys))


def _needle(text: str) -> str:
    """Words of a text that no other has: its number among them."""
    return text.split("\n")[0].removeprefix("user: ")[-30:]


def stopped_everywhere(
    folder: Path, person: Person, n: int, first: int = 1
) -> Iterator[tuple[int, str]]:
    """(step, what was left or wrong) for n steps from `first` on; all of them for 0."""
    whole = _copy(folder)
    total = n_steps(lambda: forget(whole, person.example_ids, _WHY))
    for step in spread(total, n, first):
        workspace = _copy(folder)
        stop_before(step, partial(forget, workspace, person.example_ids, _WHY))
        carry_on_forgetting(workspace.root)  # as every command does
        if not _tombstones(workspace):  # stopped before the journal: the user repeats it
            forget(workspace, person.example_ids, _WHY)
        yield step, what_is_left(workspace, person)


def _copy(folder: Path) -> Workspace:
    root = folder / "workspace"
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(folder / "template", root)
    return Workspace(root)


def what_is_left(workspace: Workspace, person: Person, unnamed: Collection[str] = ()) -> str:
    """Traces of a person in a workspace, or what is wrong with it; empty if nothing is.

    unnamed: files that were recorded, and stopped before they got their names: they may be missing.
    """
    traces = {(needle, path.name) for path, text in every_text(workspace.root)
              for needle in person.needles if needle in text}  # fmt: skip
    problems = [f"{needle!r} in {name}" for needle, name in sorted(traces)]
    for file in workspace.shards.glob("*/*/keys.npy"):
        if {bytes(key) for key in np.load(file)} & person.keys:
            problems.append(f"a vector in {file.parent.name}")
    problems += [f"left behind: {path.name}" for path in workspace.root.rglob(".tmp-*")]
    if workspace.forget_journal.exists():
        problems.append("the journal")
    problems += [
        f"{each.state}: {each.kind} {each.name} {each.detail}"
        for each in verify(workspace)
        if each.state == ALTERED or (each.state == MISSING and each.name not in unnamed)
    ]
    if _tombstones(workspace) != set(person.example_ids):
        problems.append(f"{len(_tombstones(workspace))} tombstones")
    return "; ".join(problems)


def _tombstones(workspace: Workspace) -> set[object]:
    return {row[0] for row in run_sql(workspace, "SELECT example_id FROM forgotten").rows}


def every_text(root: Path) -> Iterator[tuple[Path, str]]:
    """What can be read in a folder: raw bytes, and Parquet and DuckDB as they decode."""
    for path in sorted(p for p in root.rglob("*") if p.is_file()):
        yield path, path.read_bytes().decode("utf-8", "replace")
        if path.suffix == ".parquet":
            yield path, json.dumps(pq.read_table(path).to_pylist(), default=str)
        if path.suffix == ".duckdb":
            with duckdb.connect(str(path), read_only=True) as connection:
                tables = connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()
                for (name,) in tables:
                    yield path, str(connection.execute(f'FROM "{name}"').fetchall())


def files_with(root: Path, needle: str) -> set[str]:
    """Names of files in which a text is found."""
    return {path.name for path, text in every_text(root) if needle in text}


if __name__ == "__main__":
    main()
