"""Forgetting in bulk files: texts of pools, tokens of renderings, vectors of shards.

A forgotten row stays where it is, empty, so that the positions of all others keep their meaning.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from selection.core.hashing import file_sha256
from selection.core.sparse import concatenate, empty, take
from storage.files.atomic import MANIFEST, is_complete, read_json, write_atomically, write_json
from storage.files.parquet_parts import GROUP_ROWS
from storage.files.workspace import Workspace
from storage.pools.pool import open_pool
from storage.pools.shards import open_shards

_ARRAYS = ("keys", "indptr", "latents", "values")


def folders(home: Path) -> list[Path]:
    """Finished folders in a folder, by name."""
    return sorted(f for f in home.glob("*") if is_complete(f)) if home.is_dir() else []


def forget_in_pool(workspace: Workspace, folder: Path, wanted: Sequence[str]) -> None:
    """Texts of the pool, tokens of its renderings, and the vectors made of them."""
    names = open_pool(folder).example_ids().astype(str)
    rows = np.flatnonzero(np.isin(names, wanted))
    if not len(rows):
        return
    keys: set[bytes] = set()
    for rendering in folders(folder / "renderings"):
        keys |= _blank_rendering(rendering, rows)
    for representation in sorted(workspace.shards.glob("*")):
        _drop_vectors(representation, keys)
    value = {"messages": "[]", "tools": None, "n_chars": 0}
    _blank(folder, "examples", "example_id", wanted, value)
    _blank(folder, "occurrences", "example_id", wanted, {"raw": None, "n_chars": 0})
    hashes = {file.name: file_sha256(file) for file in sorted(folder.glob("*.parquet"))}
    manifest = {**read_json(folder / MANIFEST), "redacted": len(rows), "sha256": hashes}
    write_json(folder / MANIFEST, manifest)


def _blank(
    folder: Path, stem: str, column: str, wanted: Sequence[str], values: Mapping[str, object]
) -> None:
    """Write the parts again that hold a wanted row, with the given values in it."""
    for path in sorted(folder.glob(f"{stem}-*.parquet")):
        names = pq.read_table(path, columns=[column])[column]
        hit = pc.is_in(names, value_set=pa.array(wanted, names.type))
        if not pc.any(hit).as_py():
            continue
        table = pq.read_table(path)
        for name, value in values.items():
            at = table.schema.get_field_index(name)
            field = table.schema.field(at)
            new = pc.if_else(hit, pa.scalar(value, field.type), table.column(at))
            table = table.set_column(at, field, new)
        _write_part(path, table)


def _write_part(path: Path, table: pa.Table) -> None:
    def write(temp: Path) -> None:
        pq.write_table(table, temp, compression="zstd", row_group_size=GROUP_ROWS)

    write_atomically(path, write)


def _blank_rendering(folder: Path, rows: np.ndarray) -> set[bytes]:
    """Empty the tokens of pool rows; returns the keys their vectors had."""
    first, keys = 0, set()
    for path in sorted(folder.glob("part-*.parquet")):
        n = pq.read_metadata(path).num_rows
        inside = set((rows[(rows >= first) & (rows < first + n)] - first).tolist())
        first += n
        if not inside:
            continue
        table = pq.read_table(path)
        lines = table.to_pylist()
        for at in inside:
            if lines[at]["n_counted"] or lines[at]["tokens"]:
                keys.add(bytes(lines[at]["key"]))
            blank = {"n_full": 0, "n_counted": 0, "truncated": False, "response_lost": False}
            lines[at] = {"key": bytes(16), **blank, "tokens": [], "runs": []}
        again = pa.Table.from_pylist(lines, schema=table.schema)
        write_atomically(path, lambda temp, t=again: pq.write_table(t, temp, compression="zstd"))  # type: ignore[misc]
    return keys


def _drop_vectors(folder: Path, keys: set[bytes]) -> None:
    """Write the shards again that hold one of the keys; a dropped row is empty under a zero key."""
    for shard in open_shards(folder).shards:
        names = shard.keys()
        hit = np.array([bytes(name) in keys for name in names], np.bool_)
        if not hit.any():
            continue
        rows = shard.rows()
        kept = take(rows, np.flatnonzero(~hit))
        order = np.empty(len(hit), np.int64)
        order[~hit] = np.arange(len(kept))
        order[hit] = len(kept) + np.arange(int(hit.sum()))
        again = take(concatenate([kept, empty(int(hit.sum()), rows.n_latents)]), order)
        names = names.copy()
        names[hit] = 0
        arrays = dict(zip(_ARRAYS, (names, again.indptr, again.latents, again.values), strict=True))
        dtypes = (np.uint8, np.int64, np.int32, np.uint16)
        for (name, array), dtype in zip(arrays.items(), dtypes, strict=True):
            _save(shard.folder / f"{name}.npy", np.ascontiguousarray(array, dtype))
        manifest = read_json(shard.folder / MANIFEST)
        sha256 = {f"{name}.npy": file_sha256(shard.folder / f"{name}.npy") for name in _ARRAYS}
        n_redacted = int(manifest.get("redacted", 0) or 0) + int(hit.sum())  # type: ignore[call-overload]
        changed = {"n_values": len(again.values), "sha256": sha256, "redacted": n_redacted}
        write_json(shard.folder / MANIFEST, {**manifest, **changed})


def _save(path: Path, array: np.ndarray) -> None:
    def write(temp: Path) -> None:
        with temp.open("wb") as file:
            np.save(file, array)

    write_atomically(path, write)
