"""What a run ranks, against what: eligible examples, exemplars with their weights, candidates."""

from collections.abc import Mapping
from dataclasses import dataclass

import pyarrow as pa

from flows.config.jobs import SelectConfig
from flows.stages.prepare.rules import Contamination, contamination_of
from flows.stages.rank.retrieve import retrieve_candidates
from flows.stages.represent.spaces import SpaceVectors, Terms, ranking_input_of
from selection.core.errors import InputError
from selection.picking.eligibility import Eligibility
from selection.records import DropReason, Exemplars
from selection.similarity.ranking_input import RankingInput
from selection.similarity.retrieval import Retrieved
from storage.pools.prepare import PreparedPool
from storage.pools.renderings import RenderedPool


@dataclass(frozen=True)
class RunInput:
    """What a run ranks.

    eligibility:   after every drop.
    ranking:       vectors, joined spaces with their weights, and exemplars.
    terms:         what the exemplars' lexical columns stand for.
    contamination: which examples hold an evaluation item, as far as that was searched.
    retrieved:     what may be ranked of the eligible, where the search is not exact.
    """

    eligibility: Eligibility
    ranking: RankingInput
    terms: Terms
    contamination: Contamination | None = None
    retrieved: Retrieved | None = None


def run_input(
    config: SelectConfig,
    eligibility: Eligibility,
    pool: PreparedPool,
    rendered: RenderedPool,
    vectors: SpaceVectors,
    targets: Mapping[str, tuple[pa.Table, Exemplars]],
) -> RunInput:
    """First pass over the vectors: weights from all of them, and the drops that rendering left."""
    verify = config.compute.verify_shards
    ranking, terms, has_column = ranking_input_of(config, vectors, targets, verify=verify)
    tables = {name: table for name, (table, _) in targets.items()}
    contamination = contamination_of(config, pool, tables)
    tokens, bounds = rendered.full_lengths(), config.length
    dropped = {
        DropReason.RESPONSE_TRUNCATED: rendered.response_truncated(),
        DropReason.NO_COUNTED_TOKENS: ~rendered.usable(),
        DropReason.EMPTY_VECTOR: ~vectors.parts[0].spread(has_column, fill=False),
    }
    if bounds.min_tokens is not None:
        dropped[DropReason.TOO_SHORT] = tokens < bounds.min_tokens
    if bounds.max_tokens is not None:
        dropped[DropReason.TOO_LONG] = tokens > bounds.max_tokens
    if contamination is not None:
        dropped[DropReason.CONTAMINATED] = contamination.mask(pool.n_examples)
    left = eligibility.without(dropped)
    if not left.n:
        reasons = ", ".join(f"{n:,} {reason}" for reason, n in left.drops.items())
        raise InputError(
            f"no example is left to rank ({reasons})",
            field="rendering.counted",
            value=config.rendering.counted,
            remedy="Count other tokens, raise `rendering.max_length`, or loosen `where`.",
        )
    retrieved = retrieve_candidates(config, vectors, ranking, left)
    return RunInput(left, ranking, terms, contamination, retrieved)
