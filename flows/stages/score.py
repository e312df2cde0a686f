"""Second pass over the vectors: every shard against every target, in the joined spaces."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from flows.config.jobs import SelectConfig
from flows.progress import stage
from flows.stages.spaces import JointTarget, SpaceVectors
from selection.errors import InputError
from selection.reductions import Queries, prepare, score_each
from selection.scoring import Scorer


def joint_scores(
    config: SelectConfig, vectors: SpaceVectors, targets: Mapping[str, JointTarget]
) -> dict[str, NDArray[np.float64]]:
    """Target -> (n,) scores of all pool rows; (n, m) for every exemplar under round robin."""
    queries = {name: _queries(config, name, target) for name, target in targets.items()}
    first, threads = vectors.parts[0], config.compute.n_threads
    in_turn = config.ranking.exemplar_reduction == "round_robin"
    found = {
        name: np.zeros((first.n_vectors, len(target.rows)) if in_turn else first.n_vectors)
        for name, target in targets.items()
    }
    # Without contrast, targets weigh columns alike: a block is joined, and read, once for all.
    together = [[name] for name in targets] if _weighs_by_target(config) else [list(targets)]
    scorers = [
        Scorer(targets[names[0]].joint.weights, [queries[name].target for name in names])
        for names in together
    ]
    with stage("rank", first.n_vectors, "vectors") as handle:
        for numbers, parts in vectors.blocks():
            for names, scorer in zip(together, scorers, strict=True):
                rows = targets[names[0]].joint.rows(parts)
                if in_turn:
                    for name in names:
                        found[name][numbers] = score_each(rows, queries[name], threads=threads)
                    continue
                scores = scorer.scores(rows, threads=threads)
                for name, own in zip(names, scores, strict=True):
                    found[name][numbers] = own
            handle.advance(len(numbers))
        spaces = " + ".join(source.name for source in vectors.sources)
        handle.detail = f"{first.n_vectors:,} vectors of {spaces} against {len(targets)} targets"
    return {name: first.spread(values, fill=0.0) for name, values in found.items()}


def _weighs_by_target(config: SelectConfig) -> bool:
    kinds = [space.weights or config.ranking.weights for space in config.representation.spaces]
    return any("contrast" in kind for kind in kinds)


def _queries(config: SelectConfig, name: str, target: JointTarget) -> Queries:
    ranking = config.ranking
    try:
        return prepare(
            target.rows,
            target.joint.weights,
            ranking.exemplar_reduction,
            groups=target.groups,
            best=ranking.best,
            n_clusters=ranking.n_clusters,
        )
    except InputError as error:
        raise InputError(
            error.problem, file=config.exemplars.path, field=name, remedy=error.remedy
        ) from None
