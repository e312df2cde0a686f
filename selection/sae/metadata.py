"""What is known about a sparse autoencoder before its weights are read: cfg.json and its company.

No torch here, so a run can be refused at once.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from selection.core.errors import InputError
from selection.models.hookpoints import canonical, place_of

WEIGHTS, CONFIG, RECORD = "sae.safetensors", "cfg.json", "saelect.json"
ACTIVATIONS = ("topk", "groupmax", "relu", "jumprelu", "gated")
NORMS = ("none", "layer_norm", "sqrt_d")


@dataclass(frozen=True, slots=True)
class SaeInfo:
    """A sparse autoencoder, described.

    path:         its folder or file, "" for one that was never saved.
    hookpoint:    whose output it reads, e.g. "layers.4" (the residual stream behind block 4) or
                  "mlp@4", or None where nothing says so.
    d_in:         width of the activations it reads.
    num_latents:  number of latents.
    k:            active latents per token; 0 where the number varies.
    activation:   one of ACTIVATIONS: "topk" (the k largest), "groupmax" (the largest in each of k
                  groups), "relu", "jumprelu" (what exceeds a threshold), "gated".
    model_name, model_sha256: the language model it was trained on, where recorded.
    licence:      as recorded or as in the model card, else None.
    sha256:       of k, activation and weights as float32, 64 hex digits; None until weights are
                  read. Equal weights give an equal hash, whatever the file's dtype or company.
    record:       the whole of `saelect.json` (training settings, quality), empty without one.
    family:       the format it came in, a name of `selection.sae.formats.registry`.
    centers:      whether the decoder's bias is subtracted before the encoder.
    input_norm:   what is done to every token first, one of NORMS: "none", "layer_norm" (mean 0,
                  standard deviation 1) or "sqrt_d" (length sqrt(D)).
    input_scale:  constant that activations were multiplied with in training; folded into the
                  weights while loading, so it is told, not applied.
    declared_l0:  mean active latents per token as published, else None.
    positions:    which tokens it was trained on, for people.
    dtype:        of the weights in the file.
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

    @property
    def expected_l0(self) -> float | None:
        """Active latents per token that one should find: declared, else k, else None."""
        return self.declared_l0 or (float(self.k) if self.k else None)

    @property
    def sae_id(self) -> str:
        """First 16 hex digits of `sha256`. Raises ValueError before the weights are read."""
        if self.sha256 is None:
            raise ValueError("The weights of this SAE were not read, so it has no id yet.")
        return self.sha256[:16]


def read_info(folder: Path) -> SaeInfo:
    """Describe the SAE in `folder` from cfg.json, saelect.json and the parent's config.json.

    Raises InputError for a configuration that is unreadable, incomplete or of a kind that does
    not read the output of a hookpoint (a transcoder reads a module's input).
    """
    file = folder / CONFIG
    config = read_object(file)
    sizes = {key: _positive(file, config, key) for key in ("d_in", "k")}
    num_latents = config.get("num_latents", 0)
    if num_latents == 0:  # in this format 0 means: expansion_factor times the width
        num_latents = sizes["d_in"] * _positive(file, config, "expansion_factor")
    elif type(num_latents) is not int or num_latents < 0:
        raise _bad_field(file, "num_latents", num_latents, "a whole number, 0 or more")
    activation = config.get("activation", "topk")
    _refuse_unsupported(file, config, activation, num_latents)
    record = read_object(folder / RECORD) if (folder / RECORD).is_file() else {}
    run = _run_config(folder)
    name = record.get("model", run.get("model"))
    return SaeInfo(
        path=str(folder),
        hookpoint=_text(record.get("hookpoint")) or _hookpoint_of(folder),
        d_in=sizes["d_in"],
        num_latents=num_latents,
        k=sizes["k"],
        activation=str(activation),
        model_name=_text(name),
        model_sha256=_text(record.get("model_sha256")),
        licence=_text(record.get("licence")) or licence_of(folder),
        record=record,
    )


def block_of(hookpoint: str | None) -> int | None:
    """Block index of a module name such as "layers.4" or "gpt_neox.layers.4"; None for others."""
    match = re.search(r"(?:^|\.)(?:layers|layer|h|blocks)\.(\d+)$", hookpoint or "")
    return int(match.group(1)) if match else None


def read_object(file: Path) -> dict[str, object]:
    """Read a JSON object. Raises InputError naming the file (and line) when it is not one."""
    try:
        value = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise InputError(
            f"not readable as JSON ({error})",
            file=file,
            line=getattr(error, "lineno", None),
            remedy="Download or train this SAE again.",
        ) from None
    if not isinstance(value, dict):
        raise InputError("expected a JSON object", file=file, value=value, remedy="Repair it.")
    return value


def _refuse_unsupported(
    file: Path, config: Mapping[str, object], activation: object, num_latents: int
) -> None:
    known = ("topk", "groupmax")
    if activation not in known:
        raise _bad_field(file, "activation", activation, " or ".join(known))
    if config.get("transcode") or config.get("skip_connection"):
        raise InputError(
            "this is a transcoder: it reads a module's input, while saelect reads the output of a"
            " hookpoint",
            file=file,
            field="transcode" if config.get("transcode") else "skip_connection",
            value=True,
            remedy="Use a sparse autoencoder of the residual stream.",
        )
    if config.get("signed"):
        raise _bad_field(file, "signed", True, "false: latents must not be negative")
    k = config["k"]
    if not isinstance(k, int) or k > num_latents:
        raise _bad_field(file, "k", k, f"at most the number of latents, {num_latents}")
    if activation == "groupmax" and num_latents % k:
        raise _bad_field(file, "k", k, f"a divisor of the number of latents, {num_latents}")


def _positive(file: Path, config: Mapping[str, object], key: str) -> int:
    value = config.get(key)
    if type(value) is not int or value < 1:
        raise _bad_field(file, key, value, "a whole number, 1 or more")
    return value


def _bad_field(file: Path, name: str, value: object, expected: str) -> InputError:
    return InputError(
        f"expected {expected}",
        file=file,
        field=name,
        value=value,
        remedy="This SAE cannot be used; choose another, or correct its configuration.",
    )


def _hookpoint_of(folder: Path) -> str | None:
    """Sparsify names the folder after the module; other names say nothing about the hookpoint."""
    place = place_of(folder.name)
    return (
        folder.name if place and place[0] == "resid" else canonical(folder.name) if place else None
    )


def _run_config(folder: Path) -> dict[str, object]:
    """Sparsify's config.json of the whole run, above the hookpoint folders; {} without one."""
    file = folder.parent / "config.json"
    return read_object(file) if _hookpoint_of(folder) and file.is_file() else {}


def licence_of(folder: Path) -> str | None:
    """`license:` of the model card in the SAE's folder or above it."""
    for card in (folder / "README.md", folder.parent / "README.md"):
        if card.is_file():
            head = card.read_text(encoding="utf-8", errors="replace").split("\n---", 1)[0]
            match = re.search(r"^licen[sc]e:\s*(\S+)", head, flags=re.MULTILINE)
            if head.startswith("---") and match:
                return match.group(1).strip("\"'")
    return None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
