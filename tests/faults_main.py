"""Faults at random moments, then the same job again; what comes out must be the same.

Run: python -m tests.faults_main --n 10, or with --kinds. Every round starts the main job on a part
of the demonstration data in a workspace without results, disturbs it, lets it run again, and
compares shards byte for byte and picks row for row with an undisturbed run. `embedding`, `indexing`
and
`persisting` kill a process of its own while that stage works; the other kinds happen to runs that
`saelect serve` started, which must also end in the right state.
"""

import argparse
import hashlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from selection.core.errors import InputError
from storage.files.workspace import Workspace
from storage.queries.sql import run_sql
from tests.faults_job import POOL_ROWS, UNIT_EXAMPLES, write_config
from tests.faults_serve import KINDS, Arena, Disturbed

STAGES = {"embedding": "embed", "indexing": "index", "persisting": "record"}
DEADLINE_SECONDS = 600
DISK_MEGABYTES = 800  # More than the 200 MB that a run wants to see before it starts.
OWN_DISK = "SAELECT_FAULTS_DISK"
"""Environment: a folder on a small disk of our own, which may be filled up."""

Job = subprocess.Popen[str]


def main() -> None:
    """Run the rounds and print a table; exit 1 if anything differed."""
    parser = argparse.ArgumentParser(description="disturb, rerun, compare")
    kinds = [*STAGES, *KINDS]
    parser.add_argument("--n", type=int, default=1, help="rounds of each kind")
    parser.add_argument("--seed", type=int, default=None, help="of the moments")
    parser.add_argument("--kinds", nargs="+", choices=kinds, default=kinds, help="only these")
    arguments = parser.parse_args()
    if OWN_DISK in os.environ:
        failed = run_rounds(Path(os.environ[OWN_DISK]), arguments)
    else:
        with tempfile.TemporaryDirectory(prefix="saelect-faults-") as folder:
            if "disk full" in arguments.kinds and can_mount(Path(folder)):
                raise SystemExit(on_own_disk(Path(folder), sys.argv[1:]))
            failed = run_rounds(Path(folder), arguments)
    raise SystemExit(1 if failed else 0)


def run_rounds(folder: Path, arguments: argparse.Namespace) -> int:
    """Number of rounds that did not end as they must, or not with the same bytes."""
    rng, begun = random.Random(arguments.seed), time.monotonic()
    config = write_config(folder)
    seconds_of = stage_seconds(finish(start(config, folder / "calm")))
    expected = fingerprint(folder / "calm")
    say(f"undisturbed: {time.monotonic() - begun:.0f} s, {len(expected) - 3} shard files")
    say(f"{'fault':<12} {'round':>5}  {'injected':<18} {'ended as':<10} {'after':>6} {'rerun':>6}")
    arena = Arena(folder / "served", config, POOL_ROWS // UNIT_EXAMPLES)
    failed = 0
    try:
        for kind, number in [(k, n + 1) for k in arguments.kinds for n in range(arguments.n)]:
            if kind == "disk full" and OWN_DISK not in os.environ:
                say(f"{kind:<12} {number:>5}  left out: no small disk can be mounted here")
                continue
            if kind in STAGES:
                root = folder / f"{kind}-{number}"
                injected, found = kill_stage(config, root, STAGES[kind], seconds_of, rng)
            else:
                root = arena.root
                injected, found = arena.disturb(kind, rng)
            found.wrong += differences(expected, root)
            failed += bool(found.wrong)
            say(
                f"{kind:<12} {number:>5}  {injected:<18} {found.state:<10} {found.seconds:>4.0f} s"
                f" {found.rerun_seconds:>4.0f} s  {'; '.join(found.wrong) or 'identical'}"
            )
            if root != arena.root:
                shutil.rmtree(root)
    finally:
        arena.close()
    say(f"{time.monotonic() - begun:.0f} s in all; {failed} not as they must be")
    return failed


def start(config: Path, root: Path) -> Job:
    """The main job in a process of its own; its output says which stage begins and ends."""
    return subprocess.Popen(
        [sys.executable, "-m", "tests.faults_job", str(config), str(root)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env={**os.environ, "PYTHONUNBUFFERED": "1"},
    )


def kill_stage(
    config: Path, root: Path, stage: str, seconds_of: dict[str, float], rng: random.Random
) -> tuple[str, Disturbed]:
    """Kill -9 while a stage works, and the job again."""
    delay = rng.uniform(0.0, seconds_of[stage])
    was_inside = kill(start(config, root), stage, delay)
    begun = time.monotonic()
    finish(start(config, root))
    injected = f"at {delay:.2f} s" + ("" if was_inside else ", just after")
    return injected, Disturbed("killed", 0.0, time.monotonic() - begun)


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
    lines = (line.removeprefix("end ") for line in output.splitlines() if line[:4] == "end ")
    pairs = (line.rsplit(" ", 1) for line in lines)  # the name of a stage may hold spaces
    return {stage: float(seconds) for stage, seconds in pairs}


def fingerprint(root: Path) -> dict[str, str]:
    """Hashes of shard files, of the last run's picks and training file; runs that are not whole."""
    workspace = Workspace(root)
    found = {
        str(file.relative_to(root)): sha256(file)
        for file in sorted(workspace.shards.rglob("*.npy"))
        if not any(part.startswith(".") for part in file.relative_to(root).parts)
    }
    latest = "(SELECT run_id FROM run ORDER BY created_at DESC LIMIT 1)"
    picks = run_sql(
        workspace,
        "SELECT s.name, s.target, s.method, p.rank, p.example_id, p.score FROM pick p"
        f" JOIN selection s USING (selection_id) WHERE s.run_id = {latest}"
        " ORDER BY s.method, s.target, p.rank",
    ).to_pylist()
    main = str(picks[0]["name"])
    found["picks"] = hashlib.sha256(
        str([tuple(pick.values())[1:] for pick in picks]).encode()
    ).hexdigest()
    found["training file"] = sha256(workspace.exports / main / "train.jsonl")
    partial = run_sql(
        workspace,
        "SELECT count(*) AS n FROM run WHERE finished_at IS NULL OR run_id NOT IN"
        " (SELECT run_id FROM selection)",
    )
    found["partial runs"] = str(partial.to_pylist()[0]["n"])
    return found


def differences(expected: dict[str, str], root: Path) -> list[str]:
    """What is not as in the undisturbed workspace."""
    try:
        found = fingerprint(root)
    except InputError as error:  # no run came to its end
        return [str(error)]
    names = sorted(n for n in {*expected, *found} if expected.get(n) != found.get(n))
    return [f"{len(names)} differ, e.g. {names[0]}"] if names else []


def sha256(file: Path) -> str:
    """Of a file's bytes."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def can_mount(folder: Path) -> bool:
    """Whether a disk of our own can be had: a tmpfs in a mount namespace."""
    command = ["unshare", "--map-root-user", "--mount", "mount", "-t", "tmpfs"]
    try:
        return not subprocess.run(
            [*command, "tmpfs", str(folder)], capture_output=True, check=False
        ).returncode
    except FileNotFoundError:
        return False


def on_own_disk(folder: Path, arguments: Sequence[str]) -> int:
    """The same command where `folder` is a small disk; it goes with the processes."""
    mount = f"mount -t tmpfs -o size={DISK_MEGABYTES}m tmpfs '{folder}'"
    command = [sys.executable, "-m", "tests.faults_main", *arguments]
    unshare = ["unshare", "--map-root-user", "--mount", "sh", "-c", f'{mount} && exec "$@"', "sh"]
    variables = {**os.environ, OWN_DISK: str(folder)}
    return subprocess.run([*unshare, *command], env=variables, check=False).returncode


def say(line: str) -> None:
    """One line to standard output, at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
