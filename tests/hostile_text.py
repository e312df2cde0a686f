"""A run whose every text tries to become markup, run a script, or read otherwise than it is."""

from pathlib import Path
from typing import Any

from selection.core.hashing import canonical_json
from storage.catalog.arrow_rows import to_arrow
from storage.catalog.commit import commit
from storage.files.workspace import Workspace, open_workspace
from tests.catalog_fixture import make_tables

FLAG = "window.pwned=1"
CONTROLS = "\u202egnp.exe\u202c \u2066isolated\u2069 \u200fmark \u2028line"
PAYLOADS = (
    f"</script><script>{FLAG}</script>",
    f"<script>{FLAG}</script>",
    f'"><img src=x onerror="{FLAG}">',
    f"'><svg onload='{FLAG}'>",
    f'<a href="javascript:{FLAG}">click</a>',
    f"javascript:{FLAG}",
    f'" onmouseover="{FLAG}" x="',
    "<!-- <script> ]]> {{ 7 * 7 }} {% raw %} ${7*7}",
    "<style>*{display:none}</style><base href='https://out.example/'>",
    "<meta http-equiv=refresh content='0;url=https://out.example/'><iframe src=https://out.example>",
    CONTROLS,
    "</textarea></title></noscript></style></details></li>",
)
TEXT = " ".join(PAYLOADS)
COLUMNS = {
    "run": ("name", "who", "host", "note", "model", "sae", "hookpoint", "git_sha", "model_licence"),
    "run_drop": ("stage", "reason", "file", "detail"),
    "run_source": ("source",),
    "exemplar": ("target", "own_id", "file", "text"),
    "selection": ("name", "target", "exemplar_reduction", "weights"),
    "pick": ("target", "text", "reason"),
    "near_miss": ("target", "text"),
    "occurrence": ("own_id", "source", "file", "licence", "language"),
    "explanation": ("space", "term"),
    "selection_drop": ("reason", "detail", "other_id"),
    "artifact": ("step", "artifact", "parent"),
}


def hostile_workspace(root: Path, n_selected: int = 45) -> Workspace:
    """A workspace whose one run holds TEXT wherever a file or a person could have put it."""
    tables: dict[str, Any] = dict(make_tables(n_selected=n_selected, n_near=5))
    for name, columns in COLUMNS.items():
        rows = tables[name].to_pylist()
        for number, row in enumerate(rows):
            for column in columns:
                keeps = name == "selection" and column == "name"  # names are told apart
                row[column] = f"{row[column]} {TEXT}" if keeps else TEXT
            if name == "run_source":
                row["source"] = f"{TEXT} {number}"
        tables[name] = to_arrow(name, rows)
    run = tables["run"].to_pylist()[0]
    config = {TEXT: TEXT, "where": TEXT, "pool": [{"path": TEXT}], "budget": {"examples": 3}}
    run |= {"config": config, "versions": {TEXT: TEXT}, "counts": {TEXT: TEXT},
            "data_licences": {TEXT: 9}}  # fmt: skip
    tables["run"] = to_arrow("run", [run])
    messages = canonical_json(
        [{"role": TEXT, "content": TEXT}, {"role": "assistant", "content": TEXT,
         "reasoning_content": TEXT}]
    )  # fmt: skip
    for name in ("sample", "exemplar"):
        rows = [{**row, "messages": messages} for row in tables[name].to_pylist()]
        tables[name] = to_arrow(name, rows)
    main = next(r for r in tables["selection"].to_pylist() if r["role"] == "main")
    first = next(r for r in tables["pick"].to_pylist()
                 if r["selection_id"] == main["selection_id"] and r["rank"] == 1)  # fmt: skip
    shared = next(
        r for r in tables["explanation"].to_pylist() if r["example_id"] == first["example_id"]
    )
    # Tokens, too: one is read from where it fired, the others are looked for in the text.
    token = {**shared, "space": "tokens", "contribution": 1, "share": 1 / shared["numerator"]}
    terms = (PAYLOADS[0], PAYLOADS[2], PAYLOADS[8], CONTROLS)  # a report shows four
    tokens = [{**token, "latent": number, "term": term} for number, term in enumerate(terms)]
    tables["explanation"] = to_arrow("explanation", [*tables["explanation"].to_pylist(), *tokens])
    mark = {"selection_id": main["selection_id"], "example_id": first["example_id"], "turn": 0,
            "space": TEXT, "latent": shared["latent"], "activation": 1.0}  # fmt: skip
    marks = [{**mark, "first_char": at, "end_char": at + 9} for at in range(0, 90, 9)]
    marks.append({**marks[0], "space": "tokens", "latent": 0})
    tables["token_activations"] = to_arrow("token_activations", marks)
    tables["target_latent"] = to_arrow("target_latent", [
        {"run_id": run["run_id"], "target": TEXT, "position": 1, "space": TEXT, "term": TEXT,
         "latent": shared["latent"], "share": 0.5, "n_exemplars": 1}])  # fmt: skip
    stage = {"number": 1, "stage": TEXT, "detail": TEXT, "seconds": 1.0}
    tables["run_stage"] = to_arrow("run_stage", [{"run_id": run["run_id"], **stage}])
    described = tables["latent_description"].to_pylist()
    rows = [{**row, "description": TEXT} for row in described]
    tables["latent_description"] = to_arrow("latent_description", rows)
    workspace = open_workspace(root)
    commit(workspace, tables)
    return workspace
