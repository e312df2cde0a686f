"""Sketches of shards, one file each, named after what they are made of.

A file's name holds the hashes of its shard's arrays, so a changed shard has other sketches, and
those of shards that did not change are made once. All of it can be deleted at any time.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from selection.core.hashing import content_id
from selection.similarity.sketches import sketch
from storage.files.atomic import write_arrays
from storage.pools.shards import Shard

_VERSION = 1
"""Of `selection.similarity.sketches.sketch`; raise it when a sketch would change."""


class SketchFiles:
    """Sketches of one size and seed."""

    def __init__(self, folder: Path, n_dims: int, seed: int) -> None:
        """folder: of all sketches; made when missing."""
        self.folder, self.n_dims, self.seed = folder, n_dims, seed

    def of(self, shard: Shard) -> NDArray[np.float16]:
        """(n_rows, n_dims) of a shard's vectors, mapped; made where no readable file is there.

        Raises InputError where the shard was altered since it was written.
        """
        file = self.folder / f"{self._name(shard)}.npy"
        array = self._read(file, shard.n_rows)
        if array is not None:
            return array
        shard.verify()  # A sketch of other bytes would keep this name.
        # Half precision: a sketch is far noisier than that.
        made = sketch(shard.rows(), self.n_dims, self.seed).astype(np.float16)
        write_arrays(file, made)
        return made

    def _name(self, shard: Shard) -> str:
        arrays = {name: shard.sha256[name] for name in sorted(shard.sha256) if name != "keys.npy"}
        return content_id([arrays, self.n_dims, self.seed, _VERSION])

    def _read(self, file: Path, n_rows: int) -> NDArray[np.float16] | None:
        try:
            array = np.load(file, mmap_mode="r" if n_rows else None, allow_pickle=False)
        except (OSError, ValueError, EOFError):
            return None
        if array.shape != (n_rows, self.n_dims) or array.dtype != np.float16:
            return None
        return np.asarray(array)
