"""Vectors and texts of a labelled pool as `saelect bench retrieval` left them in a workspace."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from flows.benchmark.methods import find_methods
from flows.benchmark.scorers import Scorers
from flows.benchmark.setting import BenchPool
from flows.config.data import UnderTest
from flows.stages.prepare.render import render
from flows.stages.represent.exemplars import embed_targets
from flows.stages.represent.representer import pool_vectors
from flows.stages.represent.units import embed_rendered
from selection.data.samples import texts_of
from selection.evaluation.labelled import Setting, read_labelled_pool, read_labelled_targets
from selection.records import SparseRows
from storage.files.workspace import open_workspace


@dataclass(frozen=True)
class StoredPool:
    """Unique examples in the order of the prepared pool.

    rows:    (n, M) SAE vectors of the preset `best`.
    targets: exemplars of each target task, in the file's order.
    texts:   n plain texts.
    """

    rows: SparseRows
    targets: Sequence[SparseRows]
    texts: Sequence[str]


def stored_pool(
    pool: Path,
    targets: Path,
    workspace: Path,
    subpool: Path | None = None,
    setting: Setting = "instance",
) -> StoredPool:
    """Read them; what the workspace does not have yet is computed and kept there."""
    labelled = read_labelled_pool(pool, subpool)
    tasks = read_labelled_targets(targets)
    bench = BenchPool(labelled, tasks, setting, open_workspace(workspace), UnderTest())
    [method] = find_methods(["best"], bench.given)
    representer = Scorers(bench, [method]).representers[method.name]
    render(bench.workspace, bench.prepared, representer.model_input)
    embed_rendered([representer], representer.rendered(bench.prepared.pool_id))
    everything = np.arange(bench.prepared.n_examples)
    vectors = pool_vectors(representer, bench.prepared.pool_id)
    exemplars = embed_targets(representer, bench.configured(method.config), bench.exemplars)
    return StoredPool(
        vectors.gather(everything),
        [exemplars[task.name][1].rows for task in tasks],
        texts_of(bench.prepared.examples_at(everything)),
    )
