"""`saelect neighbors`: samples of the pool that the model sees alike."""

import json
import sys
from pathlib import Path
from typing import Any, cast

import numpy as np

from selection.core.errors import InputError
from selection.data.messages.normalize import plain_text
from selection.similarity.sketches import IndexSettings, gpu_is_there
from storage.catalog.sql import run_sql
from storage.files.atomic import MANIFEST, is_complete, read_json
from storage.files.workspace import Workspace, find_workspace
from storage.pools.index import ensure_index, nearest_vectors, open_index
from storage.pools.prepare import PreparedPool, open_pool
from storage.pools.renderings import open_rendering
from storage.pools.shards import open_shards
from storage.pools.vectors import PoolVectors

TEXT_WIDTH = 100


def print_neighbors(root: Path, reference: str, n: int, run: str = "latest") -> None:
    """Print the nearest samples with their exact similarity, the asked one first.

    run: name of the run whose pool and representation are asked, or `latest`.
    """
    workspace = find_workspace(root)
    manifest, told = index_of(workspace, run)
    sys.stdout.write(told + "\n")
    pool = open_pool(workspace.pools / str(manifest["pool_id"]))
    vectors = _vectors(workspace, manifest)
    row = find_row(pool, reference)
    if not vectors.usable[row]:
        raise InputError(
            "has no vector: nothing of it counts", field="example", value=reference,
            remedy="Ask for another sample.",
        )  # fmt: skip
    settings = IndexSettings(**cast("dict[str, Any]", manifest["faiss"]), gpu=gpu_is_there())
    identity = {name: manifest[name] for name in ("pool_id", "rendering_id", "representation_id")}
    folder, built = ensure_index(workspace.indexes, vectors, identity, settings)
    if built:
        sys.stdout.write("index built again: the stored vectors are not those it was made of\n")
    query = vectors.gather(np.array([row]))
    found = nearest_vectors(open_index(folder), vectors, query, n + 1, settings)
    lines = [f"{'similarity':>10}  {'example id':<12}  text"]
    shown = 0
    for number, score in zip(found.rows[0], found.scores[0], strict=True):
        if number < 0:
            continue
        for other in vectors.rows_of(int(number)):
            if shown <= n:
                lines.append(_line(pool, int(other), float(score), is_query=int(other) == row))
                shown += 1
    recall = read_json(folder / MANIFEST)["recall_at_10"]
    lines.append(f"exact generalized Jaccard among FAISS candidates (index recall at 10: {recall})")
    sys.stdout.write("\n".join(lines) + "\n")


def index_of(workspace: Workspace, run: str) -> tuple[dict[str, object], str]:
    """Manifest of an index of a run's vectors, and a line that says what it is about.

    The index may be outdated. Raises InputError where the run, or an index of it, is not there.
    """
    name = run.replace("'", "''")
    known = "" if run == "latest" else f" WHERE name = '{name}'"
    found = run_sql(
        workspace,
        "SELECT name, pool_id, representation_id, model, sae, hookpoint FROM run"
        f"{known} ORDER BY created_at DESC LIMIT 1",
    ).to_pylist()
    if not found:
        raise InputError(
            "no run has this name", field="--run", value=run, remedy="`saelect ls` lists runs."
        )
    row = found[0]
    for folder in sorted(workspace.indexes.glob("*/")):
        if is_complete(folder):
            manifest = read_json(folder / MANIFEST)
            if all(manifest[key] == row[key] for key in ("pool_id", "representation_id")):
                told = f"run {row['name']}: {row['model']}, SAE {row['sae']}, {row['hookpoint']}"
                return manifest, told
    raise InputError(
        "the run has no index",
        field="--run",
        value=row["name"],
        remedy="Run its config again with `index: true`; only the index is made anew.",
    )


def _vectors(workspace: Workspace, manifest: dict[str, object]) -> PoolVectors:
    pool = workspace.pools / str(manifest["pool_id"])
    rendered = open_rendering(pool / "renderings" / str(manifest["rendering_id"]))
    shards = open_shards(workspace.shards / str(manifest["representation_id"]))
    return PoolVectors(shards, rendered.keys(), rendered.usable())


def find_row(pool: PreparedPool, reference: str) -> int:
    """Pool row of an example id, of the beginning of one, or of the data's own id."""
    ids = pool.example_ids().astype(str)
    first = int(np.searchsorted(ids, reference))
    last = int(np.searchsorted(ids, reference + "g"))  # after every hex digit
    if last - first == 1:
        return first
    own = pool.rows_with_own_id(reference)
    if len(own) == 1:
        return int(own[0])
    several = max(last - first, len(own))
    raise InputError(
        f"{several:,} samples begin with this" if several else "no sample has this id",
        field="example",
        value=reference,
        remedy="Give more of the id; `saelect sql` and exports show them."
        if several
        else "Give an example id, its beginning, or the data's own id.",
    )


def _line(pool: PreparedPool, row: int, score: float, *, is_query: bool) -> str:
    example = pool.examples_at(np.array([row])).to_pylist()[0]
    text = plain_text(json.loads(example["messages"])).replace("\n", " ")
    cut = text if len(text) <= TEXT_WIDTH else text[: TEXT_WIDTH - 1] + "…"
    mark = "itself" if is_query else f"{score:.4f}"
    return f"{mark:>10}  {example['example_id'][:12]}  {cut}"
