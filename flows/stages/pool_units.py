"""The pool's vectors, unit by unit, by as many workers as there are.

The units are cut once, kept in a file, and are the same for every worker, whenever it comes: a
killed one is replaced by another without a byte changing. Shards are written in a thread beside
the computation.
"""

import os
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flows.progress import stage
from flows.stages.vectors import Representer, ensure_room, missing_rows, represent_samples, unit_id
from selection.ids import content_id
from selection.records import SparseRows
from selection.representation import UnitReport
from storage.files import is_complete, temp_path
from storage.leases import Leases, each_claimed
from storage.renderings import RenderedPool
from storage.shards import write_shard


def embed_rendered(representer: Representer, rendered: RenderedPool) -> dict[str, int]:
    """Vectors for every usable example of a rendered pool; returns what was new and reused.

    Ends when all of them are there; `computed` counts those that this process made.
    """
    keys, lengths, folder = rendered.keys(), rendered.lengths(), representer.folder
    plan = _plan_file(representer, rendered)
    units = _units(representer, _planned(representer, rendered, plan))
    names = [unit_id(representer, keys[unit]) for unit in units]
    waiting = [n for n, name in enumerate(names) if not is_complete(folder / name)]
    units, names = [units[n] for n in waiting], [names[n] for n in waiting]
    n_missing = sum(len(unit) for unit in units)
    if n_missing:
        ensure_room(representer, rendered, np.concatenate(units))
    computed = n_tokens = 0
    with stage("embed", sum(int(lengths[unit].sum()) for unit in units), "tokens") as handle:
        for unit in _computed(representer, rendered, units, names):
            handle.advance(int(lengths[unit].sum()))
            computed += len(unit)
            n_tokens += int(lengths[unit].sum())
        reused = rendered.n_usable - n_missing
        handle.detail = f"{computed:,} vectors computed, {reused:,} reused"
        if computed < n_missing:
            handle.detail += f", {n_missing - computed:,} by other workers"
    plan.unlink(missing_ok=True)
    return {"computed": computed, "reused": reused, "tokens": n_tokens}


def _computed(
    representer: Representer,
    rendered: RenderedPool,
    units: list[NDArray[np.int64]],
    names: list[str],
) -> Iterator[NDArray[np.int64]]:
    """Units that this process made, each when its shard is on its way to the disk."""
    if not units:
        return
    folder, keys = representer.folder, rendered.keys()
    leases = Leases(folder / ".leases")
    written: Future[None] | None = None
    with ThreadPoolExecutor(1, "shards") as writer:
        try:
            for number in each_claimed(names, lambda n: is_complete(folder / n), leases):
                unit, name = units[number], names[number]
                vectors, report = represent_samples(representer, rendered.samples(unit))
                if written is not None:
                    written.result()  # at most one unit waits, and its failure is ours
                written = writer.submit(_write, leases, folder / name, keys[unit], vectors, report)
                yield unit
            if written is not None:
                written.result()
        finally:
            writer.shutdown(wait=True)
            leases.release_all()
    for lease in (folder / ".leases").glob("*.lease"):  # of workers that died after the last step
        if is_complete(folder / lease.stem):
            lease.unlink(missing_ok=True)


def _write(
    leases: Leases,
    final: Path,
    keys: NDArray[np.uint8],
    vectors: SparseRows,
    report: UnitReport,
) -> None:
    write_shard(final.parent, final.name, keys, vectors, report)
    leases.release(final.name)


def _plan_file(representer: Representer, rendered: RenderedPool) -> Path:
    size = representer.config.compute.unit_examples
    name = content_id([rendered.folder.parts[-3:], size], n_hex=24)
    return representer.folder / ".plans" / f"{name}.npy"


def _planned(representer: Representer, rendered: RenderedPool, file: Path) -> NDArray[np.int64]:
    """Pool rows to compute as the first worker saw them; it leaves them in a file for the rest."""
    if not file.exists():
        rows = missing_rows(representer, rendered)
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
    return missing_rows(representer, rendered)


def _units(representer: Representer, rows: NDArray[np.int64]) -> list[NDArray[np.int64]]:
    """Consecutive runs of at most `unit_examples` rows."""
    size = representer.config.compute.unit_examples
    return [rows[first : first + size] for first in range(0, len(rows), size)]
