"""Compute the vectors of a pool that no shard holds yet."""

from flows.config.jobs import VectorJob
from flows.orchestration.artifacts import reported
from flows.orchestration.run_page import Made
from flows.orchestration.stage_task import stage_task
from flows.prepare_pool import prepare_task, render_task
from flows.stages.represent.workers import embed_all
from flows.stages.session import open_session
from flows.train_sae import sae_folder
from storage.files.workspace import open_workspace


@stage_task("embed-pool")
def embed_task(config: VectorJob, workspace: str, pool_id: str, sae: str) -> dict[str, int]:
    """Vectors of the pool, and of the exemplars where the config has some."""
    return embed_all(config, open_workspace(workspace), pool_id, sae)[1]


def run_embedding(config: VectorJob, workspace: str) -> Made:
    """The tasks of the flow; returns the pool, and how many vectors were computed and reused."""
    with open_session(config, open_workspace(workspace)), reported():
        pool_id = prepare_task(config, workspace)
        render_task(config, workspace, pool_id)
        sae = sae_folder(config, workspace, pool_id)
        return {"pool": pool_id, **embed_task(config, workspace, pool_id, sae)}
