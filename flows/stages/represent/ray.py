"""Units of embedding and ranking as tasks of a Ray cluster, over a workspace that all hosts see.

Tasks are given names of work and give back little: vectors go through files. A task whose worker
or host dies is started again elsewhere; what was finished is found as a file. A worker keeps the
model between its tasks.
"""

import os
from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from flows.config.jobs import VectorJob
from flows.orchestration.progress import Advance
from flows.stages.represent.representer import (
    Job,
    Representer,
    another_representer,
    represent_samples,
)
from selection.core.errors import InputError
from storage.files.atomic import is_complete
from storage.files.leases import run_once
from storage.pools.renderings import RenderedPool
from storage.pools.shards import write_shard

UNLIMITED_RETRIES = -1
"""Retries after the death of a worker; a mistake in the work itself is not retried."""


def job_of(representer: Representer, pool_id: str) -> Job:
    """The job of a representer, with the threads of one task."""
    config = representer.config
    compute = config.compute.model_copy(update={"threads": threads_of(config)})
    config = config.model_copy(update={"compute": compute})
    return Job.of(config, representer.workspace, pool_id, representer.sae.path)


def connect() -> Any:
    """Ray, connected to the cluster that this host is in. Raises InputError without either."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    try:
        import ray
    except ImportError:
        raise InputError(
            "Ray is not installed",
            field="compute.task_runner",
            value="ray",
            remedy="pip install 'saelect[ray]' (Python below 3.13), or use `local`.",
        ) from None
    if not ray.is_initialized():
        try:
            ray.init(address="auto", log_to_driver=False, logging_level="ERROR")
        except ConnectionError:
            raise InputError(
                "no Ray cluster is running here",
                field="compute.task_runner",
                value="ray",
                remedy="`ray start --head` here and `ray start --address=...` on the others; the"
                " run must be inside the cluster.",
            ) from None
    return ray


def threads_of(config: VectorJob) -> int:
    """Threads of one task: the same on every host, so that the same bytes come out."""
    return config.compute.threads or 1


def compute_units(
    representers: Sequence[Representer],
    rendered: RenderedPool,
    units: Sequence[NDArray[np.int64]],
    names: Sequence[str],
    advance: Advance,
) -> Iterator[NDArray[np.int64]]:
    """Compute and write units as tasks; yields those of which a task of ours made the shards."""
    ray, pool_id, lengths = connect(), rendered.folder.parent.parent.name, rendered.lengths()
    jobs = tuple(job_of(representer, pool_id) for representer in representers)
    needs = _needs(ray, representers[0].config)
    task = ray.remote(_compute_unit).options(max_retries=UNLIMITED_RETRIES, **needs)
    waiting = iter(zip(units, names, strict=True))
    at_work: dict[Any, NDArray[np.int64]] = {}
    try:
        while True:
            for unit, name in waiting:
                at_work[task.remote(jobs, unit, name)] = unit
                if len(at_work) >= _in_flight(ray):
                    break
            if not at_work:
                return
            done, _ = ray.wait(list(at_work), num_returns=1)
            unit = at_work.pop(done[0])
            advance(int(lengths[unit].sum()))
            if ray.get(done[0]):
                yield unit
    finally:
        for left in at_work:
            ray.cancel(left)


def _compute_unit(jobs: tuple[Job, ...], unit: NDArray[np.int64], name: str) -> bool:
    """In a worker: one unit's shards, from one forward pass; whether some were not there yet."""
    representers, rendered = opened(jobs)
    folders = [representer.folder for representer in representers]

    def write() -> None:
        parts = represent_samples(representers, rendered.samples(unit))
        for folder, (vectors, report) in zip(folders, parts, strict=True):
            write_shard(folder, name, rendered.keys()[unit], vectors, report)

    def is_done() -> bool:
        return all(is_complete(folder / name) for folder in folders)

    return run_once(folders[0] / ".leases", name, is_done, write)


@lru_cache(maxsize=2)
def opened(jobs: tuple[Job, ...]) -> tuple[list[Representer], RenderedPool]:
    """In a worker: the representers of a run and its rendered pool, kept between tasks."""
    first = jobs[0].open()
    others = [another_representer(first, job.read_config(), job.sae) for job in jobs[1:]]
    return [first, *others], first.rendered(jobs[0].pool_id)


def _needs(ray: Any, config: VectorJob) -> dict[str, float]:
    """A GPU for each task where the cluster has some and the config may use them."""
    may_use_gpu = config.model.device in ("auto", "cuda")
    if may_use_gpu and ray.cluster_resources().get("GPU", 0) >= 1:
        return {"num_cpus": 1, "num_gpus": 1}
    return {"num_cpus": threads_of(config)}


def _in_flight(ray: Any) -> int:
    """Twice as many tasks as can run at once: a worker never waits for the driver."""
    return 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))
