"""`saelect models`: which model and SAE to take, what they need, and which formats are read."""

import json
import sys
from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path

from flows.config.base import DEMO
from flows.orchestration.terminal import say, table_text
from selection.core.errors import InputError
from selection.sae.formats.find import FAMILIES, differences
from selection.sae.published import Combination, combinations, matching, recommended

GPU_SIZES = (0, 8, 16, 24, 48, 80)


NO_SAE = """\
No published SAE for the model you train? The model that represents samples need not be the one you
train: take the closest one that `saelect models` lists (same family and languages first, then
size), and count the budget with your own tokenizer (`budget.trainee_tokenizer`). Or train an SAE on
your model: `saelect train-sae CONFIG` with `model: {name: YOUR_MODEL, hookpoint: resid@0.66}` and
`sae: {train: {num_latents: 16384, k: 32, tokens: 50000000}}`; the report tells whether it is good
enough (FVU on held-out tokens, dead latents)."""


def print_models(text: str | None, gigabytes: float | None) -> None:
    """The table, for one model or all, and what to take with how much GPU memory.

    gigabytes: of the GPU; what does not fit is left out. 0 is no GPU: nothing is left out.
    """
    if gigabytes is not None and not gigabytes >= 0:
        raise InputError(
            "a GPU has more memory than that",
            field="--gpu",
            value=gigabytes,
            remedy="Give its memory in GB.",
        )
    rows = (demo_combination(), *combinations())
    matched = matching(text, rows) if text else list(rows)
    if not matched:
        say(f"No published SAE is known here for {text!r}. Those for other models:\n")
    matching_rows = matched or list(rows)
    fitting = [c for c in matching_rows if not gigabytes or c.memory_gb <= gigabytes]
    if fitting:
        _print_table(fitting)
    if len(fitting) < len(matching_rows):
        say(_left_out(matching_rows, fitting, gigabytes or 0))
    if fitting and (not text or gigabytes is not None):
        _print_recommended(fitting, (gigabytes,) if gigabytes is not None else GPU_SIZES)
    if not text or gigabytes is not None or not matched:
        say(f"\n{NO_SAE}")


def print_loaders() -> None:
    """Every format: what is read, what refused, and how far from the original library."""
    measured = differences()
    for family in FAMILIES:
        largest = measured.get(family.name)
        say(f"{family.title}")
        say(f"  loads     {family.loads}")
        say(f"  refuses   {family.refuses}")
        say(f"  oracle    {family.oracle}")
        if largest is not None:
            say(f"  largest difference of a latent  {largest:.0e}")


def print_card(path: str) -> None:
    """The conventions of one SAE, of the packaged one for `demo`; reads its weights."""
    from flows.stages.prepare.render import DEMO_SAES
    from selection.sae.coder import card
    from selection.sae.formats.load import load_sae

    for name, value in card(load_sae(DEMO_SAES if path == DEMO else path)):
        say(f"{name:<15} {value}")


def demo_combination() -> Combination:
    """The packaged model and SAE, by their own files."""
    home = Path(str(files("flows") / "demo"))
    model = json.loads((home / "model" / "config.json").read_text(encoding="utf-8"))
    (config,) = (home / "sae").glob("*/cfg.json")
    sae = json.loads(config.read_text(encoding="utf-8"))
    width, n_layers = model["hidden_size"], model["num_hidden_layers"]
    head = model["num_key_value_heads"] / model["num_attention_heads"]
    block = (2 + 2 * head) * width**2 + 3 * width * model["intermediate_size"]
    embedding = model["vocab_size"] * width
    return Combination(
        model=DEMO,
        sae=DEMO,
        family="sparsify",
        block=int(config.parent.name.rsplit(".", 1)[-1]),
        n_layers=n_layers,
        d_model=width,
        latents=sae["num_latents"],
        l0=sae["k"],
        n_params=int(embedding + n_layers * block),
        embedding_params=embedding,
        kind="instruct",
        languages="English",
        licence="Apache-2.0",
        sae_licence="Apache-2.0",
        gated=False,
        tested="here",
    )


_HEADER = (
    "model",
    "kind",
    "params",
    "resid@",
    "latents",
    "GB",
    "licence",
    "gated",
    "languages",
    "tried",
)


def _print_table(rows: Sequence[Combination]) -> None:
    """The rows, how to use them, and what the columns mean."""
    sys.stdout.write(table_text(_HEADER, [_cells(c) for c in rows]))
    say("\nTo use one:  model: {name: MODEL}  sae: {path: SAE}   (the SAE names the hookpoint)")
    for c in rows:
        say(f"  {c.model}: {c.sae}")
    say(f"\n{_legend()}")


def _left_out(rows: Sequence[Combination], fitting: Sequence[Combination], gigabytes: float) -> str:
    """How many rows do not fit."""
    n = len(rows) - len(fitting)
    if fitting:
        return f"\nNot shown: {n} that {'does' if n == 1 else 'do'} not fit {gigabytes:g} GB."
    least = min(c.memory_gb for c in rows)
    return f"None of them fits {gigabytes:g} GB: {n} known, the smallest needs {least:.1f} GB."


def _cells(c: Combination) -> tuple[str, ...]:
    size = f"{c.n_params / 1e9:.1f}B" if c.n_params >= 5e8 else f"{c.n_params / 1e6:.0f}M"
    return (
        c.model,
        c.kind,
        size,
        str(c.block),
        f"{c.latents:,}",
        f"{c.memory_gb:.1f}",
        c.licence or "see card",
        "yes" if c.gated else "no",
        c.languages,
        c.how_tested,
    )


def _legend() -> str:
    return (
        "GB: to embed a pool, estimated (model up to the hookpoint in bfloat16, SAE in float32).\n"
        "by format only: the format is compared with its own library on small weights; this model"
        " and SAE were not run here. The run checks L0 and FVU itself (`sae.check`).\n"
        "gated: accept the terms on the model's page, then `hf auth login`. SAE licences: see"
        " their cards."
    )


def _print_recommended(rows: Sequence[Combination], sizes: tuple[float, ...]) -> None:
    """The best of the rows for each size; without a GPU that is the packaged one."""
    say("\nRecommended by GPU memory (instruct models for chat data, a fifth of it to spare):")
    demo = next((c for c in rows if c.model == DEMO), None)
    for size in sizes:
        best = recommended(size, rows) if size else demo
        none = "no instruct model of these" if size else "none of these: `demo`, to try things out"
        say(f"  {f'{size:g} GB' if size else 'no GPU':>7}  {best.model if best else none}")
