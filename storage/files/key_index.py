"""Finding 16-byte keys among millions by binary search, without a Python object per key."""

import numpy as np
from numpy.typing import NDArray


class KeyIndex:
    """A sorted list of keys, held as pairs of 64-bit numbers: 24 bytes a key."""

    def __init__(self, keys: NDArray[np.uint8]) -> None:
        """Sort the keys (n, 16); they may repeat."""
        high, low = _halves(keys)
        self._order = np.lexsort((low, high))  # stable: the first of equal keys stays first
        self._high, self._low = high[self._order], low[self._order]

    def find(self, keys: NDArray[np.uint8]) -> NDArray[np.int64]:
        """(m,) position of each key (m, 16) in the list, the first of equals; -1 where it is not.

        Raises ValueError for keys of another type or shape.
        """
        high, low = _halves(keys)
        positions = np.full(len(keys), -1, np.int64)
        at = np.searchsorted(self._high, high, side="left")
        end = np.searchsorted(self._high, high, side="right")
        searching = np.flatnonzero(at < end)
        while len(searching):  # more than one round only where first halves coincide
            hit = self._low[at[searching]] == low[searching]
            positions[searching[hit]] = self._order[at[searching[hit]]]
            searching = searching[~hit]
            at[searching] += 1
            searching = searching[at[searching] < end[searching]]
        return positions


def _halves(keys: NDArray[np.uint8]) -> tuple[NDArray[np.uint64], NDArray[np.uint64]]:
    if keys.ndim != 2 or keys.shape[1] != 16 or keys.dtype != np.uint8:
        raise ValueError(f"keys are {keys.dtype} {keys.shape}, expected uint8 (n, 16)")
    pairs = np.ascontiguousarray(keys).view(np.uint64)
    return pairs[:, 0].copy(), pairs[:, 1].copy()
