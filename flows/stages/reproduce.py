"""A recorded run decided again from its recorded pool, vectors and exemplars: bit by bit the same.

Nothing is computed that is recorded, and nothing is written into the catalog.
"""

import tempfile
from pathlib import Path

from pydantic import ValidationError

from flows.config.jobs import SelectConfig
from flows.config.load import input_error
from flows.stages.prepare.render import sae_path
from flows.stages.record.material import Material, RunFacts
from flows.stages.record.provenance import listed_files, listed_names
from flows.stages.record.rows import catalog_rows
from flows.stages.represent.representer import Representer, representer_in
from flows.stages.select_samples import decide_run
from flows.stages.session import Session
from selection.core.errors import InputError
from storage.audit.reproduction import Comparison, RecordedRun, compare_scores, compare_tables
from storage.audit.verify import ALTERED, MISSING, check_named_files
from storage.files.atomic import MANIFEST, TEMP_PREFIX
from storage.files.hashes import FileHashes
from storage.files.workspace import Workspace
from storage.pools.pool import open_pool


def reproduce(workspace: Workspace, run: RecordedRun) -> list[Comparison]:
    """Rank and cut again with the stored config, and compare every decision and explanation.

    Raises InputError where pool, vectors, exemplars, model or SAE are missing or altered.
    """
    config = stored_config(run)
    check_inputs(workspace, run, config)
    representer = recorded_representer(workspace, run, config)
    with tempfile.TemporaryDirectory(prefix=TEMP_PREFIX, dir=workspace.root) as folder:
        material = decide_again(run, representer, Path(folder))
        files = {each.selection_id: material.scores_file(each) for each in material.decided}
        tables = compare_tables(workspace, run.run_id, catalog_rows(material))
        return tables + compare_scores(workspace, files)


def decide_again(run: RecordedRun, representer: Representer, scores: Path) -> Material:
    """The run's decisions under its own ids; nothing is recorded."""
    facts = RunFacts(run.run_id, run.name, run.created_at, run.trigger)
    return decide_run(representer, run.pool_id, facts, scores)


def stored_config(run: RecordedRun) -> SelectConfig:
    """The config that the run kept. Raises InputError where this version cannot read it."""
    try:
        return SelectConfig.model_validate(run.config)
    except ValidationError as error:
        raise input_error(error, SelectConfig, f"config of run {run.name}", {}) from None


def check_inputs(workspace: Workspace, run: RecordedRun, config: SelectConfig) -> None:
    """Refuse a pool that is gone or altered, forgotten samples, and lists that have changed."""
    pool = open_pool(workspace.pools / run.pool_id)
    state, file = check_named_files(pool.folder / MANIFEST)
    if state in (ALTERED, MISSING):
        raise InputError(
            f"the prepared pool is not as it was prepared ({file}: {state})",
            file=pool.folder,
            remedy="Delete it and run the config again: it is rebuilt from the pool's files.",
        )
    n_forgotten = len(run.forgotten & set(pool.example_ids().astype(str).tolist()))
    if n_forgotten:
        raise InputError(
            f"{n_forgotten:,} samples of this pool were forgotten, vectors included, so"
            " weights and scores are no longer those of the run",
            file=pool.folder,
            remedy="What was decided stays readable: `saelect show`, `saelect why`.",
        )
    now = listed_files(config)
    for name in listed_names(config):
        known = run.read_files.get(name)
        if known is not None and now.get(name) != known:
            raise InputError(
                "the file was changed or deleted since the run read it",
                file=name,
                remedy="Put back the file that the run read; its hash is in v_lineage.",
            )


def recorded_representer(
    workspace: Workspace, run: RecordedRun, config: SelectConfig
) -> Representer:
    """Model and SAE of the run, which compute nothing; shards are hashed where they are ranked."""
    sae = run.sae if config.sae.train is not None else sae_path(config)
    session = Session(config, workspace, FileHashes(), run.exemplars)  # hashes all files again
    representer = representer_in(session, sae, computes=False)
    for name, expected, actual, path in (
        (
            "model",
            run.model_sha256,
            representer.model_input.model.weights_sha256,
            representer.model_input.model.path,
        ),
        ("SAE", run.sae_sha256, representer.sae.info.sha256, sae),
        ("representation", run.representation_id, representer.representation_id, workspace.units),
    ):
        if expected != actual:
            raise InputError(
                f"the {name} is another one than the run had (recorded: {str(expected)[:16]})",
                file=str(path),
                value=str(actual)[:16],
                remedy="Put back what the run used, or compare with --from-scratch.",
            )
    return representer
