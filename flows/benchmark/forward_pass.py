"""One forward pass per model and setting: SAE shards and dense vectors of all methods together.

Methods that count other tokens of the same rendering, the paper's for example, read in it too.

Dense vectors of a unit of examples are one file, written whole; SAE vectors go to the ordinary
shards, where the ordinary stages find them. A killed pass resumes at its first missing unit.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flows.benchmark.setting import BenchPool
from flows.config.jobs import SelectConfig
from flows.orchestration.progress import stage
from flows.stages.prepare.render import ModelInput, open_model_input, render, render_rows
from flows.stages.represent.representer import Representer, open_model
from selection.activations.batching import ActivationBatch, mask_in_batch
from selection.activations.model import ActivationModel
from selection.core.hashing import content_id
from selection.core.sparse import take
from selection.evaluation.baselines.dense import DenseTables
from selection.models.hookpoints import Hookpoint
from selection.records import Rendered, SparseRows
from selection.representation.heads import Head
from selection.representation.represent import UnitReport, represent_heads
from storage.files.atomic import write_arrays
from storage.pools.renderings import RenderedPool
from storage.pools.shards import as_bytes, open_shards, write_shard

VERSION = 3
UNIT = 2048


@dataclass(frozen=True)
class ForwardPass:
    """What one pass reads of one model.

    representers: of SAE vectors, all of the same model; their renderings differ in what they count.
    dense:        whether dense vectors are read too: `last`, and `sae` where sae_block is given.
    sae_block:    the block of the SAE.
    gate_k:       gate neurons kept per token there; None reads no gate.
    """

    bench: BenchPool
    config: SelectConfig
    dense: bool
    sae_block: int | None
    gate_k: int | None
    representers: tuple[Representer, ...] = ()

    @cached_property
    def rendered(self) -> RenderedPool:
        """Tokens of the pool."""
        return render(self.bench.workspace, self.bench.prepared, self._model_input)

    @cached_property
    def rendered_for(self) -> tuple[RenderedPool, ...]:
        """The same with the tokens that each representer counts."""
        own = {self._model_input.renderer.rendering_id: self.rendered}
        for representer in self.representers:
            name = representer.model_input.renderer.rendering_id
            if name not in own:
                own[name] = render(
                    self.bench.workspace, self.bench.prepared, representer.model_input
                )
        return tuple(own[each.model_input.renderer.rendering_id] for each in self.representers)

    @cached_property
    def _model_input(self) -> ModelInput:
        return open_model_input(self.config)

    @property
    def hookpoints(self) -> list[Hookpoint]:
        """Everything that is read, shallow first."""
        hookpoints = set()
        if self.dense:
            last = self._model_input.model.n_layers - 1
            blocks = {last} if self.sae_block is None else {last, self.sae_block}
            hookpoints = {Hookpoint("resid", block) for block in blocks}
        hookpoints |= {representer.model_input.hookpoint for representer in self.representers}
        return sorted(hookpoints, key=lambda each: (each.block, each.site))

    @cached_property
    def model(self) -> ActivationModel:
        """The model up to the last hookpoint that is read."""
        workspace, resolved = self.bench.workspace, self._model_input.model
        return open_model(self.config, workspace, resolved, self.hookpoints)

    @cached_property
    def heads(self) -> list[Head]:
        """Of the representers, with their SAEs where the model runs."""
        return [
            replace(each.head, coder=each.sae.coder.to(self.model.device))
            for each in self.representers
        ]

    @property
    def folder(self) -> Path:
        """Where the dense vectors are; everything that decides them is in its name."""
        key = content_id(
            {
                "model": self._model_input.model.weights_sha256,
                "rendering": self._model_input.renderer.rendering_id,
                "pool": self.bench.prepared.pool_id,
                "sae_block": self.sae_block,
                "gate_k": self.gate_k,
                "dtype": self.config.model.dtype,
                "version": VERSION,
            }
        )
        return self.bench.workspace.root / "bench" / "dense" / key

    def run(self) -> None:
        """Compute every unit that is not complete."""
        n, lengths = self.bench.prepared.n_examples, self.rendered.lengths()
        units = [np.arange(first, min(first + UNIT, n)) for first in range(0, n, UNIT)]
        missing = [rows for rows in units if not self._is_complete(rows)]
        n_tokens = sum(int(lengths[rows].sum()) for rows in missing)
        with stage(f"pass {self.bench.setting}", n_tokens, "tokens") as handle:
            for rows in missing:
                self._run_unit(rows)
                handle.advance(int(lengths[rows].sum()))
            handle.detail = f"{len(missing)} of {len(units)} units computed"

    def _file(self, first: int) -> Path:
        return self.folder / f"unit-{first:09d}.npz"

    def _is_complete(self, rows: NDArray[np.int64]) -> bool:
        if self.dense and not self._file(int(rows[0])).exists():
            return False
        for representer, rendered in zip(self.representers, self.rendered_for, strict=True):
            keys = rendered.keys()[rows][rendered.usable()[rows]]
            if open_shards(representer.folder).missing(keys).any():
                return False
        return True

    def _run_unit(self, rows: NDArray[np.int64]) -> None:
        read = {id(self.rendered): self.rendered.samples(rows)}
        for rendered in self.rendered_for:
            if id(rendered) not in read:
                read[id(rendered)] = rendered.samples(rows)
        by_head = [read[id(rendered)] for rendered in self.rendered_for]
        dense, sparse = self.read(read[id(self.rendered)], by_head)
        if dense:
            write_arrays(self._file(int(rows[0])), dense)
        for number, (vectors, report) in enumerate(sparse):
            keys = self.rendered_for[number].keys()[rows]
            counted = np.array([bool(sample.content_mask.any()) for sample in by_head[number]])
            _, unique = np.unique(as_bytes(keys[counted]), return_index=True)
            first_rows = np.flatnonzero(counted)[np.sort(unique)]
            _write_missing(self.representers[number], keys, first_rows, vectors, report)

    def read(
        self, samples: Sequence[Rendered], samples_by_head: Sequence[Sequence[Rendered]] = ()
    ) -> tuple[dict[str, NDArray[np.float32]], list[tuple[SparseRows, UnitReport]]]:
        """Dense vectors by name, (b, d) each, and SAE vectors by representer, of some samples.

        samples_by_head: the samples with each representer's content mask; default: as they are.
        """
        budget, by_head = self.config.compute.tokens_per_batch, samples_by_head
        if not self.dense:
            return {}, represent_heads(samples, self.model, self.heads, budget, None, by_head)
        tables = DenseTables(len(samples), self.model, self.sae_block, self.gate_k)
        whole = [replace(each, content_mask=_everything(each)) for each in samples]

        def add(batch: ActivationBatch) -> None:
            tables.add(batch, mask_in_batch(batch, whole, samples))

        by_head = by_head or [samples] * len(self.heads)
        with tables:
            sparse = represent_heads(whole, self.model, self.heads, budget, add, by_head)
        return tables.by_name, sparse

    def exemplars(self) -> dict[str, dict[str, NDArray[np.float32]]]:
        """Target -> dense vectors of its exemplars."""
        names = [target.target_id for target in self.bench.targets]
        file = self.folder / f"exemplars-{content_id(names)}.npz"
        tables = self.bench.exemplars
        if not file.exists():
            samples = [
                s for t in tables.values() for s in render_rows(self._model_input.renderer, t)
            ]
            dense, _ = replace(self, representers=()).read(samples)
            write_arrays(file, dense)
        vectors, first = {}, 0
        with np.load(file) as stored:
            whole = {name: stored[name] for name in stored.files}
        for name, table in tables.items():
            vectors[name] = {key: whole[key][first : first + len(table)] for key in whole}
            first += len(table)
        return vectors

    def units(self, name: str) -> Iterator[NDArray[np.float32]]:
        """One dense vector of the pool's examples, unit by unit in their order."""
        for first in range(0, self.bench.prepared.n_examples, UNIT):
            with np.load(self._file(first)) as stored:
                yield stored[name]


def _everything(sample: Rendered) -> NDArray[np.bool_]:
    """The mask that counts all tokens, where any is counted."""
    return np.full_like(sample.content_mask, sample.content_mask.any())


def _write_missing(
    representer: Representer,
    keys: NDArray[np.uint8],
    first_rows: NDArray[np.int64],
    vectors: SparseRows,
    report: UnitReport,
) -> None:
    """Write a shard of the vectors that are not there yet.

    first_rows: the first row of each key, where anything is counted. The sums of mass in the report
    stay those of the whole unit, equal samples included.
    """
    wanted = first_rows[open_shards(representer.folder).missing(keys[first_rows])]
    if not len(wanted):
        return
    kept = take(vectors, wanted)
    n_empty = int((np.diff(kept.indptr) == 0).sum())
    report = replace(report, n_samples=len(kept), n_values=len(kept.values), n_empty=n_empty)
    unit = content_id([keys[wanted].tobytes().hex(), "shared pass"], n_hex=24)
    write_shard(representer.folder, unit, keys[wanted], kept, report)
