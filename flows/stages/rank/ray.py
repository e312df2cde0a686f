"""Scores of the pool computed on a Ray cluster, slice by slice."""

from collections.abc import Iterator
from functools import lru_cache
from uuid import uuid4

from flows.config.jobs import SelectConfig
from flows.stages.represent.ray import (
    UNLIMITED_RETRIES,
    connect,
    job_of,
    opened,
    threads_of,
)
from flows.stages.represent.representer import Job
from flows.stages.represent.spaces import SpaceVectors, open_spaces
from selection.similarity.ranking_input import PoolScorer, Scores
from selection.similarity.sources import VectorMask, VectorNumbers

MOST_SLICES = 1000

_scorers: dict[str, PoolScorer] = {}


def score_slices(
    config: SelectConfig, vectors: SpaceVectors, scorer: PoolScorer, only: VectorMask | None = None
) -> Iterator[tuple[VectorNumbers, Scores]]:
    """(vector numbers, their scores) of one slice after another, as they become ready.

    only: as in `PoolSpaces.slices`.
    """
    ray = connect()
    own = vectors.sources[vectors.own]
    job = job_of(own.representer, vectors.pool_id)
    size = max(config.compute.unit_examples, vectors.parts[0].n_vectors // MOST_SLICES + 1)
    task = ray.remote(_score_slice).options(
        max_retries=UNLIMITED_RETRIES, num_cpus=threads_of(config)
    )
    name = uuid4().hex
    shared = ray.put(scorer.with_threads(threads_of(config)))
    slices = vectors.slices(size, only)
    at_work = {task.remote(job, name, shared, numbers): numbers for numbers in slices}
    try:
        while at_work:
            done, _ = ray.wait(list(at_work), num_returns=1)
            yield at_work.pop(done[0]), ray.get(done[0])
    finally:
        for left in at_work:
            ray.cancel(left)


def _score_slice(job: Job, name: str, scorer: PoolScorer, numbers: VectorNumbers) -> Scores:
    """In a worker: the scores of some vectors. `name` is the scorer's, kept between tasks."""
    vectors = _opened_spaces(job)
    if name not in _scorers:
        _scorers.clear()
        _scorers[name] = scorer
    return _scorers[name].block([part.gather_vectors(numbers) for part in vectors.parts])


@lru_cache(maxsize=1)
def _opened_spaces(job: Job) -> SpaceVectors:
    [representer], _ = opened((job,))
    return open_spaces(SelectConfig.model_validate_json(job.config), representer, job.pool_id)
