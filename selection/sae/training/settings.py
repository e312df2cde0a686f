"""Settings of a training, what a step did, and a report of the whole."""

import math
from dataclasses import asdict, dataclass
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

_MAX_DEAD_AFTER = 10_000_000
_MAX_PARTS = 32_768  # 4 GB
_LEFT_OUT = {
    "seminmf": (
        ("auxk_alpha", "learning_rate", "warmup_steps", "decay_share"),
        "seminmf is trained without a gradient",
    ),
    "codebook": (
        ("auxk_alpha", "k_start", "k_anneal_share"),
        "a codebook has k codes from the start and no AuxK",
    ),
}
"""Keys that an architecture does not have, and why."""
_ONLY_FOR = {"residual_threshold": "matching_pursuit", "groups": "codebook"}
_LATER = ("residual_threshold", "groups")
"""Optional keys that older trainings did not have; the names of their SAEs stay."""


class TrainSettings(BaseModel):
    """Train an SAE on the pool's activations; it is then frozen under its own id.

    These are everything that decides the result besides the activations, and the keys of
    `sae.train` in a config. Raises ValueError for settings that contradict each other.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    architecture: Literal[
        "topk", "batchtopk", "matryoshka", "seminmf", "matching_pursuit", "codebook", "vocabulary"
    ] = Field(
        "topk",
        description="batchtopk and matryoshka use a threshold at inference; seminmf has no encoder,"
        " but non-negative codes that fit best (meant for `mlp_hidden@`); matching_pursuit takes"
        " one latent after another, by what those before left over; codebook has the k nearest"
        " codes, each with the value 1. vocabulary: nothing is trained; the latents are the model's"
        " tokens, by logit lens, and only `k` is for it.",
    )
    num_latents: int = Field(4096, ge=8, description="Width of the SAE.")
    k: int = Field(
        32,
        ge=1,
        description="Active latents per token (batchtopk: on average; matching_pursuit: at most).",
    )
    k_start: int | None = Field(None, ge=1, description="Active latents in the first step.")
    k_anneal_share: float = Field(
        0.0, ge=0, le=1, description="Share of the steps over which k falls from k_start to k."
    )
    widths: tuple[int, ...] = Field(
        (), description="matryoshka: sizes of the nested dictionaries; default M/16, M/4, M."
    )
    residual_threshold: float | None = Field(
        None,
        gt=0,
        lt=1,
        description="matching_pursuit: a token also ends where less than this is left over, as a"
        " share of the median distance from the mean.",
    )
    groups: int | None = Field(
        None,
        ge=1,
        description="codebook: equal parts of the activation, each with k / groups of its own"
        " num_latents / groups codes; default 1.",
    )
    tokens: int = Field(2_000_000, ge=1, description="Training tokens (repeats allowed).")
    batch_tokens: int = Field(4096, ge=1, description="Tokens per step.")
    auxk_alpha: float = Field(1 / 32, ge=0, description="Weight of the AuxK loss.")
    dead_after_tokens: int | None = Field(
        None,
        ge=1,
        description="Tokens without activation after which a latent is dead; default tokens / 20.",
    )
    learning_rate: float | None = Field(
        None, gt=0, description="Default 2e-4 / sqrt(M / 2^14); codebook: 0.03."
    )
    warmup_steps: int = Field(1000, ge=1, description="At most a tenth of the steps.")
    decay_share: float = Field(
        0.2, gt=0, le=1, description="Share of the steps over which the learning rate decays to 0."
    )
    max_norm_ratio: float = Field(
        10.0, gt=1, description="Tokens this many median distances from the mean are left out."
    )
    seed: int = Field(0, description="Seed of the initial weights and the order of tokens.")

    @model_validator(mode="after")
    def vocabulary_is_not_trained(self) -> "TrainSettings":
        """Refuse what a dictionary that is not trained has no use for."""
        fields = type(self).model_fields
        for name in fields.keys() - {"architecture", "k"}:
            if self.architecture == "vocabulary" and getattr(self, name) != fields[name].default:
                raise ValueError(f"vocabulary is not trained: `{name}` is not for it")
        return self

    @model_validator(mode="after")
    def agrees_with_itself(self) -> "TrainSettings":
        """Refuse contradictions before any activation is computed."""
        if self.k > self.num_latents:
            raise ValueError(f"k is {self.k}, more than num_latents ({self.num_latents})")
        if self.k_start is not None and not self.k <= self.k_start <= self.num_latents:
            raise ValueError(f"k_start is {self.k_start}, expected {self.k} to {self.num_latents}")
        if self.widths and self.architecture != "matryoshka":
            raise ValueError(f"`widths` are for matryoshka, not for {self.architecture}")
        rising = list(self.widths) == sorted({*self.widths}) and min(self.widths, default=1) >= 1
        if self.widths and (not rising or self.widths[-1] != self.num_latents):
            raise ValueError(f"widths must rise and end with num_latents ({self.num_latents})")
        return self

    @model_validator(mode="after")
    def has_keys_of_its_architecture(self) -> "TrainSettings":
        """Refuse keys that the architecture does not have, by name."""
        keys, reason = _LEFT_OUT.get(self.architecture, ((), ""))
        for key in keys:
            if getattr(self, key) != type(self).model_fields[key].default:
                raise ValueError(f"{reason}: leave out `{key}`")
        for key, architecture in _ONLY_FOR.items():
            if getattr(self, key) is not None and self.architecture != architecture:
                raise ValueError(f"`{key}` is for {architecture}, not for {self.architecture}")
        if self.architecture == "seminmf" and self.num_latents > _MAX_PARTS:
            raise ValueError(
                f"seminmf holds a square of num_latents in memory: at most {_MAX_PARTS}"
            )
        for key in ("k", "num_latents"):
            if getattr(self, key) % (self.groups or 1):
                raise ValueError(f"groups ({self.groups}) must divide {key} ({getattr(self, key)})")
        return self

    @property
    def n_steps(self) -> int:
        """Batches to train on."""
        return max(1, self.tokens // self.batch_tokens)

    def identity(self) -> dict[str, object]:
        """What an SAE is named after: keys that came later count only where they are set."""
        keys = self.model_dump()
        return {key: value for key, value in keys.items() if key not in _LATER or value is not None}

    def resolved(self) -> "TrainSettings":
        """The same with every default filled in."""
        n, n_tokens = self.num_latents, self.n_steps * self.batch_tokens
        nested = (n // 16, n // 4, n) if self.architecture == "matryoshka" else ()
        rate = 0.03 if self.architecture == "codebook" else 2e-4 / math.sqrt(n / 2**14)
        default_dead = max(1, min(_MAX_DEAD_AFTER, n_tokens // 20))
        return self.model_copy(
            update={
                "learning_rate": None
                if self.architecture == "seminmf"
                else self.learning_rate or rate,
                "warmup_steps": min(self.warmup_steps, max(1, self.n_steps // 10)),
                "dead_after_tokens": self.dead_after_tokens or default_dead,
                "widths": self.widths or tuple(width for width in nested if width),
            }
        )

    def k_at(self, step: int) -> int:
        """Active latents per token in a step, counted from 1."""
        annealed = int(self.k_anneal_share * self.n_steps)
        if self.k_start is None or step > annealed:
            return self.k
        return round(self.k_start + (self.k - self.k_start) * (step - 1) / max(1, annealed))


@dataclass(frozen=True, slots=True)
class StepMetrics:
    """One step, for progress: `step` counts from 1; fvu, auxk and l0 as in StepResult."""

    step: int
    n_tokens: int
    fvu: float
    auxk: float
    l0: float
    n_dead: int
    lr: float


@dataclass(frozen=True, slots=True)
class TrainReport:
    """How a training went.

    n_steps, n_tokens: done, resumed ones included.
    n_skipped_tokens:  left out for their norm (max_norm_ratio) or for not being finite.
    fvu, l0:           means over the last 100 training steps; see quality.py for held-out ones.
    dead_share:        share of latents that did not fire within `dead_after_tokens`.
    seconds:           of this process alone.
    input_scale:       what activations were multiplied with in training; it is folded into the
                       biases, so that the SAE takes activations as they come.
    threshold:         of BatchTopK, for activations as they come; None for TopK.
    curve:             at most about 200 points [step, fvu, l0, share of dead latents, k].
    """

    settings: TrainSettings
    n_steps: int
    n_tokens: int
    n_skipped_tokens: int
    fvu: float
    l0: float
    dead_share: float
    seconds: float
    input_scale: float = 1.0
    threshold: float | None = None
    curve: tuple[tuple[float, ...], ...] = ()

    def as_record(self) -> dict[str, object]:
        """For `saelect.json`."""
        return {**asdict(self), "settings": self.settings.model_dump()}
