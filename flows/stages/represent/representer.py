"""What turns rendered samples into vectors: tokens -> activations -> latents -> shards on disk.

The forward pass is paid once: a vector is keyed by its rendered tokens within a representation,
and only keys that no shard holds are computed.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from flows.config.jobs import SelectConfig, VectorJob
from flows.orchestration.progress import stage
from flows.stages.prepare.render import ModelInput, hookpoints_of, own_hookpoint
from flows.stages.represent.calibration import (
    calibrate,
    calibration_key,
    check_declared_quality,
    read_calibration,
)
from flows.stages.represent.devices import claim_device
from flows.stages.session import OpenedSae, Session, session_of
from selection.activations.batching import ActivationBatch
from selection.activations.loading import find_device, fitting
from selection.activations.model import ActivationModel, chosen_dtype, load_activation_model
from selection.core.errors import InputError
from selection.core.hashing import content_id
from selection.models.hookpoints import Hookpoint
from selection.models.resolve import ResolvedModel
from selection.records import Rendered, SparseRows
from selection.representation.heads import Head
from selection.representation.represent import (
    Calibration,
    UnitReport,
    represent_heads,
    representation_id,
)
from selection.sae.coder import SparseCoder
from selection.sae.compatibility import model_note
from selection.sae.quality import SaeQuality
from storage.files.atomic import read_json, write_json
from storage.files.leases import run_once
from storage.files.workspace import Workspace
from storage.pools.renderings import RenderedPool
from storage.pools.shards import open_shards, write_shard
from storage.pools.vectors import PoolVectors


@dataclass(frozen=True)
class Representer:
    """Model input and SAE of one representation; weights are loaded at first use.

    owner: the representer of the same run whose model this one shares; None has its own.
    computes: False to work with what is recorded alone: a missing vector or unit is an error.
    """

    config: VectorJob
    session: Session
    model_input: ModelInput
    sae: OpenedSae
    owner: "Representer | None" = None
    computes: bool = True

    @property
    def workspace(self) -> Workspace:
        """Where vectors and calibrations are kept."""
        return self.session.workspace

    def claim_device(self) -> None:
        """Before any lease whose holder loads the model: who holds one must not wait for a GPU."""
        claim_device(self.config.model.device)

    def load_model(self) -> None:
        """Claim a device and load the weights now, as a stage of its own."""
        self.claim_device()
        self.model  # noqa: B018 - loaded at first use

    @cached_property
    def model(self) -> ActivationModel:
        """The model up to the last hookpoint of the run."""
        if self.owner is not None:
            return self.owner.model
        hookpoints = hookpoints_of(self.config, self.model_input)
        return open_model(self.config, self.workspace, self.model_input.model, hookpoints)

    @cached_property
    def coder_on_device(self) -> SparseCoder:
        """The SAE where the model runs: copied there once, not with every unit."""
        device = self.model.device
        with fitting("the SAE beside the model", "sae"):
            return self._coder.to(device)

    @cached_property
    def _coder(self) -> SparseCoder:
        return self.sae.coder.rounded(self.config.representation.encoder_inputs)

    @property
    def unit(self) -> float:
        """The fixed-point unit."""
        return self.calibration.unit

    @cached_property
    def _calibration_key(self) -> dict[str, object]:
        return calibration_key(self.config, self.model_input, self.sae.info)

    @property
    def unit_file(self) -> Path:
        """Where the workspace keeps the calibration."""
        return self.workspace.units / f"{content_id(self._calibration_key)}.json"

    @cached_property
    def calibration(self) -> Calibration:
        """The calibration on the shipped texts, measured once and kept in the workspace."""
        file = self.unit_file
        if not file.exists():
            self.refuse_to_compute("the unit of the representation", file)
            self.claim_device()
        if not run_once(
            self.workspace.leases, f"calibrate-{file.stem}", file.exists, self._calibrate
        ):
            quality = read_json(file).get("sae_quality")
            if isinstance(quality, dict):
                check_declared_quality(self.config.sae, self.sae.info, SaeQuality(**quality))
        return read_calibration(file)

    def _calibrate(self) -> None:
        hookpoint = self.model_input.hookpoint
        record = calibrate(self.config, hookpoint, self.sae.coder, self.model)
        write_json(self.unit_file, {**record, **self._calibration_key})

    @property
    def _largest_norm(self) -> float | None:
        ratio = self.config.representation.max_norm_ratio
        return None if ratio is None else ratio * self.calibration.median_norm

    @property
    def head(self) -> Head:
        """How this representation's vectors are made of activations."""
        options, calibration = self.config.representation, self.calibration
        return Head(
            self.model_input.hookpoint,
            self._coder,
            options.token_aggregate,
            calibration.unit,
            options.keep_top,
            self._largest_norm,
            np.array(calibration.ever_present, np.int32),
        )

    def sae_facts(self) -> dict[str, object]:
        """The SAE's quality here, and how it was trained if this run trained it."""
        training = self.sae.info.record.get("training")
        trained = {"sae_training": training} if self.config.sae.train and training else {}
        quality = read_json(self.unit_file).get("sae_quality") or {}
        trust_model = self.config.sae.trust_model
        note = model_note(self.sae.info, self.model_input.model, trust_model)
        noted = {} if note is None else {"sae_model": note}
        return {"sae_quality": quality, **noted, **trained}

    @cached_property
    def representation_id(self) -> str:
        """Names the folder of shards; everything that changes a vector is in it."""
        inputs = self.config.representation.encoder_inputs
        return representation_id(
            model_sha256=self.model_input.model.weights_sha256,
            hookpoint=str(self.model_input.hookpoint),
            sae_id=self.sae.info.sae_id,
            token_aggregate=self.config.representation.token_aggregate,
            keep_top=self.config.representation.keep_top,
            unit=self.unit,
            dtype=chosen_dtype(find_device(self.config.model.device), self.config.model.dtype),
            limits={
                "largest_norm": self._largest_norm,
                "excluded": list(self.calibration.ever_present),
                **({} if inputs == "float32" else {"encoder_inputs": inputs}),
            },
        )

    def rendered(self, pool_id: str) -> RenderedPool:
        """The tokens of a pool that was rendered before."""
        return self.session.rendered(pool_id)

    def fixed_point_totals(self) -> dict[str, float]:
        """What fixed point changed, over all shards: number of values, shares of L1 mass."""
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

    def refuse_to_compute(self, missing: str, file: Path) -> None:
        """Raise InputError where nothing may be computed that is not there."""
        if not self.computes:
            raise InputError(
                f"{missing} is not there",
                file=file,
                remedy="It was removed or altered after the run; `saelect verify` says what else,"
                " and `saelect reproduce --from-scratch` computes it again.",
            )


@dataclass(frozen=True)
class Job:
    """What another process needs to open a representer; the same strings on every host.

    config: as JSON. is_selection: whether that is the config of a whole run.
    """

    workspace: str
    pool_id: str
    sae: str
    config: str
    is_selection: bool

    @classmethod
    def of(cls, config: VectorJob, workspace: Workspace, pool_id: str, sae: str) -> "Job":
        """The job of a config and one of its SAEs."""
        root, is_selection = str(workspace.root.resolve()), isinstance(config, SelectConfig)
        return cls(root, pool_id, sae, config.model_dump_json(), is_selection)

    def read_config(self) -> VectorJob:
        """The config of the job."""
        kind = SelectConfig if self.is_selection else VectorJob
        return kind.model_validate_json(self.config)

    def open(self) -> Representer:
        """The job's representer, in this process."""
        return open_representer(self.read_config(), Workspace(Path(self.workspace)), self.sae)


def open_model(
    config: VectorJob,
    workspace: Workspace,
    resolved: ResolvedModel,
    hookpoints: Sequence[Hookpoint],
) -> ActivationModel:
    """The model up to the last of the hookpoints, run as the config says; a stage of its own."""
    options, compute = config.model, config.compute
    with stage("model") as handle:
        model = load_activation_model(
            resolved,
            hookpoints,
            device=options.device,
            dtype=options.dtype,
            threads=compute.threads,
            packing=compute.packing,
            share_prefixes=compute.share_prefixes,
            checks=workspace.model_checks,
        )
        names = ", ".join(map(str, hookpoints))
        handle.detail = f"{resolved.name}, read at {names} on {model.device}, {model.plan.batching}"
    return model


def open_representer(
    config: VectorJob, workspace: Workspace, sae: str, *, computes: bool = True
) -> Representer:
    """Model, tokenizer and SAE of a config, in the session of its run where one is open.

    sae: path of the SAE, trained or given.
    """
    return representer_in(session_of(config, workspace), sae, computes=computes)


def representer_in(session: Session, sae: str, *, computes: bool = True) -> Representer:
    """The representer of a session's config; the same one for the same SAE."""

    def make() -> Representer:
        opened = session.sae(sae)
        return Representer(session.config, session, session.model_input, opened, None, computes)

    return session.once(("representer", sae, computes), make)


def another_representer(owner: Representer, config: VectorJob, sae: str) -> Representer:
    """Another aggregate or SAE of the same run, which shares the owner's model and tokenizer."""

    def make() -> Representer:
        model_input = owner.model_input
        hookpoint = own_hookpoint(config, model_input.model)
        own_input = replace(model_input, hookpoint=hookpoint)
        opened = owner.session.sae(sae)
        return replace(owner, config=config, model_input=own_input, sae=opened, owner=owner)

    key = ("representer", sae, owner.computes, id(owner), config.model_dump_json())
    return owner.session.once(key, make)


def pool_vectors(representer: Representer, pool_id: str) -> PoolVectors:
    """The vectors of a pool that was embedded before."""
    rendered = representer.rendered(pool_id)
    return PoolVectors(open_shards(representer.folder), rendered.keys(), rendered.usable())


def missing_rows(representer: Representer, rendered: RenderedPool) -> NDArray[np.int64]:
    """Pool rows, one per key, whose vectors no shard holds, in pool order."""
    return open_shards(representer.folder).rows_missing(rendered.keys(), rendered.first_rows())


def write_unit(representer: Representer, keys: NDArray[np.uint8], samples: list[Rendered]) -> None:
    """Compute one unit of work and write its shard."""
    representer.refuse_to_compute(f"the vector of {len(samples)} exemplars", representer.folder)
    [(vectors, report)] = represent_samples([representer], samples)
    write_shard(representer.folder, unit_id(representer, keys), keys, vectors, report)


def unit_id(representer: Representer, keys: NDArray[np.uint8]) -> str:
    """Names a unit by the work it is: keys in their order, and what decides the batch plan."""
    return content_id([keys.tobytes().hex(), *representer.config.compute.plan_key], n_hex=24)


def represent_samples(
    representers: Sequence[Representer],
    samples: list[Rendered],
    on_batch: Callable[[ActivationBatch], None] | None = None,
) -> list[tuple[SparseRows, UnitReport]]:
    """Vectors of a few samples by each representer of a run, all from one forward pass."""
    first = representers[0]
    heads = [replace(each.head, coder=each.coder_on_device) for each in representers]
    n_tokens = first.config.compute.tokens_per_batch
    return represent_heads(samples, first.model, heads, n_tokens, on_batch)
