"""Settings of a training, what a step did, and a report of the whole."""

import math
from dataclasses import asdict, dataclass, replace

_ARCHITECTURES = ("topk", "batchtopk", "matryoshka")


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """Everything that decides the result besides the activations.

    n_steps, n_tokens:  how long: batches to train on, or tokens, counted in batches as large as
                        the first. Give one.
    lr:                 peak learning rate of Adam; 0 means 2e-4 / sqrt(num_latents / 2^14).
    warmup_steps:       linear rise to lr; at most a tenth of the steps is used.
    decay_share:        share of the steps, at the end, over which lr falls linearly to 0.
    auxk_alpha:         weight of the AuxK loss, 0 switches it off.
    dead_after_tokens:  a latent that did not fire on so many tokens is dead; 0 means a twentieth
                        of all tokens, at most 10 million.
    max_norm_ratio:     tokens further from the mean than so many median distances are skipped:
                        a few massive activations would otherwise dominate the loss.
    architecture:       "topk", "batchtopk" or "matryoshka"; the last two end as jumprelu SAEs.
    widths:             of a Matryoshka SAE, ascending, the last being num_latents; () means a
                        sixteenth, a quarter and all of the latents.
    k_start:            active latents in the first step; falls linearly to k.
    k_anneal_share:     share of the steps, at the start, over which it falls.
    threshold_rate:     how fast the running threshold of BatchTopK follows: share of a step's.

    Raises ValueError for settings that contradict each other.
    """

    d_in: int
    num_latents: int
    k: int
    n_steps: int = 0
    lr: float = 0.0
    warmup_steps: int = 1000
    decay_share: float = 0.2
    auxk_alpha: float = 1 / 32
    dead_after_tokens: int = 0
    max_norm_ratio: float = 10.0
    seed: int = 0
    architecture: str = "topk"
    widths: tuple[int, ...] = ()
    k_start: int | None = None
    k_anneal_share: float = 0.0
    threshold_rate: float = 0.01
    n_tokens: int = 0

    def __post_init__(self) -> None:
        """Check them."""
        if bool(self.n_steps) == bool(self.n_tokens):
            raise ValueError("give either n_steps or n_tokens")
        if not 1 <= self.k <= self.num_latents:
            raise ValueError(f"k is {self.k}, expected 1 to num_latents ({self.num_latents})")
        if self.architecture not in _ARCHITECTURES:
            raise ValueError(f"no such architecture: {self.architecture}")
        if self.widths and self.architecture != "matryoshka":
            raise ValueError(f"widths are for matryoshka, not for {self.architecture}")
        rise = list(self.widths) == sorted({*self.widths})
        if self.widths and not (rise and 1 <= self.widths[0] and self.widths[-1] == self.num_latents):
            raise ValueError(
                f"widths are {self.widths}, expected to rise from 1 or more to {self.num_latents}"
            )

    def resolved(self, batch_tokens: int) -> "TrainSettings":
        """The same with every default filled in, for batches of so many tokens."""
        n_steps = self.n_steps or math.ceil(self.n_tokens / batch_tokens)
        n, nested = self.num_latents, self.architecture == "matryoshka"
        return replace(
            self,
            n_steps=n_steps,
            n_tokens=0,
            lr=self.lr or 2e-4 / math.sqrt(n / 2**14),
            warmup_steps=min(self.warmup_steps, max(1, n_steps // 10)),
            dead_after_tokens=self.dead_after_tokens
            or max(1, min(10_000_000, n_steps * batch_tokens // 20)),
            widths=self.widths or ((n // 16, n // 4, n) if nested else ()),
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
        return asdict(self)
