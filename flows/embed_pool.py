"""Compute the vectors of a pool that no shard holds yet."""

from flows import quiet_prefect  # Prefect reads its settings when it is imported.

quiet_prefect.set_defaults()

from prefect import flow  # noqa: E402

from flows.artifacts import reported  # noqa: E402
from flows.config.jobs import SelectConfig, VectorJob  # noqa: E402
from flows.prepare_pool import prepare_task, render_task  # noqa: E402
from flows.stage_task import stage_task  # noqa: E402
from flows.stages.inputs import read_targets  # noqa: E402
from flows.stages.spaces import count_terms  # noqa: E402
from flows.stages.vectors import embed_targets  # noqa: E402
from flows.stages.workers import embed_by_workers  # noqa: E402
from flows.train_sae import train_sae_task  # noqa: E402
from storage.workspace import open_workspace  # noqa: E402


@stage_task("embed-pool")
def embed_task(config: VectorJob, workspace: str, pool_id: str, sae: str) -> dict[str, int]:
    """Vectors of the pool, and of the exemplars where the config has some."""
    representer, counts = embed_by_workers(config, open_workspace(workspace), pool_id, sae)
    count_terms(config, representer, representer.rendered(pool_id))
    if isinstance(config, SelectConfig):
        embed_targets(representer, config, read_targets(config.exemplars))
    return counts


def run_embedding(config: VectorJob, workspace: str) -> dict[str, int]:
    """The tasks of the flow; returns how many vectors were computed and how many reused."""
    with reported():
        pool_id = prepare_task(config, workspace)
        render_task(config, workspace, pool_id)
        sae = train_sae_task(config, workspace, pool_id)
        return embed_task(config, workspace, pool_id, sae)


@flow(name="embed-pool")
def embed_pool(config: VectorJob, workspace: str = "workspace") -> dict[str, int]:
    """Everything up to the vectors; returns how many were computed and how many reused."""
    return run_embedding(config, workspace)
