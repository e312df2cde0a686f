"""The SAE of a run: the given one, or one that is trained and then frozen."""

from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from flows.config.jobs import VectorJob
from flows.config.model import SaeTraining
from flows.orchestration.progress import stage
from flows.stages.prepare.render import ModelInput, sae_path
from flows.stages.represent.calibration import calibration_samples, measure_sae
from flows.stages.represent.devices import claim_device
from flows.stages.session import Session
from selection.core.hashing import content_id
from selection.models.activations import ActivationModel, load_activation_model
from selection.models.batching import iter_activations
from selection.models.hookpoints import canonical
from selection.sae.coder import SparseCoder
from selection.sae.formats.find import family_of
from selection.sae.formats.save import save_saelens, save_sparsify
from selection.sae.training.settings import TrainSettings
from selection.sae.training.train import steps_done, train_sae
from storage.files.leases import do_once
from storage.pools.renderings import RenderedPool

if TYPE_CHECKING:
    from torch import Tensor

BLOCK_EXAMPLES = 512  # Examples whose tokens are shuffled together.
TOKENS_PER_BATCH = 8192  # Of the forward pass; the SAE's own batch is a setting.


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


def existing_sae(session: Session) -> str | None:
    """Path of the config's SAE; None for one that is still to be trained."""
    config = session.config
    if config.sae.train is None:
        return sae_path(config)
    folder = trained_folder(config.sae.train, config, session.workspace.saes, session.model_input)
    return None if family_of(folder) is None else str(folder)


def ensure_sae(session: Session, pool_id: str) -> str:
    """Path of the SAE that the config names or asks to train; none is trained twice."""
    config, workspace, settings = session.config, session.workspace, session.config.sae.train
    if settings is None:
        return session.given_sae.path
    folder = trained_folder(settings, config, workspace.saes, session.model_input)
    if family_of(folder) is None:
        claim_device(workspace.leases, config.model.device)
    do_once(
        workspace.leases,
        f"sae-{folder.parent.name[:24]}",
        lambda: family_of(folder) is not None,
        lambda: _train(settings, config, folder, session.model_input, session.rendered(pool_id)),
    )
    return str(folder)


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
