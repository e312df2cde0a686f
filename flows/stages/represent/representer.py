"""Middle stages: pool -> tokens -> activations -> latents -> vectors on disk.

The forward pass is paid once: a vector is keyed by its rendered tokens within a representation,
and only keys that no shard holds are computed.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from flows.config.jobs import SelectConfig, VectorJob
from flows.orchestration.progress import stage
from flows.stages.prepare.render import (
    ModelInput,
    hookpoints_of,
    open_model_input,
    render_rows,
    rendering_folder,
)
from flows.stages.represent.devices import claim_device
from flows.stages.represent.sae import (
    CALIBRATION_TEXTS,
    calibration_samples,
    check_declared_quality,
    measure_sae,
)
from selection.core.errors import InputError
from selection.core.hashing import content_id, file_sha256
from selection.models.activations import ActivationModel, chosen_dtype, load_activation_model
from selection.models.loading import find_device, fitting
from selection.records import Exemplars, Rendered, SparseRows
from selection.rendering.renderer import render_key
from selection.representation.heads import Head
from selection.representation.represent import (
    Calibration,
    UnitReport,
    calibrate_head,
    represent_heads,
    representation_id,
)
from selection.sae.coder import SparseCoder, scaled_by_decoder_norm
from selection.sae.formats.load import load_sae
from selection.sae.quality import SaeQuality
from storage.files.atomic import ensure_free, is_complete, read_json, write_json
from storage.files.leases import do_once
from storage.files.workspace import Workspace
from storage.pools.renderings import RenderedPool, open_rendering
from storage.pools.shards import ShardSet, open_shards, write_shard
from storage.pools.vectors import PoolVectors

BYTES_PER_POSTING = 6  # int32 latent and uint16 value


@dataclass(frozen=True)
class Representer:
    """Everything that turns rendered examples into vectors; weights are loaded at first use.

    host: the representer of the same run whose model this one reads too; None has its own.
    computes: False to work with what is recorded alone: a missing vector or unit is an error.
    """

    config: VectorJob
    model_input: ModelInput
    coder: SparseCoder
    sae: str
    workspace: Workspace
    host: "Representer | None" = None
    computes: bool = True

    def claim_device(self) -> None:
        """Before any lease whose holder loads the model: who holds one must not wait for a GPU."""
        claim_device(self.workspace.leases, self.config.model.device)

    def load_model(self) -> None:
        """Claim a device and load the weights now, as a stage of its own."""
        self.claim_device()
        self.model  # noqa: B018 - loaded when first asked for

    @cached_property
    def model(self) -> ActivationModel:
        """The model up to the last place that the run reads."""
        if self.host is not None:
            return self.host.model
        places = hookpoints_of(self.config, self.model_input)
        options, compute = self.config.model, self.config.compute
        with stage("model") as handle:
            model = load_activation_model(
                self.model_input.model,
                places,
                device=options.device,
                dtype=options.dtype,
                threads=compute.threads,
                packing=compute.packing,
                share_prefixes=compute.share_prefixes,
            )
            names = ", ".join(map(str, places))
            handle.detail = f"{self.model_input.model.name}, read at {names} on {model.device}"
        return model

    @cached_property
    def coder_there(self) -> SparseCoder:
        """The SAE where the model runs: copied there once, not with every unit."""
        device = self.model.device
        with fitting("the SAE beside the model", "sae"):
            return self.coder.to(device)

    @property
    def unit(self) -> float:
        """The fixed-point unit."""
        return self.calibration.unit

    @cached_property
    def _calibration_key(self) -> dict[str, object]:
        options = self.config.representation
        return {
            "model": self.model_input.model.weights_sha256,
            "hookpoint": str(self.model_input.hookpoint),
            "sae": self.coder.info.sae_id,
            "token_aggregate": options.token_aggregate,
            "max_norm_ratio": options.max_norm_ratio,
            "drop_ever_present": options.drop_ever_present,
            "counted": self.config.rendering.counted,
            "template": self.config.rendering.template,
            "texts": file_sha256(Path(str(CALIBRATION_TEXTS))),
        }

    @property
    def _unit_file(self) -> Path:
        return self.workspace.units / f"{content_id(self._calibration_key)}.json"

    @cached_property
    def calibration(self) -> Calibration:
        """What the shipped texts say, measured once and kept in the workspace."""
        file = self._unit_file
        name = f"calibrate-{file.stem}"
        if not file.exists():
            self.refuse_to_compute("the unit of the representation", file)
            self.claim_device()
        if not do_once(self.workspace.leases, name, file.exists, self._calibrate):
            known = read_json(file).get("sae_quality")
            if isinstance(known, dict):
                check_declared_quality(self.config.sae, self.coder, SaeQuality(**known))
        return _read_calibration(file)

    def _calibrate(self) -> None:
        options, place = self.config.representation, self.model_input.hookpoint
        samples = calibration_samples(self.config, self.model_input.model)
        per_batch = self.config.compute.tokens_per_batch
        quality = measure_sae(self.coder, self.model, samples, per_batch, place)
        check_declared_quality(self.config.sae, self.coder, quality)
        found = calibrate_head(
            samples,
            self.model,
            Head(place, self.coder, options.token_aggregate),
            tokens_per_batch=per_batch,
            max_norm_ratio=options.max_norm_ratio,
            ever_present_share=options.drop_ever_present,
        )
        record = {**asdict(found), "sae_quality": quality.as_record()}
        write_json(self._unit_file, {**record, **self._calibration_key})

    @property
    def head(self) -> Head:
        """How this representation's vectors are made of activations."""
        options, known = self.config.representation, self.calibration
        ratio = options.max_norm_ratio
        return Head(
            self.model_input.hookpoint,
            self.coder,
            options.token_aggregate,
            known.unit,
            options.keep_top,
            None if ratio is None else ratio * known.median_norm,
            np.array(known.ever_present, np.int32),
        )

    def sae_facts(self) -> dict[str, object]:
        """What is known of the SAE's quality here, and how it was trained if this run asked so."""
        kept = read_json(self._unit_file)
        training = self.coder.info.record.get("training")
        trained = {"sae_training": training} if self.config.sae.train and training else {}
        return {"sae_quality": kept.get("sae_quality") or {}, **trained}

    @cached_property
    def representation_id(self) -> str:
        """Names the folder of shards; everything that changes a vector is in it."""
        return representation_id(
            model_sha256=self.model_input.model.weights_sha256,
            hookpoint=str(self.model_input.hookpoint),
            sae_id=self.coder.info.sae_id,
            token_aggregate=self.config.representation.token_aggregate,
            keep_top=self.config.representation.keep_top,
            unit=self.unit,
            dtype=chosen_dtype(find_device(self.config.model.device), self.config.model.dtype),
            limits={
                "largest_norm": self.head.max_norm,
                "excluded": list(self.calibration.ever_present),
            },
        )

    def rendered(self, pool_id: str) -> RenderedPool:
        """The tokens of a pool that was rendered before."""
        return open_rendering(rendering_folder(self.workspace, pool_id, self.model_input.renderer))

    def fixed_point_totals(self) -> dict[str, float]:
        """What storing cost, over all shards of the representation: values, shares of L1 mass."""
        totals = open_shards(self.folder).totals()
        mass = totals.get("mass", 0) or 1
        return {
            "values": totals.get("n_values", 0),
            "zeroed": totals.get("n_zeroed", 0),
            "clipped": totals.get("n_clipped", 0),
            "mass_changed_share": totals.get("mass_changed", 0) / mass,
            "mass_cut_by_keep_top_share": totals.get("mass_cut", 0) / mass,
            "reduced_units": totals["n_reduced"],
        }

    @property
    def folder(self) -> Path:
        """Where the shards of this representation are."""
        return self.workspace.shards / self.representation_id

    def refuse_to_compute(self, what: str, place: Path) -> None:
        """Raise InputError where nothing may be computed that is not there."""
        if not self.computes:
            raise InputError(
                f"{what} is not there",
                file=place,
                remedy="It was removed or altered after the run; `saelect verify` says what else,"
                " and `saelect reproduce --from-scratch` computes it again.",
            )


def open_representer(
    config: VectorJob,
    workspace: Workspace,
    sae: str,
    host: Representer | None = None,
    *,
    computes: bool = True,
) -> Representer:
    """Model, tokenizer and SAE of a config; `sae` is the path of the SAE, trained or given.

    host: of the same run and model, whose loaded weights are used; it decides `computes` too.
    """
    coder = load_sae(sae)
    if config.sae.scale == "decoder_norm":
        coder = scaled_by_decoder_norm(coder)
    may = computes if host is None else host.computes
    return Representer(config, open_model_input(config), coder, sae, workspace, host, may)


def pool_vectors(representer: Representer, pool_id: str) -> PoolVectors:
    """The vectors of a pool that was embedded before."""
    rendered = representer.rendered(pool_id)
    return PoolVectors(open_shards(representer.folder), rendered.keys(), rendered.usable())


def missing_rows(representer: Representer, rendered: RenderedPool) -> NDArray[np.int64]:
    """Pool rows, one per key, whose vectors no shard holds, in pool order."""
    return _missing(rendered, open_shards(representer.folder))


def units_of(rendered: RenderedPool, shards: ShardSet, size: int) -> list[NDArray[np.int64]]:
    """Pool rows, one per key, whose vectors no shard holds, in units of at most `size`."""
    missing = _missing(rendered, shards)
    return [missing[first : first + size] for first in range(0, len(missing), size)]


def embed_samples(representer: Representer, samples: list[Rendered]) -> NDArray[np.uint8]:
    """Vectors for a few samples in one unit, for example exemplars; returns their keys (m, 16)."""
    keys = np.stack([np.frombuffer(render_key(sample), np.uint8) for sample in samples])
    rows = _first_of_each(keys, np.array([sample.content_mask.any() for sample in samples]))
    missing = rows[open_shards(representer.folder).missing(keys[rows])]
    if len(missing):
        unit = keys[missing]
        name = unit_id(representer, unit)
        representer.claim_device()
        do_once(
            representer.folder / ".leases",
            name,
            lambda: is_complete(representer.folder / name),
            lambda: write_unit(representer, unit, [samples[row] for row in missing]),
        )
    return keys


def embed_targets(
    representer: Representer, config: SelectConfig, targets: Mapping[str, pa.Table]
) -> dict[str, tuple[pa.Table, Exemplars]]:
    """Vectors of the exemplars, computed where they are missing.

    Raises InputError for an exemplar of which nothing counts, for example without a response.
    """
    tables = list(targets.values())
    samples = {
        name: render_rows(representer.model_input.renderer, table)
        for name, table in targets.items()
    }
    for (name, rendered), table in zip(samples.items(), tables, strict=True):
        _refuse_uncounted(config, name, table, rendered)
    keys = embed_samples(representer, [sample for each in samples.values() for sample in each])
    shards, first, found = open_shards(representer.folder), 0, {}
    if config.compute.verify_shards:
        shards.verify(keys)
    for name, table in targets.items():
        rows = shards.gather(keys[first : first + len(table)])
        first += len(table)
        ids = np.array(table["example_id"].to_pylist())
        found[name] = (table, Exemplars(name, ids, rows))
    return found


def _refuse_uncounted(
    config: SelectConfig, name: str, table: pa.Table, samples: list[Rendered]
) -> None:
    """An exemplar that says nothing would silently pull every score down."""
    for row, sample in zip(table.to_pylist(), samples, strict=True):
        if not sample.content_mask.any():
            raise InputError(
                f"exemplar of `{name}` has no counted tokens (rendering.counted is"
                f" `{config.rendering.counted}`)",
                file=row["file"],
                line=row["row"],
                remedy="Give it a response, or set `rendering: {counted: prompt}`.",
            )


def write_unit(representer: Representer, keys: NDArray[np.uint8], samples: list[Rendered]) -> None:
    """Compute one unit of work and write its shard."""
    representer.refuse_to_compute(f"the vector of {len(samples)} exemplars", representer.folder)
    [(vectors, report)] = represent_samples([representer], samples)
    write_shard(representer.folder, unit_id(representer, keys), keys, vectors, report)


def unit_id(representer: Representer, keys: NDArray[np.uint8]) -> str:
    """Names a unit by the work it is: keys in their order, and what decides the batch plan."""
    compute = representer.config.compute
    identity = [keys.tobytes().hex(), *compute.plan_key]
    return content_id(identity, n_hex=24)


def represent_samples(
    representers: Sequence[Representer], samples: list[Rendered]
) -> list[tuple[SparseRows, UnitReport]]:
    """Vectors of a few samples by each representer of a run, all from one forward pass."""
    first = representers[0]
    return represent_heads(
        samples,
        first.model,
        [replace(each.head, coder=each.coder_there) for each in representers],
        first.config.compute.tokens_per_batch,
    )


def _read_calibration(file: Path) -> Calibration:
    record = read_json(file)
    unit, norm, constant = (record.get(name) for name in ("unit", "median_norm", "ever_present"))
    if not (isinstance(unit, float) and isinstance(norm, float) and isinstance(constant, list)):
        raise InputError(
            "this file is not what was written", file=file, remedy="Delete it and run again."
        )
    return Calibration(unit, norm, tuple(constant))


def _missing(rendered: RenderedPool, shards: ShardSet) -> NDArray[np.int64]:
    rows = first_of_each(rendered)
    return rows[shards.missing(rendered.keys()[rows])]


def first_of_each(rendered: RenderedPool) -> NDArray[np.int64]:
    """Pool rows, ascending, the first usable one of every key."""
    return _first_of_each(rendered.keys(), rendered.usable())


def _first_of_each(keys: NDArray[np.uint8], usable: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Rows of the first usable occurrence of every key, ascending."""
    rows = np.flatnonzero(usable)
    _, first = np.unique(keys[rows].view("V16").ravel(), return_index=True)
    return rows[np.sort(first)]


def ensure_room(
    representer: Representer, rendered: RenderedPool, missing: NDArray[np.int64]
) -> None:
    """Refuse before the first unit when the vectors cannot fit on the disk."""
    info = representer.coder.info
    k, width = info.expected_l0 or min(256, info.num_latents), info.num_latents
    # Tokens of a sample share most of their latents: at most a third of the possible postings.
    postings = np.minimum(rendered.n_counted()[missing] * k / 3, width).sum()
    ensure_free(representer.workspace.root, int(postings) * BYTES_PER_POSTING, "the new vectors")
