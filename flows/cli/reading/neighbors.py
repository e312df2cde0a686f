"""`saelect neighbors`: samples of the pool that the model sees alike."""

import json
from pathlib import Path
from typing import Any, cast

from flows.orchestration.terminal import one_line, print_table, say
from selection.core.errors import InputError
from selection.data.messages.normalize import plain_text
from selection.similarity.sketches import IndexSettings, gpu_is_there
from storage.files.atomic import MANIFEST, is_complete, read_json
from storage.files.workspace import Workspace, find_workspace
from storage.pools.index import ensure_index, nearest_rows
from storage.pools.pool import PreparedPool, open_pool
from storage.pools.renderings import open_rendering
from storage.pools.shards import open_shards
from storage.pools.vectors import PoolVectors
from storage.queries.sql import run_sql


def print_neighbors(root: Path, reference: str, n: int, run: str = "latest") -> None:
    """Print the nearest samples with their exact similarity, the sample itself first.

    run: name of the run whose pool and representation are asked, or `latest`.
    """
    workspace = find_workspace(root)
    manifest, about = index_of(workspace, run)
    say(about)
    pool = open_pool(workspace.pools / str(manifest["pool_id"]))
    vectors = _vectors(workspace, manifest)
    row = pool.row_named(reference)
    if not vectors.usable[row]:
        raise InputError(
            "has no vector: nothing of it counts",
            field="example",
            value=reference,
            remedy="Ask for another sample.",
        )
    settings = IndexSettings(**cast("dict[str, Any]", manifest["faiss"]), gpu=gpu_is_there())
    identity = {name: manifest[name] for name in ("pool_id", "rendering_id", "representation_id")}
    folder, built = ensure_index(workspace.indexes, vectors, identity, settings)
    if built:
        say("index built again: the stored vectors are not those it was made of")
    nearest = nearest_rows(folder, vectors, row, n + 1, settings)
    rows = [_cells(pool, other, score, is_query=other == row) for other, score in nearest]
    print_table(("similarity", "example id", "text"), rows)
    recall = read_json(folder / MANIFEST)["recall_at_10"]
    say(f"exact generalized Jaccard among FAISS candidates (index recall at 10: {recall})")


def index_of(workspace: Workspace, run: str) -> tuple[dict[str, object], str]:
    """Manifest of an index of a run's vectors, and a line that says what it is about.

    The index may be outdated. Raises InputError where the run, or an index of it, is not there.
    """
    name = run.replace("'", "''")
    known = "" if run == "latest" else f" WHERE name = '{name}'"
    rows = run_sql(
        workspace,
        "SELECT name, pool_id, representation_id, model, sae, hookpoint FROM run"
        f"{known} ORDER BY created_at DESC LIMIT 1",
    ).to_pylist()
    if not rows:
        raise InputError(
            "no run has this name", field="--run", value=run, remedy="`saelect ls` lists runs."
        )
    row = rows[0]
    for folder in sorted(workspace.indexes.glob("*/")):
        if is_complete(folder):
            manifest = read_json(folder / MANIFEST)
            if all(manifest[key] == row[key] for key in ("pool_id", "representation_id")):
                about = f"run {row['name']}: {row['model']}, SAE {row['sae']}, {row['hookpoint']}"
                return manifest, about
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


def _cells(pool: PreparedPool, row: int, score: float, *, is_query: bool) -> tuple[str, str, str]:
    example = pool.example_at(row)
    text = one_line(plain_text(json.loads(example["messages"])))
    return "itself" if is_query else f"{score:.4f}", example["example_id"][:12], text
