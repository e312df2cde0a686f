"""The catalog at size: write time, bytes, and every question of docs/reference/questions.md.

`python -m benchmarks.catalog` makes up one run of 500,000 picks with 20 contributions each beside
10 million scores, commits it as a run does, and asks every question twice: the published snapshot
through `saelect sql`'s code, and the same SQL over plain Parquet files in DuckDB. Beside the time
on the clock stands that of the processors, which other work on the machine changes less. `--quick`
is a tenth of it. The last line is one JSON object.
"""

import argparse
import json
import os
import re
import statistics
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from storage.catalog.arrow_rows import to_arrow
from storage.catalog.commit import commit
from storage.catalog.connection import connect_in_memory
from storage.files.workspace import Workspace, open_workspace
from storage.queries.sql import run_sql

PAGE = Path(__file__).resolve().parent.parent / "docs/reference/questions.md"
QUESTIONS = dict(re.findall(r"^## (.+?)\n.*?```sql\n(.+?)```", PAGE.read_text(), re.S | re.M))
RUN, MAIN, OTHER = "r" * 16, "r" * 16 + "-1", "r" * 16 + "-2"
N_EXEMPLARS, N_LATENTS, N_WHY = 50, 4096, 20


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--picks", type=int, help="another size; scores are 20 times as many")
    options = parser.parse_args()
    n_picks = options.picks or (50_000 if options.quick else 500_000)
    n_scores = 20 * n_picks
    with tempfile.TemporaryDirectory() as folder:
        workspace = open_workspace(Path(folder))
        tables = make_tables(n_picks)
        write_scores(workspace, n_scores)
        started = time.perf_counter()
        commit(workspace, tables)
        seconds = time.perf_counter() - started
        plain = open_parquet(workspace, Path(folder))
        times = {question: measure(workspace, plain, question) for question in QUESTIONS}
        size = workspace.snapshot.stat().st_size
        parquet = sum(p.stat().st_size for p in (Path(folder) / "plain").iterdir())
    print(f"{n_picks:,} picks x {N_WHY} contributions, {n_scores:,} scores; load {os.getloadavg()}")
    print(
        f"commit and publish {seconds:.1f} s, {size / 1e6:,.0f} MB (Parquet {parquet / 1e6:,.0f})"
    )
    print(f"{'question':<66} {'catalog':>9} {'Parquet':>9} {'CPU':>7} {'CPU':>7}")
    for question, row in times.items():
        saelect, baseline, saelect_cpu, baseline_cpu = row
        print(
            f"{question[:66]:<66} {saelect:>7.2f} s {baseline:>7.2f} s"
            f" {saelect_cpu:>7.2f} {baseline_cpu:>7.2f}"
        )
    ours_all, theirs_all, cpu_all, _ = zip(*times.values(), strict=True)
    facts = {
        "picks": n_picks,
        "scores": n_scores,
        "commit_s": round(seconds, 2),
        "bytes": size,
        "parquet_bytes": parquet,
        "slowest_question_s": round(max(ours_all), 3),
        "median_question_s": round(statistics.median(ours_all), 3),
        "median_parquet_s": round(statistics.median(theirs_all), 3),
        "slowest_question_cpu_s": round(max(cpu_all), 3),
    }
    print(json.dumps(facts))


def measure(
    workspace: Workspace, plain: duckdb.DuckDBPyConnection, question: str
) -> tuple[float, float, float, float]:
    """Seconds of a question on the snapshot and on Parquet, by clock, then of the processors.

    The middle of three, in turn.
    """
    query = QUESTIONS[question].replace("'SELECTION'", "'big'").replace("'OTHER'", "'big-random'")
    query = query.replace("'EXEMPLAR'", f"'{'e' * 30}07'").replace("'OWN-ID'", "'own-77'")
    query = query.replace("'WORDS'", "'number 77 '")
    rows = []
    for _ in range(3):
        start, start_cpu = time.perf_counter(), time.process_time()
        run_sql(workspace, query, max_rows=1000)
        middle, middle_cpu = time.perf_counter(), time.process_time()
        plain.execute(query).fetchmany(1000)
        end, end_cpu = time.perf_counter(), time.process_time()
        rows.append((middle - start, end - middle, middle_cpu - start_cpu, end_cpu - middle_cpu))
    saelect, baseline, saelect_cpu, baseline_cpu = map(statistics.median, zip(*rows, strict=True))
    return saelect, baseline, saelect_cpu, baseline_cpu


def make_tables(n: int) -> dict[str, pa.Table]:
    """One run: a main selection of n picks, explained, and a random control of as many."""
    rng = np.random.default_rng(0)
    now = datetime.now(UTC)
    ids = np.array([f"{i:032x}" for i in range(2 * n + 1000)])
    scores = np.sort(rng.random(2 * n + 1000))[::-1]
    run = {
        "run_id": RUN,
        "name": "big",
        "created_at": now,
        "config": {},
        "sae_sha256": "s",
        "data_licences": {"mit": 9, "": 1},
    }
    both = [
        {
            "selection_id": key,
            "run_id": RUN,
            "name": name,
            "target": "t",
            "method": "jaccard",
            "role": role,
            "n_eligible": 10 * n,
            "n_selected": n,
            "n_tokens": 100 * n,
            "cut_score": float(scores[n - 1]),
            "budget": {"examples": n},
        }
        for key, name, role in ((MAIN, "big", "main"), (OTHER, "big-random", "control"))
    ]
    exemplars = [
        {
            "run_id": RUN,
            "exemplar_id": f"{'e' * 30}{i:02}",
            "target": "t",
            "messages": "[]",
            "text": "x",
        }
        for i in range(N_EXEMPLARS)
    ]
    picks = [_ranked(MAIN, ids[:n], scores, 1), _ranked(OTHER, ids[n // 2 : n // 2 + n], scores, 1)]
    return {
        "run": to_arrow("run", [run]),
        "selection": to_arrow("selection", both),
        "exemplar": to_arrow("exemplar", exemplars),
        "pick": pa.concat_tables(picks),
        "near_miss": _ranked(MAIN, ids[n : n + 1000], scores[n:], n + 1),
        "sample": _samples(ids),
        "occurrence": _occurrences(ids, rng),
        **_why(ids[:n], rng),
        "latent_description": to_arrow(
            "latent_description",
            [{"sae": "s", "latent": i, "description": f"latent {i}"} for i in range(N_LATENTS)],
        ),
        "run_source": to_arrow(
            "run_source", [{"run_id": RUN, "source": f"source-{i}", "n_pool": n} for i in range(12)]
        ),
        "event": to_arrow("event", [{"at": now, "run_id": RUN, "action": "selected"}]),
    }


def _texts(ids: np.ndarray) -> list[str]:
    return [f"Question number {int(i, 16)} about trains. " * 6 for i in ids]


def _ranked(selection: str, ids: np.ndarray, scores: np.ndarray, first: int) -> pa.Table:
    n = len(ids)
    return pa.table(
        {
            "selection_id": pa.repeat(pa.scalar(selection), n),
            "rank": np.arange(first, first + n),
            "target": pa.repeat(pa.scalar("t"), n),
            "example_id": pa.array(ids.tolist()),
            "score": scores[:n].copy(),
            "tokens": np.full(n, 100),
            "text": _texts(ids),
            "score_rank": np.arange(first, first + n),
        }
    )


def _samples(ids: np.ndarray) -> pa.Table:
    messages = [json.dumps([{"content": text, "role": "user"}]) for text in _texts(ids)]
    return pa.table({"example_id": ids.tolist(), "messages": messages})


def _occurrences(ids: np.ndarray, rng: np.random.Generator) -> pa.Table:
    n = len(ids)
    sources = [f"source-{i}" for i in rng.integers(0, 12, n)]
    return pa.table(
        {
            "run_id": pa.repeat(pa.scalar(RUN), n),
            "example_id": ids.tolist(),
            "own_id": [f"own-{i}" for i in range(n)],
            "source": sources,
            "file": [f"{source}.jsonl" for source in sources],
            "row": np.arange(1, n + 1),
            "licence": ["mit" if i % 3 else "cc-by-4.0" for i in range(n)],
        }
    )


def _why(ids: np.ndarray, rng: np.random.Generator) -> dict[str, pa.Table]:
    n = len(ids)
    nearest = rng.integers(0, N_EXEMPLARS, n)
    names = np.array([f"{'e' * 30}{i:02}" for i in range(N_EXEMPLARS)])
    parts = rng.integers(1, 90_000, n * N_WHY)
    totals = np.repeat(parts.reshape(n, N_WHY).sum(axis=1), N_WHY)
    why = pa.table(
        {
            "selection_id": pa.repeat(pa.scalar(MAIN), n * N_WHY),
            "example_id": np.repeat(ids, N_WHY).tolist(),
            "exemplar_id": np.repeat(names[nearest], N_WHY).tolist(),
            "space": pa.repeat(pa.scalar("resid@4"), n * N_WHY),
            "exemplar_rank": np.ones(n * N_WHY, int),
            "position": np.tile(np.arange(1, N_WHY + 1), n),
            "latent": rng.integers(0, N_LATENTS, n * N_WHY),
            "contribution": parts,
            "numerator": totals,
            "share": parts / totals,
            "pool_share": rng.random(n * N_WHY),
        }
    )
    near = pa.table(
        {
            "selection_id": pa.repeat(pa.scalar(MAIN), 2 * n),
            "example_id": np.repeat(ids, 2).tolist(),
            "exemplar_rank": np.tile([1, 2], n),
            "exemplar_id": pa.array(np.repeat(names[nearest], 2), mask=np.tile([False, True], n)),
            "n": np.tile([1, N_EXEMPLARS - 1], n),
            "similarity": rng.random(2 * n),
            "part": rng.integers(1, 2**40, 2 * n),
        }
    )
    return {"explanation": why, "explanation_exemplar": near}


def write_scores(workspace: Workspace, n: int) -> None:
    """The bulk scores beside the catalog, in pieces of a million."""
    workspace.scores.mkdir()
    ids = pa.array([f"{i:032x}" for i in range(n)])
    table = pa.table(
        {
            "selection_id": pa.repeat(pa.scalar(MAIN), n),
            "example_id": ids,
            "score": np.linspace(1, 0, n),
            "rank": np.arange(1, n + 1),
        }
    )
    pq.write_table(table, workspace.scores / f"{MAIN}.parquet", compression="zstd")


def open_parquet(workspace: Workspace, folder: Path) -> duckdb.DuckDBPyConnection:
    """The same tables as Parquet files, with the catalog's views over them."""
    (folder / "plain").mkdir()
    plain = connect_in_memory()
    with duckdb.connect(str(workspace.snapshot), read_only=True) as connection:
        tables = connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()
        for (name,) in tables:
            path = folder / "plain" / f"{name}.parquet"
            connection.execute(f"COPY (FROM \"{name}\") TO '{path}' (FORMAT parquet)")
            plain.execute(f"CREATE VIEW \"{name}\" AS FROM read_parquet('{path}')")
        views = connection.execute("SELECT sql FROM duckdb_views() WHERE NOT internal").fetchall()
    for (sql,) in sorted(views, key=lambda row: "v_" in row[0].split(" AS ", 1)[1]):
        plain.execute(sql)
    return plain


if __name__ == "__main__":
    main()
