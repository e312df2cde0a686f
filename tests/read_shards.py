"""What a run left in its workspace, read from its files by numpy and pyarrow alone."""

import numpy as np
import pyarrow.parquet as pq

from storage.files.workspace import Workspace


def stored_vectors(
    workspace: Workspace,
) -> tuple[dict[str, dict[int, int]], dict[str, dict[int, int]]]:
    """Example id -> {latent: value} of pool and exemplars, read from the files of the workspace."""
    (pool_folder,) = (p for p in workspace.pools.iterdir() if (p / "manifest.json").exists())
    (rendering,) = (pool_folder / "renderings").iterdir()
    (representation,) = workspace.shards.iterdir()
    by_key: dict[bytes, dict[int, int]] = {}
    for unit in (p.parent for p in representation.glob("*/manifest.json")):
        names = ("indptr", "latents", "values", "keys")
        indptr, latents, values, keys = (np.load(unit / f"{name}.npy") for name in names)
        for i in range(len(keys)):
            span = slice(indptr[i], indptr[i + 1])
            pairs = zip(latents[span].tolist(), values[span].tolist(), strict=True)
            by_key[bytes(keys[i])] = dict(pairs)
    ids = [
        i
        for part in sorted(pool_folder.glob("examples-*.parquet"))
        for i in pq.read_table(part)["example_id"].to_pylist()
    ]
    parts = sorted(rendering.glob("part-*.parquet"))
    used = [key for p in parts for key in pq.read_table(p, columns=["key"])["key"].to_pylist()]
    pool = {name: by_key[key] for name, key in zip(ids, used, strict=True)}
    in_pool = set(used)
    return pool, {key.hex(): vector for key, vector in by_key.items() if key not in in_pool}
