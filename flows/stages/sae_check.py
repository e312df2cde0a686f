"""The SAE's own conventions, and a few thousand tokens through it, before it is relied on."""

import json
import logging
from collections.abc import Iterator, Sequence
from importlib.resources import files
from typing import TYPE_CHECKING

from flows.config.jobs import VectorJob
from flows.config.model import SaeConfig
from flows.progress import stage
from flows.stages.reading import renderer_of
from selection.activations import ActivationModel
from selection.batching import iter_activations
from selection.errors import InputError
from selection.models import Hookpoint, ResolvedModel
from selection.records import Rendered
from selection.sae.check import problems
from selection.sae.coder import SparseCoder, card
from selection.sae.quality import SaeQuality, measure

if TYPE_CHECKING:
    from torch import Tensor

log = logging.getLogger(__name__)

CHECK_TOKENS = 4096
CALIBRATION_TEXTS = files("selection") / "calibration" / "texts.jsonl"
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


def hold_to_its_word(config: SaeConfig, coder: SparseCoder, found: SaeQuality) -> None:
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
