"""kill -9 at random moments of committing and publishing, then look at what is left.

Run: python -m tests.faults_catalog --n 20. A process commits made-up runs one after another and
says when each is in; it is killed somewhere within one. The snapshot must open and hold every run
that was said to be in, whole; the catalog at most one more; and the next commit must work.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from zlib import crc32

from storage.catalog.commit import commit, writing
from storage.catalog.connection import connect_to_write
from storage.catalog.integrity import differences
from storage.catalog.snapshot import publish, restore
from storage.files.workspace import Workspace, open_workspace
from storage.queries.sql import run_sql
from tests.catalog_fixture import make_tables

_WHOLE = """
SELECT r.name, count(s.selection_id) = 3
    AND bool_and(s.n_selected = (SELECT count(*) FROM pick p WHERE p.selection_id = s.selection_id))
FROM run r LEFT JOIN selection s USING (run_id) GROUP BY r.run_id, r.name ORDER BY r.name"""


def main() -> None:
    """Run the rounds and print a line each; exit 1 if anything was lost or half there."""
    parser = argparse.ArgumentParser(description="kill -9 in commits, look at what is left")
    parser.add_argument("--n", type=int, default=1, help="kills")
    parser.add_argument("--seed", type=int, default=None, help="of the kill times")
    parser.add_argument("--commit", nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.commit:
        commit_until_killed(Path(arguments.commit[0]), arguments.commit[1])
    with tempfile.TemporaryDirectory(prefix="saelect-faults-") as folder:
        raise SystemExit(run_rounds(Path(folder), arguments.n, random.Random(arguments.seed)) > 0)


def commit_until_killed(root: Path, prefix: str) -> None:
    """Commit small runs and say the name and seconds of each."""
    for number in range(10_000):
        tables = make_tables(
            f"{prefix}-{number}", n_selected=20, n_near=5, seed=crc32(prefix.encode()) % 999
        )
        started = time.monotonic()
        commit(open_workspace(root), tables)
        say(f"{prefix}-{number} {time.monotonic() - started:.4f}")


def run_rounds(root: Path, n: int, rng: random.Random) -> int:
    """Number of rounds after which something was missing, half there or not openable."""
    acknowledged: set[str] = set()
    failed = 0
    for number in range(n):
        said = killed_in_a_commit(root, f"round{number}", rng)
        acknowledged.update(said)
        problem = problem_of(open_workspace(root), acknowledged, f"after{number}")
        acknowledged.add(f"after{number}")
        failed += bool(problem)
        say(f"kill {number + 1:>3}: {len(said)} commits before it, {problem or 'all there, whole'}")
    say(f"{n} kills in commits, {failed} with something lost or half there")
    return failed


def killed_in_a_commit(root: Path, prefix: str, rng: random.Random) -> list[str]:
    """Names of the runs that were said to be in before the process was killed."""
    command = [sys.executable, "-m", "tests.faults_catalog", "--commit", str(root), prefix]
    job = subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"}
    )
    assert job.stdout is not None
    said = []
    for _ in range(2):  # the first commit imports and makes tables; the second says how long
        name, seconds = job.stdout.readline().split()
        said.append(name)
    time.sleep(rng.uniform(0, 2 * float(seconds)))
    job.send_signal(signal.SIGKILL)
    rest, _ = job.communicate()
    return said + [line.split()[0] for line in rest.splitlines() if len(line.split()) == 2]


def publish_newest(workspace: Workspace) -> None:
    """Bring the snapshot up to date, as the next writer does after one was killed."""
    with writing(workspace):
        restore(workspace)
        publish(workspace)


def problem_of(workspace: Workspace, acknowledged: set[str], next_name: str) -> str:
    """What is wrong with what is left; empty if nothing is."""
    snapshot = _runs(workspace)
    if not acknowledged <= snapshot.keys():
        return f"lost: {sorted(acknowledged - snapshot.keys())}"
    if not all(snapshot.values()):
        return f"half there: {[name for name, whole in snapshot.items() if not whole]}"
    publish_newest(workspace)
    with connect_to_write(workspace.catalog) as connection:
        catalog = dict(connection.execute(_WHOLE).fetchall())
        broken = list(differences(connection))
    more = catalog.keys() - acknowledged - {name for name in catalog if name in snapshot}
    if broken or not all(catalog.values()) or len(more) > 1:
        return f"catalog: {len(more)} runs more, {len(broken)} differences"
    commit(
        workspace,
        make_tables(next_name, n_selected=5, n_near=2, seed=crc32(next_name.encode()) % 999),
    )
    if _runs(workspace).keys() != catalog.keys() | {next_name}:
        return "the next commit did not add its run alone"
    return ""


def _runs(workspace: Workspace) -> dict[str, bool]:
    """Name of every run in the snapshot -> whether all of it is there."""
    return {str(name): bool(whole) for name, whole in run_sql(workspace, _WHOLE).rows}


def say(line: str) -> None:
    """One line to standard output, at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
