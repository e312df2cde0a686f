"""Several processes that compute the vectors of one pool: this one and its helpers.

A helper is `python -m flows.stages.represent.workers JOB`, JOB a JSON file; it may also run on
another host that sees the workspace. Who does what is settled by leases, so helpers may come, go
and die.
"""

import json
import logging
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path

from flows.config.jobs import SelectConfig, VectorJob
from flows.orchestration.signals import EX_TEMPFAIL, Terminated, ending_on_sigterm
from flows.stages.represent.exemplars import embed_targets
from flows.stages.represent.representer import Job, Representer, open_representer
from flows.stages.represent.spaces import count_exemplars, count_terms, representers_of
from flows.stages.represent.units import embed_rendered, n_waiting
from storage.files.atomic import temp_path, write_json
from storage.files.workspace import Workspace

log = logging.getLogger(__name__)

GRACE_S = 20.0  # All units are done by then; a helper ends by itself when it sees that.


def embed_all(
    config: VectorJob, workspace: Workspace, pool_id: str, sae: str
) -> tuple[Representer, dict[str, int]]:
    """Vectors of the pool, its words and tokens, and the exemplars' where the config has some.

    After it a selection computes no vector. As `embed_by_workers` otherwise.
    """
    representer, counts = embed_by_workers(config, workspace, pool_id, sae)
    count_terms(config, representer, representer.rendered(pool_id))
    if isinstance(config, SelectConfig):
        embed_targets(representer, config, representer.session.targets)
        count_exemplars(config, representer)
    return representer, counts


def embed_by_workers(
    config: VectorJob, workspace: Workspace, pool_id: str, sae: str
) -> tuple[Representer, dict[str, int]]:
    """Compute the pool's vectors, by every SAE of the run, with `compute.workers` processes.

    This process is one of them. Each has the same number of threads, the cores' share where none is
    given, and on CUDA a GPU that no other job has. Raises what this process meets; helpers that
    fail are replaced by the others.
    """
    n = config.compute.workers if config.compute.task_runner == "local" else 1
    representer = open_representer(config, workspace, sae)
    if n > 1 and config.compute.threads is None:
        threads = max(1, (os.cpu_count() or 1) // n)
        compute = config.compute.model_copy(update={"threads": threads})
        config = config.model_copy(update={"compute": compute})
        representer = replace(representer, config=config)  # with a model of its own
    representers = representers_of(config, representer)
    rendered = representer.rendered(pool_id)
    n = min(n, 1 + n_waiting(representers, rendered))  # no process for nothing
    with _helpers(config, workspace, pool_id, sae, n - 1):
        return representer, embed_rendered(representers, rendered)


@contextmanager
def _helpers(
    config: VectorJob, workspace: Workspace, pool_id: str, sae: str, n: int
) -> Iterator[None]:
    """Helpers while the block runs: they end by themselves when all is done, or with the block."""
    if n < 1:
        yield
        return
    job = temp_path(workspace.root / "job.json")
    write_json(job, asdict(Job.of(config, workspace, pool_id, sae)))
    command = [sys.executable, "-m", "flows.stages.represent.workers", str(job)]
    helpers = [subprocess.Popen(command) for _ in range(n)]
    try:
        yield
        for helper in helpers:
            with suppress(subprocess.TimeoutExpired):  # one that still waits for a GPU, say
                if helper.wait(GRACE_S):
                    code = helper.returncode
                    log.warning("a worker ended with code %d; the others did its work", code)
    finally:
        for helper in helpers:
            if helper.poll() is None:
                helper.terminate()
                helper.wait()
        job.unlink(missing_ok=True)


def help_with(file: Path) -> dict[str, int]:
    """One helper's work: units of the job until there are none."""
    job = Job(**json.loads(file.read_text(encoding="utf-8")))
    representer = job.open()
    representers = representers_of(representer.config, representer)
    return embed_rendered(representers, representer.rendered(job.pool_id))


def main() -> None:
    """`python -m flows.stages.represent.workers JOB`."""
    try:
        with ending_on_sigterm():
            help_with(Path(sys.argv[1]))
    except Terminated:
        raise SystemExit(EX_TEMPFAIL) from None


if __name__ == "__main__":
    main()
