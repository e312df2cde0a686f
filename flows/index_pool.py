"""Build the FAISS index of a pool's sketches, which `saelect neighbors` asks."""

from flows import quiet_prefect  # Prefect reads its settings when it is imported.

quiet_prefect.set_defaults()

from prefect import flow  # noqa: E402

from flows.artifacts import reported  # noqa: E402
from flows.config.jobs import VectorJob  # noqa: E402
from flows.embed_pool import embed_task  # noqa: E402
from flows.prepare_pool import prepare_task, render_task  # noqa: E402
from flows.stage_task import stage_task  # noqa: E402
from flows.stages.index import index_pool_vectors  # noqa: E402
from flows.stages.vectors import open_representer  # noqa: E402
from flows.train_sae import train_sae_task  # noqa: E402
from storage.workspace import open_workspace  # noqa: E402


@stage_task("index-pool")
def index_task(config: VectorJob, workspace: str, pool_id: str, sae: str) -> str:
    """Sketch every vector of the pool and index the sketches; returns the index's folder."""
    place = open_workspace(workspace)
    return str(index_pool_vectors(place, open_representer(config, place, sae), pool_id))


@flow(name="index-pool")
def index_pool(config: VectorJob, workspace: str = "workspace") -> str:
    """Everything up to the index."""
    with reported():
        pool_id = prepare_task(config, workspace)
        render_task(config, workspace, pool_id)
        sae = train_sae_task(config, workspace, pool_id)
        embed_task(config, workspace, pool_id, sae)
        return index_task(config, workspace, pool_id, sae)
