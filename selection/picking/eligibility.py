"""Which examples may be picked, and how many were dropped for which reason."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from selection.records import DropReason


@dataclass(frozen=True)
class Eligibility:
    """Which examples of a pool may be picked.

    eligible: (n,) bool over the prepared pool.
    drops:    dropped examples by reason; with the eligible ones they add up to n.
    first:    row of the first example of a reason, where it is known.
    """

    eligible: NDArray[np.bool_]
    drops: Mapping[DropReason, int]
    first: Mapping[DropReason, int] = field(default_factory=dict)

    @property
    def n(self) -> int:
        """Number of eligible examples."""
        return int(self.eligible.sum())

    def without(self, dropped: Mapping[DropReason, NDArray[np.bool_]]) -> "Eligibility":
        """The same less those that one of the (n,) masks names; each counts for its first one."""
        drops, eligible = dict(self.drops), self.eligible.copy()
        for reason, mask in dropped.items():
            n = int((eligible & mask).sum())
            if n:
                drops[reason] = n
            eligible &= ~mask
        return Eligibility(eligible, drops)
