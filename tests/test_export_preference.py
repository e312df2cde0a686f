"""Picks that came with a rejected answer are exported again as preference data."""

import json
from pathlib import Path
from typing import Any

import fsspec
import pytest
from typer.testing import CliRunner

from flows.cli.main import app
from selection.core.errors import InputError
from selection.data.shapes.preference import preference_row
from storage.export.export import export_selection
from tests.conftest import Paths
from tests.run_stages import run_job, tiny_config
from tests.tiny_model import write_jsonl

USER = {"role": "user", "content": "Is 7 odd?"}
GOOD, BAD = {"role": "assistant", "content": "Yes."}, {"role": "assistant", "content": "No."}
EXPECTED = {"id": "x", "prompt": [USER], "chosen": [GOOD], "rejected": [BAD]}


@pytest.mark.parametrize(
    "raw",
    [
        {"prompt": "Is 7 odd?", "chosen": "Yes.", "rejected": "No."},
        {"question": "Is 7 odd?", "chosen": "Yes.", "rejected": "No."},
        {"instruction": "Is 7 odd?", "input": "", "chosen": "Yes.", "rejected": "No."},
        {"chosen": [USER, GOOD], "rejected": [USER, BAD]},
        {"prompt": "Is 7 odd?", "chosen": [USER, GOOD], "rejected": [USER, BAD]},
        {"prompt": [USER], "chosen": [GOOD], "rejected": [BAD]},
        {"conversations": [{"from": "human", "value": "Is 7 odd?"}],
         "chosen": {"from": "gpt", "value": "Yes."}, "rejected": {"from": "gpt", "value": "No."}},
        {"input": {"messages": [USER]}, "preferred_output": [GOOD], "non_preferred_output": [BAD]},
        {"messages": [USER, GOOD], "rejected_response": "No."},
        {"messages": [USER, GOOD], "rejected_messages": [USER, BAD]},
        {"context": [USER], "response1": "No.", "response2": "Yes.", "overall_preference": 1},
        {"conversation_a": [USER, BAD], "conversation_b": [USER, GOOD], "winner": "model_b"},
        {"question": "Is 7 odd?", "response_j": "Yes.", "response_k": "No."},
        {"chosen": "\n\nHuman: Is 7 odd?\n\nAssistant: Yes.",
         "rejected": "\n\nHuman: Is 7 odd?\n\nAssistant: No."},
    ],
)  # fmt: skip
def test_every_form_of_a_preference_is_one_row(raw: dict[str, Any]) -> None:
    assert preference_row("x", raw) == EXPECTED


def test_an_answer_that_both_share_stays_on_its_side() -> None:
    same = preference_row("x", {"prompt": "Is 7 odd?", "chosen": "Yes.", "rejected": "Yes."})
    assert same == {**EXPECTED, "rejected": [GOOD]}
    assert preference_row("x", {"prompt": "Is 7 odd?", "completion": "Yes."}) is None


def test_preference_rows_are_selected_by_their_chosen_answer_and_exported(
    tmp_path: Path, paths: Paths
) -> None:
    rows: list[dict[str, Any]] = [
        {"id": i, "prompt": f"Is {i} odd?", "chosen": f"Is {i} even? Then no.", "rejected": "Who?"}
        for i in range(8)
    ]
    pool = write_jsonl(tmp_path / "pool.jsonl", rows)
    columns = {"pool": {"path": str(pool), "columns": {"id": "id"}}, "budget": {"examples": 3}}
    config = tiny_config(pool, *paths[1:], **columns)
    workspace, [result] = run_job(config, tmp_path / "workspace")
    exported = export_selection(workspace, str(result["name"]), ("messages", "preference"))
    train, pairs = (
        [json.loads(line) for line in (exported.folder / f"{name}.jsonl").read_text().splitlines()]
        for name in ("train", "preference")
    )
    assert len(pairs) == 3
    for row, pair in zip(train, pairs, strict=True):
        assert row["messages"] == pair["prompt"] + pair["chosen"]
        assert pair["rejected"] == [{"role": "assistant", "content": "Who?"}]
        assert row["id"] == pair["id"]


def test_a_selection_without_rejected_answers_has_no_preference_data(
    tmp_path: Path, paths: Paths
) -> None:
    workspace, results = run_job(tiny_config(*paths), tmp_path / "workspace")
    with pytest.raises(InputError, match="no pick came with a rejected answer"):
        export_selection(workspace, str(results[0]["name"]), ["preference"])


def test_an_export_goes_to_an_address(tmp_path: Path, paths: Paths) -> None:
    workspace, _ = run_job(tiny_config(*paths), tmp_path / "workspace")
    store = fsspec.filesystem("memory")
    store.store.clear()
    arguments = ["export", "--out", "memory://exports/one", "-f", "messages", "-f", "hf"]
    result = CliRunner().invoke(app, [*arguments, "-w", str(workspace.root)])
    assert result.exit_code == 0, result.output
    names = {str(path).removeprefix("/exports/one/") for path in store.find("/exports/one")}
    assert {"train.jsonl", "README.md", "manifest.json", "hf_dataset/state.json"} <= names
    [folder] = (workspace.root / "exports").iterdir()
    assert store.cat("/exports/one/train.jsonl") == (folder / "train.jsonl").read_bytes()
