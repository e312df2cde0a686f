"""The model that is trained: loaded once, put back to its first weights before every run."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from selection.activations.loading import (
    find_blocks,
    find_device,
    load_config,
    load_module,
    refuse_encoder,
)
from selection.core.errors import InputError
from selection.evaluation.labelled import LabelledPool, Rows, Setting, as_messages
from selection.models.resolve import ResolvedModel
from selection.records import Rendered
from selection.rendering.renderer import Renderer, renderer_for


@dataclass(frozen=True)
class Trainee:
    """A causal model with its renderer, of which some parameters are trained.

    Weights are float32; dtype is what products of matrices are computed in.
    """

    resolved: ResolvedModel
    model: nn.Module
    renderer: Renderer
    device: torch.device
    trained: list[nn.Parameter]
    initial: list[Tensor]
    dtype: torch.dtype = torch.bfloat16

    def reset(self) -> None:
        """Put the first weights back."""
        with torch.no_grad():
            for parameter, value in zip(self.trained, self.initial, strict=True):
                parameter.copy_(value)
                parameter.grad = None

    def logits(self, samples: Sequence[Rendered]) -> tuple[Tensor, Tensor, Tensor]:
        """Logits (b, t - 1, v), the tokens that they predict and which of these are response."""
        length = max(len(sample.tokens) for sample in samples)
        ids = np.full((len(samples), length), self.renderer.pad_id, np.int64)
        is_real, is_response = np.zeros((2, len(samples), length), np.bool_)
        for row, sample in enumerate(samples):
            n = len(sample.tokens)
            ids[row, :n], is_real[row, :n] = sample.tokens, True
            is_response[row, :n] = sample.content_mask
        tokens = torch.from_numpy(ids).to(self.device)
        lower = self.dtype != torch.float32
        with torch.autocast(self.device.type, self.dtype if lower else None, enabled=lower):
            seen = torch.from_numpy(is_real).to(self.device).long()
            logits = self.model(input_ids=tokens, attention_mask=seen, use_cache=False).logits
        return logits[:, :-1], tokens[:, 1:], torch.from_numpy(is_response[:, 1:]).to(self.device)


def load_trainee(
    resolved: ResolvedModel,
    tune: str = "full",
    *,
    max_length: int = 512,
    device: str = "auto",
    dtype: str = "bfloat16",
) -> Trainee:
    """Load a causal model of transformers and choose what of it is trained.

    tune: `full`, `last:N` for the last N blocks, or `lora:RANK` (needs peft).
    Raises InputError as `check_trainee` does.
    """
    how, number = check_trainee(resolved, tune, device)
    where = find_device(device)
    model: Any = load_module(resolved, load_config(resolved), torch.float32, with_head=True)
    torch.manual_seed(0)  # adapters begin with random weights
    if how == "lora":
        model = _with_adapter(model, number)
    elif how == "last":
        model.requires_grad_(False)
        for block in list(find_blocks(model, resolved.n_layers))[-number:]:
            block.requires_grad_(True)
    model = model.to(where)
    trained = [each for each in model.parameters() if each.requires_grad]
    return Trainee(
        resolved,
        model,
        trainee_renderer(resolved, max_length),
        where,
        trained,
        [each.detach().clone() for each in trained],
        getattr(torch, dtype),
    )


def trainee_renderer(resolved: ResolvedModel, max_length: int) -> Renderer:
    """The trainee's own template; a long question is cut before its response is."""
    return renderer_for(
        resolved, max_length=max_length, counted="response", truncation="keep_response"
    )


def check_trainee(resolved: ResolvedModel, tune: str, device: str) -> tuple[str, int]:
    """How much is trained, as a word and its number. Raises InputError before weights are read.

    For another word, more blocks than there are, an encoder, a missing device or package.
    """
    refuse_encoder(resolved, "trainee", "Give a causal language model.")
    find_device(device)
    how, _, digits = tune.partition(":")
    number = int(digits) if digits.isdecimal() else 0
    too_deep = how == "last" and number > resolved.n_layers
    if tune != "full" and (how not in ("last", "lora") or not number or too_deep):
        raise InputError(
            f"the model has {resolved.n_layers} blocks" if too_deep else "no such way to train",
            field="tune",
            value=tune,
            remedy="Use full, last:N (the last N blocks) or lora:RANK.",
        )
    if how == "lora" and find_spec("peft") is None:
        raise InputError(
            "LoRA needs the package peft",
            field="tune",
            value=tune,
            remedy="pip install 'saelect[finetune]', or use last:N.",
        )
    return how, number


def _with_adapter(model: Any, rank: int) -> Any:
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear")
    return get_peft_model(model, config)


@dataclass
class TraineeTexts:
    """Rows of a labelled pool as a trainee reads them; each is rendered once."""

    pool: LabelledPool
    setting: Setting
    renderer: Renderer
    _known: dict[int, Rendered] = field(default_factory=dict)

    def samples(self, rows: Rows) -> list[Rendered]:
        """Rendered rows, in their order."""
        new = [row for row in rows.tolist() if row not in self._known]
        turns = self.pool.turns_at(self.setting, np.array(new, np.int64))
        rendered = self.renderer.render_batch([(as_messages(each), None) for each in turns])
        self._known.update(zip(new, rendered, strict=True))
        return [self._known[row] for row in rows.tolist()]

    def answered(self, row: int, answer: str) -> Rendered:
        """A row with another answer."""
        question, _ = self.pool.turns(self.setting, row, 1)[0]
        return self.renderer.render(as_messages((question, answer)))
