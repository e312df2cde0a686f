"""A recorded run computed again from its samples, in a workspace of its own, and how far it agrees.

Across batch plans, devices and versions floats differ, so nothing is expected to be the same bit by
bit: what is reported is how much of the vectors lies within a tolerance, and how much of every
ranking's top both have.
"""

import shutil
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from flows.config.jobs import SelectConfig
from flows.stages.prepare.inputs import prepare
from flows.stages.prepare.render import render, sae_path
from flows.stages.record.material import Material
from flows.stages.represent.representer import Representer, pool_vectors, representer_in
from flows.stages.represent.spaces import count_terms, representers_of
from flows.stages.represent.units import embed_rendered
from flows.stages.reproduce import check_inputs, decide_again, recorded_representer, stored_config
from flows.stages.session import Session
from selection.core.errors import InputError
from selection.representation.agreement import VectorAgreement, spread_sample, vector_agreement
from storage.audit.reproduction import RecordedRun
from storage.files.atomic import TEMP_PREFIX
from storage.files.hashes import FileHashes
from storage.files.scores import read_ids, scores_file
from storage.files.workspace import Workspace, open_workspace
from storage.pools.pool import open_pool

TOP = 1000


@dataclass(frozen=True, slots=True)
class RankingAgreement:
    """How many examples two rankings both have: among the best `n_top`, and among the picks."""

    selection: str
    n_top: int
    n_top_both: int
    n_picks: int
    n_picks_both: int


@dataclass(frozen=True, slots=True)
class Agreement:
    """What `--from-scratch` reports. pool: where the samples came from: its files, or the copy."""

    pool: str
    vectors: VectorAgreement
    rankings: Sequence[RankingAgreement]


def from_scratch(workspace: Workspace, run: RecordedRun) -> Agreement:
    """Read, render, represent, rank and cut again; a trained SAE stays the one that was trained.

    Raises InputError where the recorded vectors are missing, or the pool's files have changed.
    """
    config = stored_config(run)
    check_inputs(workspace, run, config)
    recorded = recorded_representer(workspace, run, config)
    with tempfile.TemporaryDirectory(prefix=TEMP_PREFIX, dir=workspace.root) as folder:
        scratch = open_workspace(Path(folder))
        origin = _pool_again(config, workspace, scratch, run)
        sae = run.sae if config.sae.train is not None else sae_path(config)
        session = Session(config, scratch, FileHashes(), run.exemplars)
        representer = representer_in(session, sae)
        pool = open_pool(scratch.pools / run.pool_id)
        rendered = render(scratch, pool, representer.model_input)
        embed_rendered(representers_of(config, representer), rendered)
        count_terms(config, representer, rendered)
        scratch.scores.mkdir(exist_ok=True)
        material = decide_again(run, representer, scratch.scores)
        vectors = compare_vectors(recorded, representer, run.pool_id)
        return Agreement(origin, vectors, compare_rankings(workspace, material))


def _pool_again(
    config: SelectConfig, workspace: Workspace, scratch: Workspace, run: RecordedRun
) -> str:
    """The pool from its files where they can be read; else a copy of the prepared one."""
    try:
        pool = prepare(config, scratch)
    except InputError:  # moved, or behind an address whose password is not kept
        source = workspace.pools / run.pool_id
        without = shutil.ignore_patterns("renderings")
        shutil.copytree(source, scratch.pools / run.pool_id, ignore=without)
        return "the prepared copy in the workspace; its files cannot be read"
    if pool.pool_id != run.pool_id:
        raise InputError(
            "the pool's files have changed since the run",
            file=", ".join(source.path for source in config.pool),
            remedy="Put back the files of the run; their hashes are in v_lineage.",
        )
    return "its files"


def compare_vectors(old: Representer, new: Representer, pool_id: str) -> VectorAgreement:
    """The same samples' vectors under two representers, as activations."""
    before, after = pool_vectors(old, pool_id), pool_vectors(new, pool_id)
    rows = spread_sample(before.usable & after.usable)
    return vector_agreement(before.gather(rows), old.unit, after.gather(rows), new.unit)


def compare_rankings(workspace: Workspace, material: Material) -> list[RankingAgreement]:
    """The best examples and the picks of every selection that has a recorded ranking."""
    agreements = []
    for decided in material.decided:
        file = scores_file(workspace.scores, decided.selection_id)
        if not file.exists():
            continue
        old = read_ids(file, by_score=True)
        new = material.example_ids[decided.ranking.rows].astype(str).tolist()
        n = min(TOP, len(old), len(new))
        picks = set(material.top_of(decided)["example_id"].to_pylist())
        both = picks & set(read_ids(file, n=len(picks)))
        agreements.append(
            RankingAgreement(
                decided.name, n, len(set(old[:n]) & set(new[:n])), len(picks), len(both)
            )
        )
    return agreements
