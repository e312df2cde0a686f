r"""Every kind of dictionary on one model: trained alike, measured, and judged on labelled targets.

    python -m benchmarks.dictionaries --pool POOL --targets TARGETS --subpool IDS --workspace DIR \
        [--model FOLDER --block 15 --dtype bfloat16] [--setting full] [--page PAGE]

Activations of the model are kept once at three hookpoints of a block. Every dictionary has the same
width, the same latents a token and the same training tokens. Then `saelect bench retrieval` ranks
the sub-pool by each, alone and joined with tokens, and what k latents carry of each target is
measured. Figures of a model replace those of its last run in `results.json`, and the page is made
of all of them. A killed run goes on where it was. The last line is the JSON of this model.
"""

import argparse
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import yaml

from benchmarks.causal_lm.__main__ import LOSS_SAMPLES, figures, trained
from benchmarks.causal_lm.activations import KeptActivations, activations_of, samples_of
from benchmarks.dictionaries.table import PACKAGED, RESULTS, TARGET_UNIQUE, page
from benchmarks.support.labelled_arguments import labelled_parser
from flows.benchmark.run import run_benchmark
from flows.config.data import BenchRequest
from flows.stages.prepare.inputs import packaged
from selection.activations.model import load_activation_model
from selection.evaluation.labelled import (
    SETTINGS,
    LabelledPool,
    LabelledTarget,
    Setting,
    as_messages,
    read_labelled_pool,
    read_labelled_targets,
)
from selection.models.hookpoints import Hookpoint
from selection.models.resolve import ResolvedModel, resolve_model
from selection.records import Rendered
from selection.rendering.renderer import Renderer, renderer_for
from selection.sae.coder import SparseCoder
from selection.sae.encode import encode
from selection.sae.formats.load import load_sae
from selection.sae.interpret.target_quality import pool_samples
from selection.sae.training.settings import TrainSettings
from selection.sae.vocabulary import write_vocabulary
from storage.files.atomic import read_json, write_bytes, write_json
from storage.files.workspace import open_workspace

MAX_LENGTH = 256
BATCH_TOKENS = 2048
N_DRAWN = 256  # samples of the sub-pool that a target's exemplars are told from
RATE = 1e-3  # of the shipped SAE


@dataclass(frozen=True)
class Dictionary:
    """One kind under comparison: its architecture, where it reads the block."""

    name: str
    architecture: str
    site: str = "resid"


DICTIONARIES = (
    Dictionary("TopK", "topk"),
    Dictionary("BatchTopK", "batchtopk"),
    Dictionary("Matryoshka", "matryoshka"),
    Dictionary("Codebook", "codebook"),
    Dictionary("Attention heads, TopK", "topk", "heads"),
    Dictionary("Vocabulary", "vocabulary"),
    Dictionary("Matching pursuit", "matching_pursuit"),
    Dictionary("Semi-NMF of MLP units", "seminmf", "mlp_hidden"),
)


def main() -> None:
    """Train and measure what is missing, write results and page."""
    arguments = _arguments()
    torch.set_num_threads(arguments.threads)
    model = resolve_model(str(arguments.model or packaged("demo:model")))
    name = arguments.name or (arguments.model.name if arguments.model else PACKAGED)
    pool = read_labelled_pool(arguments.pool)
    renderer = renderer_for(model, max_length=MAX_LENGTH)
    sites = dict.fromkeys(each.site for each in DICTIONARIES)
    kept = activations_of(
        arguments.workspace,
        [Hookpoint(site, arguments.block) for site in sites],
        model,
        arguments.dtype,
        pool,
        renderer,
        arguments.tokens,
    )
    held_out = samples_of(pool, renderer, kept.numbers(held_out=True)[0])[:LOSS_SAMPLES]
    file = arguments.workspace / "dictionaries.json"
    measured: dict[str, Any] = dict(read_json(file)) if file.exists() else {}
    targets = read_labelled_targets(arguments.targets)
    subpool = read_labelled_pool(arguments.pool, arguments.subpool)
    folders = {}
    for each in DICTIONARIES:
        folder = _folder(arguments, each)
        hookpoint = Hookpoint(each.site, arguments.block)
        coder = _dictionary(arguments, each, folder, kept, model, renderer)
        folders[each.name] = (folder, hookpoint)
        if each.name not in measured:
            quality = _qualities(arguments, coder, hookpoint, model, renderer, subpool, targets)
            measured[each.name] = {
                "hookpoint": str(hookpoint),
                "num_latents": coder.info.num_latents,
                "seconds": _training_seconds(coder),
                "tokens_per_s": _speed(coder, kept, hookpoint),
                **figures(coder, kept, hookpoint, model, held_out),
                "quality": quality,
            }
            write_json(file, measured)
            shown = {k: v for k, v in measured[each.name].items() if k != "quality"}
            print(each.name, json.dumps(shown), flush=True)
    settings = SETTINGS if arguments.setting == "both" else (arguments.setting,)
    result = {
        "block": arguments.block,
        "latents": arguments.latents,
        "k": arguments.k,
        "train_tokens": arguments.train_tokens,
        "n_rows": len(subpool),
        "kinds": {target.name: target.kind for target in targets},
        "dictionaries": measured,
        "ndcg": {setting: _ndcg(arguments, folders, setting) for setting in settings},
    }
    results = dict(read_json(RESULTS)) if RESULTS.exists() else {}
    results[name] = result
    write_json(RESULTS, results)
    if arguments.page is not None:
        write_bytes(arguments.page, page(results).encode())
    print(json.dumps({name: result}))


def _folder(arguments: argparse.Namespace, each: Dictionary) -> Path:
    """Where the dictionary is, or will be."""
    name = f"{each.architecture}-{each.site}-{arguments.latents}-{arguments.k}"
    folder: Path = arguments.workspace / "dictionaries" / name / f"block{arguments.block}"
    return folder


def _dictionary(
    arguments: argparse.Namespace,
    each: Dictionary,
    folder: Path,
    kept: KeptActivations,
    model: ResolvedModel,
    renderer: Renderer,
) -> SparseCoder:
    """The dictionary; trained, or written, where it is missing."""
    hookpoint = Hookpoint(each.site, arguments.block)
    if each.architecture == "vocabulary":
        if not (folder / "cfg.json").exists():
            write_vocabulary(model, hookpoint, arguments.k, folder, renderer)
        return load_sae(folder)
    given: dict[str, Any] = {
        "architecture": each.architecture,
        "num_latents": arguments.latents,
        "k": arguments.k,
        "tokens": arguments.train_tokens,
        "batch_tokens": BATCH_TOKENS,
    }
    if each.architecture not in ("seminmf", "codebook"):
        given["learning_rate"] = RATE
    return trained(folder, kept, hookpoint, TrainSettings.model_validate(given), model)


def _training_seconds(coder: SparseCoder) -> float | None:
    """Wall-clock time of its training; None where nothing is trained."""
    record: Any = coder.info.record
    training = (record or {}).get("training")
    return None if training is None else round(float(training["wall_s"]), 1)


def _speed(coder: SparseCoder, kept: KeptActivations, hookpoint: Hookpoint) -> int:
    """Tokens a second that are encoded, the forward pass aside; of the second of two rounds."""
    tokens = next(kept.chunks(hookpoint, held_out=True))[:8192]
    encode(coder, tokens[:512])
    started = time.perf_counter()
    encode(coder, tokens)
    return round(len(tokens) / (time.perf_counter() - started))


def _qualities(
    arguments: argparse.Namespace,
    coder: SparseCoder,
    hookpoint: Hookpoint,
    model: ResolvedModel,
    renderer: Renderer,
    subpool: LabelledPool,
    targets: list[LabelledTarget],
) -> dict[str, dict[str, Any]]:
    """Target -> what a probe tells of it, and how much of that few latents carry (full setting)."""
    rows = np.random.default_rng(0).permutation(len(subpool))[:N_DRAWN]
    drawn = _rendered(renderer, [subpool.turns("full", int(row), 1)[0] for row in rows])
    exemplars = {t.name: _rendered(renderer, t.turns("full")) for t in targets}
    everything = [*drawn, *(sample for each in exemplars.values() for sample in each)]
    reader = load_activation_model(
        model, hookpoint, dtype=arguments.dtype, checks=arguments.workspace / "checks"
    )
    pooled, first, result = pool_samples(everything, reader, coder, hookpoint), len(drawn), {}
    for name, each in exemplars.items():
        quality = pooled.quality(np.arange(first, first + len(each)), np.arange(len(drawn)))
        first += len(each)
        result[name] = {
            "probe": quality.probe_auc,
            "latents": {str(n): auc for n, auc in quality.latents_auc.items()},
            "kept": quality.kept,
        }
    return result


def _rendered(renderer: Renderer, turns: list[tuple[str, str]]) -> list[Rendered]:
    samples = renderer.render_batch([(as_messages(each), None) for each in turns])
    return [sample for sample in samples if sample.content_mask.any()]


def _ndcg(
    arguments: argparse.Namespace, folders: dict[str, tuple[Path, Hookpoint]], setting: Setting
) -> dict[str, dict[str, dict[str, float]]]:
    """alone, joined, others -> name -> target -> nDCG@1000."""
    under = {"name": str(arguments.model or "demo"), "dtype": arguments.dtype}
    configs: dict[str, dict[str, Any]] = {}
    for name, (folder, hookpoint) in folders.items():
        read = {"sae": str(folder), "model": {**under, "hookpoint": str(hookpoint)}}
        configs[f"joined/{name}"] = {"preset": "best", **read}
        alone = {"representation": {"spaces": ["sae"]}}
        configs[f"alone/{name}"] = {"preset": "best", **read, **alone}
    unique = {"ranking": {"weights": "target_unique"}}
    configs[f"joined/{TARGET_UNIQUE}"] = {**configs["joined/TopK"], **unique}
    configs[f"alone/{TARGET_UNIQUE}"] = {**configs["alone/TopK"], **unique}
    file = arguments.workspace / "dictionaries.yaml"
    write_bytes(file, yaml.safe_dump(configs).encode())
    shipped, own = ["best"], {}
    if arguments.model is not None:
        shipped, own = [], {"model": str(arguments.model), "sae": str(folders["TopK"][0])}
    outcome = run_benchmark(
        BenchRequest(
            pool=str(arguments.pool),
            targets=str(arguments.targets),
            subpool=str(arguments.subpool),
            setting=setting,
            methods=(str(file), "tokens", *shipped),
            **own,
        ),
        open_workspace(arguments.workspace),
    )
    standing = {summary.method: summary.variant for summary in outcome.summaries[setting]}
    result: dict[str, dict[str, dict[str, float]]] = {}
    for method, by_target in outcome.measured[setting].items():
        kind, _, name = method.rpartition("/")
        result.setdefault(kind or "others", {})[name] = {
            target: float(variants[standing[method]]["ndcg"])
            for target, variants in by_target.items()
        }
    return result


def _arguments() -> argparse.Namespace:
    parser = labelled_parser(__doc__, ("both", "full", "instance"))
    parser.add_argument("--model", type=Path, help="model folder; default the packaged one")
    parser.add_argument("--name", help="of the model in the page (default: its folder's)")
    parser.add_argument("--block", type=int, default=2)
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--latents", type=int, default=2048)
    parser.add_argument("--k", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=500_000, help="activations to keep")
    parser.add_argument("--train-tokens", type=int, default=800_000, help="repeats allowed")
    parser.add_argument("--page", type=Path, help="Markdown page to write")
    return parser.parse_args()


if __name__ == "__main__":
    main()
