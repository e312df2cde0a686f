r"""Does the demo model's middle separate kinds of task? Dense retrieval per block, beside TF-IDF.

    python -m benchmarks.demo_training.evaluate --model MODEL --pool pool.parquet \
        --subpool subpool.txt --targets targets.jsonl --output evaluation.json

Rows of a labelled sub-pool are ranked for each target task by the cosine of their mean hidden state
to the exemplars' mean. Instance setting: the user turn is the input, or the instruction where the
input is empty. Score: mean nDCG@1000 with gain 2^relevance - 1, unjudged rows removed. TF-IDF and
the same architecture with random weights say what the model adds. The columns "unseen" leave out
the rows that the model was trained on, from the ranking and from the ideal ranking.
"""

import argparse
import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from benchmarks.demo_training.corpus import Message, in_half_a, permissive, question_digest
from benchmarks.demo_training.dense import mean_hidden_states
from benchmarks.demo_training.ranking_score import centroid_cosine, mean_ndcg, relevance, tfidf

LOGGER = logging.getLogger(__name__)
MAX_TOKENS = 256
KINDS = ("T1", "T2")


def instance_chat(row: dict[str, Any]) -> list[Message]:
    """The row's bare question and its output as two turns."""
    question = row["input"] if (row["input"] or "").strip() else row["instruction"]
    return [
        {"role": "user", "content": question},
        {"role": "assistant", "content": row["output"] or ""},
    ]


def read_subpool(pool: Path, subpool: Path, limit: int | None) -> pl.DataFrame:
    """Rows of the sub-pool ordered by id; `trained` marks those that the training rule takes."""
    ids = subpool.read_text().split()
    frame = pl.read_parquet(pool).filter(pl.col("id").is_in(ids)).sort("id")
    if len(frame) != len(set(ids)):
        raise ValueError(f"{subpool} names {len(set(ids))} ids, {pool} holds {len(frame)} of them")
    if limit is not None:
        frame = frame.gather_every(max(len(frame) // limit, 1)).head(limit)
    half_a = [
        in_half_a(question_digest(instruction or "", input_text or ""))
        for instruction, input_text in frame.select("instruction", "input").iter_rows()
    ]
    return frame.with_columns((pl.Series(half_a) & permissive()).alias("trained"))


def read_targets(path: Path) -> list[dict[str, Any]]:
    """One target task per line."""
    return [json.loads(line) for line in path.read_text().splitlines() if line.strip()]


def score_vectors(
    vectors: np.ndarray,
    exemplars: list[np.ndarray],
    grades: np.ndarray,
    kinds: list[str],
    unseen: np.ndarray,
) -> dict[str, float]:
    """nDCG@1000 per kind of target, over all rows and over unseen rows."""
    scores = np.stack([centroid_cosine(vectors, part) for part in exemplars])
    figures: dict[str, float] = {}
    for kind in KINDS:
        chosen = np.asarray([name.startswith(kind) for name in kinds])
        figures[kind] = mean_ndcg(scores[chosen], grades[chosen])
        figures[f"{kind} unseen"] = mean_ndcg(scores[chosen][:, unseen], grades[chosen][:, unseen])
    return figures


def evaluate(
    model_folder: Path, frame: pl.DataFrame, targets: list[dict[str, Any]], seed: int = 0
) -> dict[str, dict[str, float]]:
    """Figures of TF-IDF, of random weights and of the trained model, per block for both models."""
    rows = frame.to_dicts()
    exemplar_rows = [exemplar for target in targets for exemplar in target["exemplars"]]
    bounds = np.cumsum([len(target["exemplars"]) for target in targets])[:-1]
    chats = [instance_chat(row) for row in rows + exemplar_rows]
    grades = np.stack([relevance(frame, target) for target in targets])
    kinds = [target["kind"] for target in targets]
    unseen = ~frame["trained"].to_numpy()
    texts = ["\n".join(message["content"] for message in chat) for chat in chats]
    vectors = tfidf(texts, n_fit=len(rows))
    results: dict[str, dict[str, float]] = {}

    def add(name: str, both: np.ndarray) -> None:
        parts = np.split(np.arange(len(rows), both.shape[0]), bounds)
        exemplars = [both[part] for part in parts]
        results[name] = score_vectors(both[: len(rows)], exemplars, grades, kinds, unseen)

    add("TF-IDF", vectors)
    tokenizer = AutoTokenizer.from_pretrained(model_folder)
    trained = AutoModelForCausalLM.from_pretrained(model_folder, dtype=torch.float32)
    torch.manual_seed(seed)
    random = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(model_folder)).float()
    for name, model in (("trained", trained), ("random weights", random)):
        dense = mean_hidden_states(model, tokenizer, chats, max_tokens=MAX_TOKENS)
        for block, states in enumerate(dense):
            add(f"{name}, block {block}", states)
            LOGGER.info("%s, block %d: %s", name, block, results[f"{name}, block {block}"])
    return results


def main() -> None:
    """Read the arguments, evaluate, print a table and one JSON line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", type=Path, required=True)
    parser.add_argument("--pool", type=Path, required=True)
    parser.add_argument("--subpool", type=Path, required=True, help="ids, one per line")
    parser.add_argument("--targets", type=Path, required=True)
    parser.add_argument("--output", type=Path, help="file for the JSON result")
    parser.add_argument("--limit", type=int, help="use about so many rows (a smoke test)")
    parser.add_argument("--threads", type=int, default=2)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    torch.set_num_threads(arguments.threads)
    frame = read_subpool(arguments.pool, arguments.subpool, arguments.limit)
    targets = read_targets(arguments.targets)
    results = evaluate(arguments.model, frame, targets)
    columns = [column for kind in KINDS for column in (kind, f"{kind} unseen")]
    print(f"{'mean nDCG@1000':28s}" + "".join(f"{column:>12s}" for column in columns))
    for name, figures in results.items():
        print(f"{name:28s}" + "".join(f"{figures[column]:12.3f}" for column in columns))
    summary = {
        "n_rows": len(frame),
        "n_trained": int(frame["trained"].sum()),
        "n_targets": {kind: sum(t["kind"].startswith(kind) for t in targets) for kind in KINDS},
        "results": results,
    }
    if arguments.output:
        arguments.output.write_text(json.dumps(summary, indent=1) + "\n")
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
