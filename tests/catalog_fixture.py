"""A made-up but realistic run for the tests of catalog, export, SQL and report.

Nothing here ran a model: texts come from templates, scores from a formula, all from one seed.
"""

import atexit
import json
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from selection.core.hashing import canonical_json, content_id, example_id
from storage.catalog.commit import commit
from storage.catalog.tables import table_of
from storage.files.workspace import Workspace, open_workspace

SOURCES = {"grade-school-math": 4200, "code-exercises": 3900, "open-chat": 3100, "translation": 800}
LICENCES = {"grade-school-math": "mit", "code-exercises": "apache-2.0", "open-chat": "cc-by-nc-4.0"}
SAE_SHA256 = content_id("a made-up SAE", 64)
HOSTILE = "</script><script>alert('x')</script> & <b>bold</b> {{ 7 * 7 }}"
SPACE = "resid@14"
DESCRIPTIONS = {
    101: "step-by-step arithmetic with a final answer",
    102: "amounts of money and change",
    103: "a question that ends in “how many … left?”",
    104: "units of time and speed",
    105: "",
    106: "code in a fenced block",
    107: "sums over several people's shares of one thing, each of them given as a fraction",
}


@dataclass(frozen=True, eq=False)  # hashed by identity, for the cache of workspaces
class MadeExample:
    """One example of the made-up pool, with what a pool row says about it."""

    messages: list[dict[str, object]]
    tools: list[object] | None
    source: str
    row: int
    tokens: int

    @property
    def id(self) -> str:
        return example_id(self.messages, self.tools)

    @property
    def text(self) -> str:
        return "\n".join(str(message["content"]) for message in self.messages)

    @property
    def raw(self) -> str:
        """The row as the file had it: key order, spacing and number spelling are its own."""
        messages = json.dumps(self.messages, ensure_ascii=False)
        return f'{{"id": "{self.source}-{self.row}",  "quality": 1.0, "messages": {messages}}}'


def make_example(number: int, rng: np.random.Generator, source: str | None = None) -> MadeExample:
    """An example of a source drawn with the pool's shares, or of the given one."""
    names = list(SOURCES)
    if source is None:
        shares = np.array(list(SOURCES.values())) / sum(SOURCES.values())
        source = str(rng.choice(names, p=shares))
    a, b, c = (int(x) for x in rng.integers(2, 90, 3))
    if source == "grade-school-math":
        prompt = (
            f"Mira has {a} boxes with {b} pencils each. She gives {c} pencils to her class and"
            f" splits the rest between 2 friends. How many does each friend get? (no. {number})"
        )
        answer = (
            f"She has {a} * {b} = {a * b} pencils.\nAfter giving {c} away, {a * b - c} are left."
        )
    elif source == "code-exercises":
        prompt = (
            f"Write a function that returns the sum of the first {a} multiples of {b}. ({number})"
        )
        answer = (
            f"```python\ndef total(n: int = {a}) -> int:\n"
            f"    return sum({b} * i for i in range(1, n + 1))\n```"
        )
    elif source == "translation":
        prompt = f"Traduis en anglais : « Le train de {a} h {b % 60} part du quai {c}. » ({number})"
        answer = f"The {a}:{b % 60:02d} train leaves from platform {c}."
    else:
        prompt = f"What should I pack for {a} days in the mountains with {b} kg? ({number})"
        answer = "Layers, a rain jacket and good boots. " * (1 + c // 20)
    messages: list[dict[str, object]] = [
        {"role": "user", "content": prompt},
        {"role": "assistant", "content": answer},
    ]
    tokens = int(rng.lognormal(4.3 if source == "translation" else 5.0, 0.55)) + 12
    return MadeExample(messages, None, source, number + 1, tokens)


def hostile_example() -> MadeExample:
    """A text that tries to leave the page, with line separators and a long unbroken word."""
    content = f"{HOSTILE}\u2028line\tseparator " + "A" * 400
    messages: list[dict[str, object]] = [
        {"role": "user", "content": content},
        {"role": "assistant", "content": 'Ä "quoted" answer\\ with 🙂'},
    ]
    return MadeExample(messages, None, "open-chat", 90_001, 140)


def tool_example() -> MadeExample:
    """An example with tools, a call whose arguments are an object, and a tool's result."""
    call = {"type": "function", "function": {"name": "weather", "arguments": {"city": "Kraków"}}}
    messages: list[dict[str, object]] = [
        {"role": "user", "content": "Is it raining in Kraków?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": '{"rain": true}', "name": "weather"},
        {"role": "assistant", "content": "Yes, it rains.", "reasoning_content": "rain is true"},
    ]
    tools: list[object] = [
        {"type": "function", "function": {"name": "weather", "parameters": {"city": "str"}}}
    ]
    return MadeExample(messages, tools, "open-chat", 90_002, 60)


def make_tables(
    name: str = "calm-otter",
    *,
    target: str = "gsm8k",
    n_selected: int = 120,
    n_near: int = 50,
    seed: int = 0,
    extra: tuple[MadeExample, ...] = (hostile_example(),),
    is_demo: bool = False,
    created_at: datetime = datetime(2026, 11, 23, 9, 30, tzinfo=UTC),
) -> dict[str, pa.Table]:
    """All tables of one run: a main selection named `name`, with random and bm25 beside it.

    extra: examples that are put at the head of the ranking.
    Ids: run `run-<name>`, selections `<name>`, `<name>-random`, `<name>-bm25`, hashed.
    """
    rng = np.random.default_rng(seed)
    run_id = content_id(["run", name, seed])
    ranked = [*extra]
    while len(ranked) < n_selected + n_near:
        likes_math = rng.random() < 0.8
        source = "grade-school-math" if likes_math else None
        ranked.append(make_example(len(ranked), rng, source))
    first = max(10_000, len(ranked))
    rest = [make_example(first + i, rng) for i in range(2 * n_selected)]
    first = max(20_000, first + len(rest))
    exemplars = [make_example(first + i, rng, "grade-school-math") for i in range(8)]
    everyone = {example.id: example for example in [*ranked, *rest]}
    n_pool = max(sum(SOURCES.values()), len(ranked))
    scores = 0.62 * np.exp(-((np.arange(n_pool) / n_pool) ** 0.35) * 3) + 0.001

    selections, picks, near, why = [], [], [], []
    n_shared = n_selected // 4  # what a lexical control finds too
    lexical = [*ranked[n_selected - n_shared : n_selected], *rest[n_selected:]]
    chosen = {"": ranked, "random": rest[:n_selected], "bm25": lexical}
    for method, examples in chosen.items():
        label = f"{name}-{method}" if method else name
        selection_id = content_id(["selection", label, seed])
        picked = examples[:n_selected]
        rows = [
            {
                "selection_id": selection_id,
                "rank": rank,
                "target": target,
                "example_id": example.id,
                "score": float(scores[rank - 1]),
                "tokens": example.tokens,
                "text": example.text,
            }
            for rank, example in enumerate(examples[: n_selected + n_near], start=1)
        ]
        picks += rows[:n_selected]
        near += rows[n_selected:] if method == "" else []
        selections.append(
            {
                "selection_id": selection_id,
                "run_id": run_id,
                "name": label,
                "target": target,
                "method": method or "jaccard",
                "role": "control" if method else "main",
                "exemplar_reduction": "" if method == "random" else "mean",
                "weights": "" if method else "idf",
                "budget": {"examples": n_selected},
                "n_eligible": n_pool - 310,
                "n_selected": n_selected,
                "n_tokens": sum(example.tokens for example in picked),
                "unused_tokens": None,
                "cut_score": float(scores[n_selected - 1]),
                "curve": _curve(scores),
                "lengths": _lengths(rng, [example.tokens for example in picked]),
            }
        )
        if not method:
            why = [
                row
                for i, example in enumerate(picked)
                for row in _why(rng, selection_id, example.id, exemplars[i % 8].id)
            ]
    return {
        "run": table_of("run", [_run(run_id, name, created_at, n_selected, target, is_demo)]),
        "run_drop": table_of(
            "run_drop",
            [
                {"run_id": run_id, "stage": stage, "reason": reason, "n": n}
                for stage, reason, n in [
                    ("read", "no_text", 14),
                    ("read", "image_or_audio", 61),
                    ("where", "where", 231),
                    ("rank", "is_exemplar", 4),
                ]
            ],
        ),
        "run_source": table_of(
            "run_source",
            [{"run_id": run_id, "source": s, "n_pool": n} for s, n in SOURCES.items()],
        ),
        "exemplar": table_of("exemplar", [_exemplar(run_id, target, e) for e in exemplars]),
        "selection": table_of("selection", selections),
        "pick": table_of("pick", picks),
        "near_miss": table_of("near_miss", near),
        "sample": table_of("sample", [_sample(e) for e in everyone.values()]),
        "occurrence": table_of(
            "occurrence",
            [row for i, e in enumerate(everyone.values()) for row in _occurrences(run_id, e, i)],
        ),
        "why": table_of("why", why),
        "latent_description": table_of(
            "latent_description",
            [{"sae": SAE_SHA256, "latent": k, "description": v} for k, v in DESCRIPTIONS.items()],
        ),
        "selection_drop": table_of(
            "selection_drop",
            [
                {
                    "selection_id": selections[0]["selection_id"],
                    "stage": "rank",
                    "reason": "empty_vector",
                    "n": 1,
                    "example_id": rest[-1].id,
                }
            ],
        ),
        "artifact": table_of("artifact", _artifacts(run_id)),
        "event": table_of("event", [{"at": created_at, "run_id": run_id, "action": "selected"}]),
    }


def write_scores(workspace: Workspace, tables: Mapping[str, pa.Table]) -> None:
    """The Parquet files of all scores that a run leaves beside the catalog."""
    workspace.scores.mkdir(exist_ok=True)
    picks = tables["pick"].select(["selection_id", "example_id", "score", "rank"])
    for selection_id in set(picks["selection_id"].to_pylist()):
        mask = pa.compute.equal(picks["selection_id"], selection_id)
        pq.write_table(picks.filter(mask), workspace.scores / f"{selection_id}.parquet")


def made_workspace(root: Path, **options: object) -> Workspace:
    """A workspace with one made-up run in its catalog; options as for `make_tables`."""
    shutil.copytree(_template(**options), root, dirs_exist_ok=True)
    return open_workspace(root)


@cache
def _template(**options: object) -> Path:
    """Committing costs more than copying: each made workspace is committed once per process."""
    folder = Path(tempfile.mkdtemp(prefix="made-workspace-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    commit(open_workspace(folder), make_tables(**options))  # type: ignore[arg-type]
    return folder


def _run(
    run_id: str, name: str, created_at: datetime, n_selected: int, target: str, is_demo: bool
) -> dict[str, object]:
    return {
        "run_id": run_id,
        "name": name,
        "created_at": created_at,
        "finished_at": created_at + timedelta(minutes=7, seconds=12),
        "config": {
            "pool": [{"path": "data/pool.parquet", "shape": "messages"}],
            "exemplars": {"path": "data/targets.jsonl", "targets": [target]},
            "where": "licence <> 'proprietary' AND quality > 0.5",
            "budget": {"examples": n_selected},
            "model": {"name": "org/base-1b", "hookpoint": SPACE},
            "representation": {"token_aggregate": "mean"},
        },
        "versions": {"saelect": "0.1.0", "torch": "2.13.0", "duckdb": "2.0.0", "numpy": "2.4.6"},
        "git_sha": "184e32d0c0ffee00000000000000000000000000",
        "who": "ada",
        "host": "node-3",
        "trigger": "command line",
        "pool_id": content_id("pool"),
        "representation_id": content_id("representation"),
        "model": "org/base-1b",
        "model_sha256": content_id("model", 64),
        "model_licence": "apache-2.0",
        "sae": "org/sae-base-1b/layers.14",
        "sae_sha256": SAE_SHA256,
        "sae_licence": "mit",
        "hookpoint": SPACE,
        "unit": 0.0042,
        "seed": 0,
        "is_demo": is_demo,
        "counts": {
            "rows": 12_431,
            "examples": 12_000,
            "occurrences": 12_356,
            "eligible": 11_690,
            "embedded": 12_000,
            "reused": 0,
            "tokens": 2_412_345,
            "truncated": 37,
        },
    }


def _curve(scores: np.ndarray) -> dict[str, list[float]]:
    ranks = np.unique(np.geomspace(1, len(scores), 200).astype(int))
    return {
        "ranks": [int(r) for r in ranks],
        "scores": [round(float(scores[r - 1]), 6) for r in ranks],
    }


def _lengths(rng: np.random.Generator, tokens: list[int]) -> dict[str, list[int]]:
    edges = [0, 32, 64, 128, 256, 512, 1024, 2048]
    pool = np.clip(rng.lognormal(4.8, 0.8, sum(SOURCES.values())), 1, 2047)
    return {
        "edges": edges,
        "pool": [int(n) for n in np.histogram(pool, edges)[0]],
        "selected": [int(n) for n in np.histogram(tokens, edges)[0]],
    }


def _why(
    rng: np.random.Generator, selection_id: str, chosen: str, exemplar: str
) -> list[dict[str, object]]:
    parts = sorted((int(x) for x in rng.integers(500, 90_000, 6)), reverse=True)
    latents = [int(x) for x in rng.choice([*DESCRIPTIONS, 2048, 4096], 6, replace=False)]
    rest = int(rng.integers(50_000, 200_000))
    total = sum(parts) + rest
    return [
        {
            "selection_id": selection_id,
            "example_id": chosen,
            "exemplar_id": exemplar,
            "space": SPACE,
            "latent": latent,
            "contribution": part,
            "numerator": total,
            "share": part / total,
        }
        for latent, part in zip([*latents, -1], [*parts, rest], strict=True)
    ]


def _exemplar(run_id: str, target: str, example: MadeExample) -> dict[str, object]:
    return {
        "run_id": run_id,
        "exemplar_id": example.id,
        "target": target,
        "own_id": f"exemplar-{example.row}",
        "file": "data/targets.jsonl",
        "row": example.row,
        "messages": canonical_json(example.messages),
        "text": example.text,
    }


def _sample(example: MadeExample) -> dict[str, object]:
    return {
        "example_id": example.id,
        "messages": canonical_json(example.messages),
        "tools": None if example.tools is None else canonical_json(example.tools),
    }


def _occurrences(run_id: str, example: MadeExample, number: int) -> list[dict[str, object]]:
    """One row, and for every tenth example a second one from another file."""
    first = {
        "run_id": run_id,
        "example_id": example.id,
        "own_id": f"{example.source}-{example.row}",
        "source": example.source,
        "file": f"data/{example.source}.jsonl",
        "row": example.row,
        "licence": LICENCES.get(example.source),
        "language": "fr" if example.source == "translation" else "en",
        "raw": example.raw,
    }
    copy = {**first, "file": "mirror/all.jsonl", "own_id": f"mirror-{number}", "source": "mirror"}
    return [copy, first] if number % 10 == 0 else [first]


def _artifacts(run_id: str) -> list[dict[str, object]]:
    chain = ["pool", "rendering", "representation", "ranking"]
    return [
        {
            "run_id": run_id,
            "step": step,
            "artifact": content_id(step),
            "sha256": content_id([step], 64),
            "parent": content_id(chain[i - 1]) if i else None,
        }
        for i, step in enumerate(chain)
    ]
