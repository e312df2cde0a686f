"""Build the FAISS index of a pool's sketches, which `saelect neighbors` asks."""

from flows.config.jobs import VectorJob
from flows.embed_pool import embed_task
from flows.orchestration.artifacts import reported
from flows.orchestration.run_page import Made
from flows.orchestration.stage_task import stage_task
from flows.prepare_pool import prepare_task, render_task
from flows.stages.rank.index import index_pool_vectors
from flows.stages.represent.representer import open_representer
from flows.stages.session import open_session
from flows.train_sae import sae_folder
from storage.files.workspace import open_workspace


@stage_task("index-pool")
def index_task(config: VectorJob, workspace: str, pool_id: str, sae: str) -> str:
    """Sketch every vector of the pool and index the sketches; returns the index's folder."""
    root = open_workspace(workspace)
    return str(index_pool_vectors(root, open_representer(config, root, sae), pool_id))


def run_indexing(config: VectorJob, workspace: str) -> Made:
    """The tasks of the flow; returns the pool and the index's folder."""
    with open_session(config, open_workspace(workspace)), reported():
        pool_id = prepare_task(config, workspace)
        render_task(config, workspace, pool_id)
        sae = sae_folder(config, workspace, pool_id)
        embed_task(config, workspace, pool_id, sae)
        return {"pool": pool_id, "index": index_task(config, workspace, pool_id, sae)}
