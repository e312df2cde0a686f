"""The pool's vectors, unit by unit, by as many workers as there are.

The units are cut once, of rows whose tokens begin alike, and kept in a file: they are the same for
every worker, whenever it comes, and a killed one is replaced by another without a byte changing.
Shards are written in a thread beside the computation.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flows.orchestration.progress import Advance, stage
from flows.stages.represent.representer import (
    Representer,
    missing_rows,
    represent_samples,
    unit_id,
)
from selection.activations.batching import ActivationBatch
from selection.core.hashing import content_id
from selection.records import SparseRows
from selection.representation.represent import UnitReport
from storage.files.atomic import ensure_free, is_complete, temp_path
from storage.files.leases import Leases, iter_claimed
from storage.pools.renderings import RenderedPool
from storage.pools.shards import write_shard

BYTES_PER_POSTING = 6  # int32 latent and uint16 value
ORDER = 2  # of the rows in a plan; raised when it changes, so that no half-done plan is taken on

Units = list[NDArray[np.int64]]
ComputeUnits = Callable[
    [list[Representer], RenderedPool, Units, list[str], Advance], Iterator[NDArray[np.int64]]
]
"""Computes units and writes their shards, and reports their tokens; yields those made here."""


def embed_rendered(representers: Sequence[Representer], rendered: RenderedPool) -> dict[str, int]:
    """Vectors for every usable example of a rendered pool; returns what was new and reused.

    Representers that lack the same examples share one forward pass over them. Ends when all is
    there; `computed` counts the vectors that this process made, `tokens` those it read for them.
    """
    total = dict.fromkeys(("computed", "reused", "tokens"), 0)
    for together in _grouped_by_rows(representers, rendered):
        for name, number in _embed(together, rendered).items():
            total[name] += number
    return total


def _grouped_by_rows(
    representers: Sequence[Representer], rendered: RenderedPool
) -> list[list[Representer]]:
    """Representers in groups that have the same pool rows to compute."""
    groups: dict[bytes, list[Representer]] = {}
    orders: dict[bytes, NDArray[np.int64]] = {}
    for representer in representers:
        plan = _read_plan(representer, rendered, _plan_file(representer, rendered), orders)
        groups.setdefault(plan.tobytes(), []).append(representer)
    return list(groups.values())


def _embed(representers: list[Representer], rendered: RenderedPool) -> dict[str, int]:
    """The missing vectors of representers that lack the same rows; as `embed_rendered`."""
    keys, lengths, first = rendered.keys(), rendered.lengths(), representers[0]
    plans = [_plan_file(representer, rendered) for representer in representers]
    units = _units(first, _read_plan(first, rendered, plans[0], {}))
    names = [unit_id(first, keys[unit]) for unit in units]
    waiting = [n for n, name in enumerate(names) if not _is_done(representers, name)]
    units, names = [units[n] for n in waiting], [names[n] for n in waiting]
    n_missing = sum(len(unit) for unit in units)
    if n_missing:
        for representer in representers:
            _ensure_room(representer, rendered, np.concatenate(units))
        if first.config.compute.task_runner == "local":
            first.load_model()
    computed = n_tokens = 0
    with stage("embed", sum(int(lengths[unit].sum()) for unit in units), "tokens") as handle:
        for unit in _compute_units_of(first)(representers, rendered, units, names, handle.advance):
            computed += len(unit)
            n_tokens += int(lengths[unit].sum())
        reused = rendered.n_usable - n_missing
        handle.detail = f"{computed:,} vectors computed, {reused:,} reused"
        if len(representers) > 1:
            handle.detail += f", each in {len(representers)} spaces"
        if computed < n_missing:
            handle.detail += f", {n_missing - computed:,} by other workers"
    for plan in plans:
        plan.unlink(missing_ok=True)
    n = len(representers)
    return {"computed": n * computed, "reused": n * reused, "tokens": n_tokens}


def _is_done(representers: Sequence[Representer], name: str) -> bool:
    return all(is_complete(representer.folder / name) for representer in representers)


def _compute_units_of(representer: Representer) -> ComputeUnits:
    if representer.config.compute.task_runner == "local":
        return _compute_units
    from flows.stages.represent import ray

    return ray.compute_units


def n_waiting(representers: Sequence[Representer], rendered: RenderedPool) -> int:
    """How many units no shard holds yet, by the representer that lacks most."""
    return max(len(_units(each, missing_rows(each, rendered))) for each in representers)


def _compute_units(
    representers: list[Representer],
    rendered: RenderedPool,
    units: list[NDArray[np.int64]],
    names: list[str],
    advance: Advance,
) -> Iterator[NDArray[np.int64]]:
    """Units that this process made, each when its shards are on their way to the disk."""
    if not units:
        return
    lengths, n_reported = rendered.lengths(), 0

    def report(batch: ActivationBatch) -> None:
        nonlocal n_reported
        n_batch = int(lengths[unit[batch.rows]].sum())
        n_reported += n_batch
        advance(n_batch)

    keys, claims = rendered.keys(), representers[0].folder / ".leases"
    leases = Leases(claims)
    written: Future[None] | None = None
    with ThreadPoolExecutor(1, "shards") as writer:
        try:
            for number in iter_claimed(names, partial(_is_done, representers), leases):
                unit, name = units[number], names[number]
                n_reported = 0
                parts = represent_samples(representers, rendered.samples(unit), report)
                advance(int(lengths[unit].sum()) - n_reported)  # of samples without content
                if written is not None:
                    written.result()  # at most one unit waits, and its failure is ours
                finals = [representer.folder / name for representer in representers]
                written = writer.submit(_write, leases, finals, keys[unit], parts)
                yield unit
            if written is not None:
                written.result()
        finally:
            writer.shutdown(wait=True)
            leases.release_all()
    for lease in claims.glob("*.lease"):  # of workers that died after the last step
        if _is_done(representers, lease.stem):
            lease.unlink(missing_ok=True)


def _write(
    leases: Leases,
    finals: Sequence[Path],
    keys: NDArray[np.uint8],
    parts: Sequence[tuple[SparseRows, UnitReport]],
) -> None:
    for final, (vectors, report) in zip(finals, parts, strict=True):
        write_shard(final.parent, final.name, keys, vectors, report)
    leases.release(finals[0].name)


def _plan_file(representer: Representer, rendered: RenderedPool) -> Path:
    size = representer.config.compute.unit_examples
    order = ORDER if _sorts(representer) else "pool"
    name = content_id([rendered.folder.parts[-3:], size, order], n_hex=24)
    return representer.folder / ".plans" / f"{name}.npy"


def _sorts(representer: Representer) -> bool:
    """Whether the samples of a unit may share a pass over what they begin with."""
    is_causal = representer.model_input.model.kind == "causal"
    return is_causal and representer.config.compute.share_prefixes


def _sorted_rows(
    representer: Representer, rendered: RenderedPool, orders: dict[bytes, NDArray[np.int64]]
) -> NDArray[np.int64]:
    """Missing rows in the order of the plan. orders: of rows that were sorted before."""
    rows = missing_rows(representer, rendered)
    if not len(rows) or not _sorts(representer):
        return rows
    key = rows.tobytes()
    if key not in orders:
        with stage("sort by prefix", len(rows), "examples") as handle:
            orders[key] = rendered.in_token_order(rows)
            handle.detail = f"{len(rows):,} examples, shared prefixes side by side"
    return orders[key]


def _read_plan(
    representer: Representer,
    rendered: RenderedPool,
    file: Path,
    orders: dict[bytes, NDArray[np.int64]],
) -> NDArray[np.int64]:
    """Pool rows to compute as the first worker saw them; it leaves them in a file for the rest."""
    if not file.exists():
        rows = _sorted_rows(representer, rendered, orders)
        if not len(rows):
            return rows
        file.parent.mkdir(parents=True, exist_ok=True)
        temp = temp_path(file)
        np.save(temp, rows)
        with suppress(FileExistsError):  # the first plan counts
            os.link(temp, file)
        temp.unlink()
    with suppress(FileNotFoundError):  # else all of it has been done meanwhile
        return np.asarray(np.load(file), np.int64)
    return _sorted_rows(representer, rendered, orders)


def _ensure_room(
    representer: Representer, rendered: RenderedPool, missing: NDArray[np.int64]
) -> None:
    """Refuse before the first unit when the vectors cannot fit on the disk."""
    info = representer.sae.info
    k, width = info.expected_l0 or min(256, info.num_latents), info.num_latents
    most = representer.config.representation.keep_top or width
    # Tokens of a sample share most of their latents: at most a third of the possible postings.
    postings = np.minimum(rendered.n_counted()[missing] * k / 3, min(most, width)).sum()
    ensure_free(representer.workspace.root, int(postings) * BYTES_PER_POSTING, "the new vectors")


def _units(representer: Representer, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Consecutive runs of at most `unit_examples` rows."""
    size = representer.config.compute.unit_examples
    return [rows[first : first + size] for first in range(0, len(rows), size)]
