"""What a run decided, as rows of the catalog: who asked, what was chosen, why, and from what.

Everything is gathered first and committed in one transaction.
"""

import getpass
import json
import platform
import socket
import subprocess
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from flows.config import DEMO, SelectConfig
from flows.stages.choose import Decided, Race
from flows.stages.inputs import packaged
from flows.stages.vectors import Representer
from selection.budget import TokenCount
from selection.explain import explain_pairs
from selection.ids import content_id
from selection.plain_text import plain_text
from selection.records import Exemplars
from storage.pool_vectors import PoolVectors
from storage.pools import PreparedPool
from storage.tables import table_of

NEAR_MISSES = 50
LENGTH_EDGES = [0, 32, 64, 128, 256, 512, 1024, 2048, 4096, 8192, 1 << 20]
PACKAGES = ("saelect", "torch", "transformers", "tokenizers", "numpy", "numba", "faiss-gpu",
            "faiss-cpu", "duckdb", "polars", "pyarrow", "prefect")  # fmt: skip

Row = dict[str, object]


@dataclass(frozen=True)
class RunFacts:
    """What a run knows of itself besides its config."""

    run_id: str
    name: str
    created_at: datetime
    trigger: str
    counts: Mapping[str, object] = field(default_factory=dict)


@dataclass(frozen=True)
class Material:
    """Everything that the rows are drawn from."""

    config: SelectConfig
    facts: RunFacts
    pool: PreparedPool
    vectors: PoolVectors
    representer: Representer
    race: Race
    targets: Mapping[str, tuple[pa.Table, Exemplars]]
    decided: Sequence[Decided]
    token_count: TokenCount


def catalog_rows(material: Material) -> dict[str, pa.Table]:
    """Catalog table -> rows of this run."""
    rows: dict[str, list[Row]] = {
        "run": [_run(material)],
        "run_drop": _drops(material),
        "run_source": _sources(material),
        "exemplar": _exemplars(material),
        "selection": [],
        "pick": [],
        "near_miss": [],
        "why": [],
        "latent_description": _descriptions(material),
        "artifact": [],
        "event": [{"at": datetime.now(UTC), "run_id": material.facts.run_id, "action": "selected"}],
    }
    shown: set[int] = set()
    for decided in material.decided:
        top = _top(decided)
        shown.update(top["example_row"].to_pylist())
        tokens = material.token_count(top["example_row"].to_numpy())
        picks = _picks(material, top, tokens)
        rows["pick"] += picks[: decided.cut.n_selected]
        rows["near_miss"] += picks[decided.cut.n_selected :]
        rows["selection"].append(_selection(material, decided, tokens[: decided.cut.n_selected]))
        if decided.method == "jaccard":
            rows["why"] += _why(material, decided, top)
    examples = np.array(sorted(shown), np.int64)
    rows["sample"] = _samples(material, examples)
    rows["occurrence"] = _occurrences(material, examples)
    rows["artifact"] = _artifacts(material)
    return {name: table_of(name, values) for name, values in rows.items() if values}


def _run(material: Material) -> Row:
    config, facts, representer = material.config, material.facts, material.representer
    model, sae = representer.reader.model, representer.coder.info
    return {
        "run_id": facts.run_id,
        "name": facts.name,
        "created_at": facts.created_at,
        "finished_at": datetime.now(UTC),
        "config": config.model_dump(mode="json"),
        "versions": {"python": platform.python_version(), **_versions()},
        "git_sha": _git_sha(),
        "who": getpass.getuser(),
        "host": socket.gethostname(),
        "trigger": facts.trigger,
        "note": config.note,
        "pool_id": material.pool.pool_id,
        "representation_id": representer.representation_id,
        "model": DEMO if config.model.name == DEMO else model.name,
        "model_sha256": model.weights_sha256,
        "model_licence": model.licence,
        "sae": DEMO if config.sae.path == DEMO else str(representer.sae),
        "sae_sha256": sae.sha256,
        "sae_licence": sae.licence,
        "hookpoint": str(representer.reader.hookpoint),
        "unit": representer.unit,
        "seed": config.seed,
        "is_demo": config.model.name == DEMO,
        "counts": dict(facts.counts),
    }


def _versions() -> dict[str, str]:
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


def _git_sha() -> str | None:
    """Commit of the checkout that the code runs from, if it is one."""
    here = Path(__file__).resolve().parent
    try:
        done = subprocess.run(
            ["git", "rev-parse", "HEAD"], cwd=here, capture_output=True, text=True, check=False
        )
    except OSError:  # no git on this machine
        return None
    return done.stdout.strip() or None


def _drops(material: Material) -> list[Row]:
    """Rows dropped while reading, then examples dropped before ranking, by reason."""
    run_id = material.facts.run_id
    read = [("read", reason, n) for reason, n in material.pool.drops.items()]
    race = [("filter", str(reason), n) for reason, n in material.race.drops.items()]
    return [
        {"run_id": run_id, "stage": stage, "reason": str(reason), "n": n}
        for stage, reason, n in read + race
        if n
    ]


def _sources(material: Material) -> list[Row]:
    counts = material.pool.source_counts(material.race.eligible, material.config.where)
    run_id = material.facts.run_id
    return [{"run_id": run_id, "source": name, "n_pool": n} for name, n in counts.items()]


def _exemplars(material: Material) -> list[Row]:
    rows = []
    for name, (table, _) in material.targets.items():
        for row in table.to_pylist():
            rows.append(
                {
                    "run_id": material.facts.run_id,
                    "exemplar_id": row["example_id"],
                    "target": name,
                    "subtask": row["subtask"],
                    "own_id": row["own_id"],
                    "source": row["source"],
                    "file": row["file"],
                    "row": row["row"],
                    "messages": row["messages"],
                    "text": _text(row),
                }
            )
    return rows


def _text(row: Mapping[str, str]) -> str:
    tools = json.loads(row["tools"]) if row["tools"] else None
    return plain_text(json.loads(row["messages"]), tools)


def _top(decided: Decided) -> pa.Table:
    """The picks and the near misses of a selection, in order of rank."""
    wanted = decided.cut.n_selected + NEAR_MISSES
    batches, found = [], 0
    for batch in pq.ParquetFile(decided.scores_file).iter_batches(min(65_536, wanted)):
        batches.append(batch)
        found += batch.num_rows
        if found >= wanted:
            break
    return pa.Table.from_batches(batches).slice(0, wanted)


def _picks(material: Material, top: pa.Table, tokens: NDArray[np.int64]) -> list[Row]:
    texts = [_text(row) for row in _examples(material, top["example_row"].to_numpy())]
    columns = (top[name].to_pylist() for name in ("selection_id", "rank", "target", "example_id"))
    scores = top["score"].to_pylist()
    names = ("selection_id", "rank", "target", "example_id", "score", "tokens", "text")
    values = zip(*columns, scores, tokens.tolist(), texts, strict=True)
    return [dict(zip(names, row, strict=True)) for row in values]


def _examples(material: Material, rows: NDArray[np.int64]) -> list[dict[str, str]]:
    found: list[dict[str, str]] = material.pool.examples_at(rows).to_pylist()
    return found


def _selection(material: Material, decided: Decided, tokens: NDArray[np.int64]) -> Row:
    config, cut = material.config, decided.cut
    is_ours = decided.method == "jaccard"
    scores = pq.read_table(decided.scores_file, columns=["score"])["score"]
    return {
        "selection_id": decided.selection_id,
        "run_id": material.facts.run_id,
        "name": decided.name,
        "target": decided.target,
        "method": decided.method,
        "role": decided.role,
        "exemplar_reduction": config.ranking.exemplar_reduction if is_ours else None,
        "weights": config.ranking.weights if is_ours else None,
        "budget": config.budget.model_dump(exclude_none=True),
        "n_eligible": decided.n_eligible,
        "n_selected": cut.n_selected,
        "n_tokens": int(tokens.sum()),
        "unused_tokens": cut.unused_tokens,
        "cut_score": scores[cut.n_selected - 1].as_py() if cut.n_selected else None,
        "curve": decided.curve,
        "lengths": _lengths(material, tokens),
    }


def _lengths(material: Material, tokens: NDArray[np.int64]) -> Row:
    """Histograms of tokens of the eligible pool and of the picks."""
    eligible = np.flatnonzero(material.race.eligible)
    pool = np.zeros(len(LENGTH_EDGES) - 1, np.int64)
    for first in range(0, len(eligible), 65_536):
        lengths = material.token_count(eligible[first : first + 65_536])
        pool += np.histogram(lengths, LENGTH_EDGES)[0]
    picked = np.histogram(tokens, LENGTH_EDGES)[0]
    used = np.flatnonzero(pool + picked)
    last = int(used[-1]) + 1 if len(used) else 1
    return {
        "edges": LENGTH_EDGES[: last + 1],
        "pool": pool[:last].tolist(),
        "selected": picked[:last].tolist(),
    }


def _why(material: Material, decided: Decided, top: pa.Table) -> Iterable[Row]:
    """Shared latents of each pick with its nearest exemplar of its own target."""
    picks = top.slice(0, decided.cut.n_selected)
    owners = np.array(picks["target"].to_pylist())
    rows, ids = picks["example_row"].to_numpy(), np.array(picks["example_id"].to_pylist())
    space = str(material.representer.reader.hookpoint)
    found: list[Row] = []
    for target, (_, exemplars) in material.targets.items():
        mine = np.flatnonzero(owners == target)
        if not len(mine):
            continue
        pairs = explain_pairs(
            material.vectors.gather(rows[mine]),
            exemplars.rows,
            material.race.weights,
            top=material.config.explain_top,
        )
        found += [
            {
                "selection_id": decided.selection_id,
                "example_id": str(ids[mine[pair["candidate"]]]),
                "exemplar_id": str(exemplars.ids[pair["exemplar"]]),
                "space": space,
                "latent": pair["latent"],
                "contribution": pair["contribution"],
                "numerator": pair["numerator"],
                "share": pair["share"],
            }
            for pair in pairs.to_pylist()
        ]
    return found


def _samples(material: Material, rows: NDArray[np.int64]) -> list[Row]:
    return [
        {name: row[name] for name in ("example_id", "messages", "tools")}
        for row in _examples(material, rows)
    ]


def _occurrences(material: Material, rows: NDArray[np.int64]) -> list[Row]:
    """Every place that a shown example comes from and that passes `where`."""
    table = material.pool.passing_occurrences(rows, material.config.where)
    names = ("example_id", "own_id", "source", "file", "row", "licence", "language", "group", "raw")
    run_id = material.facts.run_id
    return [{"run_id": run_id, **{name: row[name] for name in names}} for row in table.to_pylist()]


def _descriptions(material: Material) -> list[Row]:
    """What the packaged latents respond to, as far as it was described."""
    file = Path(packaged(f"{DEMO}:latents.json"))
    if material.config.sae.path != DEMO or not file.exists():
        return []
    sae = material.representer.coder.info.sha256
    texts: dict[str, str] = json.loads(file.read_text(encoding="utf-8"))
    return [
        {"sae": sae, "latent": int(latent), "description": text} for latent, text in texts.items()
    ]


def _artifacts(material: Material) -> list[Row]:
    """The chain from files to selections, each with the hash that names its content."""
    run_id, representer = material.facts.run_id, material.representer
    pool_id, shards = material.pool.pool_id, representer.representation_id
    rows: list[tuple[str, str, str | None, str | None]] = [
        ("read", str(file["file"]), str(file["sha256"]), None) for file in material.pool.files
    ]
    rows += [("prepare", f"pools/{pool_id}", pool_id, name) for _, name, _, _ in rows]
    for name, (table, _) in material.targets.items():
        ids = content_id(table["example_id"].to_pylist(), 64)
        rows.append(("exemplars", f"target {name}", ids, material.config.exemplars.path))
    model, sae = representer.reader.model, representer.coder.info
    rows.append(("represent", f"model {model.name}", model.weights_sha256, None))
    rows.append(("represent", f"sae {representer.sae}", sae.sha256, f"model {model.name}"))
    rows.append(("represent", f"shards/{shards}", shards, f"pools/{pool_id}"))
    rows.append(("rank", "weights", _sha256(material.race.weights), f"shards/{shards}"))
    for decided in material.decided:
        top = _top(decided).slice(0, decided.cut.n_selected)
        picked = content_id([top["example_id"].to_pylist(), top["score"].to_pylist()], 64)
        rows.append(("select", decided.selection_id, picked, f"shards/{shards}"))
    names = ("step", "artifact", "sha256", "parent")
    return [{"run_id": run_id, **dict(zip(names, row, strict=True))} for row in rows]


def _sha256(array: NDArray[np.int64]) -> str:
    import hashlib

    return hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
