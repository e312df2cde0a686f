"""Several processes on one workspace: the bytes of one process, whoever dies."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import asdict
from pathlib import Path

from flows.orchestration.signals import EX_TEMPFAIL
from flows.stages.prepare.inputs import prepare
from flows.stages.prepare.render import open_model_input, render
from flows.stages.represent.representer import Job, open_representer
from flows.stages.represent.units import embed_rendered
from flows.stages.represent.workers import embed_by_workers
from storage.files.atomic import TEMP_PREFIX, is_complete
from storage.files.workspace import Workspace, open_workspace
from tests.run_stages import tiny_config

SMALL = {"unit_examples": 2, "tokens_per_batch": 256, "threads": 1}


def prepared(root: Path, paths: tuple[Path, ...]) -> tuple[Workspace, Path]:
    """A workspace ready for helpers, and the job file that they are given."""
    config = tiny_config(*paths, compute=SMALL)
    workspace = open_workspace(root)
    pool, model_input = prepare(config, workspace), open_model_input(config)
    render(workspace, pool, model_input)
    representer = open_representer(config, workspace, str(paths[3]))
    assert representer.unit > 0
    job = root / "job.json"
    job.write_text(json.dumps(asdict(Job.of(config, workspace, pool.pool_id, str(paths[3])))))
    return workspace, job


def hashes(workspace: Workspace) -> dict[str, str]:
    return {
        str(file.relative_to(workspace.shards)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(workspace.shards.rglob("*.*"))
        if file.is_file() and not file.parent.name.startswith(TEMP_PREFIX)  # of the killed one
    }


WORKER = """
import sys, time
from pathlib import Path
from flows.stages.represent import units as pool_units; from flows.stages.represent import workers

folder, name, last = Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
made, numbers = pool_units.represent_samples, iter(range(1, 1000))

def counting(*given):
    if next(numbers) == last:
        (folder / name).touch()  # in the middle of a unit, until a signal comes
        time.sleep(600)
    while not (folder / f"go-{name}").exists():
        time.sleep(0.02)
    return made(*given)

pool_units.represent_samples = counting
workers.main()
"""


def started(job: Path, name: str, last: int) -> "subprocess.Popen[bytes]":
    """A helper that waits for the file `go-NAME`, and stands still in its unit number `last`."""
    given = [str(job), str(job.parent), name, str(last)]
    return subprocess.Popen([sys.executable, "-c", WORKER, *given])


def end(worker: "subprocess.Popen[bytes]", stands: Path, how: signal.Signals) -> None:
    """Send the signal once the helper stands still, and leave its process to be waited for."""
    deadline = time.monotonic() + 300
    while not stands.exists() and time.monotonic() < deadline and worker.poll() is None:
        time.sleep(0.02)
    worker.send_signal(how)


def units_done(workspace: Workspace) -> int:
    return sum(
        is_complete(unit) for folder in workspace.shards.glob("*") for unit in folder.iterdir()
    )


def test_four_workers_of_which_three_die_at_work_write_the_bytes_of_one(
    tmp_path: Path, paths: tuple[Path, ...]
) -> None:
    alone, _ = prepared(tmp_path / "one", paths)
    config = tiny_config(*paths, compute=SMALL)
    [pool] = alone.pools.iterdir()
    _, counts = embed_by_workers(config, alone, pool.name, str(paths[3]))
    expected = hashes(alone)
    assert counts["computed"] > 20

    shared, job = prepared(tmp_path / "many", paths)
    plan = {
        "first": (1, signal.SIGKILL),
        "later": (4, signal.SIGKILL),
        "asked": (3, signal.SIGTERM),
    }
    workers = {name: started(job, name, last) for name, (last, _) in plan.items()}
    ends = {
        name: threading.Thread(target=end, args=(workers[name], job.parent / name, how))
        for name, (_, how) in plan.items()
    }
    try:
        ends["first"].start()
        ends["first"].join()
        assert units_done(shared) == 0
        (job.parent / "go-later").touch()
        ends["later"].start()
        ends["later"].join()
        assert units_done(shared) in (2, 3)  # the third may have been on its way to the disk
        (job.parent / "go-asked").touch()
        ends["asked"].start()  # while this process, the fourth, works
        representer = open_representer(config, shared, str(paths[3]))
        embed_rendered([representer], representer.rendered(pool.name))
        codes = {name: worker.wait(120) for name, worker in workers.items()}
        ends["asked"].join()
    finally:
        for worker in workers.values():
            worker.kill()
            worker.wait()
    # The last one may come too late: this process does not wait for it.
    assert codes.pop("asked") in (EX_TEMPFAIL, 0)
    assert codes == {"first": -signal.SIGKILL, "later": -signal.SIGKILL}
    assert hashes(shared) == expected
    assert not list(shared.shards.rglob("*.lease"))


def test_sigterm_ends_any_command_with_the_code_that_asks_to_be_resumed() -> None:
    program = (
        "import os, signal\n"
        "from flows.cli import main\n"
        "def command(**_):\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    signal.pause()\n"
        "main.app = command\n"
        "main.main()\n"
    )
    ended = subprocess.run(
        [sys.executable, "-c", program], env=dict(os.environ), capture_output=True, check=False
    )
    assert b"the same command resumes" in ended.stderr
    assert ended.returncode == EX_TEMPFAIL == 75
