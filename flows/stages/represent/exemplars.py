"""Vectors of the exemplars, computed in one unit where they are missing."""

from collections.abc import Mapping

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flows.config.jobs import SelectConfig
from flows.stages.represent.representer import Representer, unit_id, write_unit
from selection.core.errors import InputError
from selection.records import Exemplars, Rendered
from selection.rendering.renderer import render_key
from storage.files.atomic import is_complete
from storage.files.leases import run_once
from storage.pools.renderings import first_of_each
from storage.pools.shards import open_shards


def embed_targets(
    representer: Representer, config: SelectConfig, targets: Mapping[str, pa.Table]
) -> dict[str, tuple[pa.Table, Exemplars]]:
    """Target -> its table and its exemplars with their vectors.

    Raises InputError for an exemplar without content tokens, for example without a response.
    """
    samples = {name: representer.session.samples(table) for name, table in targets.items()}
    for name, table in targets.items():
        _refuse_without_content(config, name, table, samples[name])
    keys = embed_samples(representer, [sample for each in samples.values() for sample in each])
    shards, first, embedded = open_shards(representer.folder), 0, {}
    if config.compute.verify_shards:
        shards.verify(keys)
    for name, table in targets.items():
        rows = shards.gather(keys[first : first + len(table)])
        first += len(table)
        ids = np.array(table["example_id"].to_pylist())
        embedded[name] = (table, Exemplars(name, ids, rows))
    return embedded


def embed_samples(representer: Representer, samples: list[Rendered]) -> NDArray[np.uint8]:
    """Vectors for a few samples in one unit, for example exemplars; returns their keys (m, 16)."""
    keys = np.stack([np.frombuffer(render_key(sample), np.uint8) for sample in samples])
    usable = np.array([sample.content_mask.any() for sample in samples])
    missing = open_shards(representer.folder).rows_missing(keys, first_of_each(keys, usable))
    if len(missing):
        unit = keys[missing]
        name = unit_id(representer, unit)
        representer.claim_device()
        run_once(
            representer.folder / ".leases",
            name,
            lambda: is_complete(representer.folder / name),
            lambda: write_unit(representer, unit, [samples[row] for row in missing]),
        )
    return keys


def _refuse_without_content(
    config: SelectConfig, name: str, table: pa.Table, samples: list[Rendered]
) -> None:
    """An exemplar without content would silently pull every score down."""
    for row, sample in zip(table.to_pylist(), samples, strict=True):
        if not sample.content_mask.any():
            raise InputError(
                f"exemplar of `{name}` has no content tokens (rendering.counted is"
                f" `{config.rendering.counted}`)",
                file=row["file"],
                line=row["row"],
                remedy="Give it a response, or set `rendering: {counted: prompt}`.",
            )
