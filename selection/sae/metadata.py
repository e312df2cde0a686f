"""What is known about a sparse autoencoder before its weights are read.

No torch here, so a run can be refused at once.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from selection.core.errors import InputError
from selection.core.json_text import parsed

RECORD = "saelect.json"
"""What saelect knows of an SAE that it trained, beside its weights."""

ACTIVATIONS = (
    "topk", "groupmax", "relu", "jumprelu", "gated", "seminmf", "matching_pursuit", "codebook",
)  # fmt: skip
NORMS = ("none", "layer_norm", "sqrt_d")


@dataclass(frozen=True, slots=True)
class SaeInfo:
    """A sparse autoencoder, described.

    path:         its folder or file, "" for one that was never saved.
    hookpoint:    whose output it reads, e.g. "layers.4" (the residual stream behind block 4) or
                  "mlp@4", or None where nothing says so.
    d_in:         width of the activations it reads.
    num_latents:  number of latents.
    k:            active latents per token; 0 where the number varies; of matching pursuit at most.
    activation:   one of ACTIVATIONS: "topk" (the k largest), "groupmax" (the largest in each of k
                  groups), "relu", "jumprelu" (what exceeds a threshold), "gated",
                  "seminmf" (non-negative codes that fit best),
                  "matching_pursuit" (one after another, by what those before left over),
                  "codebook" (the k nearest codes by cosine, each with the value 1).
    model_name, model_sha256: the language model it was trained on, where recorded.
    licence:      as recorded or as in the model card, else None.
    sha256:       of k, activation and weights as float32, 64 hex digits; None until weights are
                  read. Equal weights give an equal hash, whatever the file's dtype or company.
    record:       the whole of `saelect.json` (training settings, quality), empty without one.
    family:       the format it came in, a name of `selection.sae.formats.find`.
    centers:      whether the decoder's bias is subtracted before the encoder.
    input_norm:   what is done to every token first, one of NORMS: "none", "layer_norm" (mean 0,
                  standard deviation 1) or "sqrt_d" (norm sqrt(D)).
    input_scale:  constant that activations were multiplied with in training; folded into the
                  weights while loading, so it is informative only.
    declared_l0:  mean active latents per token as published, else None.
    positions:    which tokens it was trained on, for people.
    dtype:        of the weights in the file.
    is_transcoder: whether it predicts another activation than the one it reads; its latents are
                  used, and nothing is reconstructed.
    residual_threshold: of matching pursuit, which ends where less is left over: a norm, in the
                  units of the normed activation.
    groups:       of a codebook: equal parts of the activation, each with k / groups of its own
                  num_latents / groups codes.
    """

    path: str
    hookpoint: str | None
    d_in: int
    num_latents: int
    k: int
    activation: str = "topk"
    model_name: str | None = None
    model_sha256: str | None = None
    licence: str | None = None
    sha256: str | None = None
    record: Mapping[str, object] = field(default_factory=dict)
    family: str = "sparsify"
    centers: bool = True
    input_norm: str = "none"
    input_scale: float = 1.0
    declared_l0: float | None = None
    positions: str | None = None
    dtype: str | None = None
    is_transcoder: bool = False
    residual_threshold: float = 0.0
    groups: int = 1

    @property
    def expected_l0(self) -> float | None:
        """Active latents per token to expect: declared, else k where that is fixed, else None."""
        is_fixed = self.k > 0 and self.activation != "matching_pursuit"
        return self.declared_l0 or (float(self.k) if is_fixed else None)

    @property
    def sae_id(self) -> str:
        """First 16 hex digits of `sha256`. Raises ValueError before the weights are read."""
        if self.sha256 is None:
            raise ValueError("The weights of this SAE were not read, so it has no id yet.")
        return self.sha256[:16]


def read_object(file: Path) -> dict[str, object]:
    """Read a JSON object. Raises InputError naming the file (and line) when it is not one."""
    try:
        value = parsed(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"not readable as JSON ({error})",
            file=file,
            line=getattr(error, "lineno", None),
            remedy="Download or train this SAE again.",
        ) from None
    if not isinstance(value, dict):
        raise InputError("expected a JSON object", file=file, value=value, remedy="Repair it.")
    return value


def repository_of(path: Path) -> str | None:
    """The hub repository of a path inside the hub's cache, "org/name", else None."""
    for parent in (path, *path.parents):
        if parent.name.startswith("models--"):
            return parent.name.removeprefix("models--").replace("--", "/", 1)
    return None


def licence_of(folder: Path) -> str | None:
    """`license:` of the model card in the SAE's folder or above it."""
    for card in (folder / "README.md", folder.parent / "README.md"):
        if card.is_file():
            head = card.read_text(encoding="utf-8", errors="replace").split("\n---", 1)[0]
            match = re.search(r"^licen[sc]e:\s*(\S+)", head, flags=re.MULTILINE)
            if head.startswith("---") and match:
                return match.group(1).strip("\"'")
    return None
