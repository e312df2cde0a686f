"""Second pass over the vectors: every shard against every target, here, by processes or on Ray."""

from pathlib import Path

from flows.config.jobs import SelectConfig
from flows.orchestration.progress import stage
from flows.stages.rank.processes import scores_by_processes
from flows.stages.represent.spaces import SpaceVectors
from selection.core.errors import InputError
from selection.core.numbers import plural
from selection.similarity.ranking_input import PoolScorer, RankingInput, Scores
from selection.similarity.retrieval import Retrieved


def pool_scores(
    config: SelectConfig,
    vectors: SpaceVectors,
    ranking: RankingInput,
    scratch: Path,
    retrieved: Retrieved | None = None,
) -> Scores:
    """Target -> scores of all pool rows; what is not retrieved scores 0.

    scratch: folder for what helper processes hand over.
    """
    only = None if retrieved is None else retrieved.vectors
    source, compute = vectors.parts[0], config.compute
    scorer = _scorer(config, ranking)
    n_processes = min(compute.workers, max(len(source.shards), 1))
    with stage("rank", source.n_vectors, "vectors") as handle:
        if compute.task_runner == "ray":
            from flows.stages.rank.ray import score_slices

            blocks = score_slices(config, vectors, scorer, only)
            scores = scorer.collect(vectors, blocks, handle.advance)
        else:
            threads = compute.threads or max(1, compute.n_threads // n_processes)
            scores = scores_by_processes(
                scorer.with_threads(threads), vectors, n_processes, scratch, only, handle.advance
            )
        spaces = " + ".join(vectors.names)
        n_targets = len(ranking.exemplars)
        handle.detail = (
            f"{source.n_vectors:,} vectors of {spaces} against {plural(n_targets, 'target')}"
        )
    return scores


def _scorer(config: SelectConfig, ranking: RankingInput) -> PoolScorer:
    try:
        return ranking.scorer(config.ranking.exemplar_reduction, config.compute.n_threads)
    except InputError as error:
        if error.field == "representation.spaces":
            raise
        raise InputError(
            error.problem, file=config.exemplars.path, field=error.field, remedy=error.remedy
        ) from None
