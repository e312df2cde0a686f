"""Forgetting in bulk files: texts of pools, tokens of renderings, vectors of shards, descriptions.

A forgotten row stays where it is, empty, so that the positions of all others keep their meaning.
Every function may be stopped and repeated; what it needs and would destroy stands in the journal.
"""

import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from selection.core.hashing import file_sha256
from selection.core.sparse import concatenate, empty, take
from selection.data.messages.normalize import turn_texts
from selection.sae.interpret.latents_file import FILE, read_about
from storage.audit.forget_journal import Journal
from storage.catalog.snapshot import open_snapshot
from storage.files.atomic import (
    MANIFEST,
    is_complete,
    json_bytes,
    read_json,
    sync_folder,
    temp_path,
    write_atomically,
    write_bytes,
)
from storage.files.parquet_parts import GROUP_ROWS, damage_explained
from storage.files.workspace import Workspace
from storage.pools.pool import PreparedPool, open_pool
from storage.pools.shards import Shard, as_bytes, open_shards, write_vectors

QUOTES = ", as in …"  # in a description, before an example
_BLANK_POOL: dict[str, dict[str, object]] = {
    "examples": {"messages": "[]", "tools": None, "n_chars": 0},
    "occurrences": {"raw": None, "n_chars": 0},
}


def folders(home: Path) -> list[Path]:
    """Finished folders in a folder, by name."""
    return sorted(f for f in home.glob("*") if is_complete(f)) if home.is_dir() else []


def keys_of(workspace: Workspace, wanted: Sequence[str]) -> set[bytes]:
    """Keys of the vectors of the samples, by all renderings of all pools, unfinished ones too."""
    keys: set[bytes] = set()
    for folder in folders(workspace.pools):
        rows = _rows_of(open_pool(folder), wanted)
        for path, inside in _rendered_parts(folder, rows):
            with damage_explained(path):
                table = pq.read_table(path, columns=["key", "n_counted"]).take(pa.array(inside))
            keys |= {bytes(row["key"]) for row in table.to_pylist() if row["n_counted"]}
    return keys


def keys_beside_pools(workspace: Workspace) -> set[bytes]:
    """Keys of vectors that are of no sample of a pool: of exemplars, and of removed pools.

    An exemplar's key follows from its tokens, which are not kept. So all of these go where one is
    forgotten; the next run computes what it needs again.
    """
    known = [np.zeros(0, "V16")]
    for folder in folders(workspace.pools):
        for path in sorted(folder.glob("renderings/*/part-*.parquet")):
            with damage_explained(path):
                keys = pq.read_table(path, columns=["key"])["key"].to_pylist()
            known.append(np.frombuffer(b"".join(keys), "V16"))
    every = [known[0]]
    for folder in sorted(workspace.shards.glob("*")):
        every += [as_bytes(shard.keys()) for shard in open_shards(folder).shards]
    stray = np.setdiff1d(np.concatenate(every), np.concatenate(known))
    return {bytes(key) for key in stray} - {bytes(16)}


def quoting_latents(workspace: Workspace, wanted: Sequence[str]) -> list[str]:
    """`SAE:latent` of descriptions whose example is from one of the samples, or may be."""
    named = set()
    for path in _description_files(workspace):
        sae = read_about(path).get("sae_sha256")
        named |= {f"{sae}:{line['latent']}" for line in _lines_quoting(path, wanted)}
    texts = []
    for folder in folders(workspace.pools):
        pool = open_pool(folder)
        for messages in pool.examples_at(_rows_of(pool, wanted))["messages"].to_pylist():
            turns = [text.replace("\n", "⏎") for text in turn_texts(json.loads(messages))]
            texts += [*turns, "".join(turns)]
    if texts and workspace.has_catalog:
        with open_snapshot(workspace) as connection:
            rows = connection.execute(
                "SELECT sae, latent, description FROM latent_description"
                " WHERE contains(description, ?)",
                [QUOTES],
            ).fetchall()
        for sae, latent, description in rows:
            # Brackets stand around a token of the quote, and may stand in it too.
            pieces = re.split(r"[\[\]]", description.partition(QUOTES)[2].removesuffix("…"))
            if any(all(piece in text for piece in pieces) for text in texts):
                named.add(f"{sae}:{latent}")
    return sorted(named)


def _description_files(workspace: Workspace) -> list[Path]:
    return sorted((workspace.saes / "described").glob(f"*/{FILE}"))


def _lines_quoting(path: Path, wanted: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of a file of descriptions with an example from one of the samples."""
    with damage_explained(path):
        lines: list[dict[str, Any]] = pq.read_table(path).to_pylist()
    return [line for line in lines if any(e["example"] in wanted for e in line["examples"] or ())]


def forget_in_pool(workspace: Workspace, folder: Path, journal: Journal) -> None:
    """Texts of the pool and tokens of its renderings."""
    wanted = journal.example_ids
    rows = _rows_of(open_pool(folder), wanted)
    if not len(rows):
        return
    rendered = groupby(_rendered_parts(folder, rows), lambda each: each[0].parent)
    for rendering, parts in rendered:
        blank = ((part, _blank_rendering(part, inside)) for part, inside in parts)
        _write_parts(rendering, blank, len(rows), workspace, journal)
    tables = (
        (part, _blanked(part, wanted, values))
        for stem, values in _BLANK_POOL.items()
        for part in sorted(folder.glob(f"{stem}-*.parquet"))
    )
    _write_parts(folder, tables, len(rows), workspace, journal)


def _write_parts(
    folder: Path,
    tables: Iterable[tuple[Path, pa.Table | None]],
    n_redacted: int,
    workspace: Workspace,
    journal: Journal,
) -> None:
    """Write parts of a folder again, and its manifest with their hashes, where it has one.

    tables: (part, what it will hold); None for a part that stays.
    """
    path = folder / MANIFEST
    is_whole = path.exists()  # a rendering may be unfinished
    is_trusted, manifest = is_whole and journal.trusts(workspace, path), {}
    if is_whole:
        manifest = read_json(path)
    recorded = manifest.get("sha256")
    hashes = dict(recorded) if isinstance(recorded, dict) else {}
    for part, table in tables:
        if table is None:
            continue
        is_known = journal.trusts(workspace, part, str(hashes.get(part.name)))
        _write_part(part, table, workspace, journal if is_known else None)
        hashes[part.name] = journal.files.get(workspace.relative(part), hashes.get(part.name))
    if is_whole and hashes != recorded:
        content = json_bytes({**manifest, "redacted": n_redacted, "sha256": hashes})
        if is_trusted:
            journal.announce(workspace, path, hashlib.sha256(content).hexdigest())
        write_bytes(path, content)


def _rows_of(pool: PreparedPool, wanted: Sequence[str]) -> NDArray[np.int64]:
    return np.flatnonzero(np.isin(pool.example_ids().astype(str), wanted))


def _blanked(path: Path, wanted: Sequence[str], values: Mapping[str, object]) -> pa.Table | None:
    """A part of a pool with the given values in wanted rows; None where it has none of them."""
    with damage_explained(path):
        names = pq.read_table(path, columns=["example_id"])["example_id"]
        hit = pc.is_in(names, value_set=pa.array(wanted, names.type))
        if not pc.any(hit).as_py():
            return None
        table = pq.read_table(path)
    for name, value in values.items():
        at = table.schema.get_field_index(name)
        field = table.schema.field(at)
        new = pc.if_else(hit, pa.scalar(value, field.type), table.column(at))
        table = table.set_column(at, field, new)
    return table


def _write_part(
    path: Path, table: pa.Table, workspace: Workspace, journal: Journal | None = None
) -> None:
    """Write a part again. journal: announces it there."""

    def write(temp: Path) -> None:
        pq.write_table(table, temp, compression="zstd", row_group_size=GROUP_ROWS)
        if journal is not None:
            journal.announce(workspace, path, file_sha256(temp))

    write_atomically(path, write)


def _rendered_parts(folder: Path, rows: NDArray[np.int64]) -> list[tuple[Path, list[int]]]:
    """Parts of renderings that hold pool rows, with the rows' positions in them."""
    parts = []
    for rendering in sorted((folder / "renderings").glob("*/")):
        first = 0
        for path in sorted(rendering.glob("part-*.parquet")):
            with damage_explained(path):
                end = first + pq.read_metadata(path).num_rows
            inside = (rows[(rows >= first) & (rows < end)] - first).tolist()
            parts += [(path, inside)] if inside else []
            first = end
    return parts


def _blank_rendering(path: Path, inside: Sequence[int]) -> pa.Table:
    """A part of a rendering without the tokens of some rows."""
    with damage_explained(path):
        table = pq.read_table(path)
    lines = table.to_pylist()
    blank = {"n_full": 0, "n_counted": 0, "truncated": False, "response_lost": False}
    for at in inside:
        lines[at] = {"key": bytes(16), **blank, "tokens": [], "runs": []}
    return pa.Table.from_pylist(lines, schema=table.schema)


def drop_vectors(workspace: Workspace, folder: Path, journal: Journal) -> None:
    """Replace the shards that hold one of the keys; a dropped row is empty under a zero key.

    The new folder is made beside the old one. Between the two renames the shard is not there: then
    its vectors are computed again by the next run.
    """
    keys = journal.key_bytes()
    for shard in open_shards(folder).shards:
        names = shard.keys()
        hit = np.array([bytes(name) in keys for name in names], np.bool_)
        if not hit.any():
            continue
        new, old = temp_path(shard.folder), temp_path(shard.folder)
        try:
            new.mkdir()
            manifest = json_bytes(_write_without(new, shard, hit))
            write_bytes(new / MANIFEST, manifest)
            path = shard.folder / MANIFEST
            if journal.trusts(workspace, path) and shard.altered() is None:
                journal.announce(workspace, path, hashlib.sha256(manifest).hexdigest())
            os.rename(shard.folder, old)
            os.rename(new, shard.folder)
            sync_folder(folder)
        finally:
            for left in (new, old):
                shutil.rmtree(left, ignore_errors=True)


def _write_without(folder: Path, shard: Shard, hit: NDArray[np.bool_]) -> dict[str, object]:
    """The arrays of a shard without the vectors that are hit; returns the manifest."""
    rows, names = shard.rows(), shard.keys().copy()
    kept, n_hit = take(rows, np.flatnonzero(~hit)), int(hit.sum())
    order = np.empty(len(hit), np.int64)
    order[~hit] = np.arange(len(kept))
    order[hit] = len(kept) + np.arange(n_hit)
    again = take(concatenate([kept, empty(n_hit, rows.n_latents)]), order)
    names[hit] = 0
    hashes = write_vectors(folder, names, again)
    manifest = read_json(shard.folder / MANIFEST)
    before = manifest.get("redacted")
    n_redacted = (before if isinstance(before, int) else 0) + n_hit
    return {**manifest, "n_values": len(again.values), "sha256": hashes, "redacted": n_redacted}


def forget_in_descriptions(workspace: Workspace, wanted: Sequence[str]) -> None:
    """Examples of latents that quote one of the samples, and the descriptions made of them."""
    for path in _description_files(workspace):
        quoting = {line["latent"] for line in _lines_quoting(path, wanted)}
        if quoting:
            table = pq.read_table(path)
            lines = table.to_pylist()
            for line in lines:
                if line["latent"] in quoting:
                    line |= {"examples": [], "description": None}
            _write_part(path, pa.Table.from_pylist(lines, schema=table.schema), workspace)
