"""Every case through `init`, `run --dry-run` and one run of all pools: what became of its rows.

python -m tests.cases.table      prints the table; it ends with 1 where a row is not accounted for
"""

import io
import json
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flows.cli.init import init_config
from flows.config.load import load_config, resolve
from flows.orchestration.terminal import print_table
from flows.stages.estimate import estimate_run
from flows.stages.estimate_lines import estimate_lines
from selection.core.errors import InputError
from storage.files.workspace import open_workspace
from storage.pools.prepare import prepare_pool
from tests.cases.case import Case
from tests.cases.compared import COMPARED_CASES
from tests.cases.containers import CONTAINER_CASES
from tests.cases.published import PUBLISHED_CASES
from tests.cases.shapes import SHAPE_CASES
from tests.cases.talks import expected, flat
from tests.run_stages import run_job
from tests.tiny_model import make_tiny_tokenizer, write_tiny_model, write_tiny_sae

CASES = (*SHAPE_CASES, *CONTAINER_CASES, *PUBLISHED_CASES, *COMPARED_CASES)


@dataclass(frozen=True)
class Model:
    """Folders of the model and the SAE, and the exemplars that every case is run with."""

    model: Path
    sae: Path
    exemplars: Path


def tiny_model_in(folder: Path) -> Model:
    """A tiny model with its SAE, and two exemplars."""
    folder.mkdir(parents=True, exist_ok=True)
    exemplars = folder / "exemplars.jsonl"
    rows = [{"question": f"Is {i} even?", "answer": "Yes." if i % 2 == 0 else "No."}
            for i in range(4)]  # fmt: skip
    exemplars.write_text("".join(json.dumps(row) + "\n" for row in rows))
    model = write_tiny_model(folder / "model", make_tiny_tokenizer())
    return Model(model, write_tiny_sae(folder / "sae" / "layers.2"), exemplars)


def through_init(case: Case, pool: Path, folder: Path, with_: Model) -> tuple[str, str]:
    """What `init` said of a case, and what `run --dry-run` made of its config."""
    config = folder / "saelect.yaml"
    names = {"model": str(with_.model), "sae": str(with_.sae)}
    with redirect_stdout(io.StringIO()) as output:
        try:
            init_config(str(pool), str(with_.exemplars), config, **names, force=True)
        except InputError as error:
            return f"refused: {error.problem}", "-"
    printed = output.getvalue().splitlines()
    init = next(line for line in printed if line.startswith("pool")).split(": ", 1)[1]
    try:
        lines = estimate_lines(
            estimate_run(load_config(config), open_workspace(folder / "workspace"))
        )
    except InputError as error:
        return init, f"refused: {error}"
    return init, next(line.strip() for line in lines if "rows " in line)


def read_counts(case: Case, pool: Path, folder: Path) -> tuple[int, int, Counter[str]]:
    """Rows read, examples and drops of the case's prepared pool."""
    config = resolve(
        {"pool": {"path": str(pool), **case.settings}, "exemplars": "x", "budget": {"examples": 1},
         "model": "x", "sae": "x"}
    )  # fmt: skip
    prepared = prepare_pool([config.pool[0].as_source()], folder / "pools")
    return prepared.n_rows, prepared.n_occurrences, Counter(prepared.drops)


def pooled_run(
    cases: Sequence[Case], pools: Sequence[Path], folder: Path, with_: Model, **budget: Any
) -> str:
    """One run over all pools at the whole budget; what differs from the sources, "" for nothing.

    budget: further keys of the config's section.
    """
    config = resolve(
        {
            "name": "cases",
            "pool": [
                {"path": str(pool), "name": f"case-{number}", **case.settings}
                for number, (case, pool) in enumerate(zip(cases, pools, strict=True))
            ],
            "exemplars": str(with_.exemplars),
            "budget": {"fraction": 1.0, **budget},
            "model": {"name": str(with_.model), "hookpoint": "resid@2"},
            "sae": str(with_.sae),
            "near_duplicates": None,
            "min_score": 0,
            "rendering": {"max_length": 2048},
            "compute": {"threads": 1},
        }
    )
    workspace, results = run_job(config, folder / "workspace")
    [selection] = [row for row in results if row["role"] == "main"]
    [path] = (workspace.root / "exports").glob("*/train.jsonl")
    lines = path.read_text(encoding="utf-8").splitlines()
    exported = Counter(flat(row["messages"], row.get("tools")) for row in map(json.loads, lines))
    wanted: set[tuple[Any, ...]] = set()
    for case in cases:
        wanted |= set(map(expected, case.talks, case.tools or [[] for _ in case.talks]))
    if exported.keys() == wanted:
        return ""
    lost, strange = wanted - exported.keys(), exported.keys() - wanted
    return f"{selection['name']}: lost {list(lost)[:2]}, changed {list(strange)[:2]}"


def main() -> int:
    """Print the table."""
    rows, wrong = [], []
    with tempfile.TemporaryDirectory() as temp:
        with_ = tiny_model_in(Path(temp) / "tiny")
        good: list[tuple[Case, Path]] = []
        for number, case in enumerate(CASES):
            folder = Path(temp) / f"case-{number}"
            folder.mkdir()
            pool = case.write(folder)
            init, dry = ("-", "-")
            if not case.settings:
                init, dry = through_init(case, pool, folder, with_)
            if case.refused:
                rows.append((case.name, "", "", "", init, dry))
                continue
            good.append((case, pool))
            n_rows, n_out, drops = read_counts(case, pool, folder)
            shown = ", ".join(f"{n} {reason}" for reason, n in drops.items())
            rows.append((case.name, str(n_rows), str(n_out), shown, init, dry))
            if dry.startswith("refused") or (n_rows, drops) != (case.rows_read, case.drops):
                wrong.append(case.name)
        different = pooled_run([c for c, _ in good], [p for _, p in good], Path(temp), with_)
    print_table(("case", "rows", "read", "dropped", "init", "dry run"), rows)
    sys.stdout.write(f"pooled run: {different or 'every row as in its source'}\n")
    sys.stdout.write(f"not accounted for: {', '.join(wrong) or 'none'}\n")
    return 1 if wrong or different else 0


if __name__ == "__main__":
    sys.exit(main())
