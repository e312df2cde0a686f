"""One forward pass per model and setting: SAE shards and dense readings of all methods together.

Dense readings of a unit of examples are one file, written whole; SAE vectors go to the ordinary
shards, where the ordinary stages find them. A killed pass resumes at its first missing unit.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flows.benchmark.field import BenchField
from flows.config import SelectConfig
from flows.progress import stage
from flows.stages.reading import Reader, open_reader, render, render_rows
from flows.stages.vectors import Representer
from selection.activations import ActivationModel, load_activation_model
from selection.aggregate import FloatRows, aggregate_tokens, keep_top, quantize
from selection.ids import content_id
from selection.models import Hookpoint
from selection.passes import TappedBatch, iter_tapped, split_by_sign, token_means, top_gates
from selection.records import Rendered
from selection.representation import UnitReport, _in_order
from selection.sae.encode import encode
from selection.sparse import entries_of, indptr_of
from storage.files import write_atomically
from storage.renderings import RenderedPool
from storage.shards import open_shards, write_shard

VERSION = 1
UNIT = 2048


@dataclass(frozen=True)
class Reading:
    """What one pass reads of one model.

    representers: SAE readings, all of the same model and rendering.
    blocks:       block number of each dense place, `sae` and `last`.
    gate_k:       gate neurons kept per token at the block of the SAE; None reads no gate.
    """

    field: BenchField
    config: SelectConfig
    blocks: Mapping[str, int]
    gate_k: int | None
    representers: tuple[Representer, ...] = ()

    @cached_property
    def rendered(self) -> RenderedPool:
        """Tokens of the pool."""
        return render(self.field.workspace, self.field.prepared, self._reader)

    @cached_property
    def _reader(self) -> Reader:
        return open_reader(self.config)

    @cached_property
    def model(self) -> ActivationModel:
        """The model up to the last block that is read."""
        deepest = max(
            [*self.blocks.values(), *(r.reader.hookpoint.block for r in self.representers)]
        )
        options = self.config.model
        with stage("model") as handle:
            model = load_activation_model(
                self._reader.model,
                Hookpoint("resid", deepest),
                device=options.device,
                dtype=options.dtype,
                threads=self.config.compute.threads,
            )
            handle.detail = f"{self._reader.model.name}, {deepest + 1} blocks, on {model.device}"
        return model

    @property
    def folder(self) -> Path:
        """Where the dense readings are; everything that decides them is in its name."""
        key = content_id(
            {
                "model": self._reader.model.weights_sha256,
                "rendering": self._reader.renderer.rendering_id,
                "pool": self.field.prepared.pool_id,
                "blocks": dict(self.blocks),
                "gate_k": self.gate_k,
                "dtype": self.config.model.dtype,
                "version": VERSION,
            }
        )
        return self.field.workspace.root / "bench" / "dense" / key

    def run(self) -> None:
        """Compute every unit that is not complete."""
        rendered, n = self.rendered, self.field.prepared.n_examples
        starts = range(0, n, UNIT)
        missing = [first for first in starts if not self._is_complete(first, rendered)]
        lengths = rendered.lengths()
        n_tokens = sum(int(lengths[first : first + UNIT].sum()) for first in missing)
        with stage(f"pass {self.field.setting}", n_tokens, "tokens") as handle:
            for first in missing:
                rows = np.arange(first, min(first + UNIT, n))
                self._run_unit(first, rendered.samples(rows), rendered.keys()[rows])
                handle.advance(int(lengths[rows].sum()))
            handle.detail = f"{len(missing)} of {len(starts)} units computed"

    def _file(self, first: int) -> Path:
        return self.folder / f"unit-{first:09d}.npz"

    def _is_complete(self, first: int, rendered: RenderedPool) -> bool:
        rows = np.arange(first, min(first + UNIT, self.field.prepared.n_examples))
        if self.blocks and not self._file(first).exists():
            return False
        usable = rendered.usable()[rows]
        keys = rendered.keys()[rows][usable]
        return not any(open_shards(r.folder).missing(keys).any() for r in self.representers)

    def _run_unit(self, first: int, samples: list[Rendered], keys: NDArray[np.uint8]) -> None:
        dense, sparse = self.read(samples)
        if dense:
            write_atomically(self._file(first), lambda temp: _save(temp, dense))
        counted = np.array([bool(sample.counted.any()) for sample in samples])
        _, unique = np.unique(keys.view("V16").ravel(), return_index=True)
        mine = np.intersect1d(unique, np.flatnonzero(counted))
        for representer, rows in zip(self.representers, sparse, strict=True):
            _write_missing(representer, keys, rows, mine, samples)

    def read(
        self, samples: Sequence[Rendered]
    ) -> tuple[dict[str, NDArray[np.float32]], list[FloatRows]]:
        """Dense readings by name, (b, d) each, and SAE vectors by representer, of some samples."""
        n = len(samples)
        dense: dict[str, NDArray[np.float32]] = {}
        parts: list[list[FloatRows]] = [[] for _ in self.representers]
        places: list[NDArray[np.int64]] = []
        taps = {*self.blocks.values(), *(r.reader.hookpoint.block for r in self.representers)}
        gate_block = None if self.gate_k is None else self.blocks["sae"]
        budget = self.config.compute.tokens_per_batch
        for batch in iter_tapped(self.model, samples, sorted(taps), gate_block, budget):
            rows = next(iter(batch.blocks.values())).rows
            places.append(rows)
            for name, values in self._dense_of(batch).items():
                dense.setdefault(name, np.zeros((n, values.shape[1]), np.float32))[rows] = values
            for representer, part in zip(self.representers, parts, strict=True):
                part.append(_sparse_of(batch, representer))
        sparse = [
            _in_order(part, places, n, len(representer.coder.encoder_bias))
            for representer, part in zip(self.representers, parts, strict=True)
        ]
        return dense, sparse

    def _dense_of(self, batch: TappedBatch) -> dict[str, NDArray[np.float32]]:
        found: dict[str, NDArray[np.float32]] = {}
        for place, block in self.blocks.items():
            at = batch.blocks[block]
            sizes = (at.sample_of_token, len(at.rows))
            found[f"{place}/mean"] = token_means(at.hidden, *sizes, by_position=False)
            found[f"{place}/position"] = token_means(at.hidden, *sizes, by_position=True)
            if place == "sae":
                split = split_by_sign(at.hidden)
                found["split_relu"] = token_means(split, *sizes, by_position=False)
                if batch.gate is not None and self.gate_k is not None:
                    top = top_gates(batch.gate, self.gate_k)
                    found["gate"] = token_means(top, *sizes, by_position=False)
        return found

    def exemplars(self) -> dict[str, dict[str, NDArray[np.float32]]]:
        """Target -> dense readings of its exemplars."""
        names = [target.target_id for target in self.field.targets]
        file = self.folder / f"exemplars-{content_id(names)}.npz"
        tables = self.field.exemplars
        if not file.exists():
            samples = [s for t in tables.values() for s in render_rows(self._reader.renderer, t)]
            dense, _ = replace(self, representers=()).read(samples)
            write_atomically(file, lambda temp: _save(temp, dense))
        found, first = {}, 0
        with np.load(file) as stored:
            whole = {name: stored[name] for name in stored.files}
        for name, table in tables.items():
            found[name] = {key: whole[key][first : first + len(table)] for key in whole}
            first += len(table)
        return found

    def units(self, name: str) -> Iterator[NDArray[np.float32]]:
        """One dense reading of the pool's examples, unit by unit in their order."""
        for first in range(0, self.field.prepared.n_examples, UNIT):
            with np.load(self._file(first)) as stored:
                yield stored[name]


def _save(temp: Path, arrays: Mapping[str, NDArray[np.float32]]) -> None:
    with temp.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]


def _sparse_of(batch: TappedBatch, representer: Representer) -> FloatRows:
    at = batch.blocks[representer.reader.hookpoint.block]
    found = encode(representer.coder, at.hidden)
    return aggregate_tokens(
        found.top_acts.cpu().numpy(),
        found.top_indices.cpu().numpy().astype(np.int32),
        at.sample_of_token,
        len(at.rows),
        len(representer.coder.encoder_bias),
        representer.config.representation.token_aggregate,
    )


def _write_missing(
    representer: Representer,
    keys: NDArray[np.uint8],
    rows: FloatRows,
    mine: NDArray[np.int64],
    samples: Sequence[Rendered],
) -> None:
    """Write a shard of the vectors that are not there yet.

    mine: rows to consider: the first of each key, where anything is counted.
    """
    wanted = mine[open_shards(representer.folder).missing(keys[mine])]
    if not len(wanted):
        return
    starts = rows.indptr[wanted]
    indptr = indptr_of(rows.indptr[wanted + 1] - starts)
    entries = entries_of(starts, indptr)
    part = FloatRows(indptr, rows.latents[entries], rows.values[entries], rows.n_latents)
    limit, cut = representer.config.representation.keep_top, 0.0
    if limit is not None:
        part, cut = keep_top(part, limit)
    vectors, found = quantize(part, representer.unit)
    report = UnitReport(
        n_samples=len(wanted),
        n_tokens=int(sum(samples[row].counted.sum() for row in wanted)),
        n_values=len(vectors.values),
        n_empty=int((np.diff(vectors.indptr) == 0).sum()),
        n_zeroed=found.n_zeroed,
        n_clipped=found.n_clipped,
        mass=found.mass + cut,
        mass_cut=cut,
        mass_changed=found.mass_changed,
        plan="full",
    )
    identity = [keys[wanted].tobytes().hex(), "one pass"]
    write_shard(representer.folder, content_id(identity, n_hex=24), keys[wanted], vectors, report)
