"""Candidates by FAISS (`ranking.search: faiss`): what the index retrieves, and what that misses."""

from collections.abc import Mapping

from flows.config.jobs import SelectConfig
from flows.orchestration.progress import stage
from flows.stages.rank.index import identity_of, index_pool_vectors, index_settings
from flows.stages.represent.spaces import SpaceVectors
from selection.core.errors import InputError
from selection.picking.budget import wanted_examples
from selection.picking.eligibility import Eligibility
from selection.similarity.ranking_input import RankingInput
from selection.similarity.retrieval import Retrieved, measure_recall, retrieve
from storage.files.atomic import is_complete
from storage.pools.index import index_folder, open_index


def retrieve_candidates(
    config: SelectConfig,
    vectors: SpaceVectors,
    ranking: RankingInput,
    eligibility: Eligibility,
) -> Retrieved | None:
    """The nearest vectors of every exemplar, and of each target's sum; None for the exact search.

    An index that is not there is built, unless only what is recorded may be used. Raises InputError
    then, and where fewer candidates than the budget are retrieved.
    """
    if config.ranking.search == "exact":
        return None
    representer, settings = (
        vectors.sources[vectors.own].representer,
        index_settings(config.faiss, computes=True),
    )
    identity = identity_of(representer, vectors.pool_id)
    indexes = representer.workspace.indexes
    folder, _ = index_folder(indexes, vectors.parts[vectors.own], identity, settings)
    if representer.computes:
        index_pool_vectors(representer.workspace, representer, vectors.pool_id)
    elif not is_complete(folder):
        raise InputError(
            "the vectors have no index",
            field="ranking.search",
            value="faiss",
            remedy="`saelect run` with the same config builds it again; vectors are reused.",
        )
    with stage("search", len(ranking.exemplars), "targets") as handle:
        retrieved = retrieve(
            ranking,
            open_index(folder),
            settings,
            config.ranking.candidates,
            threads=config.compute.n_threads,
            advance=handle.advance,
        )
        n_retrieved = int((retrieved.rows & eligibility.eligible).sum())
        handle.detail = f"{n_retrieved:,} of {eligibility.n:,} examples are candidates"
    wanted = wanted_examples(config.budget.as_budget(), eligibility.n)
    if wanted is not None and n_retrieved < wanted:
        raise InputError(
            f"{n_retrieved:,} candidates were retrieved, and the budget asks for {wanted:,}"
            " examples",
            field="ranking.candidates",
            value=config.ranking.candidates,
            remedy="Raise it to several times the budget over the exemplars, or search exactly.",
        )
    return retrieved


def search_facts(
    config: SelectConfig,
    ranking: RankingInput,
    eligibility: Eligibility,
    retrieved: Retrieved,
    cuts: Mapping[str, float],
) -> dict[str, object]:
    """What a run's record says of its search. cuts: target -> score of its last pick."""
    recall = measure_recall(
        ranking,
        config.ranking.exemplar_reduction,
        eligibility.eligible,
        retrieved,
        cuts,
        n_vectors=config.ranking.recall_vectors,
        threads=config.compute.n_threads,
    )
    n = int((retrieved.rows & eligibility.eligible).sum())
    return {"search": {"candidates": n, "recall": recall}}
