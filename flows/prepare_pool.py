"""Read, normalize, deduplicate and tokenize pools into a workspace."""

from flows.config.jobs import PoolJob, VectorJob
from flows.orchestration.artifacts import reported
from flows.orchestration.run_page import Made
from flows.orchestration.stage_task import stage_task
from flows.stages.prepare.inputs import prepare
from flows.stages.prepare.render import render
from flows.stages.session import open_session, session_of
from storage.files.workspace import open_workspace


@stage_task("prepare-pool")
def prepare_task(config: PoolJob, workspace: str) -> str:
    """Read and prepare the pools; returns the pool id."""
    return prepare(config, open_workspace(workspace)).pool_id


@stage_task("render-pool")
def render_task(config: VectorJob, workspace: str, pool_id: str) -> None:
    """Turn every example into tokens, once per rendering."""
    session = session_of(config, open_workspace(workspace))
    render(session.workspace, session.pool(pool_id), session.model_input)


def run_prepare(config: VectorJob, workspace: str) -> Made:
    """The tasks of the flow; returns the pool id."""
    with open_session(config, open_workspace(workspace)), reported():
        pool_id = prepare_task(config, workspace)
        render_task(config, workspace, pool_id)
    return {"pool": pool_id}
