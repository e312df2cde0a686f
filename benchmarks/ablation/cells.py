"""What the ablation varies: one factor at a time around the preset `best`, everything else equal.

A cell is a ranking method of `saelect bench retrieval`: a config over a preset, or a baseline by
with its variant. Representations are compared with each other at one setting that all of them have
(mean over the exemplars, inverse document frequency where there are columns to weigh).
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

MAXIMA = {"kind": "sae", "token_aggregate": "max"}

SAES: Mapping[str, Mapping[str, int]] = {
    "block 1": {"block": 1},
    "block 3": {"block": 3},
    "k 64": {"k": 64},
    "8,192 latents": {"latents": 8192},
    "seed 1": {"seed": 1},
}
"""SAEs besides the shipped one (block 2, k 32, 4,096 latents, seed 0): what each changes."""


@dataclass(frozen=True)
class Exemplars:
    """How the exemplars of every target are changed before a cell is measured.

    n:       so many of them, drawn; None keeps all.
    noise:   so many of them replaced by exemplars of other targets.
    seed:    of the draw.
    answers: whether they keep theirs.
    """

    n: int | None = None
    noise: int = 0
    seed: int = 0
    answers: bool = True


@dataclass(frozen=True)
class Cell:
    """One measured setting.

    config: over the preset `best`; None where `baseline` names the method.
    sae:    key of SAES; None is the shipped one.
    draws:  how the exemplars are changed; several are averaged target by target.
    """

    factor: str
    level: str
    config: Mapping[str, Any] | None = field(default_factory=dict)
    baseline: str = ""
    sae: str | None = None
    draws: tuple[Exemplars, ...] = (Exemplars(),)

    @property
    def name(self) -> str:
        """Factor and level."""
        return f"{self.factor}: {self.level}"


def _ranking(factor: str, level: str, **keys: object) -> Cell:
    return Cell(factor, level, {"ranking": keys})


def _vector(factor: str, level: str, **keys: object) -> Cell:
    return Cell(factor, level, {"representation": keys})


def _alone(space: str) -> dict[str, Any]:
    """A representation of one space, at the setting that representations are compared at."""
    plain = {"weights": "idf", "normalize": "none", "exemplar_reduction": "mean"}
    return {"representation": {"spaces": [space]}, "ranking": plain}


def _drawn(n: int) -> tuple[Exemplars, ...]:
    return tuple(Exemplars(n=n, seed=seed) for seed in range(3))


def _noisy(n: int) -> tuple[Exemplars, ...]:
    return tuple(Exemplars(noise=n, seed=seed) for seed in range(3))


BEST = Cell("best", "as it is")
CELLS: tuple[Cell, ...] = (
    BEST,
    Cell("representation x similarity", "SAE, Jaccard", _alone("sae")),
    Cell("representation x similarity", "SAE, cosine", None, "sae_cosine:idf/mean"),
    Cell("representation x similarity", "states split by sign, Jaccard", None, "split_relu:mean"),
    Cell("representation x similarity", "states, cosine", None, "rds:sae/mean"),
    Cell("representation x similarity", "centered states, cosine", None, "rds_centered:sae/mean"),
    Cell("representation x similarity", "gate neurons, Jaccard", None, "gate:mean"),
    Cell("representation x similarity", "gate neurons, cosine", None, "gate:cosine/mean"),
    Cell("representation x similarity", "tokens, Jaccard", None, "tokens:idf/mean"),
    Cell("representation x similarity", "tokens, cosine", None, "tokens:cosine/mean"),
    _vector("spaces", "SAE alone", spaces=["sae"]),
    _vector("spaces", "SAE and words", spaces=["sae", "words"]),
    _vector("spaces", "SAE, words and tokens", spaces=["sae", "words", "tokens"]),
    _vector("spaces", "SAE and twice the tokens", spaces=["sae", {"kind": "tokens", "weight": 2}]),
    _vector("spaces", "twice the SAE and tokens", spaces=[{"kind": "sae", "weight": 2}, "tokens"]),
    _vector("spaces", "SAE by mean and by maximum, tokens", spaces=["sae", MAXIMA, "tokens"]),
    Cell("hookpoint", "block 1", sae="block 1"),
    Cell("hookpoint", "block 3", sae="block 3"),
    Cell("active latents", "k 64", sae="k 64"),
    Cell("width", "8,192 latents", sae="8,192 latents"),
    Cell("SAE seed", "seed 1", sae="seed 1"),
    _vector("token aggregate", "max", token_aggregate="max"),
    _vector("token aggregate", "sum", token_aggregate="sum"),
    _vector("largest latents kept", "64", keep_top=64),
    _vector("largest latents kept", "256", keep_top=256),
    Cell("tokens counted", "prompt", {"rendering": {"counted": "prompt"}}),
    Cell("tokens counted", "template too", {"rendering": {"counted": "all_and_template"}}),
    Cell("tokens counted", "template and BOS too", {"rendering": {"counted": "every_token"}}),
    _ranking("exemplar reduction", "prototype", exemplar_reduction="prototype"),
    _ranking("exemplar reduction", "max", exemplar_reduction="max"),
    _ranking("exemplar reduction", "round robin", exemplar_reduction="round_robin"),
    _ranking("weights", "none", weights="none"),
    _ranking("weights", "share of exemplars less share of pool", weights="target_unique"),
    _ranking("weights", "idf, not in over half the pool", max_document_frequency=0.5),
    _ranking("length", "each sample's brought to one", normalize="l1"),
    _ranking("length", "not normalized", normalize="none"),
    Cell("number of exemplars", "1", draws=_drawn(1)),
    Cell("number of exemplars", "5", draws=_drawn(5)),
    Cell("noisy exemplars", "1 of another target", draws=_noisy(1)),
    Cell("noisy exemplars", "3 of other targets", draws=_noisy(3)),
)
