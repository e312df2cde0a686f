"""Second pass over the vectors: every shard against every target, in the joined spaces."""

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, cast

import numpy as np
from numpy.typing import NDArray

from flows.config.jobs import SelectConfig
from flows.orchestration.progress import stage
from flows.stages.rank.score_block import BlockScorer, Scores, Scoring
from flows.stages.represent.spaces import JointTarget, JointVectors
from selection.core.errors import InputError
from selection.similarity.queries import ExemplarQueries, ExemplarReduction, exemplar_queries

if TYPE_CHECKING:  # helpers that score need no torch
    from flows.stages.represent.spaces import SpaceVectors


def joint_scores(
    config: SelectConfig,
    vectors: JointVectors,
    targets: Mapping[str, JointTarget],
    *,
    only: NDArray[np.bool_] | None = None,
    share: tuple[int, int] = (0, 1),
) -> dict[str, NDArray[np.float64]]:
    """Target -> (n,) scores of all pool rows; (n, m) for every exemplar under round robin.

    only, share: as in `PoolVectors.blocks`; a vector that is left out scores 0. So what the shares
    of several processes have in common is 0, and the largest score of each row is the whole.
    """
    first, in_turn = vectors.parts[0], config.ranking.exemplar_reduction == "round_robin"
    scoring = Scoring(
        joint=next(iter(targets.values())).joint,
        queries={name: queries_of(config, name, target) for name, target in targets.items()},
        in_turn=in_turn,
        threads=config.compute.n_threads,
    )
    found = {
        name: np.zeros((first.n_vectors, len(target.rows)) if in_turn else first.n_vectors)
        for name, target in targets.items()
    }
    with stage("rank", first.n_vectors, "vectors") as handle:
        for numbers, scores in _scored(config, vectors, scoring, only, share):
            for name, values in scores.items():
                found[name][numbers] = values
            handle.advance(len(numbers))
        spaces = " + ".join(vectors.names)
        handle.detail = f"{first.n_vectors:,} vectors of {spaces} against {len(targets)} targets"
    return {name: first.spread(values, fill=0.0) for name, values in found.items()}


def _scored(
    config: SelectConfig,
    vectors: JointVectors,
    scoring: Scoring,
    only: NDArray[np.bool_] | None,
    share: tuple[int, int],
) -> Iterator[tuple[NDArray[np.int64], Scores]]:
    """(vector numbers, their scores), every vector once: here, or by tasks of a cluster."""
    if config.compute.task_runner == "ray":
        from flows.stages.rank.ray import score_slices

        yield from score_slices(config, cast("SpaceVectors", vectors), scoring, only)
    else:
        scorer = BlockScorer(scoring)
        for numbers, parts in vectors.blocks(only=only, share=share):
            yield numbers, scorer.scores(parts)


def queries_of(
    config: SelectConfig,
    name: str,
    target: JointTarget,
    reduction: ExemplarReduction | None = None,
) -> ExemplarQueries:
    """The exemplars of a target, ready to score; by default under the config's reduction."""
    ranking = config.ranking
    try:
        return exemplar_queries(
            target.rows,
            target.joint.weights,
            reduction or ranking.exemplar_reduction,
        )
    except InputError as error:
        raise InputError(
            error.problem, file=config.exemplars.path, field=name, remedy=error.remedy
        ) from None
    except OverflowError as error:
        raise InputError(
            f"the sums of `{name}` would leave 64 bits ({error})",
            field="representation.spaces",
            remedy="Lower the weights of the spaces, or set `ranking: {normalize: pool}`.",
        ) from None
