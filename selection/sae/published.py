"""Published models and SAEs that go together, and what they need; offline and without torch."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files

import yaml

_BYTES_MODEL, _BYTES_SAE = 2, 4  # bfloat16 and float32
_WORK_GB = 1.5  # one batch of activations and pre-activations, and the CUDA context
_MILLION, _GB = 1_000_000, 1e9


@dataclass(frozen=True, slots=True)
class Combination:
    """A model, an SAE of it and where that reads.

    sae:       hub name with the folder inside, as `sae: {path: ...}` takes it.
    family:    format, a name of `selection.sae.formats.find`.
    block:     0-based block whose output (resid) is read; n_layers: blocks of the model.
    l0:        published mean of active latents, None where not looked up.
    n_params:  of embedding and all blocks.
    kind:      "base" or "instruct".
    licence, sae_licence: None where not looked up.
    tested:    "here" (this SAE on this model) or "format" (only its format, on small weights).
    """

    model: str
    sae: str
    family: str
    block: int
    n_layers: int
    d_model: int
    latents: int
    l0: int | None
    n_params: int
    embedding_params: int
    kind: str
    languages: str
    licence: str | None
    sae_licence: str | None
    gated: bool
    tested: str

    @property
    def memory_gb(self) -> float:
        """Estimate for embedding a pool: embedding and blocks up to the hookpoint, and the SAE."""
        blocks = (self.n_params - self.embedding_params) * (self.block + 1) / self.n_layers
        sae = 2 * self.latents * self.d_model * _BYTES_SAE
        model = (self.embedding_params + blocks) * _BYTES_MODEL
        return float(model + sae) / _GB + _WORK_GB

    @property
    def how_tested(self) -> str:
        """How far it was tried, for people."""
        return "tested here" if self.tested == "here" else "by format only"


@cache
def combinations() -> tuple[Combination, ...]:
    """All combinations of the packaged list, smallest memory first."""
    text = (files("selection.sae") / "published.yaml").read_text(encoding="utf-8")
    data = yaml.safe_load(text)
    rows = []
    for row in data["combinations"]:
        model = data["models"][row["model"]]
        rows.append(
            Combination(
                **row,
                n_params=(model["embedding"] + model["blocks"]) * _MILLION,
                embedding_params=model["embedding"] * _MILLION,
                **{
                    n: model[n]
                    for n in ("n_layers", "d_model", "kind", "languages", "licence", "gated")
                },
            )
        )
    return tuple(sorted(rows, key=lambda c: c.memory_gb))


def matching(text: str, rows: Sequence[Combination]) -> list[Combination]:
    """Combinations whose model's name contains the text, or is part of it; capitals do not matter.

    A local folder or another organization's copy is known by the last part of its name.
    """
    wanted = text.rstrip("/").lower()
    last = wanted.rsplit("/", 1)[-1]
    exact = [c for c in rows if c.model.rsplit("/", 1)[-1].lower() == last]
    return exact or [c for c in rows if wanted in c.model.lower()]


def recommended(gigabytes: float, rows: Sequence[Combination]) -> Combination | None:
    """The largest instruct model that fits with a fifth to spare; None where none does."""
    fitting = [c for c in rows if c.kind == "instruct" and c.memory_gb <= 0.8 * gigabytes]
    return max(fitting, key=lambda c: (c.n_params, -c.memory_gb), default=None)
