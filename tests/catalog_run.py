"""The pool of the catalog fixture, and the one real run over it, made once a session."""

import atexit
import fcntl
import json
import os
import shutil
import tempfile
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from selection.core.hashing import example_id
from storage.catalog.arrow_rows import to_arrow
from storage.files.workspace import Workspace

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


def read_run() -> dict[str, Rows]:
    """Table -> rows of the real run, the caller's own."""
    return {file.stem: pq.read_table(file).to_pylist() for file in real_run().glob("*.parquet")}


@cache
def real_run() -> Path:
    """Folder with the tables of the real run and its scores; computed by whoever is first."""
    variable = "SAELECT_TEST_RUN"  # child processes of a test find the run of their parent
    if variable not in os.environ:
        session = os.environ.get("PYTEST_XDIST_TESTRUNUID", "")
        shared = Path(tempfile.gettempdir()) / f"catalog-fixture-{session}"
        os.environ[variable] = str(shared if session else temporary_folder())
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


def temporary_folder() -> Path:
    folder = Path(tempfile.mkdtemp(prefix="catalog-fixture-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder
