"""Several processes on one workspace: the bytes of one process, whoever dies."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from flows.resuming import RESUME_ME
from flows.stages.inputs import prepare
from flows.stages.pool_units import embed_rendered
from flows.stages.reading import open_reader, render
from flows.stages.vectors import open_representer
from flows.stages.workers import embed_by_workers
from storage.files import TEMP_PREFIX, is_complete
from storage.workspace import Workspace, open_workspace
from tests.jobs import tiny_config

SMALL = {"unit_examples": 2, "tokens_per_batch": 256, "threads": 1}


def prepared(root: Path, paths: tuple[Path, ...]) -> tuple[Workspace, Path]:
    """A workspace ready for helpers, and the job file that they are given."""
    config = tiny_config(*paths, compute=SMALL)
    workspace = open_workspace(root)
    pool, reader = prepare(config, workspace), open_reader(config)
    render(workspace, pool, reader)
    representer = open_representer(config, workspace, str(paths[3]))
    assert representer.unit > 0
    job = root / "job.json"
    facts = {"kind": "select", "workspace": str(root), "pool_id": pool.pool_id}
    job.write_text(
        json.dumps({**facts, "sae": str(paths[3]), "config": config.model_dump(mode="json")})
    )
    return workspace, job


def hashes(workspace: Workspace) -> dict[str, str]:
    return {
        str(file.relative_to(workspace.shards)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(workspace.shards.rglob("*.*"))
        if file.is_file() and not file.parent.name.startswith(TEMP_PREFIX)  # of the killed one
    }


def started(job: Path) -> "subprocess.Popen[bytes]":
    return subprocess.Popen([sys.executable, "-m", "flows.stages.workers", str(job)])


def units_done(workspace: Workspace) -> int:
    return sum(
        is_complete(unit) for folder in workspace.shards.glob("*") for unit in folder.iterdir()
    )


def test_three_workers_of_which_two_die_write_the_bytes_of_one(
    tmp_path: Path, paths: tuple[Path, ...]
) -> None:
    alone, _ = prepared(tmp_path / "one", paths)
    config = tiny_config(*paths, compute=SMALL)
    [pool] = alone.pools.iterdir()
    _, counts = embed_by_workers(config, alone, pool.name, str(paths[3]))
    expected = hashes(alone)
    assert counts["computed"] > 20

    shared, job = prepared(tmp_path / "many", paths)
    workers = [started(job) for _ in range(2)]
    try:
        deadline = time.monotonic() + 120
        while units_done(shared) < 1 and time.monotonic() < deadline:
            time.sleep(0.02)
        workers[0].send_signal(signal.SIGKILL)
        workers[1].send_signal(signal.SIGTERM)
        representer = open_representer(config, shared, str(paths[3]))
        embed_rendered([representer], representer.rendered(pool.name))
        codes = [worker.wait(120) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.wait()
    assert codes[0] in (-signal.SIGKILL, 0)
    assert codes[1] in (RESUME_ME, -signal.SIGTERM, 0)  # not before its imports, not after its end
    assert hashes(shared) == expected
    assert not list(shared.shards.rglob("*.lease"))


def test_sigterm_ends_with_the_code_that_asks_to_be_resumed(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys\n"
        "from flows.resuming import Terminated, ending_on_sigterm, RESUME_ME\n"
        "try:\n"
        "    with ending_on_sigterm():\n"
        "        os.kill(os.getpid(), signal.SIGTERM)\n"
        "        signal.pause()\n"
        "except Terminated:\n"
        "    sys.exit(RESUME_ME)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program], env=dict(os.environ), check=False)
    assert ended.returncode == RESUME_ME == 75
