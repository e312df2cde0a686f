"""Many processes that commit at once, beside readers of the snapshot: nothing lost, nobody failed.

`python -m benchmarks.catalog_writers` starts 8 processes that commit 200 small runs each, and 2
that ask the snapshot all the while. It prints the commits found, the readers' questions and
failures, and how long a commit took, its wait for other writers included. `--quick` is a tenth of
it. The last line is one JSON object.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from storage.catalog.commit import commit
from storage.catalog.integrity import differences
from storage.catalog.snapshot import open_snapshot
from storage.files.workspace import open_workspace
from storage.queries.sql import run_sql
from tests.catalog_fixture import make_tables

_COUNTS = "SELECT count(*) AS runs, (SELECT count(*) FROM pick) AS picks FROM run"


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--processes", type=int, default=8)
    parser.add_argument("--commits", type=int, default=None, help="of each process; default 200")
    parser.add_argument("--readers", type=int, default=2)
    parser.add_argument("--write", nargs=3, help=argparse.SUPPRESS)
    parser.add_argument("--read", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.write:
        write(Path(options.write[0]), options.write[1], int(options.write[2]))
    elif options.read:
        read(Path(options.read))
    else:
        n = options.commits or (20 if options.quick else 200)
        measure(options.processes, n, options.readers)


def measure(n_processes: int, n_commits: int, n_readers: int) -> None:
    """Start everybody, wait for the writers, stop the readers, count."""
    with tempfile.TemporaryDirectory() as folder:
        workspace, started = open_workspace(Path(folder)), time.monotonic()
        commit(workspace, make_tables("first", n_selected=5, n_near=2))
        writers = [_start("--write", folder, f"w{i}", n_commits) for i in range(n_processes)]
        readers = [_start("--read", folder) for _ in range(n_readers)]
        outputs = [writer.communicate()[0] for writer in writers]
        seconds = time.monotonic() - started
        (Path(folder) / "stop").touch()
        answers = [json.loads(reader.communicate()[0]) for reader in readers]
        waits = [float(line) for output in outputs for line in output.splitlines()]
        ((n_runs, n_picks),) = run_sql(workspace, _COUNTS).rows
        numbers = run_sql(workspace, "SELECT count(*), max(number) FROM catalog_commit").rows
        with open_snapshot(workspace) as connection:
            broken = len(list(differences(connection)))
    expected = n_processes * n_commits + 1
    failed = sum(process.returncode != 0 for process in writers)
    facts = {
        "commits": len(waits),
        "lost": expected - int(str(n_runs)),
        "picks_lost": 15 * expected - int(str(n_picks)),
        "writers_failed": failed,
        "broken_links": broken,
        "reader_questions": sum(each["questions"] for each in answers),
        "reader_failures": sum(each["failures"] for each in answers),
        "longest_question_s": round(max((each["longest"] for each in answers), default=0.0), 2),
        "longest_commit_s": round(max(waits), 2),
        "median_commit_s": round(statistics.median(waits), 3),
        "seconds": round(seconds, 1),
    }
    print(f"{n_processes} processes x {n_commits} commits, {n_readers} readers; {os.getloadavg()}")
    print(f"commits numbered without a gap: {numbers[0][0] == numbers[0][1]}")
    for name, value in facts.items():
        print(f"{name.replace('_', ' '):<20} {value}")
    print(json.dumps(facts))
    raise SystemExit(bool(facts["lost"] or failed or broken or facts["reader_failures"]))


def _start(*arguments: object) -> "subprocess.Popen[str]":
    command = [sys.executable, "-m", "benchmarks.catalog_writers", *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def write(root: Path, name: str, n: int) -> None:
    """Commit n small runs; a line with the seconds of each."""
    workspace = open_workspace(root)
    for number in range(n):
        tables = make_tables(f"{name}-{number}", n_selected=5, n_near=2, seed=number)
        started = time.monotonic()
        commit(workspace, tables, wait_s=600)
        print(f"{time.monotonic() - started:.4f}", flush=True)


def read(root: Path) -> None:
    """Ask until told to stop; every answer holds whole runs."""
    workspace, longest = open_workspace(root), 0.0
    questions = failures = 0
    while not (root / "stop").exists():
        started = time.monotonic()
        try:
            ((n_runs, n_picks),) = run_sql(workspace, _COUNTS).rows
            failures += int(str(n_picks)) != 15 * int(str(n_runs))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is counted and shown
            print(error, file=sys.stderr)
            failures += 1
        questions, longest = questions + 1, max(longest, time.monotonic() - started)
        time.sleep(0.05)
    print(json.dumps({"questions": questions, "failures": failures, "longest": longest}))


if __name__ == "__main__":
    main()
