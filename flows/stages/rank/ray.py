"""Scores of the pool computed on a Ray cluster, slice by slice."""

from collections.abc import Iterator
from dataclasses import replace
from functools import lru_cache
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from flows.config.jobs import SelectConfig
from flows.stages.rank.score_block import BlockScorer, Scores, Scoring
from flows.stages.represent.ray import FOR_EVER, Job, _opened, connect, threads_of
from flows.stages.represent.spaces import SpaceVectors


def score_slices(
    config: SelectConfig,
    vectors: SpaceVectors,
    scoring: Scoring,
    only: NDArray[np.bool_] | None = None,
) -> Iterator[tuple[NDArray[np.int64], Scores]]:
    """(vector numbers, their scores) of one slice after another, as they become ready.

    only: (n_vectors,) bool, vectors that are wanted; default: all.
    """
    ray = connect()
    own = next(source for source in vectors.sources if source.settings.is_own)
    job = Job.of(own.representer, vectors.pool_id)
    size = max(config.compute.unit_examples, vectors.parts[0].n_vectors // MOST_SLICES + 1)
    task = ray.remote(_score_slice).options(max_retries=FOR_EVER, num_cpus=threads_of(config))
    name = uuid4().hex
    shared = ray.put(replace(scoring, threads=threads_of(config)))
    n = vectors.parts[0].n_vectors
    wanted = np.arange(n) if only is None else np.flatnonzero(only)
    slices = [wanted[start : start + size] for start in range(0, len(wanted), size)]
    at_work = {task.remote(job, name, shared, numbers): numbers for numbers in slices}
    try:
        while at_work:
            done, _ = ray.wait(list(at_work), num_returns=1)
            yield at_work.pop(done[0]), ray.get(done[0])
    finally:
        for left in at_work:
            ray.cancel(left)


def _score_slice(job: Job, name: str, scoring: Scoring, numbers: NDArray[np.int64]) -> Scores:
    """In a worker: the scores of some vectors. `name` is the scoring's, kept between tasks."""
    vectors = _opened_spaces(job)
    if name not in _scorers:
        _scorers.clear()
        _scorers[name] = BlockScorer(scoring)
    return _scorers[name].scores([part.gather_vectors(numbers) for part in vectors.parts])


@lru_cache(maxsize=1)
def _opened_spaces(job: Job) -> SpaceVectors:
    from flows.stages.represent.spaces import open_spaces

    [representer], _ = _opened((job,))
    return open_spaces(SelectConfig.model_validate_json(job.config), representer, job.pool_id)


MOST_SLICES = 1000


_scorers: dict[str, BlockScorer] = {}
