"""How far our encodings are from those of the libraries that define the formats.

    python -m benchmarks.sae_loaders [--write]

Encodes the committed cases of `tests/saes` and prints a table; `--write` renews
`selection/sae/formats/measured.json` and `docs/reference/saes.md`. The last line is one JSON
object.
"""

import argparse
import json
import math
from pathlib import Path

import numpy as np
import torch

from selection.sae.compatibility import ALIASES
from selection.sae.encode import encode
from selection.sae.formats.find import FAMILIES
from selection.sae.formats.load import load_sae

ROOT = Path(__file__).parent.parent
SAES, MEASURED = ROOT / "tests" / "saes", ROOT / "selection" / "sae" / "formats" / "measured.json"
PAGE = ROOT / "docs/reference/saes.md"


def measured() -> dict[str, tuple[str, float]]:
    """Case -> (family, largest absolute difference of a latent)."""
    cases = {}
    for folder in sorted(path for path in SAES.iterdir() if path.is_dir()):
        files = [
            file
            for pattern in ("autoencoders/*.pt", "*.sae.pt", "layer_*.safetensors")
            for file in sorted(folder.glob(f"**/{pattern}"))
        ]
        coder = load_sae(files[0] if files else folder)
        expected = np.load(folder / "expected.npz")
        latents = encode(coder, torch.from_numpy(expected["x"]))
        dense = torch.zeros(len(expected["x"]), coder.info.num_latents)
        dense.scatter_add_(1, latents.top_indices, latents.top_acts)
        width = expected["dense"].shape[1]
        if dense.shape[1] == 2 * width:  # abstopk: the second half is the negative side
            dense = dense[:, :width] - dense[:, width:]
        difference = float(np.abs(dense.numpy() - expected["dense"]).max())
        cases[folder.name] = (coder.info.family, difference)
    return cases


def by_family(cases: dict[str, tuple[str, float]]) -> dict[str, float]:
    """The largest difference of each family, rounded up to one digit."""
    largest: dict[str, float] = {}
    for family, difference in cases.values():
        largest[family] = max(largest.get(family, 0.0), difference)
    return {family: _up(value) for family, value in sorted(largest.items())}


def page(differences: dict[str, float]) -> str:
    """The documentation page, from the registry of families."""
    lines = [
        "# Sparse autoencoders: formats that are read",
        "",
        "`sae: {path: ...}` takes a local folder (or `.pt` file) or a hub name with the folder"
        " inside, `org/repo/inner/folder`.",
        "The format is recognized by the files alone; `saelect models --sae PATH` shows the"
        " conventions that an SAE was read with.",
        "Nothing in a file is ever executed: pickles are read as weights only, `.npz` files"
        " without pickles.",
        "",
        "This page is written by `python -m benchmarks.sae_loaders --write`. The difference is the"
        " largest of a latent over the cases in `tests/saes`, whose latents go up to about 20.",
        "",
        "| format | files | reads | refuses | compared with | largest difference |",
        "|---|---|---|---|---|---|",
    ]
    for family in FAMILIES:
        files = ", ".join(f"`{name}`" for name in family.files) or _FILES[family.name]
        largest = differences.get(family.name)
        number = "-" if largest is None else f"{largest:.0e}"
        lines.append(
            f"| {family.title} | {files} | {family.loads} | {family.refuses} | {family.oracle}"
            f" | {number} |"
        )
    return "\n".join([*lines, "", *_NOTES]) + "\n"


_FILES = {
    "qwen_scope": "`layer{n}.sae.pt`",
    "openai": "`{n}.pt`",
    "goodfire": "`{model}-SAE-l{n}.pth`",
    "circuit_tracer": "`layer_{n}.safetensors`, `config.yaml`",
}
_NOTES = [
    "## What decides the latents",
    "",
    "Every format becomes one encoder: an optional norm of each token, one affine map, a"
    " selection. Matching pursuit alone applies them step after step, to what is left over.",
    "BatchTopK and Matryoshka SAEs are read as what they are at inference: everything above their"
    " threshold. A threshold that was never set (-1) is refused.",
    "Llamascopium's configuration alone says whether the scale of its inputs was folded into the"
    " weights (`norm_activation: inference`) or is to be applied (`dataset-wise`), and it is"
    " believed. Its training may fold and leave `dataset-wise`: FVU, measured below, tells.",
    "Signed latents (abstopk) become two non-negative ones: latent M + j is the negative side of"
    " latent j.",
    "`sae: {scale: decoder_norm}` multiplies values with the norm of the decoder row, as many"
    " published magnitudes are.",
    "",
    "## Before it is relied on",
    "",
    "A run sends a few thousand tokens of its own calibration texts through model and SAE. When"
    " the mean number of active latents is more than 50 % off what was declared, or 0.9 of the"
    " variance stays unexplained (FVU), it warns; `sae: {check: refuse}` stops it instead.",
    "An SAE whose model, width or hookpoint is not the config's is refused, with those that fit.",
    "`sae.check` is `auto` unless set otherwise: a *published* L0 that is missed by more than half"
    " refuses the run, and so does an FVU of 10 or more; all else warns.",
    "",
    "## The model's own vocabulary",
    "",
    "`sae: {train: {architecture: vocabulary, k: 32}}` trains nothing: a latent is a token of the"
    " model, its value elu1p of the token's logit where the final norm and the unembedding read the"
    " residual stream at the hookpoint (logit lens; after VDR, arXiv 2212.07699, with"
    " `token_aggregate: max` and `keep_top: 768`). Logits are taken less their mean over the"
    " vocabulary. `saelect why` shows a latent of the run's own SAE as its token. To join it to"
    " another SAE's latents, write it with `saelect train-sae` and name the folder:"
    " `spaces: [sae, {kind: sae, sae: FOLDER, token_aggregate: max}]`. It takes 8 bytes for"
    " each token and unit of width on disk. Encoders are refused, and models"
    " whose last step before the head is no RMSNorm or LayerNorm.",
    "",
    "## Transcoders, and places inside a block",
    "",
    "A transcoder is read as a dictionary of what it reads: its latents are used, its prediction"
    " (and a skip connection, which changes no latent) is not. FVU is not defined for it.",
    "Places inside a block have names of their own: `mlp_in@L` is what the MLP gets, `mlp_norm@L`"
    " the same before the norm's weight (`ln2.hook_normalized`; Gemma Scope transcoders),"
    " `resid_mid@L` the stream between attention and MLP (`hook_resid_mid`, `hook_mlp_in`),"
    " `heads@L` the outputs of the attention heads side by side (`hook_z`, the input of `o_proj`),"
    " `mlp_hidden@L` the hidden units of the MLP (`mlp.hook_post`, the input of `down_proj`; not of"
    " a mixture of experts).",
    "",
    "## Names of models",
    "",
    "An SAE is compared with the model by the hash of its weights where it records that, else by"
    " the last part of the name, capitals aside. These are known to be the same:",
    "",
    "| SAEs say | the same as |",
    "|---|---|",
    *(f"| {alias} | {name} |" for alias, name in ALIASES.items()),
    "",
    "`sae: {trust_model: true}` uses an SAE on a model of another name; width and number of blocks"
    " must fit, and catalog and report say so. A model in a local folder may have any name: width"
    " and blocks are compared, and the report says that more cannot be known.",
]


def _up(value: float) -> float:
    """Rounded up to one significant digit."""
    if value == 0:
        return 0.0
    digit = 10 ** math.floor(math.log10(value))
    return float(f"{math.ceil(value / digit) * digit:.0e}")


def main() -> None:
    """Print, and write where asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--write", action="store_true")
    arguments = parser.parse_args()
    cases = measured()
    for name, (family, difference) in cases.items():
        print(f"{name:<28} {family:<20} {difference:.1e}")
    families = by_family(cases)
    if arguments.write:
        MEASURED.write_text(json.dumps(families, indent=1) + "\n", encoding="utf-8")
        PAGE.write_text(page(families), encoding="utf-8")
    print(json.dumps({"largest_difference": families, "cases": len(cases)}))


if __name__ == "__main__":
    main()
