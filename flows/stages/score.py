"""Second pass over the vectors: every shard against every target, in the joined spaces."""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from flows.config.jobs import SelectConfig
from flows.progress import stage
from flows.stages.spaces import JointTarget, SpaceVectors
from selection.errors import InputError
from selection.records import SparseRows
from selection.reductions import Queries, prepare, score, score_each
from selection.row_kernels import weighted_norms


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
    # Without contrast, all targets weigh columns alike, and a block is joined once for all.
    apart = _weighs_by_target(config)
    with stage("rank", first.n_vectors, "vectors") as handle:
        for numbers, parts in vectors.blocks():
            joined: tuple[SparseRows, NDArray[np.int64]] | None = None
            for name, target in targets.items():
                if joined is None or apart:
                    rows = target.joint.rows(parts)
                    joined = rows, weighted_norms(rows, target.joint.weights)
                rows, norms = joined
                if in_turn:
                    found[name][numbers] = score_each(rows, queries[name], threads=threads)
                else:
                    found[name][numbers] = score(rows, queries[name], norms=norms, threads=threads)
            handle.advance(len(numbers))
        names = " + ".join(source.name for source in vectors.sources)
        handle.detail = f"{first.n_vectors:,} vectors of {names} against {len(targets)} targets"
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
