"""Second pass over the vectors: every shard against every target, here or on Ray."""

from flows.config.jobs import SelectConfig
from flows.orchestration.progress import stage
from flows.stages.represent.spaces import SpaceVectors
from selection.core.errors import InputError
from selection.core.numbers import plural
from selection.similarity.ranking_input import PoolScorer, RankingInput, Scores
from selection.similarity.retrieval import Retrieved


def pool_scores(
    config: SelectConfig,
    vectors: SpaceVectors,
    ranking: RankingInput,
    retrieved: Retrieved | None = None,
) -> Scores:
    """Target -> scores of all pool rows; what is not retrieved scores 0."""
    only = None if retrieved is None else retrieved.vectors
    source, scorer = vectors.parts[0], _scorer(config, ranking)
    with stage("rank", source.n_vectors, "vectors") as handle:
        if config.compute.task_runner == "ray":
            from flows.stages.rank.ray import score_slices

            blocks = score_slices(config, vectors, scorer, only)
            scores = scorer.collect(vectors, blocks, handle.advance)
        else:
            scores = scorer.scores(vectors, only=only, advance=handle.advance)
        spaces = " + ".join(vectors.names)
        n_targets = len(ranking.exemplars)
        handle.detail = (
            f"{source.n_vectors:,} vectors of {spaces} against {plural(n_targets, 'target')}"
        )
    return scores


def _scorer(config: SelectConfig, ranking: RankingInput) -> PoolScorer:
    compute = config.compute
    threads = compute.n_threads * (compute.workers if compute.threads else 1)
    try:
        return ranking.scorer(config.ranking.exemplar_reduction, threads)
    except InputError as error:
        if error.field == "representation.spaces":
            raise
        raise InputError(
            error.problem, file=config.exemplars.path, field=error.field, remedy=error.remedy
        ) from None
