"""Train a TopK SAE on a pool's activations; it is then frozen under its own id."""

from flows import quiet_prefect  # Prefect reads its settings when it is imported.

quiet_prefect.set_defaults()

from prefect import flow  # noqa: E402

from flows.artifacts import reported  # noqa: E402
from flows.config.jobs import VectorJob  # noqa: E402
from flows.prepare_pool import prepare_task, render_task  # noqa: E402
from flows.stage_task import stage_task  # noqa: E402
from flows.stages.reading import open_reader, rendering_folder  # noqa: E402
from flows.stages.sae import ensure_sae  # noqa: E402
from storage.renderings import open_rendering  # noqa: E402
from storage.workspace import open_workspace  # noqa: E402


@stage_task("train-sae")
def train_sae_task(config: VectorJob, workspace: str, pool_id: str) -> str:
    """The folder of the config's SAE; trained now if the config asks for one not yet there."""
    place, reader = open_workspace(workspace), open_reader(config)
    rendered = open_rendering(rendering_folder(place, pool_id, reader.renderer))
    return str(ensure_sae(config, place, reader, rendered))


def run_training(config: VectorJob, workspace: str) -> str:
    """The tasks of the flow; returns the SAE's folder."""
    with reported():
        pool_id = prepare_task(config, workspace)
        render_task(config, workspace, pool_id)
        return train_sae_task(config, workspace, pool_id)


@flow(name="train-sae")
def train_sae(config: VectorJob, workspace: str = "workspace") -> str:
    """Prepare the pool if needed and train; returns the SAE's folder."""
    return run_training(config, workspace)
