"""Train a TopK SAE on a pool's activations; it is then frozen under its own id."""

from prefect import flow

from flows.config.jobs import VectorJob
from flows.orchestration.artifacts import reported
from flows.orchestration.run_page import Made
from flows.orchestration.stage_task import stage_task
from flows.prepare_pool import prepare_task, render_task
from flows.stages.represent.sae import ensure_sae
from flows.stages.session import open_session, session_of
from storage.files.workspace import open_workspace


@stage_task("train-sae")
def train_sae_task(config: VectorJob, workspace: str, pool_id: str) -> str:
    """The folder of the config's SAE; trained now if the config asks for one not yet there."""
    return ensure_sae(session_of(config, open_workspace(workspace)), pool_id)


def sae_folder(config: VectorJob, workspace: str, pool_id: str) -> str:
    """The folder of the config's SAE; a task only where one may have to be trained."""
    find = train_sae_task if config.sae.train is not None else train_sae_task.fn
    return find(config, workspace, pool_id)


def run_training(config: VectorJob, workspace: str) -> Made:
    """The tasks of the flow; returns the pool and the SAE's folder."""
    with open_session(config, open_workspace(workspace)), reported():
        pool_id = prepare_task(config, workspace)
        render_task(config, workspace, pool_id)
        return {"pool": pool_id, "SAE": train_sae_task(config, workspace, pool_id)}


@flow(name="train-sae")
def train_sae(config: VectorJob, workspace: str = "workspace") -> str:
    """Prepare the pool if needed and train; returns the SAE's folder."""
    return str(run_training(config, workspace)["SAE"])
