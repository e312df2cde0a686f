"""What a training was told, what a step did, and how it all went."""

from dataclasses import asdict, dataclass


@dataclass(frozen=True, slots=True)
class TrainSettings:
    """Everything that decides the result besides the activations.

    n_steps:            batches to train on.
    lr:                 peak learning rate of Adam.
    warmup_steps:       linear rise to lr.
    decay_share:        share of the steps, at the end, over which lr falls linearly to 0.
    auxk_alpha:         weight of the AuxK loss, 0 switches it off.
    dead_after_tokens:  a latent that did not fire on so many tokens is dead.
    max_norm_ratio:     tokens further from the mean than so many median distances are skipped:
                        a few massive activations would otherwise own the loss.
    architecture:       "topk", "batchtopk" or "matryoshka"; the last two end as jumprelu SAEs.
    widths:             of a Matryoshka SAE, ascending, the last being num_latents.
    k_start:            active latents in the first step; falls linearly to k.
    k_anneal_share:     share of the steps, at the start, over which it falls.
    threshold_rate:     how fast the running threshold of BatchTopK follows: share of a step's.
    """

    d_in: int
    num_latents: int
    k: int
    n_steps: int
    lr: float
    warmup_steps: int
    decay_share: float
    auxk_alpha: float
    dead_after_tokens: int
    max_norm_ratio: float
    seed: int
    architecture: str = "topk"
    widths: tuple[int, ...] = ()
    k_start: int | None = None
    k_anneal_share: float = 0.0
    threshold_rate: float = 0.01

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
    n_skipped_tokens:  left out for their length (max_norm_ratio) or for not being finite.
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
