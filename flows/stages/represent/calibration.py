"""Calibration of a representation on the shipped texts, and what the SAE does on them.

It is measured once per model, hookpoint, SAE and aggregate, kept in the workspace, and never
computed from a pool.
"""

import logging
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from flows.config.jobs import VectorJob
from flows.config.model import SaeConfig
from flows.orchestration.progress import stage
from flows.stages.prepare.render import ModelInput, renderer_of
from selection.activations.batching import ActivationBatch, each_batch
from selection.activations.model import ActivationModel
from selection.core.errors import InputError
from selection.core.hashing import file_sha256
from selection.models.hookpoints import Hookpoint
from selection.models.resolve import ResolvedModel
from selection.records import Rendered
from selection.representation.heads import Head
from selection.representation.represent import (
    CALIBRATION_MAX_LENGTH,
    CALIBRATION_TEXTS,
    Calibration,
    calibrate_head,
    calibration_conversations,
)
from selection.sae.coder import SparseCoder, card
from selection.sae.metadata import SaeInfo
from selection.sae.quality import QualitySums, SaeQuality, is_wrong, problems
from storage.files.atomic import read_json

log = logging.getLogger(__name__)

CHECK_TOKENS = 4096


def calibration_key(config: VectorJob, model_input: ModelInput, sae: SaeInfo) -> dict[str, object]:
    """Everything that decides a calibration; its hash names the file."""
    options = config.representation
    return {
        "model": model_input.model.weights_sha256,
        "hookpoint": str(model_input.hookpoint),
        "sae": sae.sae_id,
        "token_aggregate": options.token_aggregate,
        "max_norm_ratio": options.max_norm_ratio,
        "drop_ever_present": options.drop_ever_present,
        "counted": config.rendering.counted,
        "template": config.rendering.template,
        "texts": file_sha256(CALIBRATION_TEXTS),
    }


def calibrate(
    config: VectorJob, hookpoint: Hookpoint, coder: SparseCoder, model: ActivationModel
) -> dict[str, object]:
    """Calibration and quality of an SAE on the shipped texts, as they are kept.

    Raises InputError where the SAE does not do what it declares and the config refuses that.
    """
    options, per_batch = config.representation, config.compute.tokens_per_batch
    samples = calibration_samples(config, model.resolved)
    quality = measure_sae(coder, model, samples, per_batch, hookpoint)
    check_declared_quality(config.sae, coder.info, quality)
    calibration = calibrate_head(
        samples,
        model,
        Head(hookpoint, coder, options.token_aggregate),
        tokens_per_batch=per_batch,
        max_norm_ratio=options.max_norm_ratio,
        ever_present_share=options.drop_ever_present,
    )
    return {**asdict(calibration), "sae_quality": quality.as_record()}


def read_calibration(file: Path) -> Calibration:
    """A calibration that was kept. Raises InputError where the file is not what was written."""
    record = read_json(file)
    unit, norm, constant = (record.get(name) for name in ("unit", "median_norm", "ever_present"))
    if not (isinstance(unit, float) and isinstance(norm, float) and isinstance(constant, list)):
        raise InputError(
            "this file is not what was written", file=file, remedy="Delete it and run again."
        )
    return Calibration(unit, norm, tuple(constant))


def calibration_samples(config: VectorJob, model: ResolvedModel) -> list[Rendered]:
    """The shipped texts as this model's tokens; no SAE was trained on them here."""
    renderer = renderer_of(config, model, CALIBRATION_MAX_LENGTH)
    return renderer.render_batch(calibration_conversations())


def measure_sae(
    coder: SparseCoder,
    model: ActivationModel,
    samples: Sequence[Rendered],
    tokens_per_batch: int | None,
    hookpoint: Hookpoint,
) -> SaeQuality:
    """FVU and L0 on the first batches of the samples, at least 4,096 tokens where there are."""
    with stage("check SAE") as handle:
        sums, number = QualitySums(coder.to(model.device)), model.hookpoints.index(hookpoint)

        def add(batch: ActivationBatch) -> None:
            hidden = batch.at(number)
            if hidden.shape[1] != coder.info.d_in:  # of places whose width no config tells
                raise InputError(
                    f"the SAE reads activations of width {coder.info.d_in}, {hookpoint} of"
                    f" {model.resolved.name} has {hidden.shape[1]}",
                    field="sae",
                    value=coder.info.path or None,
                    remedy="Use the hookpoint that the SAE was trained at.",
                )
            sums.add(hidden)

        for _ in each_batch(model, samples, tokens_per_batch, add):
            if sums.n_tokens >= CHECK_TOKENS:
                break
        quality = sums.quality()
        facts = dict(card(coder))
        fvu = "not defined" if quality.fvu is None else f"{quality.fvu:.2f}"
        handle.detail = (
            f"{facts['format']}, {facts['size']}, {facts['selection']}, decoder bias"
            f" {facts['decoder bias']}; L0 {quality.l0:.1f}, FVU {fvu} on"
            f" {quality.n_tokens:,} tokens"
        )
    for name, value in facts.items():
        log.info("SAE %s: %s", name, value)
    return quality


def check_declared_quality(config: SaeConfig, sae: SaeInfo, quality: SaeQuality) -> None:
    """Warn of an SAE that does not do what was declared, or refuse it, as the config says.

    Raises InputError with `sae.check: refuse`, and with `auto` where it is plainly wrong.
    """
    clauses = [] if config.check == "off" else problems(sae, quality)
    if not clauses:
        return
    reasons = "; ".join(clauses)
    refuses = config.check == "auto" and is_wrong(sae, quality)
    if config.check == "refuse" or refuses:
        raise InputError(
            f"the SAE does not do on this model what it should: {reasons}",
            field="sae",
            value=sae.path or None,
            remedy="Check model, hookpoint and template against the SAE's card (`saelect models"
            " --sae PATH`), or set `sae: {check: warn}`.",
        )
    log.warning("the SAE may not suit this model, hookpoint or text: %s", reasons)
