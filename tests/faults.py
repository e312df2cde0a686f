"""kill -9 at random moments of embedding, indexing and persisting, then rerun and compare.

Run: python -m tests.faults --n 10. Each round starts the main job on demonstration data in a
process of its own, kills it while the named stage works, runs it again to the end, and compares
shards byte for byte and selections row for row with an undisturbed run.
"""

import argparse
import hashlib
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from storage.sql import run_sql
from storage.workspace import Workspace

STAGES = {"embedding": "embed", "indexing": "index", "persisting": "record"}
DEADLINE_SECONDS = 240

Job = subprocess.Popen[str]


def main() -> None:
    """Run the rounds and print a table; exit 1 if anything differed."""
    parser = argparse.ArgumentParser(description="kill -9, rerun, compare")
    parser.add_argument("--n", type=int, default=1, help="kills per stage")
    parser.add_argument("--seed", type=int, default=None, help="of the kill times")
    parser.add_argument("--stage", choices=STAGES, action="append", help="only these stages")
    arguments = parser.parse_args()
    chosen = arguments.stage or list(STAGES)
    with tempfile.TemporaryDirectory(prefix="saelect-faults-") as folder:
        failed = run_rounds(Path(folder), chosen, arguments.n, random.Random(arguments.seed))
    raise SystemExit(1 if failed else 0)


def run_rounds(folder: Path, names: Sequence[str], n: int, rng: random.Random) -> int:
    """Number of rounds that did not recover to the same bytes."""
    started = time.monotonic()
    seconds_of = stage_seconds(finish(start(folder / "calm")))
    expected = fingerprint(folder / "calm")
    n_files = len(expected) - 2
    say(f"undisturbed: {time.monotonic() - started:.0f} s, {n_files} shard files")
    say(f"{'killed while':<12} {'round':>5} {'seconds in':>10} {'in stage':>9} {'rerun':>7}  same")
    failed = 0
    for name in names:
        stage = STAGES[name]
        for number in range(n):
            root = folder / f"{stage}-{number}"
            delay = rng.uniform(0.0, seconds_of[stage])
            was_inside = kill(start(root), stage, delay)
            started = time.monotonic()
            finish(start(root))
            rerun, same = time.monotonic() - started, fingerprint(root) == expected
            failed += not same
            inside, verdict = "yes" if was_inside else "just after", "yes" if same else "NO"
            say(f"{name:<12} {number + 1:>5} {delay:>10.2f} {inside:>9} {rerun:>5.0f} s  {verdict}")
    say(f"{len(names) * n} kills, {failed} not recovered to the same bytes")
    return failed


def start(root: Path) -> Job:
    """The main job in a process of its own; its output says which stage begins and ends."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.faults_job", str(root)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


def kill(job: Job, stage: str, delay: float) -> bool:
    """Kill -9 `delay` seconds after a stage begins; whether the stage was still at work."""
    seen: list[str] = []
    for line in job.stdout or ():
        seen.append(line)
        if line.startswith(f"begin {stage} "):
            break
    else:
        raise RuntimeError("the job ended before the stage:\n" + "".join(seen))
    time.sleep(delay)
    job.send_signal(signal.SIGKILL)
    rest, _ = job.communicate(timeout=DEADLINE_SECONDS)
    return f"end {stage} " not in rest


def finish(job: Job) -> str:
    """Let a job run to its end and return what it printed."""
    output, _ = job.communicate(timeout=DEADLINE_SECONDS)
    if job.returncode:
        raise RuntimeError(f"the job failed:\n{output}")
    return output


def stage_seconds(output: str) -> dict[str, float]:
    """Stage -> how long it took."""
    words = (line.split() for line in output.splitlines() if line.startswith("end "))
    return {stage: float(seconds) for _, stage, seconds in words}


def fingerprint(root: Path) -> dict[str, str]:
    """Hashes of all shard files and of the picks, and that there is exactly one whole run."""
    workspace = Workspace(root)
    found = {
        str(file.relative_to(root)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(workspace.shards.rglob("*.npy"))
        if not any(part.startswith(".tmp-") for part in file.parts)
    }
    latest = "(SELECT run_id FROM run ORDER BY created_at DESC LIMIT 1)"
    picks = run_sql(
        workspace,
        "SELECT s.target, s.method, p.rank, p.example_id, p.score FROM pick p"
        f" JOIN selection s USING (selection_id) WHERE s.run_id = {latest}"
        " ORDER BY s.target, s.method, p.rank",
    )
    found["picks"] = hashlib.sha256(str(picks.to_pylist()).encode()).hexdigest()
    partial = run_sql(
        workspace,
        "SELECT count(*) AS n FROM run WHERE finished_at IS NULL OR run_id NOT IN"
        " (SELECT run_id FROM selection)",
    )
    found["partial runs"] = str(partial.to_pylist()[0]["n"])
    return found


def say(line: str) -> None:
    """One line to standard output, at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
