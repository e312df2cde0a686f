r"""Is the demo model worth judging? Its hookpoint and SAE against words and random weights.

    python -m benchmarks.demo_model --pool pool.parquet --targets targets.jsonl \
        --subpool subpool.txt --rows subpool --setting instance --state FOLDER

Rows of a labelled pool are ranked for each target task: by the cosine of their mean hidden state to
the exemplars' mean (per block), by generalized Jaccard of SAE vectors (mean and max over tokens,
prototype and mean over exemplars, with and without idf), and by TF-IDF, BM25 and the same
architecture with random weights. All see the same turns: models through the chat template, cut at
256 tokens, lexical methods uncut. Score: mean nDCG@1000 with gain 2^relevance - 1, unjudged rows
removed, ties by id. "unseen" leaves out the rows that the model was trained on.

One forward pass per model and setting gives everything. Its results are files in the state folder:
a killed run goes on where it was, and the sub-pool is a part of the pool's files. The last line of
the output is one JSON object.
"""

import argparse
import json
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.demo_quality.labels import read_bench_pool
from benchmarks.demo_quality.passes import Pass, PassSettings, random_model, run_pass
from benchmarks.demo_quality.reading import AGGREGATES
from benchmarks.demo_quality.scoring import (
    Figures,
    Judge,
    Scores,
    dense_methods,
    lexical_scores,
    sae_methods,
)
from benchmarks.demo_quality.table import DENSE, KINDS, RANDOM, lines, of_kind, summary
from selection.errors import InputError
from selection.ids import content_id
from selection.labelled import SETTINGS, Setting, read_labelled_targets
from selection.models import ResolvedModel, resolve_model
from selection.sae.formats import SparseCoder, load_sae
from selection.sae.info import block_of
from storage.files import read_json, write_json

DEMO = Path(__file__).parents[1] / "flows" / "demo"
MODEL_KINDS = ("trained", "random")
SEED = 0
log = logging.getLogger(__name__)


class Bench:
    """One run: pool, targets, model and SAE, and where results are kept."""

    def __init__(self, arguments: argparse.Namespace) -> None:
        """Read everything that is needed before the first pass."""
        self.pool = read_bench_pool(arguments.pool, arguments.subpool)
        self.targets = read_labelled_targets(arguments.targets)
        self.state, self.threads = arguments.state, arguments.threads
        self.model = resolve_model(arguments.model)
        self.coder = None if arguments.sae is None else load_sae(arguments.sae)
        self.block = hookpoint_block(arguments.block, self.coder, self.model)
        self.kinds: list[str] = arguments.model_kinds
        self.settings = PassSettings(
            dtype=arguments.dtype,
            max_tokens=arguments.max_tokens,
            tokens_per_batch=arguments.tokens_per_batch,
            unit_rows=arguments.unit_rows,
        )

    def figures(self, setting: Setting, small: bool) -> dict[str, Figures]:
        """Figures of every method on the sub-pool or on all rows."""
        rows = np.flatnonzero(self.pool.in_subpool) if small else np.arange(len(self.pool))
        judge = Judge(self.pool, rows, self.targets)
        about = [self.pool.pool_id, setting, small, [target.target_id for target in self.targets]]
        found = self._kept(
            [*about, "words"],
            judge,
            lambda: lexical_scores(self.pool, rows, self.targets, setting),
        )
        for kind in self.kinds:
            model, coder = self.model, self.coder
            if kind == "random":
                model, coder = random_model(self.model, SEED, self.state), None
            done = self._pass(setting, model, coder, small)
            about = [*about, done.folder.name]
            name = DENSE if kind == "trained" else RANDOM
            dense = partial(dense_methods, done, self.targets, small, name)
            found |= self._kept([*about, "dense"], judge, dense)
            for how in AGGREGATES if coder is not None else ():
                latents = partial(sae_methods, done, self.targets, small, how, self.threads)
                found |= self._kept([*about, how], judge, latents)
        return found

    def _pass(
        self, setting: Setting, model: ResolvedModel, coder: SparseCoder | None, small: bool
    ) -> Pass:
        return run_pass(
            self.pool,
            self.targets,
            setting,
            model,
            self.block,
            coder,
            self.settings,
            self.state,
            small=small,
        )

    def _kept(
        self, key: list[Any], judge: Judge, methods: Callable[[], Iterable[tuple[str, Scores]]]
    ) -> dict[str, Figures]:
        """Figures of some methods, from their file where there is one."""
        file = self.state / "figures" / f"{content_id(key)}.json"
        if not file.exists():
            found = {}
            for name, scores in methods():
                found[name] = judge.figures(scores)
                log.info("%s: %.4f over all targets", name, np.mean(found[name].all_rows))
            write_json(file, {name: figures._asdict() for name, figures in found.items()})
        kept: dict[str, Any] = read_json(file)
        return {name: Figures(**figures) for name, figures in kept.items()}


def hookpoint_block(wanted: int | None, coder: SparseCoder | None, model: ResolvedModel) -> int:
    """The block that is read: as asked, else the SAE's. Raises InputError for neither or none."""
    known = None if coder is None else block_of(coder.info.hookpoint)
    block = known if wanted is None else wanted
    if block is None or not 0 <= block < model.n_layers:
        raise InputError(
            "no hookpoint" if block is None else f"the model has {model.n_layers} blocks",
            field="--block",
            value=block,
            remedy=f"Give --block 0 to {model.n_layers - 1}, or an SAE that names its hookpoint.",
        )
    return block


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Every setting and row set that was asked for; each table is printed when it is there."""
    bench = Bench(arguments)
    names = [target.name for target in bench.targets]
    kinds = [target.kind for target in bench.targets]
    row_sets = ["subpool"] if arguments.subpool is not None else []
    row_sets += ["pool"] if arguments.rows == "all" else []
    settings = SETTINGS if arguments.setting == "both" else (arguments.setting,)
    result: dict[str, Any] = {
        "model": bench.model.weights_sha256,
        "sae": None if bench.coder is None else bench.coder.info.sha256,
        "hookpoint": f"resid@{bench.block}",
        "n_targets": {kind: int(of_kind(kinds, kind).sum()) for kind in KINDS},
        "settings": asdict(bench.settings),
        "threads": arguments.threads,
    }
    for row_set in row_sets:
        small = row_set == "subpool"
        n_rows = int(bench.pool.in_subpool.sum()) if small else len(bench.pool)
        for setting in settings:
            found = summary(bench.figures(setting, small), names, kinds)
            result.setdefault(row_set, {"n_rows": n_rows})[setting] = found
            title = f"\n{setting} setting, {row_set}, {n_rows:,} rows, {arguments.dtype}"
            if not arguments.json:
                print("\n".join(lines(found, title)), flush=True)
    return result


def main(argv: Sequence[str] | None = None) -> None:
    """Read the arguments, run, print the JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--pool", type=Path, required=True, help="labelled pool, Parquet")
    parser.add_argument("--targets", type=Path, required=True, help="target tasks, JSON lines")
    parser.add_argument("--subpool", type=Path, help="ids of a part that is judged on its own")
    parser.add_argument("--rows", choices=("all", "subpool"), default="all")
    parser.add_argument("--setting", choices=(*SETTINGS, "both"), default="both")
    parser.add_argument("--state", type=Path, required=True, help="folder that keeps results")
    parser.add_argument("--model", type=Path, default=DEMO / "model")
    parser.add_argument("--sae", type=Path, default=None, help="folder of an SAE, or above one")
    parser.add_argument("--block", type=int, help="0-based; default: where the SAE reads")
    parser.add_argument("--model-kinds", nargs="+", choices=MODEL_KINDS, default=MODEL_KINDS)
    parser.add_argument("--only-trained", dest="model_kinds", action="store_const",
                        const=("trained",), help="no random weights")  # fmt: skip
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--max-tokens", type=int, default=PassSettings.max_tokens)
    parser.add_argument("--tokens-per-batch", type=int, default=PassSettings.tokens_per_batch)
    parser.add_argument("--unit-rows", type=int, default=PassSettings.unit_rows)
    parser.add_argument("--json", action="store_true", help="print the JSON line alone")
    parser.add_argument("--output", type=Path, help="file for the JSON")
    arguments = parser.parse_args(argv)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(arguments.threads)
    result = run(arguments)
    if arguments.output is not None:
        write_json(arguments.output, result)
    print(json.dumps(result))


if __name__ == "__main__":
    main()
