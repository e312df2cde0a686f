"""Train a TopK SAE on a pool's activations; it is then frozen under its own id."""

from prefect import flow

from flows.config.jobs import VectorJob
from flows.orchestration.artifacts import reported
from flows.orchestration.stage_task import stage_task
from flows.prepare_pool import prepare_task, render_task
from flows.stages.prepare.render import open_model_input, rendering_folder
from flows.stages.represent.sae import ensure_sae
from storage.files.workspace import open_workspace
from storage.pools.renderings import open_rendering


@stage_task("train-sae")
def train_sae_task(config: VectorJob, workspace: str, pool_id: str) -> str:
    """The folder of the config's SAE; trained now if the config asks for one not yet there."""
    place, model_input = open_workspace(workspace), open_model_input(config)
    rendered = open_rendering(rendering_folder(place, pool_id, model_input.renderer))
    return str(ensure_sae(config, place, model_input, rendered))


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
