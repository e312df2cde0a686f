"""The SAE of a run: loaded and checked against the model, or trained and then frozen."""

import json
import logging
from collections.abc import Iterator, Mapping, Sequence
from importlib.resources import files
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from flows.config.jobs import VectorJob
from flows.config.model import SaeConfig, SaeTraining
from flows.orchestration.progress import stage
from flows.stages.prepare.render import DEMO_SAES, ModelInput, renderer_of, sae_path
from flows.stages.represent.devices import claim_device
from selection.core.errors import InputError
from selection.core.hashing import content_id
from selection.models.activations import ActivationModel, load_activation_model
from selection.models.batching import iter_activations
from selection.models.hookpoints import Hookpoint, canonical
from selection.models.resolve import ResolvedModel
from selection.records import Rendered
from selection.sae.coder import SparseCoder, card
from selection.sae.compatibility import check_fits
from selection.sae.formats.find import family_of, list_local_saes
from selection.sae.formats.load import load_sae
from selection.sae.formats.save import save_saelens, save_sparsify
from selection.sae.quality import SaeQuality, measure, problems
from selection.sae.training.settings import TrainSettings
from selection.sae.training.train import steps_done, train_sae
from storage.files.leases import do_once
from storage.files.workspace import Workspace
from storage.pools.renderings import RenderedPool

if TYPE_CHECKING:
    from torch import Tensor

BLOCK_EXAMPLES = 512  # Examples whose tokens are shuffled together.
TOKENS_PER_BATCH = 8192  # Of the forward pass; the SAE's own batch is a setting.


def load_fitting(config: VectorJob, workspace: Workspace, model_input: ModelInput) -> SparseCoder:
    """The config's existing SAE. Raises InputError when it is missing or of another model."""
    folders = [workspace.saes, DEMO_SAES]
    coder = load_sae(sae_path(config), local=folders)
    asked = config.model.hookpoint or ""
    check_fits(
        coder.info,
        model_input.model,
        model_input.hookpoint,
        list_local_saes(folders),
        written=asked,
    )
    return coder


def trained_folder(
    settings: SaeTraining, config: VectorJob, home: Path, model_input: ModelInput
) -> Path:
    """Where the SAE of these settings lives; its name does not depend on the pool."""
    identity = {
        "train": settings.model_dump(),
        "model": model_input.model.weights_sha256,
        "hookpoint": str(model_input.hookpoint),
        "counted": config.rendering.counted,
        "template": config.rendering.template,
        "dtype": config.model.dtype,
    }
    return home / content_id(identity) / hookpoint_name(model_input)


def ensure_sae(
    config: VectorJob, workspace: Workspace, model_input: ModelInput, rendered: RenderedPool
) -> Path | str:
    """Path of the SAE that the config names or asks to train; none is trained twice."""
    settings = config.sae.train
    if settings is None:
        load_fitting(config, workspace, model_input)
        return sae_path(config)
    folder = trained_folder(settings, config, workspace.saes, model_input)
    if family_of(folder) is None:
        claim_device(workspace.leases, config.model.device)
    do_once(
        workspace.leases,
        f"sae-{folder.parent.name[:24]}",
        lambda: family_of(folder) is not None,
        lambda: _train(settings, config, folder, model_input, rendered),
    )
    return folder


def _train(
    settings: SaeTraining,
    config: VectorJob,
    folder: Path,
    model_input: ModelInput,
    rendered: RenderedPool,
) -> None:
    options = config.model
    # Packed and shared as the device's default says: how a pool is cut must not change an SAE.
    model = load_activation_model(
        model_input.model,
        model_input.hookpoint,
        device=options.device,
        dtype=options.dtype,
        threads=config.compute.threads,
    )
    n_steps = max(1, settings.tokens // settings.batch_tokens)
    checkpoint = folder.parent / "training.pt"
    skipped = steps_done(checkpoint)
    with stage("train sae", n_steps, "steps") as handle:
        handle.advance(skipped)
        coder, report = train_sae(
            token_batches(model, rendered, settings.batch_tokens, settings.seed, skipped),
            _train_settings(settings, model_input.model.d_model, n_steps),
            checkpoint=checkpoint,
            batches_skipped=skipped,
            on_step=lambda _: handle.advance(1),
        )
        handle.detail = f"FVU {report.fvu:.3f}, L0 {report.l0:.1f}, dead {report.dead_share:.1%}"
    resolved = model_input.model
    coder = coder.trained_on(resolved.name, resolved.weights_sha256, hookpoint_name(model_input))
    samples = calibration_samples(config, resolved)
    quality = measure_sae(
        coder, model, samples, config.compute.tokens_per_batch, model_input.hookpoint
    )
    save_trained(coder, folder, {"training": report.as_record(), "quality": quality.as_record()})
    checkpoint.unlink(missing_ok=True)  # three times the weights, and of no use any more


def _train_settings(settings: SaeTraining, d_in: int, n_steps: int) -> TrainSettings:
    """Those of the config, by the names of `selection`."""
    return TrainSettings(
        d_in,
        settings.num_latents,
        settings.k,
        n_steps,
        lr=settings.learning_rate or 0.0,
        dead_after_tokens=settings.dead_after_tokens or 0,
        **{
            name: getattr(settings, name)
            for name in ("warmup_steps", "decay_share", "auxk_alpha", "max_norm_ratio", "seed",
                         "architecture", "widths", "k_start", "k_anneal_share", "threshold_rate")
        },
    )  # fmt: skip


def hookpoint_name(model_input: ModelInput) -> str:
    """As the SAE records it: "layers.4" for the residual stream, "mlp@4" for others."""
    return canonical(str(model_input.hookpoint)) or str(model_input.hookpoint)


def save_trained(coder: SparseCoder, folder: Path, record: Mapping[str, object]) -> None:
    """Write it for SAELens and, where that format can hold it, for sparsify.

    `folder` has the one that saelect reads: sparsify's for TopK, SAELens' for what selects by a
    threshold. A TopK SAE's copy for SAELens lies in `../saelens/<name>`; the copy is written
    first, since `folder` being there means that the training is done.
    """
    if coder.info.activation == "topk":
        save_saelens(coder, folder.parent / "saelens" / folder.name, record)
        save_sparsify(coder, folder, record)
    else:
        save_saelens(coder, folder, record)


def token_batches(
    model: ActivationModel, rendered: RenderedPool, batch_tokens: int, seed: int, skip: int = 0
) -> Iterator["Tensor"]:
    """Endless batches (batch_tokens, d_model) of counted-token activations, after the first `skip`.

    The pool is in order of a content hash, so consecutive examples are a random sample; tokens are
    shuffled within a block, and the part of a block that fills no batch is left out. What is
    skipped costs no forward pass.
    """
    import torch

    usable, counted = np.flatnonzero(rendered.usable()), rendered.n_counted()
    for epoch in count():
        for first in range(0, len(usable), BLOCK_EXAMPLES):
            rows = usable[first : first + BLOCK_EXAMPLES]
            n_batches = int(counted[rows].sum()) // batch_tokens
            if n_batches == 0 and len(usable) <= BLOCK_EXAMPLES:
                n_batches = 1  # A pool smaller than one batch: all of it is the batch.
            if skip >= n_batches:
                skip -= n_batches
                continue
            samples = rendered.samples(rows)
            parts = [b.hidden for b in iter_activations(model, samples, TOKENS_PER_BATCH)]
            tokens = torch.cat(parts)
            order = np.random.default_rng([seed, epoch, first]).permutation(len(tokens))
            tokens = tokens[torch.from_numpy(order).to(tokens.device)]
            batches = tokens[: n_batches * batch_tokens].split(batch_tokens)
            yield from batches[skip:]
            skip = 0


if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

CHECK_TOKENS = 4096
CALIBRATION_TEXTS = files("selection.representation") / "calibration_texts.jsonl"
CALIBRATION_MAX_LENGTH = 512


def calibration_samples(config: VectorJob, model: ResolvedModel) -> list[Rendered]:
    """The shipped texts as this model's tokens; no SAE was trained on them here."""
    renderer = renderer_of(config, model, CALIBRATION_MAX_LENGTH)
    lines = CALIBRATION_TEXTS.read_text(encoding="utf-8").splitlines()
    return renderer.render_batch([(json.loads(line)["messages"], None) for line in lines])


def measure_sae(
    coder: SparseCoder,
    model: ActivationModel,
    samples: Sequence[Rendered],
    tokens_per_batch: int | None,
    hookpoint: Hookpoint,
) -> SaeQuality:
    """FVU and L0 on the first batches of the samples, at least 4,096 tokens where there are."""
    with stage("sae") as handle:
        found = measure(coder.to(model.device), _some(model, samples, tokens_per_batch, hookpoint))
        shown = dict(card(coder))
        handle.detail = (
            f"{shown['format']}, {shown['size']}, {shown['selection']}, decoder bias"
            f" {shown['decoder bias']}; L0 {found.l0:.1f}, FVU {found.fvu:.2f} on"
            f" {found.n_tokens:,} tokens"
        )
    for what, how in card(coder):
        log.info("sae %s: %s", what, how)
    return found


def check_declared_quality(config: SaeConfig, coder: SparseCoder, found: SaeQuality) -> None:
    """Warn of an SAE that does not do what was declared, or refuse it, as the config says.

    Raises InputError with `sae.check: refuse`.
    """
    clauses = [] if config.check == "off" else problems(coder.info, found)
    if not clauses:
        return
    said = "; ".join(clauses)
    if config.check == "refuse":
        raise InputError(
            f"the SAE does not do on this model what it should: {said}",
            field="sae",
            value=coder.info.path or None,
            remedy="Check model, hookpoint and template against the SAE's card (`saelect models"
            " --sae PATH`), or set `sae: {check: warn}`.",
        )
    log.warning("the SAE may not suit this model, hookpoint or text: %s", said)


def _some(
    model: ActivationModel,
    samples: Sequence[Rendered],
    tokens_per_batch: int | None,
    hookpoint: Hookpoint,
) -> Iterator["Tensor"]:
    n_tokens, place = 0, model.hookpoints.index(hookpoint)
    for batch in iter_activations(model, samples, tokens_per_batch):
        yield batch.at(place)
        n_tokens += len(batch.token_ids)
        if n_tokens >= CHECK_TOKENS:
            return
