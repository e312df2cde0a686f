"""The index stage: a pool's vectors, sketched and indexed, or the index of the same vectors."""

from pathlib import Path

from flows.config.ranking import FaissConfig
from flows.orchestration.progress import stage
from flows.stages.represent.representer import Representer, pool_vectors
from selection.similarity.sketches import IndexSettings, gpu_is_there
from storage.files.atomic import MANIFEST, is_complete, read_json
from storage.files.leases import run_once
from storage.files.workspace import Workspace
from storage.pools.index import RECALL_K, ensure_index, index_folder
from storage.pools.vectors import PoolVectors


def index_settings(config: FaissConfig, *, computes: bool = False) -> IndexSettings:
    """The record that index and search take.

    computes: whether something is built or searched; only then FAISS is asked for a GPU, since
    loading it takes longer than finding an index that is there.
    """
    values = config.model_dump(exclude={"gpu"})
    return IndexSettings(**values, gpu=computes and config.gpu == "auto" and gpu_is_there())


def index_pool_vectors(workspace: Workspace, representer: Representer, pool_id: str) -> Path:
    """Index a pool's sketches, or reuse the index of the same vectors; returns its folder."""
    vectors, config = pool_vectors(representer, pool_id), representer.config
    settings = index_settings(config.faiss)
    with stage("index", vectors.n_vectors, "vectors") as handle:
        identity = identity_of(representer, pool_id)
        folder, _ = index_folder(workspace.indexes, vectors, identity, settings)
        built = run_once(
            workspace.leases,
            f"index-{folder.name}",
            lambda: is_complete(folder),
            lambda: ensure_index(
                workspace.indexes,
                vectors,
                identity,
                index_settings(config.faiss, computes=True),
                threads=config.compute.n_threads,
                advance=handle.advance,
            ),
        )
        share = read_json(folder / MANIFEST)[f"recall_at_{RECALL_K}"]
        reused = "" if built else ", reused"
        handle.detail = f"{vectors.n_vectors:,} vectors, recall at {RECALL_K} {share:.3f}{reused}"
    return folder


def identity_of(representer: Representer, pool_id: str) -> dict[str, object]:
    """Which vectors an index is of."""
    return {
        "pool_id": pool_id,
        "rendering_id": representer.model_input.renderer.rendering_id,
        "representation_id": representer.representation_id,
    }


def index_facts(
    workspace: Workspace, representer: Representer, pool_id: str, vectors: PoolVectors
) -> dict[str, object]:
    """What a run's record says of its index: how it looks things up, and what it misses."""
    identity, settings = identity_of(representer, pool_id), index_settings(representer.config.faiss)
    folder, _ = index_folder(workspace.indexes, vectors, identity, settings)
    if not is_complete(folder):
        return {}
    manifest = read_json(folder / MANIFEST)
    names = ("n_vectors", "n_lists", "n_probes", "trained_on", "recall_at_10", "recall_queries")
    return {"index": {"folder": folder.name, **{name: manifest[name] for name in names}}}
