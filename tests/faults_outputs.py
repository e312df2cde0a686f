"""Exports, reports, comparisons and bundles stopped before every one of their steps.

Run: python -m tests.faults_outputs --n 4 (steps of each, evenly spaced; 0 for all). After each
stop, `forget` must find every copy of a person's texts; files that were recorded and did not get
their names are missing then. The same command again must leave the files of an undisturbed one, all
as recorded.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

from storage.audit.bundle import write_bundle
from storage.audit.forget import forget
from storage.audit.verify import ALTERED, MISSING, verify
from storage.catalog.recorded import files_in
from storage.export.export import FORMATS, export_selection
from storage.files.atomic import is_temp
from storage.files.workspace import Workspace
from storage.queries.lookup import find_selection
from storage.report.compare import write_comparison
from storage.report.page import write_report
from tests.faults_forget import Person, make_template, what_is_left
from tests.faults_steps import n_steps, spread, stop_before

KINDS: dict[str, Callable[[Workspace], object]] = {
    "export": lambda w: export_selection(w, "latest", [f for f in FORMATS if f != "preference"]),
    "report": lambda w: write_report(w, "latest"),
    "comparison": lambda w: write_comparison(
        w, "latest", f"{find_selection(w, 'latest').name}-bm25"
    ),
    "bundle": lambda w: write_bundle(w, "latest"),
}


def main() -> None:
    """Print a line for every step; exit 1 if anything was left or wrong at one."""
    parser = argparse.ArgumentParser(description="stop what writes for people at its steps")
    parser.add_argument("--n", type=int, default=4, help="steps of each kind; 0 for all")
    parser.add_argument("--first", type=int, default=1, help="the step to begin with")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    arguments = parser.parse_args()
    n_failed = 0
    with tempfile.TemporaryDirectory(prefix="saelect-outputs-") as folder:
        person = make_template(Path(folder) / "template", with_outputs=False)
        for kind in arguments.kinds:
            for step, wrong in stopped_everywhere(
                Path(folder), person, KINDS[kind], arguments.n, arguments.first
            ):
                n_failed += bool(wrong)
                line = f"{kind} stopped before step {step}: {wrong or 'nothing wrong'}\n"
                sys.stdout.write(line)
                sys.stdout.flush()
    raise SystemExit(n_failed > 0)


def stopped_everywhere(
    folder: Path, person: Person, work: Callable[[Workspace], object], n: int, first: int = 1
) -> Iterator[tuple[int, str]]:
    """(step, what was left or wrong) for n steps from `first` on; all of them for 0."""
    whole = _copy(folder / "template", folder / "whole")
    total, expected = n_steps(partial(work, whole)), _names(whole)
    for step in spread(total, n, first):
        stopped = _copy(folder / "template", folder / "stopped")
        stop_before(step, partial(work, stopped))
        again = _copy(stopped.root, folder / "again")
        forget(stopped, person.example_ids, "asked by the author")
        work(again)
        problems = [what_is_left(stopped, person, expected)]
        problems += [f"{each.state}: {each.name} {each.detail}" for each in verify(again)
                     if each.state in (ALTERED, MISSING)]  # fmt: skip
        if (names := _names(again)) != expected:
            problems.append(f"other files: {sorted(names ^ expected)}")
        yield step, "; ".join(filter(None, problems))


def _copy(source: Path, root: Path) -> Workspace:
    shutil.rmtree(root, ignore_errors=True)
    shutil.copytree(source, root)
    return Workspace(root)


def _names(workspace: Workspace) -> set[str]:
    """Files for people; temporary names go at a later start."""
    folders = [workspace.exports, workspace.reports, workspace.bundles]
    names = {workspace.relative(path) for path in files_in(folders)}
    return {name for name in names if not is_temp(Path(name))}


if __name__ == "__main__":
    main()
