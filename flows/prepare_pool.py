"""Read, normalize, deduplicate and tokenize pools into a workspace."""

from flows import quiet_prefect  # Prefect reads its settings when it is imported.

quiet_prefect.set_defaults()

from prefect import flow  # noqa: E402

from flows.artifacts import reported  # noqa: E402
from flows.config.jobs import PoolJob, VectorJob  # noqa: E402
from flows.stage_task import stage_task  # noqa: E402
from flows.stages.inputs import prepare  # noqa: E402
from flows.stages.reading import open_reader, render  # noqa: E402
from storage.pools import open_pool  # noqa: E402
from storage.workspace import open_workspace  # noqa: E402


@stage_task("prepare-pool")
def prepare_task(config: PoolJob, workspace: str) -> str:
    """Read and prepare the pools; returns the pool id."""
    return prepare(config, open_workspace(workspace)).pool_id


@stage_task("render-pool")
def render_task(config: VectorJob, workspace: str, pool_id: str) -> None:
    """Turn every example into tokens, once per rendering."""
    place = open_workspace(workspace)
    render(place, open_pool(place.pools / pool_id), open_reader(config))


def run_prepare(config: VectorJob, workspace: str) -> str:
    """The tasks of the flow; returns the pool id."""
    with reported():
        pool_id = prepare_task(config, workspace)
        render_task(config, workspace, pool_id)
    return pool_id


@flow(name="prepare-pool")
def prepare_pool(config: VectorJob, workspace: str = "workspace") -> str:
    """Prepare and tokenize the pools of a config; returns the pool id."""
    return run_prepare(config, workspace)
