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

import numpy as np
from numpy.typing import NDArray

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
from selection.records import SparseRows
from storage.audit.reproduction import RecordedRun
from storage.files.atomic import TEMP_PREFIX
from storage.files.hashes import FileHashes
from storage.files.scores import read_ids, scores_file
from storage.files.workspace import Workspace, open_workspace
from storage.pools.prepare import open_pool

TOP = 1000
SAMPLES = 4096  # vectors that are compared, evenly spread over the pool
UNITS, SHARE = 2.0, 0.01  # a latent agrees within two units, or within a hundredth of its value


@dataclass(frozen=True, slots=True)
class VectorAgreement:
    """How alike the recorded and the new vectors are.

    n:           vectors compared. latents_within: share of latents, on in either, that agree.
    similarity_mean, similarity_least: generalized Jaccard of the two vectors of a sample.
    """

    n: int
    latents_within: float
    similarity_mean: float
    similarity_least: float


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

    Raises InputError where the recorded vectors are gone, or the pool's files have changed.
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
    mine, theirs = pool_vectors(old, pool_id), pool_vectors(new, pool_id)
    rows = np.flatnonzero(mine.usable & theirs.usable)
    rows = rows[np.unique(np.linspace(0, len(rows) - 1, SAMPLES).astype(np.int64))]
    return agreement_of(mine.gather(rows), old.unit, theirs.gather(rows), new.unit)


def agreement_of(
    first: SparseRows, unit: float, second: SparseRows, other_unit: float
) -> VectorAgreement:
    """Agreement of vectors, row by row; values are multiples of their units."""
    n_within = n_latents = 0
    similarities = np.ones(len(first))
    for row in range(len(first)):
        a, b = _dense_pair(first, unit, second, other_unit, row)
        within = np.abs(a - b) <= np.maximum(
            UNITS * max(unit, other_unit), SHARE * np.maximum(a, b)
        )
        n_within, n_latents = n_within + int(within.sum()), n_latents + len(a)
        largest = float(np.maximum(a, b).sum())
        similarities[row] = float(np.minimum(a, b).sum()) / largest if largest else 1.0
    return VectorAgreement(
        len(first),
        n_within / n_latents if n_latents else 1.0,
        float(similarities.mean()) if len(first) else 1.0,
        float(similarities.min(initial=1.0)),
    )


def _dense_pair(
    first: SparseRows, unit: float, second: SparseRows, other_unit: float, row: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Activations of both vectors over the latents that are on in either."""
    parts = []
    for rows in (first, second):
        span = slice(rows.indptr[row], rows.indptr[row + 1])
        parts.append((np.asarray(rows.latents[span]), np.asarray(rows.values[span], np.float64)))
    latents = np.union1d(parts[0][0], parts[1][0])
    a, b = np.zeros(len(latents)), np.zeros(len(latents))
    a[np.searchsorted(latents, parts[0][0])] = parts[0][1] * unit
    b[np.searchsorted(latents, parts[1][0])] = parts[1][1] * other_unit
    return a, b


def compare_rankings(workspace: Workspace, material: Material) -> list[RankingAgreement]:
    """The best examples and the picks of every selection that has a recorded ranking."""
    found = []
    for decided in material.decided:
        file = scores_file(workspace.scores, decided.selection_id)
        if not file.exists():
            continue
        old = read_ids(file, by_score=True)
        new = material.example_ids[decided.ranking.rows].astype(str).tolist()
        n = min(TOP, len(old), len(new))
        picks = set(material.top_of(decided)["example_id"].to_pylist())
        both = picks & set(read_ids(file, n=len(picks)))
        found.append(
            RankingAgreement(
                decided.name, n, len(set(old[:n]) & set(new[:n])), len(picks), len(both)
            )
        )
    return found
