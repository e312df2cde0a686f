"""The main job on a Ray cluster of a head and two workers, one of which is killed on the way.

Run: python -m tests.ray_cluster. Prints whether shards and picks are those of one machine; the
workers are nodes of their own on this machine, with one core each.
"""

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from tests.faults_job import write_config
from tests.faults_main import differences, fingerprint, say
from tests.faults_serve import units_done

DEADLINE_SECONDS = 400.0
UNITS_BEFORE = 3


def main() -> None:
    """Exit 1 where the bytes differ."""
    os.environ |= {"RAY_USAGE_STATS_ENABLED": "0", "RAY_worker_niceness": "0"}
    from ray.cluster_utils import Cluster

    with tempfile.TemporaryDirectory(prefix="saelect-ray-") as name:
        folder = Path(name)
        config = write_config(folder)
        run(config, folder / "one", {})
        expected = fingerprint(folder / "one")
        say(f"one machine: {len(expected) - 3} shard files")
        write_config(folder, {"task_runner": "ray"})
        cluster: Any = Cluster(initialize_head=True, head_node_args={"num_cpus": 0})
        try:
            nodes = [cluster.add_node(num_cpus=1) for _ in range(2)]
            found = on_cluster(cluster, nodes, config, folder / "ray")
        finally:
            cluster.shutdown()
        found = found or differences(expected, folder / "ray")
        say("; ".join(found) or "identical bytes, identical picks")
        raise SystemExit(1 if found else 0)


def on_cluster(cluster: Any, nodes: list[Any], config: Path, root: Path) -> list[str]:
    """The job with its driver inside the cluster; what went wrong."""
    begun = time.monotonic()
    job = subprocess.Popen(command(config, root), env=variables({"RAY_ADDRESS": cluster.address}))
    try:
        while units_done(root) < UNITS_BEFORE:
            if job.poll() is not None:
                return [f"the job ended before {UNITS_BEFORE} units, with code {job.returncode}"]
            time.sleep(0.02)
        before = units_done(root)
        cluster.remove_node(nodes[0], allow_graceful=False)
        say(f"killed one of two workers after {before} units")
        code = job.wait(DEADLINE_SECONDS)
    finally:
        job.kill()
        job.wait()
    say(f"the job ended with code {code} after {time.monotonic() - begun:.0f} s")
    return [f"exit code {code}"] if code else []


def run(config: Path, root: Path, more: dict[str, str]) -> None:
    """The job here."""
    subprocess.run(command(config, root), env=variables(more), check=True, stdout=subprocess.PIPE)


def command(config: Path, root: Path) -> list[str]:
    """The main job as a process."""
    return [sys.executable, "-m", "tests.faults_job", str(config), str(root)]


def variables(more: dict[str, str]) -> dict[str, str]:
    """Environment of the job."""
    return {**os.environ, **more}


if __name__ == "__main__":
    main()
