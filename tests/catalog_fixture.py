"""A catalog as a run leaves it: one real run of the tiny model, renamed and extended for tests.

The run is made once for all test processes of a session; stages, reasons, counts and scores are
the product's. What a test needs beyond it is put into the real rows by the functions below.
"""

import atexit
import fcntl
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from selection.core.hashing import canonical_json, content_id, example_id
from storage.catalog.arrow_rows import to_arrow
from storage.catalog.commit import commit
from storage.files.workspace import Workspace, open_workspace

SOURCES = {"grade-school-math": 42, "code-exercises": 39, "open-chat": 31, "translation": 8}
LICENCES = {
    "grade-school-math": "mit",
    "code-exercises": "apache-2.0",
    "open-chat": "cc-by-nc-4.0",
}
HOSTILE = "</script><script>alert('x')</script> & <b>bold</b> {{ 7 * 7 }}"
SPACE = "resid@2"
DESCRIPTIONS = {
    latent: ("step-by-step arithmetic with a final answer", "amounts of money and change", "")[
        latent % 3
    ]
    for latent in range(0, 64, 2)
}
N_POOL, N_SELECTED, N_NEAR = 320, 120, 50
OF_THE_CATALOG = {"catalog_commit", "redaction", "recorded_file", "forgotten", "export"}
"""Tables that a commit fills by itself, and later commands."""

Rows = list[dict[str, Any]]


@dataclass(frozen=True, eq=False)  # hashed by identity, for the cache of workspaces
class MadeExample:
    """One example of the pool, with what its row says about it."""

    messages: list[dict[str, object]]
    tools: list[object] | None
    source: str
    row: int

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
        licence = json.dumps(LICENCES.get(self.source))
        columns = f'"source": "{self.source}", "licence": {licence}'
        language = "fr" if self.source == "translation" else "en"
        return (
            f'{{"id": "{self.source}-{self.row}",  "quality": 1.0, "messages": {messages},'
            f' {columns}, "language": "{language}"}}'
        )


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
    return MadeExample(messages, None, source, number + 1)


def hostile_example() -> MadeExample:
    """A text that tries to leave the page, with line separators and a long unbroken word."""
    content = f"{HOSTILE}\u2028line\tseparator " + "A" * 400
    messages: list[dict[str, object]] = [
        {"role": "user", "content": content},
        {"role": "assistant", "content": 'Ä "quoted" answer\\ with 🙂'},
    ]
    return MadeExample(messages, None, "open-chat", 90_001)


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
    return MadeExample(messages, tools, "open-chat", 90_002)


def make_tables(
    name: str = "calm-otter",
    *,
    target: str = "gsm8k",
    n_selected: int = N_SELECTED,
    n_near: int = N_NEAR,
    seed: int = 0,
    extra: tuple[MadeExample, ...] = (hostile_example(),),
    is_demo: bool = False,
    created_at: datetime = datetime(2026, 11, 23, 9, 30, tzinfo=UTC),
) -> dict[str, pa.Table]:
    """All tables of one run: a main selection named `name`, with random and bm25 beside it.

    seed: part of the ids of run and selections. extra: examples that take the place of the first
    picks. Every selection is cut to its first n_selected picks and n_near near misses.
    """
    tables = _read_run()
    run_id = content_id(["run", name, seed])
    renamed = {str(_one(tables["run"])["run_id"]): run_id}
    names = {}
    for number, row in enumerate(tables["selection"], start=1):
        renamed[row["selection_id"]] = f"{run_id}-{number}"
        names[row["name"]] = name if row["role"] == "main" else f"{name}-{row['method']}"
    main = next(row["selection_id"] for row in tables["selection"] if row["role"] == "main")
    _cut(tables, n_selected, n_near)
    for example, old in zip(extra, _best_picks(tables, main), strict=False):
        _replace(tables, old, example)
    delay = created_at - _one(tables["run"])["created_at"].replace(tzinfo=UTC)
    for rows in tables.values():
        for row in rows:
            for column, value in row.items():
                if isinstance(value, datetime):
                    row[column] = value.replace(tzinfo=UTC) + delay
                elif column in ("run_id", "selection_id") or (column, value) in (
                    ("artifact", main),
                    ("parent", main),
                ):
                    row[column] = renamed.get(value, value)
                elif column == "target" and value == "gsm8k":
                    row[column] = target
    for row in tables["selection"]:
        row["name"] = names[row["name"]]
    _one(tables["run"]).update(name=name, is_demo=is_demo)
    return {table: to_arrow(table, rows) for table, rows in tables.items()}


def with_many_picks(tables: dict[str, pa.Table], n: int) -> dict[str, pa.Table]:
    """The main selection alone, its picks copied under new ids until there are n of them."""
    rows: dict[str, Rows] = {name: table.to_pylist() for name, table in tables.items()}
    (main,) = (row for row in rows["selection"] if row["role"] == "main")
    picks = [row for row in rows["pick"] if row["selection_id"] == main["selection_id"]]
    belonging: dict[str, dict[str, Rows]] = {"sample": {}, "occurrence": {}}
    belonging |= {name: {} for name in rows if "nearness" in tables[name].column_names}
    for name, of_example in belonging.items():
        for row in rows[name]:
            if row.get("nearness", 1) == 1:
                of_example.setdefault(row["example_id"], []).append(row)
        rows[name] = []
    rows |= {"selection": [main | {"n_selected": n, "n_eligible": n}], "pick": [], "near_miss": []}
    for number in range(n):
        pick = picks[number % len(picks)]
        new = content_id(["copy", number], 32)
        rows["pick"].append(
            pick | {"rank": number + 1, "score_rank": number + 1, "example_id": new}
        )
        for name, of_example in belonging.items():
            old = of_example[pick["example_id"]]
            rows[name] += [
                row | {"example_id": new}
                for row in old
                if row.get("selection_id") in (None, main["selection_id"])
            ]
    others = rows.keys() - {"pick", *belonging}
    for name in others:
        rows[name] = [
            row for row in rows[name] if row.get("selection_id") in (None, main["selection_id"])
        ]
    return {name: to_arrow(name, values) for name, values in rows.items()}


def write_scores(workspace: Workspace, tables: Mapping[str, pa.Table]) -> None:
    """The Parquet files of all scores that a run leaves beside the catalog."""
    workspace.scores.mkdir(exist_ok=True)
    selections = tables["selection"].to_pylist()
    for old, row in zip(_read_run()["selection"], selections, strict=True):
        scores = pq.read_table(_real_run() / "scores" / f"{old['selection_id']}.parquet")
        ids = pa.array([row["selection_id"]] * len(scores))
        scores = scores.set_column(
            scores.schema.get_field_index("selection_id"), "selection_id", ids
        )
        pq.write_table(scores, workspace.scores / f"{row['selection_id']}.parquet")


def made_workspace(root: Path, **options: object) -> Workspace:
    """A workspace with the run in its catalog; options as for `make_tables`."""
    shutil.copytree(_template(**options), root, dirs_exist_ok=True)
    return open_workspace(root)


@cache
def _template(**options: object) -> Path:
    """Committing costs more than copying: each workspace is committed once per process."""
    folder = _temporary_folder()
    commit(open_workspace(folder), make_tables(**options))  # type: ignore[arg-type]
    return folder


def _temporary_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="catalog-fixture-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _one(rows: Rows) -> dict[str, Any]:
    (row,) = rows
    return row


def _best_picks(tables: Mapping[str, Rows], selection_id: str) -> list[str]:
    picks = [row for row in tables["pick"] if row["selection_id"] == selection_id]
    return [row["example_id"] for row in sorted(picks, key=lambda row: row["rank"])]


def _cut(tables: dict[str, Rows], n_selected: int, n_near: int) -> None:
    """Keep the first picks and near misses of every selection, and what belongs to them."""
    for row in tables["selection"]:
        if n_selected < row["n_selected"]:
            picks = [p for p in tables["pick"] if p["selection_id"] == row["selection_id"]]
            kept = [pick for pick in picks if pick["rank"] <= n_selected]
            row |= {"n_selected": n_selected, "n_tokens": sum(pick["tokens"] for pick in kept)}
            row |= {"cut_score": min(pick["score"] for pick in kept)}
            row |= {"budget": {**json.loads(row["budget"]), "examples": n_selected}}
    run = _one(tables["run"])
    config = json.loads(run["config"])
    config["budget"]["examples"] = min(n_selected, N_SELECTED)
    run["config"] = config
    last = n_selected + n_near
    later = [row for row in tables["pick"] if n_selected < row["rank"] <= last]
    near = [
        {column: value for column, value in row.items() if column not in ("reason", "detail")}
        for row in later
    ]
    tables["pick"] = [row for row in tables["pick"] if row["rank"] <= n_selected]
    tables["near_miss"] = [*near, *(r for r in tables["near_miss"] if r["rank"] <= last)]
    shown = [*tables["pick"], *tables["near_miss"]]
    pairs = {(row["selection_id"], row["example_id"]) for row in shown}
    examples = {row["example_id"] for row in shown}
    for name in ("sample", "occurrence"):
        tables[name] = [row for row in tables[name] if row["example_id"] in examples]
    for name in tables.keys() - {"pick", "near_miss", "selection_drop", "contamination"}:
        rows = tables[name]
        if rows and {"selection_id", "example_id"} <= rows[0].keys():
            kept = [row for row in rows if (row["selection_id"], row["example_id"]) in pairs]
            tables[name] = kept


def _replace(tables: dict[str, Rows], old: str, example: MadeExample) -> None:
    """Put an example in the place of another one, wherever the run names it."""
    if "token_activations" in tables:  # character positions of the other text
        marks = tables["token_activations"]
        tables["token_activations"] = [row for row in marks if row["example_id"] != old]
    for rows in tables.values():
        for row in rows:
            if row.get("example_id") == old:
                row["example_id"] = example.id
                if "messages" in row:
                    tools = None if example.tools is None else canonical_json(example.tools)
                    row |= {"messages": canonical_json(example.messages), "tools": tools}
                if "text" in row:
                    row["text"] = example.text
                if "raw" in row:
                    row["raw"] = example.raw


def _read_run() -> dict[str, Rows]:
    """Table -> rows of the real run, the caller's own."""
    return {file.stem: pq.read_table(file).to_pylist() for file in _real_run().glob("*.parquet")}


@cache
def _real_run() -> Path:
    """Folder with the tables of the real run and its scores; computed by whoever is first."""
    variable = "SAELECT_TEST_RUN"  # child processes of a test find the run of their parent
    if variable not in os.environ:
        session = os.environ.get("PYTEST_XDIST_TESTRUNUID", "")
        shared = Path(tempfile.gettempdir()) / f"catalog-fixture-{session}"
        os.environ[variable] = str(shared if session else _temporary_folder())
    folder = Path(os.environ[variable])
    folder.mkdir(exist_ok=True)
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "tables").is_dir():
            _compute_run(folder)
    return folder / "tables"


def _compute_run(folder: Path) -> None:
    from tests.run_stages import run_job, tiny_config  # torch, for whoever computes it

    model, sae = _write_model(folder)
    exemplars = _write_pool(folder / "data")
    config = tiny_config(
        folder / "data",
        {"path": str(exemplars), "targets": ["gsm8k"]},
        model,
        sae,
        name="calm-otter",
        pool=[
            {
                "path": str(folder / "data"),
                "columns": {
                    "id": "id",
                    "source": "source",
                    "licence": "licence",
                    "language": "language",
                },
            }
        ],
        where="quality > 0.5",
        budget={"examples": N_SELECTED},
        controls=["random", "bm25"],
        rendering={"max_length": 512},
        representation={"spaces": ["sae", "tokens"]},
        ranking={"normalize": "pool", "weights": "idf"},
    )
    workspace, _ = run_job(config, folder / "workspace")
    unfinished = folder / "unfinished"
    shutil.rmtree(unfinished, ignore_errors=True)
    shutil.copytree(workspace.scores, unfinished / "scores")
    for name, table in _catalog_tables(workspace, folder).items():
        pq.write_table(table, unfinished / f"{name}.parquet")
    unfinished.rename(folder / "tables")


def _write_model(folder: Path) -> tuple[Path, Path]:
    """The tiny model and its SAE, half of whose latents have descriptions."""
    from selection.sae.formats.load import load_sae
    from selection.sae.interpret.latents_file import FILE, write_latents
    from tests.tiny_model import (
        TINY_HOOKPOINT,
        make_tiny_tokenizer,
        write_tiny_model,
        write_tiny_sae,
    )

    model = write_tiny_model(folder / "model", make_tiny_tokenizer())
    sae = write_tiny_sae(folder / "sae" / TINY_HOOKPOINT)
    rows = [{"latent": latent, "description": text} for latent, text in DESCRIPTIONS.items()]
    write_latents(sae / FILE, rows, {"sae_sha256": load_sae(str(sae)).info.sha256})
    return model, sae


def _write_pool(folder: Path) -> Path:
    """One file a source, a mirror of every tenth row, rows that are dropped; returns exemplars."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    unnamed = {"source": "mirror", "licence": None}
    lines: dict[str, list[str]] = {"mirror": []}
    for number in range(N_POOL):
        example = make_example(number, rng)
        lines.setdefault(example.source, []).append(example.raw)
        if number % 10 == 0:
            mirrored = {**json.loads(example.raw), "id": f"mirror-{number}", **unnamed}
            lines["mirror"].append(json.dumps(mirrored))
    exemplars = [make_example(1000 + i, rng, "grade-school-math") for i in range(8)]
    low = [make_example(2000 + i, rng, "open-chat") for i in range(23)]
    lines["open-chat"] += [each.raw.replace('"quality": 1.0', '"quality": 0.2') for each in low]
    lines["open-chat"].append(exemplars[0].raw)
    empty = [{"role": "user", "content": ""}, {"role": "assistant", "content": ""}]
    picture = [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "a.png"}}]}]
    for kind, number, messages in (("empty", 14, empty), ("picture", 6, picture)):
        rows = [{"id": f"{kind}-{i}", "messages": messages, "source": kind} for i in range(number)]
        lines["code-exercises"] += map(json.dumps, rows)
    for source, rows_of_source in lines.items():
        (folder / f"{source}.jsonl").write_text("\n".join(rows_of_source) + "\n")
    target = {
        "target": "gsm8k",
        "exemplars": [
            {"id": f"exemplar-{each.row}", "messages": each.messages} for each in exemplars
        ],
    }
    file = folder.parent / "targets.jsonl"
    file.write_text(json.dumps(target) + "\n")
    return file


def _catalog_tables(workspace: Workspace, folder: Path) -> dict[str, pa.Table]:
    """Every table of the published catalog that a run fills; paths relative to the folder."""
    from storage.catalog.snapshot import open_snapshot

    tables = {}
    with open_snapshot(workspace) as connection:
        names = connection.execute("SELECT table_name FROM duckdb_tables()").fetchall()
        for (name,) in sorted(names):
            if name not in OF_THE_CATALOG and not name.startswith("benchmark"):
                answer = connection.execute(f'FROM "{name}"')
                columns = [column[0] for column in answer.description or ()]
                rows = [
                    {
                        name: _without_folder(value, folder)
                        for name, value in zip(columns, row, strict=True)
                    }
                    for row in answer.fetchall()
                ]
                rows = [row for row in rows if row.get("action") != "exported"]
                tables[name] = to_arrow(name, rows)
    return tables


def _without_folder(value: object, folder: Path) -> object:
    return value.replace(f"{folder}/", "") if isinstance(value, str) else value
