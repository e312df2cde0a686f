"""Which examples may be picked, and how many were dropped for which reason."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from selection.core.errors import InputError
from selection.records import DropReason

Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class Eligibility:
    """Which examples of a pool may be picked.

    eligible: (n,) bool over the prepared pool.
    drops:    dropped examples by reason; with the eligible ones they add up to n.
    first:    row of the first example of each reason.
    """

    eligible: Mask
    drops: Mapping[DropReason, int]
    first: Mapping[DropReason, int] = field(default_factory=dict)

    @property
    def rows(self) -> NDArray[np.int64]:
        """The eligible rows, ascending."""
        return np.flatnonzero(self.eligible)

    @property
    def n(self) -> int:
        """Number of eligible examples."""
        return int(self.eligible.sum())

    def without(self, dropped: Mapping[DropReason, Mask]) -> "Eligibility":
        """The same less those that one of the (n,) masks names; each counts for its first one."""
        drops, first, eligible = dict(self.drops), dict(self.first), self.eligible.copy()
        for reason, mask in dropped.items():
            rows = np.flatnonzero(eligible & mask)
            if len(rows):
                drops[reason], first[reason] = len(rows), int(rows[0])
            eligible &= ~mask
        return Eligibility(eligible, drops, first)


def eligible_by_content(
    passing: Mask,
    ids: NDArray[np.str_],
    exemplar_ids: Iterable[str],
    excluded: NDArray[np.int64],
    has_response: Iterable[bool] | None,
) -> Eligibility:
    """Examples that may be picked as far as is known before rendering.

    passing: (n,) those that pass `where`. ids: (n,) example ids; copies of exemplars are dropped.
    excluded: rows that are never picked. has_response: of each example; None where prompts count.
    """
    n = len(passing)
    dropped = {
        DropReason.WHERE: ~passing,
        DropReason.IS_EXEMPLAR: np.isin(ids, list(exemplar_ids)),
        DropReason.EXCLUDED: np.isin(np.arange(n), excluded),
    }
    if has_response is not None:
        dropped[DropReason.NO_RESPONSE] = ~np.fromiter(has_response, np.bool_, n)
    return Eligibility(np.ones(n, np.bool_), {}).without(dropped)


def eligible_by_rendering(
    eligibility: Eligibility,
    *,
    n_tokens: NDArray[np.int64],
    response_truncated: Mask,
    has_content: Mask,
    has_vector: Mask,
    contaminated: NDArray[np.int64] | None,
    min_tokens: int | None,
    max_tokens: int | None,
) -> Eligibility:
    """What is left once examples are rendered, represented and searched for evaluation items.

    n_tokens:     (n,) before truncation; min_tokens, max_tokens bound them.
    contaminated: rows that hold an evaluation item.
    Raises InputError where nothing is left.
    """
    dropped = {
        DropReason.RESPONSE_TRUNCATED: response_truncated,
        DropReason.NO_COUNTED_TOKENS: ~has_content,
        DropReason.EMPTY_VECTOR: ~has_vector,
    }
    if min_tokens is not None:
        dropped[DropReason.TOO_SHORT] = n_tokens < min_tokens
    if max_tokens is not None:
        dropped[DropReason.TOO_LONG] = n_tokens > max_tokens
    if contaminated is not None:
        dropped[DropReason.CONTAMINATED] = np.isin(np.arange(len(n_tokens)), contaminated)
    left = eligibility.without(dropped)
    if not left.n:
        reasons = ", ".join(f"{n:,} {reason}" for reason, n in left.drops.items())
        raise InputError(
            f"no example is left to rank ({reasons})",
            remedy="Count other tokens (`counted`), raise `max_length`, or loosen `where`.",
        )
    return left
