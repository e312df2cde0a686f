"""The files beside the rows: manifest, dataset card, and settings for trainers."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from selection.core.hashing import content_id
from selection.core.numbers import plural
from selection.core.printable import printable
from selection.data.training_rows import RowLayout
from storage.export.facts import SelectionFacts, json_object
from storage.export.licences import NOT_NAMED, hub_name

FORMAT = 1
CARD = "README.md"


def manifest(
    facts: SelectionFacts,
    files: Sequence[Mapping[str, object]],
    created_at: datetime,
    head: tuple[int, str],
    *,
    is_uniform: bool,
) -> dict[str, object]:
    """Where the files come from, with a hash for each of them.

    head:       number and hash of the newest commit of the catalog.
    is_uniform: whether all rows are plain messages without tools.
    """
    run, selection = facts.run, facts.selection
    from_run = (
        "pool_id representation_id model model_sha256 model_licence sae sae_sha256 sae_licence"
        " data_licences hookpoint unit seed is_demo git_sha versions config"
    )
    from_selection = (
        "target method role exemplar_reduction weights budget n_eligible n_selected n_replay"
        " n_tokens unused_tokens cut_score"
    )
    return {
        "format": FORMAT,
        "selection": facts.name,
        "selection_id": facts.selection_id,
        "run": run["name"],
        "run_id": facts.run_id,
        "selected_at": _utc(run["created_at"]),
        "exported_at": created_at.isoformat(timespec="seconds"),
        "commit": {"number": head[0], "sha256": head[1]},
        "files": [dict(file) for file in files],
        "datasets": oldest_datasets([str(file["path"]) for file in files], is_uniform=is_uniform),
        "sql": picks_sql(facts),
        **{key: selection[key] for key in from_selection.split()},
        "exemplars": dict(facts.targets),
        "licences": dict(facts.licences),
        "check": list(facts.check),
        "sources": [{"source": s.source, "licence": s.licence, "n": s.n} for s in facts.sources],
        "config_sha256": config_sha256(facts),
        **{key: run[key] for key in from_run.split()},
    }


def config_sha256(facts: SelectionFacts) -> str:
    """Hash of the canonical JSON of the run's resolved config."""
    return content_id(facts.run["config"], 64)


def oldest_datasets(paths: Sequence[str], *, is_uniform: bool) -> dict[str, str]:
    """The oldest version of `datasets` that loads each file of rows to what was exported.

    Tried with 3.6, 4.0, 4.7 and 5. Rows that differ in shape need its type Json, which is in 4.7;
    a saved folder is read by no older release than the one that named its type List.
    """
    oldest = {"train.jsonl": "3.6", "train.parquet": "3.6", "hf_dataset": "4.0"}
    if not is_uniform:
        oldest = dict.fromkeys(oldest, "4.7")
    oldest["llama_factory.jsonl"] = "3.6"
    return {path: oldest[path] for path in paths if path in oldest}


def picks_sql(facts: SelectionFacts) -> str:
    """The query that lists the rows of the export in their order."""
    within = "" if facts.budget is None else f" AND budget <= {facts.budget!r}"
    where = f"selection_id = '{facts.selection_id}'{within}"
    return f"SELECT * FROM v_selection WHERE {where} ORDER BY rank"


_CARD = """{front_matter}
# {name}

{n_selected} samples chosen by saelect from {n_eligible} eligible ones for
{targets}. Method: {method}.{replay}
{warning}
## Load

```python
from datasets import load_dataset

rows = {load}
```

Rows are in {order}; `datasets` {datasets} or later reads them. TRL's
`SFTTrainer` takes the column `messages` as it is; `--format llama_factory` and `--format axolotl`
write what LLaMA-Factory and Axolotl need.{columns}

## Where the rows came from

| source | licence | rows |
|---|---|---:|
{sources}

Licences are as the pool names them, of the first row that holds a sample. Over all rows that hold
one: {licences}. `saelect export {name} --format ids` writes file and row
of each sample; in the catalog:

```sql
{sql}
```

## Held-out check

{check}

## Provenance

| what | name | id or SHA-256 |
|---|---|---|
{provenance}

## Files

| file | rows | SHA-256 |
|---|---:|---|
{files}

Versions and the whole config are in `manifest.json`. A folder's SHA-256 is that of the sorted JSON
of its files' hashes.
"""

LOAD = 'load_dataset("{}", split="train")'
"""The call that loads the export from an address."""

HERE = "  # the path of this folder"

_UNCHECKED = "None was made: the selection is a control, or its run turned the check off."

_ORDER = {
    "score": "order of rank, best first",
    "random": "random order (seed {seed})",
    "length": "order of length, shortest first",
}

_COLUMNS = """ None of these trainers
reads `score`, `rank`, `weight` or `reason`: they are there for a training loop of your own."""

_DEMO_WARNING = """
> **The demonstration model represented these samples.** It shows how saelect works;
> it is far too small to choose data for real training.
"""


def dataset_card(
    facts: SelectionFacts,
    files: Sequence[Mapping[str, object]],
    layout: RowLayout,
    *,
    is_plain: bool,
    has_tools: bool,
) -> str:
    """README.md in the form of a Hugging Face dataset card.

    is_plain, has_tools: the shape of the rows, as `SelectedRows` tells it.
    """
    paths = [str(file["path"]) for file in files]
    listed = [
        (f"`{file['path']}`", "" if file["rows"] is None else f"{file['rows']:,}", file["sha256"])
        for file in files
    ]
    return _CARD.format(
        front_matter=_front_matter(facts, paths, layout.columns, is_plain, has_tools),
        order=_ORDER[layout.order].format(seed=layout.seed),
        columns=_COLUMNS if layout.columns else "",
        name=facts.name,
        load=LOAD.format(facts.name) + HERE,
        check="\n".join(f"- {_cell(line.removeprefix('! '))}" for line in facts.check)
        or _UNCHECKED,
        provenance=_table(_provenance(facts)),
        n_selected=f"{facts.n_selected:,}",
        n_eligible=f"{facts.selection['n_eligible']:,}",
        targets=_targets(facts),
        method=_method(facts),
        replay=_replay(facts),
        datasets="3.6" if is_plain and not has_tools else "4.7",
        warning=_DEMO_WARNING if facts.run["is_demo"] else "",
        sources=_table([(s.source, s.licence or NOT_NAMED, f"{s.n:,}") for s in facts.sources]),
        licences=", ".join(f"{_cell(k or NOT_NAMED)} {n:,}" for k, n in facts.licences.items()),
        sql=picks_sql(facts),
        files=_table(listed),
    )


def _table(rows: Sequence[Sequence[object]]) -> str:
    """Lines of a Markdown table; data can neither end a cell nor a line."""
    cells = [[_cell(cell) for cell in row] for row in rows]
    return "\n".join(f"| {' | '.join(row)} |" for row in cells)


def _cell(value: object) -> str:
    """A value of the data in one line of Markdown, neither markup nor controls."""
    return printable(" ".join(str(value).split())).replace("|", "\\|").replace("<", "&lt;")


def _front_matter(
    facts: SelectionFacts,
    paths: Sequence[str],
    columns: Sequence[str],
    is_plain: bool,
    has_tools: bool,
) -> str:
    """The card's YAML: which file `load_dataset` on this folder reads, and what its columns are.

    Without stated columns `datasets` judges a JSONL file by its first 10 MB, and stops at a later
    row of another shape.
    """
    lines = ["---", f"pretty_name: {_quoted(facts.name)}", "tags:", "- saelect"]
    licences = sorted({hub_name(licence) for licence in facts.licences})
    lines += ["license:", *(f"- {name}" for name in licences)] if licences else []
    if "train.jsonl" in paths:
        lines += ["configs:", "- config_name: default", "  data_files:"]
        lines += ["  - split: train", "    path: train.jsonl", "dataset_info:", "  features:"]
        lines += ["  - name: id", "    dtype: string", "  - name: messages"]
        plain = ["    list:", *(f"    - {{name: {k}, dtype: string}}" for k in ("role", "content"))]
        lines += plain if is_plain else ["    list: json"]
        lines += ["  - name: tools", "    list: json"] if has_tools else []
        for name in columns:
            dtype = {"rank": "int64", "reason": "string"}.get(name, "float64")
            lines += [f"  - name: {name}", f"    dtype: {dtype}"]
    return "\n".join([*lines, "---"])


def _quoted(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


def _provenance(facts: SelectionFacts) -> list[tuple[str, object, object]]:
    """What the selection was made of and with: (what, name, id or hash)."""
    run, versions = facts.run, json_object(facts.run["versions"])
    made_with = [
        (what, f"{run[key]} (licence {run[f'{key}_licence'] or NOT_NAMED})", run[f"{key}_sha256"])
        for what, key in (("model", "model"), ("SAE", "sae"))
    ]
    return [
        ("selection", facts.name, facts.selection_id),
        ("run", run["name"], facts.run_id),
        ("config", "", config_sha256(facts)),
        ("pool", "", run["pool_id"]),
        ("representation", "", run["representation_id"]),
        *made_with,
        ("saelect", versions.get("saelect", ""), run["git_sha"] or ""),
    ]


def _targets(facts: SelectionFacts) -> str:
    target = facts.selection["target"]
    named = {k: n for k, n in facts.targets.items() if target in (None, k)} or facts.targets
    parts = [f"{name} ({plural(n, 'exemplar')})" for name, n in named.items()]
    return f"the target task{'s' * (len(parts) != 1)} " + ", ".join(parts)


def _method(facts: SelectionFacts) -> str:
    selection, config = facts.selection, facts.run["config"]
    if selection["method"] != "jaccard":
        return f"{selection['method']} (a {selection['role']} selection)"
    if not isinstance(config, Mapping):  # the column may be empty
        return "generalized Jaccard similarity to the exemplars"
    spaces = " and ".join(str(space["kind"]) for space in config["representation"]["spaces"])
    return (
        f"generalized Jaccard similarity to the exemplars, of the space{'s' * (' ' in spaces)}"
        f" {spaces.replace('sae', 'SAE latents')} (reduction `{selection['exemplar_reduction']}`,"
        f" weights `{selection['weights']}`, normalize `{config['ranking']['normalize']}`)"
    )


def _replay(facts: SelectionFacts) -> str:
    """How many picks no score brought in; empty where there are none."""
    n = facts.selection["n_replay"]
    return f"\n{n:,} are replay, drawn at random (`--column reason` marks their rows)." if n else ""


def _utc(moment: object) -> str | None:
    return f"{moment.isoformat(timespec='seconds')}+00:00" if isinstance(moment, datetime) else None
